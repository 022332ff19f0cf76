/* Sink: writes each flow as a line of text. */
#include "sinks.h"

#include <stdlib.h>

struct text {
    struct nlct_sink sink;
    enum nlct_form form;
    struct nlct_bytes bytes; /* of the flow at hand */
    char *buffer;
    size_t capacity;
    size_t size;
};

static int write_line(const struct text *text, const struct nlct_flow *flow)
{
    char *at = text->buffer + text->size;
    const size_t room = text->capacity - text->size;

    if (text->form == NLCT_FORM_SAVE)
        return nlct_flow_save(flow, at, room);
    return nlct_flow_text(flow, text->bytes.data, at, room);
}

static int take(struct nlct_sink *sink, struct view *view)
{
    struct text *text = (struct text *)sink;
    int rc;

    text->bytes.size = 0;
    rc = flow_decode(view, &text->bytes);
    if (rc < 0)
        return rc;
    rc = write_line(text, &view->flow);
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

int nlct_text_new(struct nlct_sink **sink, enum nlct_form form, char *buffer, size_t capacity)
{
    struct text *new = calloc(1, sizeof(*new));

    if (!new)
        return -ENOMEM;
    *new = (struct text){.sink = {.take = take, .free = free_text},
                         .form = form,
                         .buffer = buffer,
                         .capacity = capacity};
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
