/* Many flows as columns: the sink that fills them, and a row of them as a flow again. */
#include "sinks.h"

#include <stdlib.h>

enum { FIRST_CAPACITY = 1024 };

/* The first flow that has the field makes the array, the first that lacks it the flags. */
struct column {
    size_t offset; /* in a flow */
    size_t size;   /* of one value */
    uint8_t *values;
    uint8_t *valid;
};

/* The flow itself and each of its tuples: each has its own bits of 'present'. */
enum part { FLOW, ORIG, REPLY, MASTER, PARTS };

struct part_columns {
    uint64_t wanted;
    uint64_t existing;
    struct column columns[64]; /* by bit */
};

struct columns {
    struct nlct_sink sink;
    size_t limit;
    size_t capacity;
    size_t count;
    struct nlct_bytes bytes;
    struct part_columns parts[PARTS];
};

static enum part part_of(const struct field *field)
{
    switch (field->present) {
    case offsetof(struct nlct_flow, orig):
        return ORIG;
    case offsetof(struct nlct_flow, reply):
        return REPLY;
    case offsetof(struct nlct_flow, master):
        return MASTER;
    default:
        return FLOW;
    }
}

static struct column *column_of(struct columns *columns, const struct field *field)
{
    return &columns->parts[part_of(field)].columns[field->bit];
}

/* A value is a number, a span as large as one, or 16 bytes. */
static void copy(void *to, const void *from, size_t size)
{
    if (size > sizeof(uint64_t))
        memcpy(to, from, 16);
    else
        number_write(to, number_read(from, size), size);
}

static bool resize(uint8_t **array, size_t size)
{
    uint8_t *resized = realloc(*array, size ? size : 1);

    if (resized)
        *array = resized;
    return resized != NULL;
}

/* Room for one more row in every array there is. */
static int grow(struct columns *columns)
{
    const size_t capacity = columns->capacity ? columns->capacity * 2 : FIRST_CAPACITY;
    size_t i;

    for (i = 0; i < PARTS; i++) {
        uint64_t bits = columns->parts[i].existing;

        while (bits) {
            struct column *column = &columns->parts[i].columns[next_bit(&bits)];

            if (!resize(&column->values, capacity * column->size))
                return -ENOMEM;
            if (column->valid && !resize(&column->valid, capacity))
                return -ENOMEM;
        }
    }
    columns->capacity = capacity;
    return 0;
}

static bool add_flags(const struct columns *columns, struct column *column, uint8_t so_far)
{
    column->valid = malloc(columns->capacity);
    if (column->valid)
        memset(column->valid, so_far, columns->count);
    return column->valid != NULL;
}

static int add_column(const struct columns *columns, struct column *column)
{
    column->values = calloc(columns->capacity, column->size);
    if (column->values && (!columns->count || add_flags(columns, column, 0)))
        return 0;
    free(column->values);
    column->values = NULL;
    return -ENOMEM;
}

static int put_absent(const struct columns *columns, struct column *column)
{
    if (!column->valid && !add_flags(columns, column, 1))
        return -ENOMEM;
    column->valid[columns->count] = 0;
    memset(column->values + columns->count * column->size, 0, column->size);
    return 0;
}

static int keep_part(const struct columns *columns, struct part_columns *part,
                     const struct nlct_flow *flow, uint64_t present)
{
    uint64_t bits = present & part->wanted & ~part->existing;
    int rc = 0;

    while (bits && rc == 0) {
        const unsigned field = next_bit(&bits);

        rc = add_column(columns, &part->columns[field]);
        if (rc == 0)
            part->existing |= bit(field);
    }
    bits = part->existing & ~present;
    while (bits && rc == 0)
        rc = put_absent(columns, &part->columns[next_bit(&bits)]);
    if (rc < 0)
        return rc;
    bits = part->existing & present;
    while (bits) {
        struct column *column = &part->columns[next_bit(&bits)];

        copy(column->values + columns->count * column->size, (const uint8_t *)flow + column->offset,
             column->size);
        if (column->valid)
            column->valid[columns->count] = 1;
    }
    return 0;
}

/* Keeps a flow whose spans are in our bytes. */
static int keep(struct columns *columns, const struct nlct_flow *flow)
{
    const uint64_t present[PARTS] = {
        [FLOW] = flow->present,
        [ORIG] = flow->orig.present,
        [REPLY] = flow->reply.present,
        [MASTER] = flow->master.present,
    };
    size_t i;
    int rc = columns->count < columns->capacity ? 0 : grow(columns);

    for (i = 0; i < PARTS && rc == 0; i++)
        rc = keep_part(columns, &columns->parts[i], flow, present[i]);
    if (rc == 0)
        columns->count++;
    return rc;
}

static bool wants_spans(const struct columns *columns)
{
    return columns->parts[FLOW].wanted &
           (bit(NLCT_FLOW_HELPER_INFO) | bit(NLCT_FLOW_SECCTX) | bit(NLCT_FLOW_UNKNOWN));
}

static int take(struct nlct_sink *sink, struct view *view)
{
    struct columns *columns = (struct columns *)sink;
    int rc;

    if (columns->count == columns->limit)
        return 1;
    rc = flow_decode(view, &columns->bytes);
    if (!wants_spans(columns))
        columns->bytes.size = 0;
    return rc ? rc : keep(columns, &view->flow);
}

int nlct_columns_add(struct nlct_sink *sink, const struct nlct_flow *flow, const uint8_t *bytes)
{
    struct columns *columns = (struct columns *)sink;
    struct nlct_flow ours = *flow;
    int rc = 0;

    if (columns->count == columns->limit)
        return 1;
    if (has(flow->present, NLCT_FLOW_HELPER_INFO))
        rc = bytes_bring(&columns->bytes, bytes, &ours.helper_info);
    if (rc == 0 && has(flow->present, NLCT_FLOW_SECCTX))
        rc = bytes_bring(&columns->bytes, bytes, &ours.secctx);
    if (rc == 0 && has(flow->present, NLCT_FLOW_UNKNOWN))
        rc = bytes_bring(&columns->bytes, bytes, &ours.unknown);
    return rc ? rc : keep(columns, &ours);
}

static void free_columns(struct nlct_sink *sink)
{
    struct columns *columns = (struct columns *)sink;
    unsigned i;

    for (i = 0; i < flow_fields(); i++) {
        struct column *column = column_of(columns, flow_field(i));

        free(column->values);
        free(column->valid);
    }
    nlct_bytes_free(&columns->bytes);
}

int nlct_columns_new(struct nlct_sink **sink, const uint8_t *wanted, size_t limit)
{
    struct columns *new = calloc(1, sizeof(*new));
    unsigned i;

    if (!new)
        return -ENOMEM;
    new->sink = (struct nlct_sink){.take = take, .free = free_columns};
    new->limit = limit;
    for (i = 0; i < flow_fields(); i++) {
        const struct field *field = flow_field(i);
        struct column *column = column_of(new, field);

        *column = (struct column){.offset = field->public.offset, .size = field->public.size};
        if (wanted[i])
            new->parts[part_of(field)].wanted |= bit(field->bit);
    }
    *sink = &new->sink;
    return 0;
}

size_t nlct_columns_count(const struct nlct_sink *sink)
{
    return ((const struct columns *)sink)->count;
}

void nlct_column_free(struct nlct_column *column)
{
    free(column->values);
    free(column->valid);
    column->values = NULL;
    column->valid = NULL;
}

void nlct_columns_free(struct nlct_column *columns)
{
    unsigned i;

    for (i = 0; i < flow_fields(); i++)
        nlct_column_free(&columns[i]);
}

void nlct_column_move(struct nlct_column *to, struct nlct_column *from)
{
    *to = *from;
    from->values = NULL;
    from->valid = NULL;
}

size_t nlct_columns_take(struct nlct_sink *sink, struct nlct_column *taken,
                         struct nlct_bytes *bytes)
{
    struct columns *columns = (struct columns *)sink;
    size_t count = columns->count;
    unsigned i;

    for (i = 0; i < flow_fields(); i++) {
        struct column *column = column_of(columns, flow_field(i));

        /* If it cannot be shrunk, it is as good as it is. */
        if (column->values)
            resize(&column->values, count * column->size);
        if (column->valid)
            resize(&column->valid, count);
        taken[i] = (struct nlct_column){i, column->values, column->valid};
        column->values = NULL;
        column->valid = NULL;
    }
    *bytes = columns->bytes;
    columns->bytes = (struct nlct_bytes){0};
    columns->capacity = columns->count = 0;
    for (i = 0; i < PARTS; i++)
        columns->parts[i].existing = 0;
    return count;
}

static void set_bit(struct nlct_flow *flow, size_t offset, unsigned field)
{
    uint64_t present;

    memcpy(&present, (uint8_t *)flow + offset, sizeof(present));
    present |= bit(field);
    memcpy((uint8_t *)flow + offset, &present, sizeof(present));
}

/* Takes away a span that leads out of the bytes. */
static void check_span(struct nlct_flow *flow, struct nlct_span *span, unsigned field,
                       size_t bytes_size)
{
    if (span->size <= bytes_size && span->at <= bytes_size - span->size)
        return;
    *span = (struct nlct_span){0, 0};
    flow->present &= ~bit(field);
}

void nlct_columns_row(const struct nlct_column *columns, size_t ncolumns, size_t bytes_size,
                      size_t row, struct nlct_flow *flow)
{
    size_t i;

    memset(flow, 0, sizeof(*flow));
    for (i = 0; i < ncolumns; i++) {
        const struct nlct_column *column = &columns[i];
        const struct field *field = flow_field(column->field);
        const size_t size = field->public.size;

        if (column->valid && !column->valid[row])
            continue;
        copy((uint8_t *)flow + field->public.offset, (const uint8_t *)column->values + row * size,
             size);
        set_bit(flow, field->present, field->bit);
        set_bit(flow, offsetof(struct nlct_flow, present), field->part);
    }
    flow->present |= bit(NLCT_FLOW_ZONE);
    /* Checked here, on our own copy: the owner of the table's memory may write to it. */
    check_span(flow, &flow->helper_info, NLCT_FLOW_HELPER_INFO, bytes_size);
    check_span(flow, &flow->secctx, NLCT_FLOW_SECCTX, bytes_size);
    check_span(flow, &flow->unknown, NLCT_FLOW_UNKNOWN, bytes_size);
    if (has(flow->present, NLCT_FLOW_ORIG))
        flow->orig.family = flow->family;
    if (has(flow->present, NLCT_FLOW_REPLY))
        flow->reply.family = flow->family;
    if (has(flow->present, NLCT_FLOW_MASTER))
        flow->master.family = flow->family;
}
