/* Lets a test set the wall clock of one process: CLOCK_REALTIME reads as the real one plus what a file says.
 *
 * Preloaded into a program under test. TOCSIN_TEST_CLOCK names a file of two 64-bit numbers, both in milliseconds: how far
 * the clock is off, and how often it changes its sign (0: never). Timers and the other clocks stay as they are, as with
 * a clock that an administrator sets. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *setting;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("TOCSIN_TEST_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *mapped = mmap(NULL, 16, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED)
        setting = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
    if (syscall(SYS_clock_gettime, clock, at) != 0)
        return -1;
    if (setting == NULL || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE))
        return 0;
    int64_t off = setting[0], every = setting[1];
    int64_t now = at->tv_sec * 1000 + at->tv_nsec / 1000000;
    if (every > 0 && (now / every) % 2 != 0)
        off = -off;
    at->tv_sec += off / 1000;
    at->tv_nsec += (off % 1000) * 1000000;
    if (at->tv_nsec < 0) {
        at->tv_nsec += 1000000000;
        at->tv_sec -= 1;
    } else if (at->tv_nsec >= 1000000000) {
        at->tv_nsec -= 1000000000;
        at->tv_sec += 1;
    }
    return 0;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0)
        return -1;
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at)
{
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0)
        return -1;
    if (at != NULL)
        *at = now.tv_sec;
    return now.tv_sec;
}
