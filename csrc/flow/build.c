/* Flow -> message: what names a flow, what changes it, what makes it. */
#include "attributes.h"

#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>

_Static_assert(NLCT_TCP_FLAGS == (IP_CT_TCP_FLAG_WINDOW_SCALE | IP_CT_TCP_FLAG_SACK_PERM |
                                  IP_CT_TCP_FLAG_BE_LIBERAL),
               "what a client may mean");

/* Attributes ---------------------------------------------------------------------------------- */

static void put_span(struct message *message, uint16_t type, const void *value,
                     const uint8_t *bytes)
{
    struct nlct_span span;

    memcpy(&span, value, sizeof(span));
    if (bytes)
        message_put(message, type, bytes + span.at, span.size);
}

static void put_value(struct message *message, uint16_t type, const struct rule *rule,
                      const uint8_t *from, const uint8_t *bytes)
{
    const uint8_t flags[2] = {*from & NLCT_TCP_FLAGS, NLCT_TCP_FLAGS};

    switch (rule->kind) {
    case NUMBER:
        message_put_number(message, type, number_read(from, rule->size), rule->size);
        break;
    case FLAGS:
        message_put(message, type, flags, sizeof(flags));
        break;
    case TEXT:
        message_put(message, type, from, strnlen((const char *)from, rule->size - 1U) + 1);
        break;
    case SPAN:
        put_span(message, type, from, bytes);
        break;
    default:
        message_put(message, type, from, rule->size);
    }
}

/* Is the attribute one of those to put? 'fields': bits of the fields to put from 'base'. */
static bool is_wanted(const struct rule *rule, uint8_t family, const void *base, uint64_t fields)
{
    if (rule->kind == UNKNOWN || rule->kind == PADDING || rule->kind == NAT)
        return false;
    if (rule->family && rule->family != family)
        return false;
    if (rule->proto && rule->proto != ((const struct nlct_tuple *)base)->proto)
        return false;
    return rule->kind == NEST || has(fields, rule->bit);
}

void table_put(struct message *message, const struct table *table, uint8_t family, const void *base,
               uint64_t wanted, const uint8_t *bytes)
{
    uint64_t present;
    uint16_t type;

    memcpy(&present, base, sizeof(present));
    for (type = 0; type < table->count; type++) {
        const struct rule *rule = &table->rules[type];
        const uint8_t *from = (const uint8_t *)base + rule->offset;
        size_t nest;

        if (!is_wanted(rule, family, base, present & wanted))
            continue;
        switch (rule->kind) {
        case NEST:
            nest = message_nest_begin(message, type);
            table_put(message, rule->nest, family, base, wanted, bytes);
            message_nest_end_full(message, nest);
            break;
        case TUPLE:
            nest = message_nest_begin(message, type);
            table_put(message, rule->nest, family, from, UINT64_MAX, bytes);
            message_nest_end(message, nest);
            break;
        default:
            put_value(message, type, rule, from, bytes);
        }
    }
}

/* Requests ------------------------------------------------------------------------------------ */

/* The zone of one direction is in its tuple, any other belongs to the whole flow. Kernels without
   zones refuse the attribute; without it every kernel takes zone 0. */
static uint64_t zone_bit(const struct nlct_flow *flow)
{
    const bool own =
        has(flow->orig.present, NLCT_TUPLE_ZONE) ||
        (has(flow->present, NLCT_FLOW_REPLY) && has(flow->reply.present, NLCT_TUPLE_ZONE));

    return own || !flow->zone ? 0 : bit(NLCT_FLOW_ZONE);
}

static void put_tuple(struct message *message, uint16_t type, uint8_t family,
                      const struct nlct_tuple *tuple)
{
    const size_t nest = message_nest_begin(message, type);

    table_put(message, &tuple_table, family, tuple, UINT64_MAX, NULL);
    message_nest_end(message, nest);
}

void flow_put_tuple(struct message *message, uint16_t type, const struct nlct_tuple *tuple)
{
    put_tuple(message, type, tuple->family, tuple);
}

void flow_put_key(struct message *message, const struct nlct_flow *flow, uint16_t type)
{
    const bool orig = type == CTA_TUPLE_ORIG;

    if (has(flow->present, orig ? NLCT_FLOW_ORIG : NLCT_FLOW_REPLY))
        put_tuple(message, type, flow->family, orig ? &flow->orig : &flow->reply);
    if (flow->present & zone_bit(flow))
        message_put_number(message, CTA_ZONE, flow->zone, 2);
}

/* Every flow in the table is confirmed; the kernel refuses to make one that is not. */
static void confirm(struct nlct_flow *flow)
{
    if (has(flow->present, NLCT_FLOW_STATUS))
        flow->status |= IPS_CONFIRMED;
}

void flow_put_update(struct message *message, const struct nlct_flow *flow, const uint8_t *bytes)
{
    struct nlct_flow whole = *flow;

    confirm(&whole);
    table_put(message, &flow_table, flow->family, &whole,
              flow_settable | bit(NLCT_FLOW_ORIG) | zone_bit(flow), bytes);
}

static uint8_t reverse_icmp(uint8_t proto, uint8_t type)
{
    static const uint8_t pairs[][3] = {
        {IPPROTO_ICMP, 8, 0},       /* echo */
        {IPPROTO_ICMP, 13, 14},     /* timestamp */
        {IPPROTO_ICMP, 15, 16},     /* information */
        {IPPROTO_ICMP, 17, 18},     /* address mask */
        {IPPROTO_ICMPV6, 128, 129}, /* echo */
        {IPPROTO_ICMPV6, 139, 140}, /* node information */
    };
    size_t i;

    for (i = 0; i < COUNT(pairs); i++) {
        if (pairs[i][0] != proto)
            continue;
        if (pairs[i][1] == type)
            return pairs[i][2];
        if (pairs[i][2] == type)
            return pairs[i][1];
    }
    return type;
}

static uint64_t moved(uint64_t present, unsigned from, unsigned to)
{
    return has(present, from) ? bit(to) : 0;
}

void flow_reverse(const struct nlct_flow *flow, struct nlct_tuple *reply)
{
    const struct nlct_tuple *orig = &flow->orig;
    const uint64_t turned = bit(NLCT_TUPLE_SRC) | bit(NLCT_TUPLE_DST) | bit(NLCT_TUPLE_SPORT) |
                            bit(NLCT_TUPLE_DPORT) | bit(NLCT_TUPLE_ZONE);

    *reply = *orig;
    reply->present = (orig->present & ~turned) |
                     moved(orig->present, NLCT_TUPLE_SRC, NLCT_TUPLE_DST) |
                     moved(orig->present, NLCT_TUPLE_DST, NLCT_TUPLE_SRC) |
                     moved(orig->present, NLCT_TUPLE_SPORT, NLCT_TUPLE_DPORT) |
                     moved(orig->present, NLCT_TUPLE_DPORT, NLCT_TUPLE_SPORT);
    memcpy(reply->src, orig->dst, sizeof(reply->src));
    memcpy(reply->dst, orig->src, sizeof(reply->dst));
    reply->sport = orig->dport;
    reply->dport = orig->sport;
    reply->zone = 0;
    reply->icmp_type = reverse_icmp(orig->proto, orig->icmp_type);
}

/* The reply for the kernel, before NAT: the reverse, in the reply's own zone. */
static void plain_reply(const struct nlct_flow *flow, struct nlct_tuple *reply)
{
    flow_reverse(flow, reply);
    if (has(flow->present, NLCT_FLOW_REPLY) && has(flow->reply.present, NLCT_TUPLE_ZONE)) {
        reply->present |= bit(NLCT_TUPLE_ZONE);
        reply->zone = flow->reply.zone;
    }
}

/* The bits of NAT in the status. */
static uint32_t nat_of(const struct nlct_flow *flow)
{
    return has(flow->present, NLCT_FLOW_STATUS) ? flow->status & IPS_NAT_MASK : 0;
}

/* Does the reply say what the flow is translated to? */
static bool has_translation(const struct nlct_flow *flow)
{
    const uint64_t addresses = bit(NLCT_TUPLE_SRC) | bit(NLCT_TUPLE_DST);

    return has(flow->present, NLCT_FLOW_REPLY) && (flow->reply.present & addresses) == addresses;
}

bool tuple_has_ports(uint8_t proto)
{
    return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_GRE ||
           proto == IPPROTO_SCTP || proto == IPPROTO_DCCP || proto == IPPROTO_UDPLITE;
}

bool master_crashes(uint8_t proto)
{
    return proto == IPPROTO_GRE;
}

/* A zero is no loss: a table may have it in every row. */
static bool tuple_fits(const struct nlct_tuple *tuple, uint8_t proto)
{
    const bool icmp = proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6;

    if ((tuple->sport || tuple->dport) && !tuple_has_ports(proto))
        return false;
    return icmp || !(tuple->icmp_id || tuple->icmp_type || tuple->icmp_code);
}

/* Would the kernel keep all of a new flow? It silently drops values of another protocol and, with a
   timeout of 0, the flow itself. */
static bool flow_fits(const struct nlct_flow *flow)
{
    const uint8_t proto = flow->orig.proto;
    /* With NAT the reply need not say its protocol. */
    const bool own = has(flow->reply.present, NLCT_TUPLE_PROTO);

    if (has(flow->present, NLCT_FLOW_TIMEOUT) && !flow->timeout)
        return false;
    return tuple_fits(&flow->orig, proto) &&
           tuple_fits(&flow->reply, own ? flow->reply.proto : proto) && flow_suits(flow, proto);
}

int nlct_flow_build(const struct nlct_flow *flow, const uint8_t *bytes, void *buffer,
                    size_t capacity)
{
    const uint32_t nat = nat_of(flow);
    struct nlct_flow whole = *flow;
    struct message message;

    if (!has(flow->present, NLCT_FLOW_ORIG))
        return -EINVAL;
    if (flow->family != AF_INET && flow->family != AF_INET6)
        return -EINVAL;
    if (nat && !has_translation(flow))
        return -EINVAL;
    confirm(&whole);
    if (nat || !has(flow->present, NLCT_FLOW_REPLY))
        plain_reply(flow, &whole.reply);
    whole.present |= bit(NLCT_FLOW_REPLY);
    /* The kernel itself sets this for a flow with a master. */
    if (has(flow->present, NLCT_FLOW_MASTER))
        whole.status &= ~(uint32_t)IPS_EXPECTED;
    message_begin(&message, buffer, capacity,
                  message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW),
                  NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL, flow->family);
    table_put(&message, &flow_table, flow->family, &whole,
              flow_settable | bit(NLCT_FLOW_ORIG) | bit(NLCT_FLOW_REPLY) | bit(NLCT_FLOW_MASTER) |
                  zone_bit(flow),
              bytes);
    /* Without this the kernel would choose another source port if the reply is taken. */
    if (nat)
        nat_put(&message, CTA_NAT_SRC, flow->reply);
    if (nat & IPS_DST_NAT)
        nat_put(&message, CTA_NAT_DST, flow->reply);
    return message_end(&message);
}

bool flow_is_in_range(const struct nlct_flow *flow)
{
    return flow->tcp_wscale_orig <= NLCT_WSCALE_MAX && flow->tcp_wscale_reply <= NLCT_WSCALE_MAX &&
           flow->sctp_state <= NLCT_SCTP_STATE_MAX;
}

int flow_create_request(const struct nlct_flow *flow, const uint8_t *bytes, void *buffer,
                        size_t capacity)
{
    struct nlct_flow without;

    if (!flow_fits(flow))
        return -EINVAL;
    if (!flow_is_in_range(flow))
        return -ERANGE;
    if (has(flow->present, NLCT_FLOW_MASTER) && master_crashes(flow->orig.proto))
        return -EOPNOTSUPP;
    if (!has(flow->present, NLCT_FLOW_HELPER_INFO))
        return nlct_flow_build(flow, bytes, buffer, capacity);
    without = *flow;
    without.present &= ~bit(NLCT_FLOW_HELPER_INFO);
    return nlct_flow_build(&without, bytes, buffer, capacity);
}
