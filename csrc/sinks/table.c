/* Items that are found by a hash, in a table that grows by a little at a time. */
#include "index.h"

#include <stdlib.h>

/* The bucket for 'hash' among so many: they are numbered by the lower bits of the hash, and those
   of the upper half that are not there yet are still part of the lower half's. */
static uint32_t bucket_of(uint32_t hash, uint32_t buckets)
{
    const uint32_t top = UINT32_MAX >> __builtin_clz(buckets | 1);
    const uint32_t bucket = hash & top;

    return bucket < buckets ? bucket : bucket & top >> 1;
}

static uint32_t *bucket_at(const struct table *table, uint32_t bucket)
{
    void *heads = table->segments[bucket / SEGMENT_PLACES] + SEGMENT_PLACES * table->size;

    return (uint32_t *)heads + bucket % SEGMENT_PLACES;
}

static uint32_t *head_of(const struct table *table, uint32_t hash)
{
    return bucket_at(table, bucket_of(hash, table->places));
}

uint32_t table_first(const struct table *table, uint32_t hash)
{
    return table->places ? *head_of(table, hash) : 0;
}

/* Moves the items of the newest bucket out of that which they were in. */
static void split(struct table *table)
{
    const uint32_t newest = table->places - 1;
    uint32_t *to = bucket_at(table, newest);
    uint32_t *from;

    if (!newest)
        return;
    from = bucket_at(table, newest ^ 1U << (31 - __builtin_clz(newest)));
    while (*from) {
        const uint32_t place = *from;
        struct item *item = table_at(table, place);

        if (bucket_of(item->hash, table->places) == newest) {
            *from = item->next;
            item->next = *to;
            *to = place;
        } else {
            from = &item->next;
        }
    }
}

static int add_segment(struct table *table)
{
    uint8_t *segment;

    if (table->nsegments == table->capacity) {
        const size_t capacity = table->capacity ? table->capacity * 2 : 8;
        uint8_t **grown = realloc(table->segments, capacity * sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        table->segments = grown;
        table->capacity = capacity;
    }
    segment = calloc(SEGMENT_PLACES, table->size + sizeof(uint32_t));
    if (!segment)
        return -ENOMEM;
    table->segments[table->nsegments++] = segment;
    return 0;
}

/* Returns a place that was never used, with its bucket, or 0. */
static uint32_t new_place(struct table *table)
{
    /* Place 0 is none. */
    if (table->places == UINT32_MAX - 1)
        return 0;
    if ((table->places + 1) / SEGMENT_PLACES >= table->nsegments && add_segment(table) < 0)
        return 0;
    table->places++;
    split(table);
    return table->places;
}

uint32_t table_add(struct table *table, uint32_t hash)
{
    const uint32_t place = table->free ? table->free : new_place(table);
    struct item *item;
    uint32_t *head;

    if (!place)
        return 0;
    item = table_at(table, place);
    if (place == table->free)
        table->free = item->next;
    head = head_of(table, hash);
    item->hash = hash;
    item->next = *head;
    *head = place;
    table->count++;
    return place;
}

void table_remove(struct table *table, uint32_t place)
{
    struct item *item = table_at(table, place);
    uint32_t *at = head_of(table, item->hash);

    while (*at != place)
        at = &((struct item *)table_at(table, *at))->next;
    *at = item->next;
    memset(item + 1, 0, table->size - sizeof(*item));
    item->next = table->free;
    table->free = place;
    table->count--;
}

size_t table_bytes(const struct table *table)
{
    return table->nsegments * SEGMENT_PLACES * (table->size + sizeof(uint32_t)) +
           table->capacity * sizeof(*table->segments);
}

void table_clear(struct table *table)
{
    const size_t size = table->size;

    while (table->nsegments)
        free(table->segments[--table->nsegments]);
    free(table->segments);
    *table = (struct table){.size = size};
}
