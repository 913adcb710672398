/* Preloaded into every program of a run by tests/e2e/test_clocks.py: the time of day is QB_TEST_CLOCK, in seconds
 * since 1970, and stands still.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int fixed(time_t *seconds)
{
    const char *text = getenv("QB_TEST_CLOCK");
    if (text)
        *seconds = (time_t)atoll(text);
    return text != NULL;
}

int clock_gettime(clockid_t clock, struct timespec *found)
{
    if (clock == CLOCK_REALTIME && fixed(&found->tv_sec)) {
        found->tv_nsec = 0;
        return 0;
    }
    return (int)syscall(SYS_clock_gettime, clock, found);
}

time_t time(time_t *found)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (found)
        *found = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict found, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    found->tv_sec = now.tv_sec;
    found->tv_usec = now.tv_nsec / 1000;
    return 0;
}
