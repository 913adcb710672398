/* Preloaded into user-mode Linux by tests/lvm/usermode. Debian 12's was made before processors had the registers of AMX.
 * It sets the floating-point registers of a process with 2696 bytes, and the kernel of this machine takes all or none:
 * so those that are missing follow here, as zeros, which mean that nobody uses them. And no process of the guest lives
 * longer than the guest's kernel: its next system call would be one of this machine.
 *
 * Two more things make the guest faster. It sets these registers several times for each system call and page fault,
 * which takes long here. So they are set once, when the process goes on, and not at all if it still has them. And all of
 * the guest stays on one processor, because its kernel and its processes only wait for each other.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <sched.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define PTRACE_OLDSETOPTIONS 21
#define MOST (1 << 16)

static char all[MOST] __attribute__((aligned(64)));
static size_t size; /* of all registers */

static struct {
    long pid;        /* the process that was asked for last */
    int known;       /* `registers` are those that it has, or is to have when it goes on */
    int due;         /* it does not have them yet */
    size_t size;
    char registers[MOST];
} last;

__attribute__((constructor)) static void stay_on_one_processor(void)
{
    cpu_set_t set;
    int here = sched_getcpu();
    CPU_ZERO(&set);
    if (here >= 0) {
        CPU_SET(here, &set);
        sched_setaffinity(0, sizeof set, &set);
    }
}

/* Gives the last process the registers that it is to have. */
static long settle(void)
{
    struct iovec whole = {all, sizeof all};
    if (!last.due)
        return 0;
    last.due = 0;
    if (!size && syscall(SYS_ptrace, PTRACE_GETREGSET, last.pid, NT_X86_XSTATE, &whole) == 0) {
        size = whole.iov_len;
        memset(all, 0, sizeof all);
    }
    memcpy(all, last.registers, last.size);
    whole.iov_len = last.size < size ? size : last.size;
    return syscall(SYS_ptrace, PTRACE_SETREGSET, last.pid, NT_X86_XSTATE, &whole);
}

/* Makes a process the last one; nothing is known of a new one. */
static void turn_to(long pid)
{
    if (pid == last.pid)
        return;
    settle(); /* which fails if that process has ended */
    last.pid = pid;
    last.known = 0;
}

static long get(long pid, struct iovec *some)
{
    long result;
    turn_to(pid);
    if (last.known && last.size == some->iov_len) {
        memcpy(some->iov_base, last.registers, last.size);
        return 0;
    }
    settle();
    result = syscall(SYS_ptrace, PTRACE_GETREGSET, pid, NT_X86_XSTATE, some);
    if (result == 0 && some->iov_len <= MOST) {
        last.known = 1;
        last.size = some->iov_len;
        memcpy(last.registers, some->iov_base, last.size);
    }
    return result;
}

static long set(long pid, const struct iovec *some)
{
    turn_to(pid);
    if (!last.known || last.size != some->iov_len || memcmp(last.registers, some->iov_base, last.size)) {
        last.known = last.due = 1;
        last.size = some->iov_len;
        memcpy(last.registers, some->iov_base, last.size);
    }
    return 0;
}

long ptrace(enum __ptrace_request request, ...)
{
    long pid, address, data, word = 0, result;
    va_list rest;
    va_start(rest, request);
    pid = va_arg(rest, long), address = va_arg(rest, long), data = va_arg(rest, long);
    va_end(rest);
    if (request == PTRACE_GETREGSET && address == NT_X86_XSTATE)
        return get(pid, (struct iovec *)data);
    if (request == PTRACE_SETREGSET && address == NT_X86_XSTATE && ((struct iovec *)data)->iov_len <= MOST)
        return set(pid, (struct iovec *)data);
    if (request == PTRACE_SETOPTIONS || (int)request == PTRACE_OLDSETOPTIONS)
        data |= PTRACE_O_EXITKILL;
    if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER)
        data = (long)&word; /* where the system call puts what the function returns */
    else if (pid == last.pid && request != PTRACE_GETREGS && request != PTRACE_SETREGS) {
        /* PTRACE_CONT has the process run code of user-mode Linux, which neither needs nor keeps these registers. */
        if (request != PTRACE_CONT)
            settle();
        last.known = last.due;
    }
    result = syscall(SYS_ptrace, request, pid, address, data);
    return result == 0 ? word : result;
}
