/* Sink: writes each flow as a line of values, a JSON object or words with tabs between. */
#include "sinks.h"

#include <errno.h>
#include <stdlib.h>

/* Text as it is. */
struct piece {
    const char *text;
    size_t size;
};

/* What lies around values, and between them. */
struct style {
    struct piece open;
    struct piece separator;
    struct piece close;
};

static const struct style json_style = {{"{", 1}, {", ", 2}, {"}\n", 2}};
static const struct style text_style = {{"", 0}, {"\t", 1}, {"\n", 1}};
static const struct piece brace = {"}", 1};

/* An item, with all that is known of it before a flow comes. */
struct item {
    const struct field *field;
    const struct nlct_word *words;
    unsigned inner;
    struct piece name;
    struct piece absent;
};

struct values {
    struct nlct_sink sink;
    struct nlct_bytes bytes; /* of the flow at hand */
    char *buffer;
    size_t capacity;
    size_t size;
    size_t room; /* for a line, without spans */
    bool json;
    const struct style *style;
    size_t count;
    struct item items[];
};

static char *put_piece(char *at, const struct piece *piece)
{
    memcpy(at, piece->text, piece->size);
    return at + piece->size;
}

static bool is_there(const struct item *item, const struct nlct_flow *flow)
{
    return item->inner ? has(flow->present, item->field->part) : flow_has(flow, item->field);
}

static char *put_inner(char *at, const struct values *values, const struct item *outer,
                       const struct nlct_flow *flow)
{
    const struct item *item;
    char *const begin = at;

    for (item = outer + 1; item <= outer + outer->inner; item++) {
        if (!is_there(item, flow))
            continue;
        at = at == begin ? at : put_piece(at, &values->style->separator);
        at = put_piece(at, &item->name);
        at = value_put(at, flow, NULL, item->field, item->words, values->json);
    }
    return put_piece(at, &brace);
}

static char *put_items(char *at, const struct values *values, const struct nlct_flow *flow,
                       const uint8_t *bytes)
{
    const struct item *item;
    bool first = true;

    for (item = values->items; item < values->items + values->count; item += 1 + item->inner) {
        const bool there = is_there(item, flow);

        if (!there && !item->absent.size)
            continue;
        at = first ? at : put_piece(at, &values->style->separator);
        first = false;
        at = put_piece(at, there ? &item->name : &item->absent);
        if (there && item->inner)
            at = put_inner(at, values, item, flow);
        else if (there)
            at = value_put(at, flow, bytes, item->field, item->words, values->json);
    }
    return at;
}

int nlct_values_add(struct nlct_sink *sink, const struct nlct_flow *flow, const uint8_t *bytes)
{
    struct values *values = (struct values *)sink;
    const size_t needed = values->room + value_spans(flow);
    char *at = values->buffer + values->size;

    /* A line too long for an empty buffer would be retried for ever. */
    if (values->capacity - values->size < needed)
        return values->size ? 1 : -EMSGSIZE;
    at = put_piece(at, &values->style->open);
    at = put_items(at, values, flow, bytes);
    at = put_piece(at, &values->style->close);
    values->size = (size_t)(at - values->buffer);
    return 0;
}

static int take(struct nlct_sink *sink, struct view *view)
{
    struct values *values = (struct values *)sink;
    int rc;

    values->bytes.size = 0;
    rc = flow_decode(view, &values->bytes);
    return rc < 0 ? rc : nlct_values_add(sink, &view->flow, values->bytes.data);
}

static void free_values(struct nlct_sink *sink)
{
    nlct_bytes_free(&((struct values *)sink)->bytes);
}

/* Words are for numbers, and what is inside of an item belongs to the same tuple. */
static bool makes_sense(const struct nlct_item *items, size_t count, size_t which, bool json)
{
    const struct nlct_item *item = &items[which];
    const struct field *field = flow_field(item->field);
    size_t i;

    if (!field || item->inner >= count - which || (item->inner && !json))
        return false;
    if (item->words && (field->public.kind != NLCT_NUMBER ||
                        (field->public.size != 1 && field->public.size != sizeof(uint32_t))))
        return false;
    for (i = which + 1; i <= which + item->inner; i++) {
        const struct field *inner = flow_field(items[i].field);

        if (!inner || items[i].inner || !field->present || inner->present != field->present)
            return false;
    }
    return true;
}

static struct piece piece_of(const char *text)
{
    return (struct piece){text, strlen(text)};
}

static void set_item(struct values *values, size_t which, const struct nlct_item *from)
{
    struct item *item = &values->items[which];

    *item = (struct item){
        .field = flow_field(from->field),
        .words = from->words,
        .inner = from->inner,
        .name = piece_of(from->name),
        .absent = piece_of(from->absent),
    };
    values->room +=
        sizeof(", }") + item->name.size + item->absent.size + value_room(item->field, item->words);
}

int nlct_values_new(struct nlct_sink **sink, const struct nlct_item *items, size_t count, bool json,
                    char *buffer, size_t capacity)
{
    struct values *new;
    size_t i;

    for (i = 0; i < count; i++)
        if (!makes_sense(items, count, i, json))
            return -EINVAL;
    new = calloc(1, sizeof(*new) + count * sizeof(new->items[0]));
    if (!new)
        return -ENOMEM;
    *new = (struct values){.sink = {.take = take, .free = free_values},
                           .buffer = buffer,
                           .capacity = capacity,
                           .room = sizeof("{}\n"),
                           .json = json,
                           .style = json ? &json_style : &text_style,
                           .count = count};
    for (i = 0; i < count; i++)
        set_item(new, i, &items[i]);
    *sink = &new->sink;
    return 0;
}

size_t nlct_values_room(const struct nlct_sink *sink)
{
    return ((const struct values *)sink)->room;
}

size_t nlct_values_take(struct nlct_sink *sink)
{
    struct values *values = (struct values *)sink;
    const size_t size = values->size;

    values->size = 0;
    return size;
}
