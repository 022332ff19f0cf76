/*
 * What the programs here share: they read operations from standard input, one a line, and answer
 * each with the seconds it took.
 */
#ifndef BENCH_PROGRAM_H
#define BENCH_PROGRAM_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Does one operation, or ends the program. */
typedef void operation(const char *line);

_Noreturn static inline void die(const char *what)
{
    perror(what);
    exit(1);
}

static inline double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static inline int serve(operation *run)
{
    char line[80];

    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin)) {
        double started = now();

        run(line);
        printf("%.9f\n", now() - started);
        fflush(stdout);
    }
    return 0;
}

#endif
