/* Sink: a histogram of the flows by zone. */
#include "core.h"

#include <stdlib.h>

struct zones {
    struct nlct_sink sink;
    uint64_t *counts;
};

static int take(struct nlct_sink *sink, const struct view *view)
{
    struct zones *zones = (struct zones *)sink;
    int zone = view_zone(view);

    if (zone < 0)
        return zone;
    zones->counts[zone]++;
    return 0;
}

struct nlct_sink *nlct_zones_new(uint64_t *counts)
{
    struct zones *new = calloc(1, sizeof(*new));

    if (!new)
        return NULL;
    *new = (struct zones){.sink.take = take, .counts = counts};
    return &new->sink;
}
