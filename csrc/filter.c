/* Does a message match? Evaluated on its attributes, before anything is decoded. */
#include "core.h"

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
