/* Sink: writes each flow as a line of text. */
#include "sinks.h"

#include <stdlib.h>

struct lines {
    struct nlct_sink sink;
    struct nlct_bytes heap; /* of the flow at hand */
    char *buffer;
    size_t capacity;
    size_t size;
};

static int take(struct nlct_sink *sink, struct view *view)
{
    struct lines *lines = (struct lines *)sink;
    int rc;

    lines->heap.size = 0;
    rc = flow_decode(view, &lines->heap);
    if (rc < 0)
        return rc;
    rc = nlct_flow_text(&view->flow, lines->heap.data, lines->buffer + lines->size,
                        lines->capacity - lines->size);
    /* A line too long for the empty buffer would be wanted again for ever. */
    if (rc == -EMSGSIZE && lines->size)
        return 1;
    if (rc < 0)
        return rc;
    lines->size += (size_t)rc;
    return 0;
}

static void let_go(struct nlct_sink *sink)
{
    nlct_bytes_free(&((struct lines *)sink)->heap);
}

int nlct_text_new(struct nlct_sink **sink, char *buffer, size_t capacity)
{
    struct lines *new = calloc(1, sizeof(*new));

    if (!new)
        return -ENOMEM;
    *new = (struct lines){
        .sink = {.take = take, .free = let_go}, .buffer = buffer, .capacity = capacity};
    *sink = &new->sink;
    return 0;
}

size_t nlct_text_take(struct nlct_sink *sink)
{
    struct lines *lines = (struct lines *)sink;
    size_t size = lines->size;

    lines->size = 0;
    return size;
}
