/* Columns as arrays in the layout of Apache Arrow. */
#include "sinks.h"

#include <errno.h>
#include <string.h>

static bool there(const uint8_t *valid, size_t row)
{
    return !valid || valid[row];
}

size_t nlct_arrow_bits(const uint8_t *valid, size_t rows, uint8_t *bits)
{
    size_t count = 0;
    size_t row;

    memset(bits, 0, (rows + 7) / 8);
    for (row = 0; row < rows; row++) {
        unsigned one = valid[row] != 0;

        bits[row / 8] |= (uint8_t)(one << row % 8);
        count += one;
    }
    return rows - count;
}

void nlct_arrow_addresses(const uint8_t *values, const uint8_t *valid, const uint8_t *families,
                          size_t rows, int32_t *offsets, char *data)
{
    char *at = data;
    size_t row;

    for (row = 0; row < rows; row++) {
        offsets[row] = (int32_t)(at - data);
        if (there(valid, row))
            at = text_address(at, values + 16 * row, families[row]);
    }
    offsets[rows] = (int32_t)(at - data);
}

/* Words ---------------------------------------------------------------------------------------- */

void nlct_arrow_words(const uint8_t *values, const uint8_t *valid, size_t rows,
                      const struct nlct_word *words, int32_t *offsets, char *data)
{
    char *at = data;
    size_t row;

    for (row = 0; row < rows; row++) {
        offsets[row] = (int32_t)(at - data);
        if (!there(valid, row))
            continue;
        /* A copy of fixed size is a few moves; the next word covers the rest. */
        memcpy(at, words[values[row]].text, sizeof(words->text));
        at += words[values[row]].size;
    }
    offsets[rows] = (int32_t)(at - data);
}

void nlct_arrow_texts(const char *values, const uint8_t *valid, size_t rows, int32_t *offsets,
                      char *data)
{
    char *at = data;
    size_t row;

    for (row = 0; row < rows; row++) {
        offsets[row] = (int32_t)(at - data);
        if (!there(valid, row))
            continue;
        memcpy(at, values + 16 * row, 16);
        at += strnlen(at, 16);
    }
    offsets[rows] = (int32_t)(at - data);
}

/* Lists ---------------------------------------------------------------------------------------- */

static int32_t put_labels(uint64_t bits, unsigned first, int32_t at, uint8_t *data)
{
    for (; bits; bits &= bits - 1)
        data[at++] = (uint8_t)(first + (unsigned)__builtin_ctzll(bits));
    return at;
}

void nlct_arrow_labels(const uint8_t *values, const uint8_t *valid, size_t rows, int32_t *offsets,
                       uint8_t *data)
{
    int32_t at = 0;
    size_t row;

    for (row = 0; row < rows; row++) {
        uint64_t labels[2];

        offsets[row] = at;
        if (!there(valid, row))
            continue;
        memcpy(labels, values + row * sizeof(labels), sizeof(labels));
        if (data)
            at = put_labels(labels[1], 64, put_labels(labels[0], 0, at, data), data);
        else
            at += __builtin_popcountll(labels[0]) + __builtin_popcountll(labels[1]);
    }
    offsets[rows] = at;
}

int nlct_arrow_spans(const uint8_t *values, const uint8_t *valid, size_t rows, const uint8_t *bytes,
                     size_t bytes_size, int64_t *offsets, uint8_t *data)
{
    int64_t at = 0;
    size_t row;

    for (row = 0; row < rows; row++) {
        struct nlct_span span;

        offsets[row] = at;
        if (!there(valid, row))
            continue;
        memcpy(&span, values + row * sizeof(span), sizeof(span));
        if (span.size > bytes_size || span.at > bytes_size - span.size)
            return -EINVAL;
        if (data && span.size)
            memcpy(data + at, bytes + span.at, span.size);
        at += span.size;
    }
    offsets[rows] = at;
    return 0;
}
