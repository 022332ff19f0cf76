/*
 * A fuzz target for columns as arrays (csrc/sinks/arrow.c).
 *
 * The input says how many rows there are, of which kind, which are absent, and what is in them.
 * Each array has exactly the room that nlct.h asks for, and is compared with what a plain loop, or
 * the C library, makes of each row.
 */
#include "fuzz.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { MAX_ROWS = 70, MAX_BYTES = 64 };

enum { ADDRESSES, WORDS, TEXTS, LABELS, SPANS, KINDS };

/* The values of a column, at any address. */
struct values {
    size_t rows;
    uint8_t *values;
    uint8_t *valid; /* NULL where nothing is absent */
};

/* Odd addresses, and nothing behind that may be read or written. */
static uint8_t *allocate(size_t size)
{
    uint8_t *room = malloc(size + 1);

    ASSERT(room);
    return room + 1;
}

static void let_go(const void *room)
{
    if (room)
        free((uint8_t *)(uintptr_t)room - 1);
}

static uint8_t *read_bytes(struct input *input, size_t size)
{
    uint8_t *bytes = allocate(size);

    input_read(input, bytes, size);
    return bytes;
}

static bool there(const struct values *values, size_t row)
{
    return !values->valid || values->valid[row];
}

/* The texts of an array: row by row what 'text' writes, without gaps. */
static void check_texts(const struct values *values, const int32_t *offsets, const char *data,
                        size_t (*text)(const void *context, const struct values *values, size_t row,
                                       char *room),
                        const void *context)
{
    char room[64];
    size_t row;

    ASSERT(offsets[0] == 0);
    for (row = 0; row < values->rows; row++) {
        const size_t size = there(values, row) ? text(context, values, row, room) : 0;

        ASSERT((size_t)(offsets[row + 1] - offsets[row]) == size);
        ASSERT(memcmp(data + offsets[row], room, size) == 0);
    }
}

/* Each kind ------------------------------------------------------------------------------------ */

static size_t address_text(const void *families, const struct values *values, size_t row,
                           char *room)
{
    const int family = ((const uint8_t *)families)[row] == AF_INET ? AF_INET : AF_INET6;

    ASSERT(inet_ntop(family, values->values + 16 * row, room, 64));
    return strlen(room);
}

static void addresses(struct input *input, const struct values *values)
{
    const bool ipv4 = input_byte(input) % 2;
    const size_t width = ipv4 ? NLCT_ARROW_IPV4 : NLCT_ARROW_IPV6;
    int32_t *offsets = calloc(values->rows + 1, sizeof(*offsets));
    char *data = (char *)allocate(values->rows * width + NLCT_ARROW_MORE);
    uint8_t *families = read_bytes(input, values->rows);

    ASSERT(offsets);
    if (ipv4)
        memset(families, AF_INET, values->rows);
    nlct_arrow_addresses(values->values, values->valid, families, values->rows, offsets, data);
    check_texts(values, offsets, data, address_text, families);
    free(offsets);
    let_go(data);
    let_go(families);
}

static size_t word_text(const void *words, const struct values *values, size_t row, char *room)
{
    const struct nlct_word *word = (const struct nlct_word *)words + values->values[row];

    memcpy(room, word->text, word->size);
    return word->size;
}

static void words(struct input *input, const struct values *values)
{
    static struct nlct_word all[256];
    uint8_t sizes[256];
    int32_t *offsets = calloc(values->rows + 1, sizeof(*offsets));
    size_t longest = 0;
    char *data;
    size_t i;

    ASSERT(offsets);
    input_read(input, sizes, sizeof(sizes));
    for (i = 0; i < 256; i++) {
        all[i].size = sizes[i] % (sizeof(all[i].text) + 1);
        memset(all[i].text, 'a' + (int)(i % 26), sizeof(all[i].text));
        longest = all[i].size > longest ? all[i].size : longest;
    }
    data = (char *)allocate(values->rows * longest + NLCT_ARROW_MORE);
    nlct_arrow_words(values->values, values->valid, values->rows, all, offsets, data);
    check_texts(values, offsets, data, word_text, all);
    free(offsets);
    let_go(data);
}

static size_t text_text(const void *context, const struct values *values, size_t row, char *room)
{
    (void)context;
    memcpy(room, values->values + 16 * row, 16);
    return strnlen(room, 16);
}

static void texts(const struct values *values)
{
    int32_t *offsets = calloc(values->rows + 1, sizeof(*offsets));
    char *data = (char *)allocate(values->rows * 16);

    ASSERT(offsets);
    nlct_arrow_texts((const char *)values->values, values->valid, values->rows, offsets, data);
    check_texts(values, offsets, data, text_text, NULL);
    free(offsets);
    let_go(data);
}

static size_t labels_list(const void *context, const struct values *values, size_t row, char *room)
{
    static uint8_t list[128];
    const uint8_t **expected = (const uint8_t **)(uintptr_t)context;
    uint64_t word;
    size_t count = 0;
    unsigned i;

    (void)room;
    for (i = 0; i < 128; i++) {
        memcpy(&word, values->values + 16 * row + i / 64 * 8, sizeof(word));
        if (word >> i % 64 & 1)
            list[count++] = (uint8_t)i;
    }
    *expected = list;
    return count;
}

static void labels(const struct values *values)
{
    int32_t *offsets = calloc(values->rows + 1, sizeof(*offsets));
    int32_t *again = calloc(values->rows + 1, sizeof(*again));
    const uint8_t *list = NULL;
    uint8_t *data;
    size_t row;

    ASSERT(offsets && again);
    nlct_arrow_labels(values->values, values->valid, values->rows, offsets, NULL);
    data = allocate((size_t)offsets[values->rows]);
    nlct_arrow_labels(values->values, values->valid, values->rows, again, data);
    ASSERT(memcmp(offsets, again, (values->rows + 1) * sizeof(*offsets)) == 0);
    for (row = 0; row < values->rows; row++) {
        const size_t count = there(values, row) ? labels_list(&list, values, row, NULL) : 0;

        ASSERT((size_t)(offsets[row + 1] - offsets[row]) == count);
        ASSERT(!count || memcmp(data + offsets[row], list, count) == 0);
    }
    free(offsets);
    free(again);
    let_go(data);
}

static struct nlct_span span_of(const struct values *values, size_t row)
{
    struct nlct_span span = {0, 0};

    if (there(values, row))
        memcpy(&span, values->values + row * sizeof(span), sizeof(span));
    return span;
}

static void spans(struct input *input, const struct values *values)
{
    const size_t bytes_size = input_byte(input) % MAX_BYTES;
    uint8_t *bytes = read_bytes(input, bytes_size);
    int64_t *offsets = calloc(values->rows + 1, sizeof(*offsets));
    bool inside = true;
    uint8_t *data;
    size_t row;
    int rc;

    ASSERT(offsets);
    for (row = 0; row < values->rows; row++)
        inside &= (uint64_t)span_of(values, row).at + span_of(values, row).size <= bytes_size;
    rc = nlct_arrow_spans(values->values, values->valid, values->rows, bytes, bytes_size, offsets,
                          NULL);
    ASSERT(rc == (inside ? 0 : -EINVAL));
    if (inside) {
        data = allocate((size_t)offsets[values->rows]);
        ASSERT(nlct_arrow_spans(values->values, values->valid, values->rows, bytes, bytes_size,
                                offsets, data) == 0);
        ASSERT(offsets[0] == 0);
        for (row = 0; row < values->rows; row++) {
            const struct nlct_span span = span_of(values, row);

            ASSERT(offsets[row + 1] - offsets[row] == span.size);
            ASSERT(memcmp(data + offsets[row], bytes + span.at, span.size) == 0);
        }
        let_go(data);
    }
    free(offsets);
    let_go(bytes);
}

static void bits(const struct values *values)
{
    uint8_t *packed = allocate((values->rows + 7) / 8);
    size_t absent = 0;
    size_t row;

    ASSERT(nlct_arrow_bits(values->valid, values->rows, packed) <= values->rows);
    for (row = 0; row < (values->rows + 7) / 8 * 8; row++) {
        const bool set = packed[row / 8] >> row % 8 & 1;

        ASSERT(set == (row < values->rows && values->valid[row]));
        absent += row < values->rows && !set;
    }
    ASSERT(nlct_arrow_bits(values->valid, values->rows, packed) == absent);
    let_go(packed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t sizes[KINDS] = {[ADDRESSES] = 16,
                                        [WORDS] = 1,
                                        [TEXTS] = 16,
                                        [LABELS] = 16,
                                        [SPANS] = sizeof(struct nlct_span)};
    struct input input = {data, size};
    const uint8_t head = input_byte(&input);
    const unsigned kind = head / 2 % KINDS;
    struct values values = {.rows = input_byte(&input) % (MAX_ROWS + 1)};

    values.valid = head % 2 ? read_bytes(&input, values.rows) : NULL;
    values.values = read_bytes(&input, values.rows * sizes[kind]);
    if (values.valid)
        bits(&values);
    switch (kind) {
    case ADDRESSES:
        addresses(&input, &values);
        break;
    case WORDS:
        words(&input, &values);
        break;
    case TEXTS:
        texts(&values);
        break;
    case LABELS:
        labels(&values);
        break;
    case SPANS:
        spans(&input, &values);
        break;
    }
    let_go(values.values);
    let_go(values.valid);
    return 0;
}
