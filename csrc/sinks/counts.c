/* Sink: counts the flows that have the same values in one or two fields. */
#include "sinks.h"

#include <linux/netfilter/nfnetlink_conntrack.h>
#include <stdlib.h>

enum { FIRST_SLOTS = 1024 };

/* Slots hold the number of a group plus one, so that zero is empty. */
struct groups {
    struct nlct_sink sink;
    const struct field *fields[2];
    size_t nfields;
    struct nlct_count *groups;
    size_t count;
    size_t capacity;
    uint32_t *slots;
    size_t mask;
    struct hash_key key;
};

static uint64_t hash_group(const struct groups *groups, const struct nlct_count *group)
{
    const uint64_t last =
        (uint64_t)group->family << 16 | (uint64_t)group->present[0] << 8 | group->present[1];
    uint64_t words[4];
    size_t count = 0;
    size_t i;

    for (i = 0; i < groups->nfields; i++) {
        const size_t size = groups->fields[i]->public.size > sizeof(words[0]) ? 16 : 8;

        memcpy(words + count, group->values[i], size);
        count += size / sizeof(words[0]);
    }
    return hash_words(&groups->key, words, count, last, 3);
}

static bool same(const struct nlct_count *a, const struct nlct_count *b)
{
    return memcmp(a->values, b->values, sizeof(a->values)) == 0 &&
           memcmp(a->present, b->present, sizeof(a->present)) == 0 && a->family == b->family;
}

/* The slot of this group, or the empty one where it would be. */
static uint32_t *find(const struct groups *groups, const struct nlct_count *wanted)
{
    size_t slot = hash_group(groups, wanted) & groups->mask;

    while (groups->slots[slot] && !same(&groups->groups[groups->slots[slot] - 1], wanted))
        slot = (slot + 1) & groups->mask;
    return &groups->slots[slot];
}

/* Twice the room: never more than half of the slots are in use. */
static int grow(struct groups *groups)
{
    const size_t slots = groups->mask ? (groups->mask + 1) * 2 : FIRST_SLOTS;
    struct nlct_count *grown = realloc(groups->groups, slots / 2 * sizeof(*grown));
    uint32_t *fresh = calloc(slots, sizeof(*fresh));
    uint32_t i;
    int rc = groups->mask ? 0 : hash_key_new(&groups->key);

    if (grown)
        groups->groups = grown;
    if (!grown || !fresh || slots > UINT32_MAX)
        rc = -ENOMEM;
    if (rc < 0) {
        free(fresh);
        return rc;
    }
    free(groups->slots);
    groups->slots = fresh;
    groups->mask = slots - 1;
    groups->capacity = slots / 2;
    for (i = 0; i < groups->count; i++)
        *find(groups, &groups->groups[i]) = i + 1;
    return 0;
}

/* The most common field, which takes no decoding. */
static int set_zone(struct nlct_count *group, size_t which, const struct view *view)
{
    const int zone = view_zone(view);
    const uint16_t value = (uint16_t)zone;

    if (zone < 0)
        return zone;
    group->present[which] = 1;
    memcpy(group->values[which], &value, sizeof(value));
    return 0;
}

static int set_value(struct nlct_count *group, size_t which, const struct field *field,
                     struct view *view)
{
    int rc;

    if (field->attr == CTA_ZONE)
        return set_zone(group, which, view);
    rc = view_decode(view, field);
    if (rc < 0 || (field->attr && !flow_has(&view->flow, field)))
        return rc;
    group->present[which] = 1;
    memcpy(group->values[which], flow_value(&view->flow, field), field->public.size);
    if (field->public.kind == NLCT_ADDRESS)
        group->family = view->family;
    return 0;
}

static int take(struct nlct_sink *sink, struct view *view)
{
    struct groups *groups = (struct groups *)sink;
    struct nlct_count group = {0};
    uint32_t *slot;
    size_t i;
    int rc = 0;

    for (i = 0; i < groups->nfields && rc == 0; i++)
        rc = set_value(&group, i, groups->fields[i], view);
    if (rc == 0 && groups->count == groups->capacity)
        rc = grow(groups);
    if (rc < 0)
        return rc;
    slot = find(groups, &group);
    if (!*slot) {
        groups->groups[groups->count++] = group;
        *slot = (uint32_t)groups->count;
    }
    groups->groups[*slot - 1].count++;
    return 0;
}

static void free_groups(struct nlct_sink *sink)
{
    struct groups *groups = (struct groups *)sink;

    free(groups->groups);
    free(groups->slots);
}

int nlct_counts_new(struct nlct_sink **sink, const unsigned *fields, size_t nfields)
{
    struct groups *new;
    size_t i;

    for (i = 0; i < nfields; i++)
        if (nfields > 2 || !flow_field(fields[i]) ||
            flow_field(fields[i])->public.kind == NLCT_SPAN)
            return -EINVAL;
    new = calloc(1, sizeof(*new));
    if (!new)
        return -ENOMEM;
    new->sink = (struct nlct_sink){.take = take, .free = free_groups};
    new->nfields = nfields;
    for (i = 0; i < nfields; i++)
        new->fields[i] = flow_field(fields[i]);
    *sink = &new->sink;
    return 0;
}

const struct nlct_count *nlct_counts_get(const struct nlct_sink *sink, size_t *count)
{
    const struct groups *groups = (const struct groups *)sink;

    *count = groups->count;
    return groups->groups;
}
