/* What the C tests share: a check that says where it failed, and ends the program. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a program exits with when the machine lacks what it needs. */
enum { EXIT_MISSING = 77 };

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s: not true: %s\n", __FILE__, __LINE__, __func__,             \
                    #condition);                                                                   \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#define CHECK_IS(value, expected)                                                                  \
    do {                                                                                           \
        long long value_ = (long long)(value);                                                     \
        long long expected_ = (long long)(expected);                                               \
        if (value_ != expected_) {                                                                 \
            fprintf(stderr, "%s:%d: %s: %s is %lld, not %lld\n", __FILE__, __LINE__, __func__,     \
                    #value, value_, expected_);                                                    \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* Are these 'size' bytes the same? */
#define CHECK_BYTES(bytes, expected, size) CHECK_IS(memcmp(bytes, expected, size), 0)

/* The bit of a field in 'present'. */
#define BIT(field) (UINT64_C(1) << (field))

#endif
