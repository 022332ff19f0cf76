/*
 * What the files of a mirror share: tables that grow by a little at a time, and the flows in them.
 */
#ifndef NLCT_INDEX_H
#define NLCT_INDEX_H

#include "sinks.h"

#include <linux/netfilter/nfnetlink_conntrack.h>
#include <sys/socket.h>

/* table.c: items that are found by a hash ------------------------------------------------------ */

/* Opens every item. A place counts from 1; 0 is none. */
struct item {
    uint32_t hash;
    uint32_t next; /* the place of the next item of its bucket, or of the next free place */
};

/* Places lie in segments, which never move: a pointer to an item is good until it is removed. There
   are as many buckets as places; the heads of a segment's buckets lie behind its places. A new
   place splits one bucket (linear hashing), so that no insert works on more than that. What is
   removed leaves a free place; memory is kept. */
struct table {
    size_t size; /* of an item */
    uint8_t **segments;
    size_t nsegments;
    size_t capacity;
    uint32_t places;
    uint32_t count; /* of items */
    uint32_t free;
};

enum { SEGMENT_PLACES = 4096 };

/* The item, or what is left of one, at a place. */
static inline void *table_at(const struct table *table, uint32_t place)
{
    return table->segments[place / SEGMENT_PLACES] + place % SEGMENT_PLACES * table->size;
}

/* The first item of the bucket for 'hash', and what follows one. Look at its hash. */
uint32_t table_first(const struct table *table, uint32_t hash);

static inline uint32_t table_next(const struct table *table, uint32_t place)
{
    return ((const struct item *)table_at(table, place))->next;
}

/* Adds an item of zeros. Returns its place, or 0 if there is no memory. */
uint32_t table_add(struct table *table, uint32_t hash);

/* Removes an item, and makes it zeros. */
void table_remove(struct table *table, uint32_t place);

/* Bytes that it holds. */
size_t table_bytes(const struct table *table);

/* Leaves an empty table with items of the same size. */
void table_clear(struct table *table);

/* mirror.c: flows ------------------------------------------------------------------------------ */

/* What makes a flow the same one, but for the addresses of its original tuple. It has no padding,
   to be compared at once. */
struct label {
    uint32_t id;
    uint32_t ends; /* ports, or what ICMP has */
    uint16_t zone;
    uint16_t present; /* of the original tuple */
    uint8_t proto;
    uint8_t family;
    uint8_t zone_in_reply; /* does the zone apply to the reply alone? */
    uint8_t zero;
};

_Static_assert(sizeof(struct label) == 16, "compared and hashed as bytes");

enum { SRC, DST, REPLY_SRC, REPLY_DST, ROLES };

/* What names a flow that is in hand. */
struct name {
    struct label label;
    uint32_t reply_ends;
    uint16_t reply_present;
    uint8_t reply_proto;
    const uint8_t *addresses[ROLES];
    uint32_t hash;
};

struct link {
    uint32_t previous;
    uint32_t next;
};

struct entry {
    struct item item;
    struct label label; /* its family is 0 in a free place */
    uint32_t reply_ends;
    uint16_t reply_present;
    uint16_t round; /* the latest that has seen it */
    uint8_t reply_proto;
    bool watched; /* a walk may stand here */
    /* A place among the addresses of its family. But where no list is kept for them, an IPv4
       address is here itself. */
    uint32_t addresses[ROLES];
    struct link links[]; /* in the list of its zone; in those of its addresses */
};

struct head {
    uint32_t first;
    uint32_t count;
};

struct address {
    struct item item;
    struct head heads[ROLES]; /* 'first' is 0 where no list is kept */
    uint8_t bytes[];          /* 4 or 16 */
};

/* The identity of a flow whose end was announced while a dump fed the mirror. */
struct tombstone {
    struct item item;
    struct label label;
    uint8_t addresses[2][16];
};

enum { ZONES = UINT16_MAX + 1 };

/* What is under way. */
enum phase { NO_ROUND, FEEDING = NLCT_ROUND_FEED, AUDITING = NLCT_ROUND_AUDIT, ENDING };

struct nlct_mirror {
    struct hash_key key;
    bool by_address; /* are there lists of addresses? */
    struct head *zones;
    uint64_t zones_in_use[ZONES / 64]; /* a bit for each that is not empty */
    struct table entries;
    struct table ipv4;
    struct table ipv6;
    struct table tombstones;
    struct nlct_walk *walks;
    enum phase phase;
    uint16_t round;     /* the latest one that began */
    uint32_t ending_at; /* the place to look at next */
    struct nlct_mirror_counters counters;
};

static inline struct entry *entry_at(const struct nlct_mirror *mirror, uint32_t place)
{
    return table_at(&mirror->entries, place);
}

/* The attributes that hold what a mirror keeps, a bit a type. */
enum {
    MIRROR_KEEPS = 1 << CTA_TUPLE_ORIG | 1 << CTA_TUPLE_REPLY | 1 << CTA_ZONE | 1 << CTA_ID,
};

/* Names a flow, which must outlive the name. Returns 0, or -EINVAL if it has no name. */
int name_flow(const struct nlct_mirror *mirror, const struct nlct_flow *flow, struct name *name);

/* The same for one that was received; -EBADMSG if it has no name. */
int name_view(const struct nlct_mirror *mirror, struct view *view, struct name *name);

/* Fills '*flow' with what the mirror keeps of it. */
void entry_read(const struct nlct_mirror *mirror, const struct entry *entry,
                struct nlct_flow *flow);

/* The place of a flow, 0 if it is not there. */
uint32_t entry_find(const struct nlct_mirror *mirror, const struct name *name);

/* Has it this reply? The id does not cover it: a flow may be born anew with the same id, translated
   to somewhere else. */
bool entry_replies(const struct nlct_mirror *mirror, uint32_t place, const struct name *name);

/* Inserts a flow that is not there. Returns 0 or -ENOMEM. */
int entry_insert(struct nlct_mirror *mirror, const struct name *name);

/* Removes the flow at a place. */
void entry_remove(struct nlct_mirror *mirror, uint32_t place);

/* The head of a list, NULL if it is empty; for every list but NLCT_LIST_ALL. */
const struct head *list_head(const struct nlct_mirror *mirror, const struct nlct_list *list);

/* Does the mirror have such a list? */
bool list_is(const struct nlct_mirror *mirror, const struct nlct_list *list);

/* feed.c --------------------------------------------------------------------------------------- */

/* While a dump feeds the mirror: notes that a flow has ended. Returns 0 or -ENOMEM. */
int bury(struct nlct_mirror *mirror, const struct name *name);

/* walk.c --------------------------------------------------------------------------------------- */

/* Moves the walks that stand on an entry to what follows it. */
void walks_leave(struct nlct_mirror *mirror, uint32_t place);

#endif
