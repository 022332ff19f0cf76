/* Sink: decodes each flow into a row. */
#include "sinks.h"

#include <stdlib.h>

struct rows {
    struct nlct_sink sink;
    struct nlct_flow *rows;
    struct nlct_bytes *bytes;
    size_t capacity;
    size_t count;
};

static int take(struct nlct_sink *sink, struct view *view)
{
    struct rows *rows = (struct rows *)sink;
    int rc;

    if (rows->count == rows->capacity)
        return 1;
    rc = flow_decode(view, rows->bytes);
    if (rc == 0)
        rows->rows[rows->count++] = view->flow;
    return rc;
}

int nlct_rows_new(struct nlct_sink **sink, struct nlct_flow *rows, size_t capacity,
                  struct nlct_bytes *bytes)
{
    struct rows *new = calloc(1, sizeof(*new));

    if (!new)
        return -ENOMEM;
    *new = (struct rows){.sink.take = take, .rows = rows, .bytes = bytes, .capacity = capacity};
    *sink = &new->sink;
    return 0;
}

size_t nlct_rows_take(struct nlct_sink *sink)
{
    struct rows *rows = (struct rows *)sink;
    size_t count = rows->count;

    rows->count = 0;
    return count;
}

size_t nlct_rows_count(const struct nlct_sink *sink)
{
    return ((const struct rows *)sink)->count;
}
