/*
 * Delays fdatasync, with which PostgreSQL flushes its log on Linux: so a fast disk is measured as a slower one.
 *
 * annals-bench compiles it, and preloads it into PostgreSQL alone (--commit-delay-us). SLOW_FDATASYNC_US is the delay in
 * microseconds, added to the time of the real call.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int fdatasync(int file)
{
    const char *delay = getenv("SLOW_FDATASYNC_US");
    long microseconds = delay ? strtol(delay, NULL, 10) : 0;
    struct timespec rest = { microseconds / 1000000, microseconds % 1000000 * 1000 };

    /* A signal interrupts the sleep. */
    while (nanosleep(&rest, &rest) == -1)
        ;
    return (int) syscall(SYS_fdatasync, file);
}
