/* Sink: writes each flow as a line of text. */
#include "sinks.h"

#include <stdlib.h>

struct text {
    struct nlct_sink sink;
    struct nlct_bytes bytes; /* of the flow at hand */
    char *buffer;
    size_t capacity;
    size_t size;
};

static int take(struct nlct_sink *sink, struct view *view)
{
    struct text *text = (struct text *)sink;
    int rc;

    text->bytes.size = 0;
    rc = flow_decode(view, &text->bytes);
    if (rc < 0)
        return rc;
    rc = nlct_flow_text(&view->flow, text->bytes.data, text->buffer + text->size,
                        text->capacity - text->size);
    /* Otherwise a line too long for an empty buffer would be retried for ever. */
    if (rc == -EMSGSIZE && text->size)
        return 1;
    if (rc < 0)
        return rc;
    text->size += (size_t)rc;
    return 0;
}

static void free_text(struct nlct_sink *sink)
{
    nlct_bytes_free(&((struct text *)sink)->bytes);
}

int nlct_text_new(struct nlct_sink **sink, char *buffer, size_t capacity)
{
    struct text *new = calloc(1, sizeof(*new));

    if (!new)
        return -ENOMEM;
    *new = (struct text){
        .sink = {.take = take, .free = free_text}, .buffer = buffer, .capacity = capacity};
    *sink = &new->sink;
    return 0;
}

size_t nlct_text_take(struct nlct_sink *sink)
{
    struct text *text = (struct text *)sink;
    size_t size = text->size;

    text->size = 0;
    return size;
}
