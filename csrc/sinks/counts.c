/* Sink: counts the flows that have the same values in some fields, and adds up other fields. */
#include "sinks.h"

#include <linux/netfilter/nfnetlink_conntrack.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { FIRST_SLOTS = 1024 };

enum { ADDRESS_WORDS = 2 };

/* Which bits of an address count. */
struct prefix {
    uint64_t words[ADDRESS_WORDS];
};

struct group {
    const struct field *field;
    struct prefix ipv4;
    struct prefix ipv6;
};

/* Slots hold the number of a row plus one, so that zero is empty. */
struct counts {
    struct nlct_sink sink;
    struct group groups[NLCT_GROUPS];
    size_t ngroups;
    const struct field *summed[NLCT_SUMS];
    size_t nsums;
    struct nlct_count *rows;
    struct nlct_sum *sums; /* 'nsums' a row */
    size_t nrows;
    size_t capacity;
    uint32_t *slots;
    size_t mask;
    struct hash_key key;
};

static uint64_t hash_count(const struct counts *counts, const struct nlct_count *count)
{
    uint64_t words[NLCT_GROUPS * ADDRESS_WORDS];
    uint64_t last = count->family;
    size_t nwords = 0;
    size_t i;

    for (i = 0; i < counts->ngroups; i++) {
        const size_t size = counts->groups[i].field->public.size > sizeof(words[0]) ? 16 : 8;

        memcpy(words + nwords, count->values[i], size);
        nwords += size / sizeof(words[0]);
        last = last << 8 | count->present[i];
    }
    return hash_words(&counts->key, words, nwords, last, 1 + NLCT_GROUPS);
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
    const size_t nsums = slots / 2 * counts->nsums;
    struct nlct_count *grown = realloc(counts->rows, slots / 2 * sizeof(*grown));
    struct nlct_sum *sums = nsums ? realloc(counts->sums, nsums * sizeof(*sums)) : NULL;
    uint32_t *fresh = calloc(slots, sizeof(*fresh));
    uint32_t i;
    int rc = counts->mask ? 0 : hash_key_new(&counts->key);

    if (grown)
        counts->rows = grown;
    if (sums)
        counts->sums = sums;
    if (!grown || (nsums && !sums) || !fresh || slots > UINT32_MAX)
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

static void set_address(struct nlct_count *count, size_t which, const struct group *group,
                        uint8_t family)
{
    const struct prefix *prefix = family == AF_INET ? &group->ipv4 : &group->ipv6;
    uint64_t words[ADDRESS_WORDS];
    size_t i;

    count->family = family;
    memcpy(words, count->values[which], sizeof(words));
    for (i = 0; i < ADDRESS_WORDS; i++)
        words[i] &= prefix->words[i];
    memcpy(count->values[which], words, sizeof(words));
}

static int set_value(struct nlct_count *count, size_t which, const struct group *group,
                     struct view *view)
{
    const struct field *field = group->field;
    int rc;

    if (field->attr == CTA_ZONE)
        return set_zone(count, which, view);
    rc = view_decode(view, field);
    if (rc < 0 || !flow_has(&view->flow, field))
        return rc;
    count->present[which] = 1;
    memcpy(count->values[which], flow_value(&view->flow, field), field->public.size);
    if (field->public.kind == NLCT_ADDRESS)
        set_address(count, which, group, view->family);
    return 0;
}

static struct nlct_sum *sums_of(const struct counts *counts, size_t row)
{
    return counts->sums + row * counts->nsums;
}

/* Adds the fields of a flow that are decoded. */
static void add(const struct counts *counts, struct nlct_sum *sums, const struct nlct_flow *flow)
{
    size_t i;

    for (i = 0; i < counts->nsums; i++) {
        if (flow_has(flow, counts->summed[i])) {
            const uint64_t number = flow_number(flow, counts->summed[i]);

            sums[i].low += number;
            sums[i].high += sums[i].low < number;
            sums[i].count++;
        }
    }
}

static int take(struct nlct_sink *sink, struct view *view)
{
    struct counts *counts = (struct counts *)sink;
    struct nlct_count count = {0};
    uint32_t *slot;
    size_t i;
    int rc = 0;

    for (i = 0; i < counts->ngroups && rc == 0; i++)
        rc = set_value(&count, i, &counts->groups[i], view);
    for (i = 0; i < counts->nsums && rc == 0; i++)
        rc = view_decode(view, counts->summed[i]);
    if (rc == 0 && counts->nrows == counts->capacity)
        rc = grow(counts);
    if (rc < 0)
        return rc;
    slot = find(counts, &count);
    if (!*slot) {
        if (counts->nsums)
            memset(sums_of(counts, counts->nrows), 0, counts->nsums * sizeof(*counts->sums));
        counts->rows[counts->nrows++] = count;
        *slot = (uint32_t)counts->nrows;
    }
    counts->rows[*slot - 1].count++;
    if (counts->nsums)
        add(counts, sums_of(counts, *slot - 1), &view->flow);
    return 0;
}

static void free_counts(struct nlct_sink *sink)
{
    struct counts *counts = (struct counts *)sink;

    free(counts->rows);
    free(counts->sums);
    free(counts->slots);
}

static struct prefix prefix_of(unsigned bits)
{
    uint8_t bytes[sizeof(struct prefix)] = {0};
    struct prefix prefix;
    unsigned i;

    for (i = 0; i < bits; i++)
        bytes[i / 8] |= (uint8_t)(0x80 >> i % 8);
    memcpy(&prefix, bytes, sizeof(prefix));
    return prefix;
}

static bool makes_sense(const struct nlct_group *group)
{
    const struct field *field = flow_field(group->field);

    return field && field->public.kind != NLCT_SPAN && group->ipv4 <= 32 && group->ipv6 <= 128;
}

int nlct_counts_new(struct nlct_sink **sink, const struct nlct_group *groups, size_t ngroups,
                    const unsigned *sums, size_t nsums)
{
    struct counts *new;
    size_t i;

    if (ngroups > NLCT_GROUPS || nsums > NLCT_SUMS)
        return -EINVAL;
    for (i = 0; i < ngroups; i++)
        if (!makes_sense(&groups[i]))
            return -EINVAL;
    for (i = 0; i < nsums; i++)
        if (!flow_field(sums[i]) || flow_field(sums[i])->public.kind != NLCT_NUMBER)
            return -EINVAL;
    new = calloc(1, sizeof(*new));
    if (!new)
        return -ENOMEM;
    new->sink = (struct nlct_sink){.take = take, .free = free_counts};
    new->ngroups = ngroups;
    for (i = 0; i < ngroups; i++)
        new->groups[i] = (struct group){flow_field(groups[i].field), prefix_of(groups[i].ipv4),
                                        prefix_of(groups[i].ipv6)};
    new->nsums = nsums;
    for (i = 0; i < nsums; i++)
        new->summed[i] = flow_field(sums[i]);
    *sink = &new->sink;
    return 0;
}

const struct nlct_count *nlct_counts_get(const struct nlct_sink *sink, size_t *count)
{
    const struct counts *counts = (const struct counts *)sink;

    *count = counts->nrows;
    return counts->rows;
}

const struct nlct_sum *nlct_counts_sums(const struct nlct_sink *sink)
{
    return ((const struct counts *)sink)->sums;
}
