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

#endif
