/* Preloaded into user-mode Linux by tests/lvm/usermode. Debian 12's was made before processors had the registers of AMX.
 * It sets the floating-point registers of a process with 2696 bytes, and the kernel of this machine takes all or none:
 * so those that are missing follow here, as zeros, which mean that nobody uses them. And no process of the guest lives
 * longer than the guest's kernel: its next system call would be one of this machine.
 */
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define PTRACE_OLDSETOPTIONS 21

static char registers[1 << 16] __attribute__((aligned(64)));

long ptrace(enum __ptrace_request request, ...)
{
    static size_t size;
    struct iovec all = {registers, sizeof registers}, *some;
    long pid, address, data, word = 0, result;
    va_list rest;
    va_start(rest, request);
    pid = va_arg(rest, long), address = va_arg(rest, long), data = va_arg(rest, long);
    va_end(rest);
    if (request == PTRACE_SETOPTIONS || (int)request == PTRACE_OLDSETOPTIONS)
        data |= PTRACE_O_EXITKILL;
    if (request == PTRACE_SETREGSET && address == NT_X86_XSTATE) {
        some = (struct iovec *)data;
        if (!size && syscall(SYS_ptrace, PTRACE_GETREGSET, pid, address, &all) == 0) {
            size = all.iov_len;
            memset(registers, 0, sizeof registers);
        }
        if (some->iov_len < size) {
            memcpy(registers, some->iov_base, some->iov_len);
            all.iov_len = size;
            data = (long)&all;
        }
    }
    if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER)
        data = (long)&word; /* where the system call puts what the function returns */
    result = syscall(SYS_ptrace, request, pid, address, data);
    return result == 0 ? word : result;
}
