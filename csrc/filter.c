/* Does a message match? Evaluated on its attributes, before anything is decoded. */
#include "core.h"

#include <linux/netfilter/nfnetlink_conntrack.h>

/* A flag inside CTA_FILTER; headers before its kernel do not have it. */
enum { FILTER_ZONE = 3 };

static bool has_zone(const struct nlct_filter *filter, unsigned zone)
{
    return filter->zones[zone / 8] & 1U << zone % 8;
}

int filter_match(const struct nlct_filter *filter, const struct view *view)
{
    int zone;

    if (filter->present & NLCT_FILTER_FAMILY && view->family != filter->family)
        return 0;
    if (filter->present & NLCT_FILTER_ZONE) {
        zone = view_zone(view);
        if (zone < 0)
            return zone;
        if (!has_zone(filter, (unsigned)zone))
            return 0;
    }
    return 1;
}

void filter_put_zone(struct message *message, uint16_t zone, enum nlct_zone_request ask)
{
    size_t nest;

    message_put_be16(message, CTA_ZONE, zone);
    if (ask != NLCT_ZONE_EXPLICIT)
        return;
    nest = message_nest_begin(message, CTA_FILTER);
    message_put(message, FILTER_ZONE, NULL, 0);
    message_nest_end(message, nest);
}

static bool is_flag(struct wire wire, uint16_t type)
{
    struct attr attr;

    return wire_attr(&wire, &attr) == 1 && attr.type == type && attr.size == 0 && wire.left == 0;
}

bool filter_is_zone(const struct view *view, uint16_t zone, enum nlct_zone_request ask)
{
    uint32_t wanted = 1U << CTA_ZONE;

    if (ask == NLCT_ZONE_EXPLICIT)
        wanted |= 1U << CTA_FILTER;
    if (view->present != wanted || view_zone(view) != zone)
        return false;
    return ask == NLCT_ZONE_PLAIN || is_flag(wire_nest(view_attr(view, CTA_FILTER)), FILTER_ZONE);
}

int filter_single_zone(const struct nlct_filter *filter)
{
    int found = -1;
    int byte;
    int bit;

    if (!(filter->present & NLCT_FILTER_ZONE))
        return -1;
    for (byte = 0; byte < (int)sizeof(filter->zones); byte++) {
        if (!filter->zones[byte])
            continue;
        if (found >= 0)
            return -1;
        for (bit = 0; !(filter->zones[byte] & 1 << bit); bit++)
            ;
        if (filter->zones[byte] != 1 << bit)
            return -1;
        found = byte * 8 + bit;
    }
    return found;
}
