/* What a listener remembers of flows. */
#include "sinks.h"

int nlct_mirror_new(struct nlct_mirror **mirror, bool addresses)
{
    (void)mirror, (void)addresses;
    return -ENOSYS;
}

void nlct_mirror_free(struct nlct_mirror **mirror)
{
    (void)mirror;
}

int nlct_feed_new(struct nlct_sink **sink, struct nlct_mirror *mirror)
{
    (void)sink, (void)mirror;
    return -ENOSYS;
}

int nlct_mirror_add(struct nlct_mirror *mirror, const struct nlct_flow *flow)
{
    (void)mirror, (void)flow;
    return -ENOSYS;
}

int nlct_mirror_remove(struct nlct_mirror *mirror, const struct nlct_flow *flow)
{
    (void)mirror, (void)flow;
    return -ENOSYS;
}

int nlct_mirror_has(const struct nlct_mirror *mirror, const struct nlct_flow *flow)
{
    (void)mirror, (void)flow;
    return -ENOSYS;
}

void nlct_mirror_counters(const struct nlct_mirror *mirror, struct nlct_mirror_counters *counters)
{
    (void)mirror, (void)counters;
}

size_t nlct_mirror_bytes(const struct nlct_mirror *mirror)
{
    (void)mirror;
    return 0;
}

void nlct_mirror_round_begin(struct nlct_mirror *mirror, enum nlct_round round)
{
    (void)mirror, (void)round;
}

int nlct_mirror_round_end(struct nlct_mirror *mirror, size_t limit)
{
    (void)mirror, (void)limit;
    return -ENOSYS;
}

void nlct_mirror_round_drop(struct nlct_mirror *mirror)
{
    (void)mirror;
}

int nlct_audit_new(struct nlct_sink **sink, struct nlct_mirror *mirror, struct nlct_flow *rows,
                   size_t capacity)
{
    (void)sink, (void)mirror, (void)rows, (void)capacity;
    return -ENOSYS;
}

size_t nlct_audit_take(struct nlct_sink *sink)
{
    (void)sink;
    return 0;
}

int64_t nlct_mirror_count(const struct nlct_mirror *mirror, const struct nlct_list *list)
{
    (void)mirror, (void)list;
    return -ENOSYS;
}

int nlct_mirror_lists(const struct nlct_mirror *mirror, enum nlct_list_kind kind, uint32_t *at,
                      struct nlct_count *counts, size_t capacity)
{
    (void)mirror, (void)kind, (void)at, (void)counts, (void)capacity;
    return -ENOSYS;
}

int nlct_walk_new(struct nlct_walk **walk, struct nlct_mirror *mirror, const struct nlct_list *list)
{
    (void)walk, (void)mirror, (void)list;
    return -ENOSYS;
}

void nlct_walk_free(struct nlct_walk **walk)
{
    (void)walk;
}

int nlct_walk_rows(struct nlct_walk *walk, const struct nlct_filter *filter, struct nlct_flow *rows,
                   size_t capacity, size_t *count)
{
    (void)walk, (void)filter, (void)rows, (void)capacity, (void)count;
    return -ENOSYS;
}
