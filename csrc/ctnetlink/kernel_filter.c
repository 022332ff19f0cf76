/* What the kernel is asked to leave out of a dump, or to flush. */
#include "ctnetlink.h"

#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>

/* Newer than the oldest headers that this must build with. */
enum { STATUS_MASK = 26 };
/* Not in the kernel's public headers; FILTER_ZONE is newer as well. */
enum { FILTER_ORIG_FLAGS = 1, FILTER_ZONE = 3 };

/* The kernel's number of each tuple field that it filters by correctly. */
static const uint8_t tuple_flags[] = {
    [NLCT_TUPLE_SRC] = 0,   [NLCT_TUPLE_DST] = 1,   [NLCT_TUPLE_PROTO] = 3,
    [NLCT_TUPLE_SPORT] = 4, [NLCT_TUPLE_DPORT] = 5,
};

void kernel_filter_put_zone(struct message *message, uint16_t zone, enum nlct_zone_request request)
{
    size_t nest;

    message_put_number(message, CTA_ZONE, zone, 2);
    if (request != NLCT_ZONE_EXPLICIT)
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

bool kernel_filter_is_zone(const struct view *view, uint16_t zone, enum nlct_zone_request request)
{
    uint32_t wanted = 1U << CTA_ZONE;

    if (request == NLCT_ZONE_EXPLICIT)
        wanted |= 1U << CTA_FILTER;
    if (view->present != wanted || view->unknown || view_zone(view) != zone)
        return false;
    return request == NLCT_ZONE_PLAIN ||
           is_flag(wire_nest(view_attr(view, CTA_FILTER)), FILTER_ZONE);
}

/* Of the protocols with ports, kernels compare only the ports of these two. */
static bool is_compared_by_port(const struct nlct_tuple *tuple)
{
    return has(tuple->present, NLCT_TUPLE_PROTO) &&
           (tuple->proto == IPPROTO_TCP || tuple->proto == IPPROTO_UDP);
}

/* Every kernel so far filters by IPv6 addresses the wrong way round. */
static uint64_t safe_fields(const struct nlct_tuple *tuple)
{
    const uint64_t addresses = bit(NLCT_TUPLE_SRC) | bit(NLCT_TUPLE_DST);
    const uint64_t ports = bit(NLCT_TUPLE_SPORT) | bit(NLCT_TUPLE_DPORT);
    uint64_t safe = tuple->present & (addresses | ports | bit(NLCT_TUPLE_PROTO));

    if (tuple->family != AF_INET)
        safe &= ~addresses;
    if (!is_compared_by_port(tuple))
        safe &= ~ports;
    return safe;
}

static void put_tuple(struct message *message, const struct nlct_tuple *tuple)
{
    struct nlct_tuple asked = *tuple;
    uint32_t flags = 0;
    unsigned field;
    size_t nest;

    asked.present = safe_fields(tuple);
    if (!asked.present)
        return;
    for (field = 0; field < sizeof(tuple_flags); field++)
        if (has(asked.present, field))
            flags |= 1U << tuple_flags[field];
    flow_put_tuple(message, CTA_TUPLE_ORIG, &asked);
    nest = message_nest_begin(message, CTA_FILTER);
    message_put(message, FILTER_ORIG_FLAGS, &flags, sizeof(flags));
    message_nest_end(message, nest);
}

void kernel_filter_put(struct message *message, const struct nlct_kernel_filter *kernel_filter)
{
    if (kernel_filter->mark_mask) {
        message_put_number(message, CTA_MARK, kernel_filter->mark, 4);
        message_put_number(message, CTA_MARK_MASK, kernel_filter->mark_mask, 4);
    }
    if (kernel_filter->status_mask) {
        message_put_number(message, CTA_STATUS, kernel_filter->status, 4);
        message_put_number(message, STATUS_MASK, kernel_filter->status_mask, 4);
    }
    if (kernel_filter->zone_request)
        kernel_filter_put_zone(message, kernel_filter->zone, kernel_filter->zone_request);
    /* One CTA_FILTER a request; and a tuple needs the family. */
    if (kernel_filter->zone_request != NLCT_ZONE_EXPLICIT && kernel_filter->family)
        put_tuple(message, &kernel_filter->orig);
}
