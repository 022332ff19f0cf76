/*
 * Translation (NAT), both ways.
 *
 * A flow is translated if its reply is not the reverse of its original tuple. The kernel sets that
 * up by itself: a request holds the reverse, and what the reply's destination (for source NAT) and
 * its source (for destination NAT) shall become.
 */
#include "flow.h"

#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>

static size_t address_size(uint8_t family)
{
    return family == AF_INET ? 4 : 16;
}

/* The field that holds the port: that of the destination for source NAT. */
static unsigned port_of(const struct nlct_tuple *reply, bool src)
{
    if (has(reply->present, NLCT_TUPLE_ICMP_ID))
        return NLCT_TUPLE_ICMP_ID;
    return src ? NLCT_TUPLE_DPORT : NLCT_TUPLE_SPORT;
}

static uint16_t *port_value(struct nlct_tuple *tuple, unsigned port)
{
    if (port == NLCT_TUPLE_ICMP_ID)
        return &tuple->icmp_id;
    return port == NLCT_TUPLE_DPORT ? &tuple->dport : &tuple->sport;
}

void nat_put(struct message *message, uint16_t type, struct nlct_tuple reply)
{
    const bool src = type == CTA_NAT_SRC;
    const unsigned port = port_of(&reply, src);
    const size_t nest = message_nest_begin(message, type);

    message_put(message, reply.family == AF_INET ? CTA_NAT_V4_MINIP : CTA_NAT_V6_MINIP,
                src ? reply.dst : reply.src, address_size(reply.family));
    if (has(reply.present, port)) {
        const size_t proto = message_nest_begin(message, CTA_NAT_PROTO);

        message_put_number(message, CTA_PROTONAT_PORT_MIN, *port_value(&reply, port), 2);
        message_nest_end(message, proto);
    }
    message_nest_end(message, nest);
}

bool nat_apply(struct nlct_tuple *reply, uint16_t type, struct translation to)
{
    const bool src = type == CTA_NAT_SRC;
    const unsigned port = port_of(reply, src);
    bool known = true;

    if (has(to.present, TO_ADDRESS) && has(reply->present, src ? NLCT_TUPLE_DST : NLCT_TUPLE_SRC))
        memcpy(src ? reply->dst : reply->src, to.address, sizeof(to.address));
    else if (has(to.present, TO_ADDRESS))
        known = false;
    if (has(to.present, TO_PORT) && has(reply->present, port))
        *port_value(reply, port) = to.port;
    else if (has(to.present, TO_PORT))
        known = false;
    return known;
}
