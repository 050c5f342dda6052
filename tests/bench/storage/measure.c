/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/storage/bench.h"

#include <stdarg.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

void die(const char *format, ...)
{
        va_list args;

        va_start(args, format);
        fprintf(stderr, "bench-storage: ");
        vfprintf(stderr, format, args);
        fputc('\n', stderr);
        va_end(args);
        exit(1);
}

void check(int error, const char *what)
{
        if (error)
                die("%s: %s", what, strerror(-error));
}

uint64_t now_ns(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t ns_of(const struct timeval *time)
{
        return ((uint64_t)time->tv_sec * 1000000 + (uint64_t)time->tv_usec) * 1000;
}

uint64_t cpu_ns(void)
{
        struct rusage usage;

        getrusage(RUSAGE_SELF, &usage);
        return ns_of(&usage.ru_utime) + ns_of(&usage.ru_stime);
}

uint64_t memory_resident(void)
{
        FILE *file = fopen("/proc/self/statm", "re");
        unsigned long long size = 0, resident = 0;

        if (!file || fscanf(file, "%llu %llu", &size, &resident) != 2)
                die("/proc/self/statm cannot be read");
        fclose(file);
        return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t random_next(uint64_t *state)
{
        uint64_t x = *state;

        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        return *state = x;
}

void samples_add(Samples *samples, uint64_t ns)
{
        if (samples->n == samples->room) {
                samples->room = samples->room ? 2 * samples->room : 1 << 16;
                samples->ns = realloc(samples->ns, samples->room * sizeof *samples->ns);
                if (!samples->ns)
                        die("out of memory");
        }
        samples->ns[samples->n++] = (uint32_t)MIN(ns, (uint64_t)UINT32_MAX);
}

static int compare(const void *a, const void *b)
{
        uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

        return x < y ? -1 : x > y;
}

double samples_get(Samples *samples, double part)
{
        if (!samples->n)
                return 0;
        qsort(samples->ns, samples->n, sizeof *samples->ns, compare);
        return samples->ns[(size_t)(part * (double)(samples->n - 1))] / 1e3;
}

void samples_done(Samples *samples)
{
        free(samples->ns);
        *samples = (Samples){};
}
