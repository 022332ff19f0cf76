/* Sink: counts the flows that have the same values in one or two fields. */
#include "sinks.h"

#include <linux/netfilter/nfnetlink_conntrack.h>
#include <stdlib.h>

enum { FIRST_SLOTS = 1024 };

/* Slots hold the number of a row plus one, so that zero is empty. */
struct counts {
    struct nlct_sink sink;
    const struct field *fields[2];
    size_t nfields;
    struct nlct_count *rows;
    size_t nrows;
    size_t capacity;
    uint32_t *slots;
    size_t mask;
    struct hash_key key;
};

static uint64_t hash_count(const struct counts *counts, const struct nlct_count *count)
{
    const uint64_t last =
        (uint64_t)count->family << 16 | (uint64_t)count->present[0] << 8 | count->present[1];
    uint64_t words[4];
    size_t nwords = 0;
    size_t i;

    for (i = 0; i < counts->nfields; i++) {
        const size_t size = counts->fields[i]->public.size > sizeof(words[0]) ? 16 : 8;

        memcpy(words + nwords, count->values[i], size);
        nwords += size / sizeof(words[0]);
    }
    return hash_words(&counts->key, words, nwords, last, 3);
}

static bool same(const struct nlct_count *a, const struct nlct_count *b)
{
    return memcmp(a->values, b->values, sizeof(a->values)) == 0 &&
           memcmp(a->present, b->present, sizeof(a->present)) == 0 && a->family == b->family;
}

/* The slot of this row, or the empty one where it would be. */
static uint32_t *find(const struct counts *counts, const struct nlct_count *wanted)
{
    size_t slot = hash_count(counts, wanted) & counts->mask;

    while (counts->slots[slot] && !same(&counts->rows[counts->slots[slot] - 1], wanted))
        slot = (slot + 1) & counts->mask;
    return &counts->slots[slot];
}

/* Twice the room: never more than half of the slots are in use. */
static int grow(struct counts *counts)
{
    const size_t slots = counts->mask ? (counts->mask + 1) * 2 : FIRST_SLOTS;
    struct nlct_count *grown = realloc(counts->rows, slots / 2 * sizeof(*grown));
    uint32_t *fresh = calloc(slots, sizeof(*fresh));
    uint32_t i;
    int rc = counts->mask ? 0 : hash_key_new(&counts->key);

    if (grown)
        counts->rows = grown;
    if (!grown || !fresh || slots > UINT32_MAX)
        rc = -ENOMEM;
    if (rc < 0) {
        free(fresh);
        return rc;
    }
    free(counts->slots);
    counts->slots = fresh;
    counts->mask = slots - 1;
    counts->capacity = slots / 2;
    for (i = 0; i < counts->nrows; i++)
        *find(counts, &counts->rows[i]) = i + 1;
    return 0;
}

/* The most common field, which needs no decoding. */
static int set_zone(struct nlct_count *count, size_t which, const struct view *view)
{
    const int zone = view_zone(view);
    const uint16_t value = (uint16_t)zone;

    if (zone < 0)
        return zone;
    count->present[which] = 1;
    memcpy(count->values[which], &value, sizeof(value));
    return 0;
}

static int set_value(struct nlct_count *count, size_t which, const struct field *field,
                     struct view *view)
{
    int rc;

    if (field->attr == CTA_ZONE)
        return set_zone(count, which, view);
    rc = view_decode(view, field);
    if (rc < 0 || !flow_has(&view->flow, field))
        return rc;
    count->present[which] = 1;
    memcpy(count->values[which], flow_value(&view->flow, field), field->public.size);
    if (field->public.kind == NLCT_ADDRESS)
        count->family = view->family;
    return 0;
}

static int take(struct nlct_sink *sink, struct view *view)
{
    struct counts *counts = (struct counts *)sink;
    struct nlct_count count = {0};
    uint32_t *slot;
    size_t i;
    int rc = 0;

    for (i = 0; i < counts->nfields && rc == 0; i++)
        rc = set_value(&count, i, counts->fields[i], view);
    if (rc == 0 && counts->nrows == counts->capacity)
        rc = grow(counts);
    if (rc < 0)
        return rc;
    slot = find(counts, &count);
    if (!*slot) {
        counts->rows[counts->nrows++] = count;
        *slot = (uint32_t)counts->nrows;
    }
    counts->rows[*slot - 1].count++;
    return 0;
}

static void free_counts(struct nlct_sink *sink)
{
    struct counts *counts = (struct counts *)sink;

    free(counts->rows);
    free(counts->slots);
}

int nlct_counts_new(struct nlct_sink **sink, const unsigned *fields, size_t nfields)
{
    struct counts *new;
    size_t i;

    for (i = 0; i < nfields; i++)
        if (nfields > 2 || !flow_field(fields[i]) ||
            flow_field(fields[i])->public.kind == NLCT_SPAN)
            return -EINVAL;
    new = calloc(1, sizeof(*new));
    if (!new)
        return -ENOMEM;
    new->sink = (struct nlct_sink){.take = take, .free = free_counts};
    new->nfields = nfields;
    for (i = 0; i < nfields; i++)
        new->fields[i] = flow_field(fields[i]);
    *sink = &new->sink;
    return 0;
}

const struct nlct_count *nlct_counts_get(const struct nlct_sink *sink, size_t *count)
{
    const struct counts *counts = (const struct counts *)sink;

    *count = counts->nrows;
    return counts->rows;
}
