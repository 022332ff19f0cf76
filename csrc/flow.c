/* The attributes of a flow, by tables, both ways: message -> struct nlct_flow -> message. */
#include "core.h"

#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>

enum kind { SKIP, NUMBER, BYTES, NEST, TUPLE };

/* What to do with an attribute of one type. */
struct rule {
    uint8_t kind;
    uint8_t family; /* the only family it belongs to; 0 for any */
    uint16_t size;
    uint16_t offset; /* in the struct of its table */
    uint32_t bit;    /* in the 'present' that opens that struct */
    const struct table *nest;
    uint8_t proto; /* written only for this protocol of the tuple; 0 for any */
};

struct table {
    const struct rule *rules;
    unsigned count;
};

#define TABLE(rules_)                                                                              \
    {                                                                                              \
        rules_, sizeof(rules_) / sizeof((rules_)[0])                                               \
    }
#define IN_TUPLE(member)                                                                           \
    .size = sizeof(((struct nlct_tuple *)0)->member), .offset = offsetof(struct nlct_tuple, member)
#define IN_FLOW(member)                                                                            \
    .size = sizeof(((struct nlct_flow *)0)->member), .offset = offsetof(struct nlct_flow, member)

_Static_assert(offsetof(struct nlct_tuple, present) == 0, "'present' opens a tuple");
_Static_assert(offsetof(struct nlct_flow, present) == 0, "'present' opens a flow");

static const struct rule ip_rules[] = {
    [CTA_IP_V4_SRC] = {BYTES, AF_INET, 4, offsetof(struct nlct_tuple, src), .bit = NLCT_TUPLE_SRC},
    [CTA_IP_V4_DST] = {BYTES, AF_INET, 4, offsetof(struct nlct_tuple, dst), .bit = NLCT_TUPLE_DST},
    [CTA_IP_V6_SRC] = {BYTES, AF_INET6, IN_TUPLE(src), .bit = NLCT_TUPLE_SRC},
    [CTA_IP_V6_DST] = {BYTES, AF_INET6, IN_TUPLE(dst), .bit = NLCT_TUPLE_DST},
};
static const struct table ip_table = TABLE(ip_rules);

/* Which of the two sets of attributes is used follows from the protocol, not from the family. */
#define ICMP(member_, bit_)                                                                        \
    {                                                                                              \
        NUMBER, 0, IN_TUPLE(member_), .bit = bit_, .proto = IPPROTO_ICMP                           \
    }
#define ICMPV6(member_, bit_)                                                                      \
    {                                                                                              \
        NUMBER, 0, IN_TUPLE(member_), .bit = bit_, .proto = IPPROTO_ICMPV6                         \
    }

static const struct rule proto_rules[] = {
    [CTA_PROTO_NUM] = {NUMBER, 0, IN_TUPLE(proto), .bit = NLCT_TUPLE_PROTO},
    [CTA_PROTO_SRC_PORT] = {NUMBER, 0, IN_TUPLE(sport), .bit = NLCT_TUPLE_SPORT},
    [CTA_PROTO_DST_PORT] = {NUMBER, 0, IN_TUPLE(dport), .bit = NLCT_TUPLE_DPORT},
    [CTA_PROTO_ICMP_ID] = ICMP(icmp_id, NLCT_TUPLE_ICMP_ID),
    [CTA_PROTO_ICMP_TYPE] = ICMP(icmp_type, NLCT_TUPLE_ICMP_TYPE),
    [CTA_PROTO_ICMP_CODE] = ICMP(icmp_code, NLCT_TUPLE_ICMP_CODE),
    [CTA_PROTO_ICMPV6_ID] = ICMPV6(icmp_id, NLCT_TUPLE_ICMP_ID),
    [CTA_PROTO_ICMPV6_TYPE] = ICMPV6(icmp_type, NLCT_TUPLE_ICMP_TYPE),
    [CTA_PROTO_ICMPV6_CODE] = ICMPV6(icmp_code, NLCT_TUPLE_ICMP_CODE),
};
static const struct table proto_table = TABLE(proto_rules);

static const struct rule tuple_rules[] = {
    [CTA_TUPLE_IP] = {.kind = NEST, .nest = &ip_table},
    [CTA_TUPLE_PROTO] = {.kind = NEST, .nest = &proto_table},
    [CTA_TUPLE_ZONE] = {NUMBER, 0, IN_TUPLE(zone), .bit = NLCT_TUPLE_ZONE},
};
static const struct table tuple_table = TABLE(tuple_rules);

static const struct rule flow_rules[] = {
    [CTA_TUPLE_ORIG] = {TUPLE, 0, IN_FLOW(orig), NLCT_FLOW_ORIG, &tuple_table},
    [CTA_TUPLE_REPLY] = {TUPLE, 0, IN_FLOW(reply), NLCT_FLOW_REPLY, &tuple_table},
    [CTA_ZONE] = {NUMBER, 0, IN_FLOW(zone), .bit = NLCT_FLOW_ZONE},
    [CTA_STATUS] = {NUMBER, 0, IN_FLOW(status), .bit = NLCT_FLOW_STATUS},
    [CTA_TIMEOUT] = {NUMBER, 0, IN_FLOW(timeout), .bit = NLCT_FLOW_TIMEOUT},
    [CTA_MARK] = {NUMBER, 0, IN_FLOW(mark), .bit = NLCT_FLOW_MARK},
    [CTA_ID] = {NUMBER, 0, IN_FLOW(id), .bit = NLCT_FLOW_ID},
    [CTA_USE] = {NUMBER, 0, IN_FLOW(use), .bit = NLCT_FLOW_USE},
};
static const struct table flow_table = TABLE(flow_rules);

/* decode() keeps a bit a type. */
#define FITS(rules_) _Static_assert(sizeof(rules_) / sizeof((rules_)[0]) <= 32, "a bit a type")
FITS(ip_rules);
FITS(proto_rules);
FITS(tuple_rules);
FITS(flow_rules);

/* What a request to create may carry: the kernel alone gives a flow its id and use count. */
static const uint32_t creatable = NLCT_FLOW_ORIG | NLCT_FLOW_REPLY | NLCT_FLOW_ZONE |
                                  NLCT_FLOW_STATUS | NLCT_FLOW_TIMEOUT | NLCT_FLOW_MARK;

/* Views --------------------------------------------------------------------------------------- */

int view_parse(struct view *view, struct wire payload)
{
    struct attr attr;
    int rc;

    if (payload.left < sizeof(struct nfgenmsg))
        return -EBADMSG;
    view->family = payload.at[offsetof(struct nfgenmsg, nfgen_family)];
    view->present = 0;
    wire_skip(&payload, sizeof(struct nfgenmsg));
    while ((rc = wire_attr(&payload, &attr)) > 0) {
        if (attr.type >= VIEW_ATTRS)
            continue;
        if (view->present & 1U << attr.type)
            return -EBADMSG;
        view->present |= 1U << attr.type;
        view->attrs[attr.type] = attr;
    }
    return rc;
}

const struct attr *view_attr(const struct view *view, unsigned type)
{
    return view->present & 1U << type ? &view->attrs[type] : NULL;
}

/* The zone inside a tuple, -ENOENT when it has none, or -EBADMSG. */
static int tuple_zone(const struct view *view, unsigned type)
{
    const struct attr *tuple = view_attr(view, type);
    struct wire wire;
    struct attr attr;
    int rc;

    if (!tuple)
        return -ENOENT;
    wire = wire_nest(tuple);
    while ((rc = wire_attr(&wire, &attr)) > 0)
        if (attr.type == CTA_TUPLE_ZONE)
            return attr.size == 2 ? wire_be16(attr.data) : -EBADMSG;
    return rc ? rc : -ENOENT;
}

int view_zone(const struct view *view)
{
    const struct attr *zone = view_attr(view, CTA_ZONE);
    int rc;

    if (zone)
        return zone->size == 2 ? wire_be16(zone->data) : -EBADMSG;
    rc = tuple_zone(view, CTA_TUPLE_ORIG);
    if (rc == -ENOENT)
        rc = tuple_zone(view, CTA_TUPLE_REPLY);
    return rc == -ENOENT ? 0 : rc;
}

/* Message -> flow ----------------------------------------------------------------------------- */

static uint32_t *present_of(void *base)
{
    return base;
}

static void store(void *to, const uint8_t *data, size_t size)
{
    uint16_t two;
    uint32_t four;

    switch (size) {
    case 2:
        two = wire_be16(data);
        memcpy(to, &two, sizeof(two));
        break;
    case 4:
        four = wire_be32(data);
        memcpy(to, &four, sizeof(four));
        break;
    default:
        memcpy(to, data, size);
    }
}

static int decode(const struct table *table, struct wire wire, uint8_t family, void *base);

static int decode_attr(const struct rule *rule, const struct attr *attr, uint8_t family, void *base)
{
    uint8_t *to = (uint8_t *)base + rule->offset;

    if (rule->kind == SKIP)
        return 0;
    if (rule->kind == NEST)
        return decode(rule->nest, wire_nest(attr), family, base);
    if (rule->family && rule->family != family)
        return -EBADMSG;
    *present_of(base) |= rule->bit;
    if (rule->kind == TUPLE)
        return decode(rule->nest, wire_nest(attr), family, to);
    if (attr->size != rule->size)
        return -EBADMSG;
    if (rule->kind == NUMBER)
        store(to, attr->data, attr->size);
    else
        memcpy(to, attr->data, attr->size);
    return 0;
}

static int decode(const struct table *table, struct wire wire, uint8_t family, void *base)
{
    uint32_t seen = 0;
    struct attr attr;
    int rc;

    while ((rc = wire_attr(&wire, &attr)) > 0) {
        if (attr.type >= table->count || table->rules[attr.type].kind == SKIP)
            continue;
        if (seen & 1U << attr.type)
            return -EBADMSG;
        seen |= 1U << attr.type;
        rc = decode_attr(&table->rules[attr.type], &attr, family, base);
        if (rc < 0)
            return rc;
    }
    return rc;
}

int flow_decode(const struct view *view, struct nlct_flow *flow)
{
    unsigned type;
    int rc = 0;

    memset(flow, 0, sizeof(*flow));
    flow->family = view->family;
    for (type = 0; type < flow_table.count && rc == 0; type++) {
        const struct attr *attr = view_attr(view, type);

        if (attr)
            rc = decode_attr(&flow_rules[type], attr, view->family, flow);
    }
    return rc;
}

int nlct_flow_parse(const void *message, size_t size, struct nlct_flow *flow)
{
    struct wire wire = {message, size};
    struct nlmsghdr header;
    struct wire payload;
    struct view view;

    if (wire_message(&wire, &header, &payload) != 1 || wire.left)
        return -EBADMSG;
    if (view_parse(&view, payload) < 0)
        return -EBADMSG;
    return flow_decode(&view, flow);
}

/* Flow -> message ----------------------------------------------------------------------------- */

static void put_number(struct message *message, uint16_t type, const void *value, size_t size)
{
    uint16_t two;
    uint32_t four;

    switch (size) {
    case 2:
        memcpy(&two, value, sizeof(two));
        message_put_be16(message, type, two);
        break;
    case 4:
        memcpy(&four, value, sizeof(four));
        four = htonl(four);
        message_put(message, type, &four, sizeof(four));
        break;
    default:
        message_put(message, type, value, size);
    }
}

/* Puts what 'base' holds of 'table', as far as 'wanted' and its own 'present' say. */
static void put(struct message *message, const struct table *table, uint8_t family,
                const void *base, uint32_t wanted)
{
    uint32_t present;
    uint16_t type;

    memcpy(&present, base, sizeof(present));
    for (type = 0; type < table->count; type++) {
        const struct rule *rule = &table->rules[type];
        const uint8_t *from = (const uint8_t *)base + rule->offset;
        size_t nest;

        if (rule->kind == SKIP || (rule->family && rule->family != family))
            continue;
        if (rule->kind != NEST && !(present & wanted & rule->bit))
            continue;
        if (rule->proto && rule->proto != ((const struct nlct_tuple *)base)->proto)
            continue;
        if (rule->kind == NUMBER) {
            put_number(message, type, from, rule->size);
        } else if (rule->kind == BYTES) {
            message_put(message, type, from, rule->size);
        } else {
            nest = message_nest_begin(message, type);
            put(message, rule->nest, family, from, UINT32_MAX);
            message_nest_end(message, nest);
        }
    }
}

void flow_put_key(struct message *message, const struct nlct_flow *flow)
{
    put(message, &flow_table, flow->family, flow, NLCT_FLOW_ORIG | NLCT_FLOW_ZONE);
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

    for (i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        if (pairs[i][0] != proto)
            continue;
        if (pairs[i][1] == type)
            return pairs[i][2];
        if (pairs[i][2] == type)
            return pairs[i][1];
    }
    return type;
}

static uint32_t moved(uint32_t present, uint32_t from, uint32_t to)
{
    return present & from ? to : 0;
}

/* The reverse of the original tuple; a zone of one direction stays there. */
static void reverse(const struct nlct_flow *flow, struct nlct_tuple *reply)
{
    const struct nlct_tuple *orig = &flow->orig;
    const uint32_t turned =
        NLCT_TUPLE_SRC | NLCT_TUPLE_DST | NLCT_TUPLE_SPORT | NLCT_TUPLE_DPORT | NLCT_TUPLE_ZONE;

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
    reply->icmp_type = reverse_icmp(orig->proto, orig->icmp_type);
}

int nlct_flow_build(const struct nlct_flow *flow, void *buffer, size_t capacity)
{
    struct message message;
    struct nlct_flow whole = *flow;

    if (!(flow->present & NLCT_FLOW_ORIG))
        return -EINVAL;
    if (flow->family != AF_INET && flow->family != AF_INET6)
        return -EINVAL;
    if (!(flow->present & NLCT_FLOW_REPLY)) {
        reverse(flow, &whole.reply);
        whole.present |= NLCT_FLOW_REPLY;
    }
    message_begin(&message, buffer, capacity, NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW,
                  NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL, flow->family);
    put(&message, &flow_table, flow->family, &whole, creatable);
    return message_end(&message);
}

/* Fields of a table --------------------------------------------------------------------------- */

#define OF_FLOW(name_, member_, bit_)                                                              \
    {                                                                                              \
        {name_, sizeof(((struct nlct_flow *)0)->member_)}, offsetof(struct nlct_flow, member_), 0, \
            bit_, bit_                                                                             \
    }
#define OF_TUPLE(name_, tuple_, member_, bit_, part_)                                              \
    {                                                                                              \
        {name_, sizeof(((struct nlct_tuple *)0)->member_)},                                        \
            offsetof(struct nlct_flow, tuple_) + offsetof(struct nlct_tuple, member_),             \
            offsetof(struct nlct_flow, tuple_), bit_, part_                                        \
    }
#define OF_EACH_TUPLE(prefix, tuple_, part)                                                        \
    OF_TUPLE(prefix "src", tuple_, src, NLCT_TUPLE_SRC, part),                                     \
        OF_TUPLE(prefix "dst", tuple_, dst, NLCT_TUPLE_DST, part),                                 \
        OF_TUPLE(prefix "proto", tuple_, proto, NLCT_TUPLE_PROTO, part),                           \
        OF_TUPLE(prefix "sport", tuple_, sport, NLCT_TUPLE_SPORT, part),                           \
        OF_TUPLE(prefix "dport", tuple_, dport, NLCT_TUPLE_DPORT, part),                           \
        OF_TUPLE(prefix "icmp_id", tuple_, icmp_id, NLCT_TUPLE_ICMP_ID, part),                     \
        OF_TUPLE(prefix "icmp_type", tuple_, icmp_type, NLCT_TUPLE_ICMP_TYPE, part),               \
        OF_TUPLE(prefix "icmp_code", tuple_, icmp_code, NLCT_TUPLE_ICMP_CODE, part)

static const struct field fields[] = {
    OF_FLOW("family", family, 0),
    OF_FLOW("zone", zone, NLCT_FLOW_ZONE),
    OF_FLOW("status", status, NLCT_FLOW_STATUS),
    OF_FLOW("timeout", timeout, NLCT_FLOW_TIMEOUT),
    OF_FLOW("mark", mark, NLCT_FLOW_MARK),
    OF_FLOW("id", id, NLCT_FLOW_ID),
    OF_FLOW("use", use, NLCT_FLOW_USE),
    OF_EACH_TUPLE("", orig, NLCT_FLOW_ORIG),
    OF_EACH_TUPLE("reply_", reply, NLCT_FLOW_REPLY),
    OF_TUPLE("orig_zone", orig, zone, NLCT_TUPLE_ZONE, NLCT_FLOW_ORIG),
    OF_TUPLE("reply_zone", reply, zone, NLCT_TUPLE_ZONE, NLCT_FLOW_REPLY),
};

const struct field *flow_field(unsigned number)
{
    return number < sizeof(fields) / sizeof(fields[0]) ? &fields[number] : NULL;
}

int nlct_field_get(unsigned number, struct nlct_field *field)
{
    const struct field *found = flow_field(number);

    if (!found)
        return -ENOENT;
    *field = found->public;
    return 0;
}
