/* Sinks as the tests make them: NULL where none can be had. */
#ifndef MAKE_H
#define MAKE_H

#include "nlct.h"

static inline struct nlct_sink *make_rows(struct nlct_flow *rows, size_t capacity,
                                          struct nlct_bytes *bytes)
{
    struct nlct_sink *sink = NULL;

    return nlct_rows_new(&sink, rows, capacity, bytes) < 0 ? NULL : sink;
}

static inline struct nlct_sink *make_text(char *buffer, size_t capacity)
{
    struct nlct_sink *sink = NULL;

    return nlct_text_new(&sink, buffer, capacity) < 0 ? NULL : sink;
}

static inline struct nlct_sink *make_counts(const unsigned *fields, size_t nfields)
{
    struct nlct_sink *sink = NULL;

    return nlct_counts_new(&sink, fields, nfields) < 0 ? NULL : sink;
}

static inline struct nlct_sink *make_columns(const uint8_t *wanted, size_t limit)
{
    struct nlct_sink *sink = NULL;

    return nlct_columns_new(&sink, wanted, limit) < 0 ? NULL : sink;
}

static inline struct nlct_sink *make_deleter(struct nlct_socket *sock, struct nlct_tally *tally)
{
    struct nlct_sink *sink = NULL;

    return nlct_deleter_new(&sink, sock, tally) < 0 ? NULL : sink;
}

#endif
