/* What the fuzz targets share: reading the input, and looking at what was sent. */
#ifndef FUZZ_H
#define FUZZ_H

#include "fake.h"

#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ASSERT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);              \
            __builtin_trap();                                                                      \
        }                                                                                          \
    } while (0)

/* What is left of the input. */
struct input {
    const uint8_t *at;
    size_t left;
};

/* The next bytes; zeros where there are none. */
void input_read(struct input *input, void *to, size_t size);
uint8_t input_byte(struct input *input);

/* The next bytes after two with their size. */
struct wire input_part(struct input *input);

/* A filter as the input says it. */
enum { MAX_TESTS = 8, MAX_VALUES = 8 };

struct program {
    size_t count;
    struct nlct_test tests[MAX_TESTS];
    union test_values {
        struct nlct_range ranges[MAX_VALUES];
        struct nlct_mask masks[MAX_VALUES];
        struct nlct_prefix prefixes[MAX_VALUES];
    } values[MAX_TESTS];
};

void program_read(struct input *input, struct program *program);

/* NULL where the filter makes no sense. */
struct nlct_filter *program_compile(const struct program *program);

/* Does a whole flow match? Worked out without what the core does for it. */
bool program_matches(const struct program *program, const struct nlct_flow *flow);

/* An independent look at what is sent. */
uint16_t two_bytes(const uint8_t *at);

/* Is there a non-empty attribute of this type in the nest? */
bool nest_has(const uint8_t *nest, size_t size, uint16_t type);

/* Where the attribute of this type is in a request, NULL without; 'size' is then its length. */
const uint8_t *find_attr(const uint8_t *request, size_t request_size, uint16_t type, size_t *size);

/* A delete names one flow, by bytes that were shown. */
void check_delete(const uint8_t *request, size_t size, const uint8_t *shown, size_t shown_size);

/* Every span of the flow lies inside its bytes. */
void check_spans(const struct nlct_flow *flow, size_t bytes_size);

/* 'again' was parsed from what was built of 'flow'. */
void check_same(const struct nlct_flow *flow, const struct nlct_flow *again);

#endif
