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

    return nlct_text_new(&sink, NLCT_FORM_LIST, buffer, capacity) < 0 ? NULL : sink;
}

static inline struct nlct_sink *make_values(const struct nlct_item *items, size_t count, bool json,
                                            char *buffer, size_t capacity)
{
    struct nlct_sink *sink = NULL;

    return nlct_values_new(&sink, items, count, json, buffer, capacity) < 0 ? NULL : sink;
}

/* By whole addresses. */
static inline struct nlct_sink *make_sums(const unsigned *fields, size_t nfields,
                                          const unsigned *sums, size_t nsums)
{
    struct nlct_group groups[NLCT_GROUPS + 1];
    struct nlct_sink *sink = NULL;
    size_t i;

    for (i = 0; i < nfields; i++)
        groups[i] = (struct nlct_group){fields[i], 32, 128};
    return nlct_counts_new(&sink, groups, nfields, sums, nsums) < 0 ? NULL : sink;
}

static inline struct nlct_sink *make_counts(const unsigned *fields, size_t nfields)
{
    return make_sums(fields, nfields, NULL, 0);
}

static inline struct nlct_sink *make_columns(const uint8_t *wanted, size_t limit)
{
    struct nlct_sink *sink = NULL;

    return nlct_columns_new(&sink, wanted, limit) < 0 ? NULL : sink;
}

/* Deletes whatever the dump's own filter lets through. */
static inline struct nlct_sink *make_deletes(struct nlct_socket *sock)
{
    const struct nlct_target all = {.wants = NLCT_WANTS_ALL};
    struct nlct_sink *sink = NULL;

    return nlct_deletes_new(&sink, sock, &all, 1) < 0 ? NULL : sink;
}

/* What became of the requests of the first target. */
static inline void read_tally(const struct nlct_sink *sink, struct nlct_tally *tally)
{
    const uint64_t *counts;
    size_t which;
    int error;

    *tally = (struct nlct_tally){.done = nlct_deletes_get(sink)->deleted};
    for (which = 0; (counts = nlct_deletes_refused(sink, which, &error)); which++)
        tally->refused[error] = counts[0];
}

#endif
