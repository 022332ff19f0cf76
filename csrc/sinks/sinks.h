/*
 * What takes the flows of a dump, without a socket. Each kind is a file, declared in nlct.h; the
 * room above sees only what they have in common.
 */
#ifndef NLCT_SINKS_H
#define NLCT_SINKS_H

#include "../flow/flow.h"

struct nlct_sink {
    /* Takes a flow. Returns 0, 1 if it is full and wants this flow again, or -errno. */
    int (*take)(struct nlct_sink *sink, struct view *view);
    /* The table has ended. May be NULL. */
    int (*finish)(struct nlct_sink *sink);
    /* Frees what the sink owns, but not the sink itself. May be NULL. */
    void (*free)(struct nlct_sink *sink);
};

/* walk.c -------------------------------------------------------------------------------------- */

/* Does as nlct_walk_rows(), and tells the place of each row's flow in the mirror, which is good
   until that flow is removed. 'places' may be NULL. */
int walk_rows(struct nlct_walk *walk, const struct nlct_filter *filter, struct nlct_flow *rows,
              uint32_t *places, size_t capacity, size_t *count);

/* Removes the flow at a place, whose delete the kernel has acknowledged. Returns 0, or -ENOMEM if
   it left no tombstone. */
int walk_deleted(struct nlct_walk *walk, uint32_t place);

#endif
