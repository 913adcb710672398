/* Preloaded into every program of a run by tests/e2e/test_faults.py: calls fail as QB_FAULT says,
 *   PROGRAM:CALL:N:ERRNO    the Nth CALL (from 1) of each process of PROGRAM, and all that follow
 * CALL: pipe, fork, open, readp (a read from a pipe), writep (a write to one). PROGRAM: the first word of
 * the command line that is no option, or the script behind it. A test is sure that the fault happened by the file in
 * $QB_FAULT_SEEN, to which a byte is written.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static char call_[32];
static int nth, number, active, ready, counter;

static void init(void)
{
    char program[64] = "", words[1024] = "", *word, *base;
    const char *text = getenv("QB_FAULT");
    ssize_t size;
    int fd, at;
    if (ready)
        return;
    ready = 1;
    if (!text || sscanf(text, "%63[^:]:%31[^:]:%d:%d", program, call_, &nth, &number) != 4)
        return;
    fd = syscall(SYS_openat, AT_FDCWD, "/proc/self/cmdline", O_RDONLY, 0);
    if (fd < 0)
        return;
    size = syscall(SYS_read, fd, words, sizeof words - 1);
    syscall(SYS_close, fd);
    for (word = words, at = 0; at < 4 && word < words + size; word += strlen(word) + 1, at++) {
        base = strrchr(word, '/') ? strrchr(word, '/') + 1 : word;
        if (word[0] != '-' && !strcmp(base, program))
            active = 1;
    }
}

static int fails(const char *call)
{
    const char *seen;
    int fd;
    init();
    if (!active || strcmp(call, call_) || __sync_add_and_fetch(&counter, 1) < nth)
        return 0;
    seen = getenv("QB_FAULT_SEEN");
    if (seen && (fd = syscall(SYS_openat, AT_FDCWD, seen, O_WRONLY | O_APPEND | O_CREAT, 0600)) >= 0) {
        syscall(SYS_write, fd, "x", 1);
        syscall(SYS_close, fd);
    }
    errno = number;
    return 1;
}

static int is_pipe(int fd)
{
    struct stat found;
    return fd != 2 && fstat(fd, &found) == 0 && S_ISFIFO(found.st_mode);
}

#define REAL(name) __typeof__(name) *real = dlsym(RTLD_NEXT, #name)

ssize_t read(int fd, void *data, size_t size)
{
    REAL(read);
    return is_pipe(fd) && fails("readp") ? -1 : real(fd, data, size);
}

ssize_t write(int fd, const void *data, size_t size)
{
    REAL(write);
    return is_pipe(fd) && fails("writep") ? -1 : real(fd, data, size);
}

int pipe(int ends[2])
{
    REAL(pipe);
    return fails("pipe") ? -1 : real(ends);
}

int pipe2(int ends[2], int flags)
{
    REAL(pipe2);
    return fails("pipe") ? -1 : real(ends, flags);
}

pid_t fork(void)
{
    REAL(fork);
    return fails("fork") ? -1 : real();
}

#define OPEN(name)                                           \
    int name(const char *path, int flags, ...)               \
    {                                                        \
        REAL(name);                                          \
        va_list rest;                                        \
        mode_t mode;                                         \
        va_start(rest, flags);                               \
        mode = va_arg(rest, mode_t);                         \
        va_end(rest);                                        \
        return fails("open") ? -1 : real(path, flags, mode); \
    }

OPEN(open)
OPEN(open64)
