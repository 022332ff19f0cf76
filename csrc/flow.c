/* The attributes of a flow, by tables, both ways: message -> struct nlct_flow -> message. */
#include "core.h"

#include <arpa/inet.h>
#include <endian.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>

/* Newer than the headers that this must build with. */
enum { SYNPROXY = 24, TIMESTAMP_EVENT = 27 };
enum { SYNPROXY_ISN = 1, SYNPROXY_ITS, SYNPROXY_TSOFF };

/* UNKNOWN attributes are kept as they are, PADDING is not. */
enum kind { UNKNOWN, PADDING, NUMBER, BYTES, FLAGS, TEXT, SPAN, NEST, TUPLE, NAT };

/* What to do with an attribute of one type. */
struct rule {
    uint8_t kind;
    uint8_t family; /* the only family it belongs to; 0 for any */
    uint16_t size;
    uint16_t offset; /* in the struct of its table */
    uint8_t bit;     /* in the 'present' that opens that struct */
    uint8_t proto;   /* written only for this protocol of the tuple; 0 for any */
    const struct table *nest;
};

struct table {
    const struct rule *rules;
    unsigned count;
};

#define TABLE(rules_)                                                                              \
    {                                                                                              \
        rules_, sizeof(rules_) / sizeof((rules_)[0])                                               \
    }
#define IN_TUPLE(kind_, member, bit_)                                                              \
    .kind = kind_, .size = sizeof(((struct nlct_tuple *)0)->member),                               \
    .offset = offsetof(struct nlct_tuple, member), .bit = bit_
#define IN_FLOW(kind_, member, bit_)                                                               \
    {                                                                                              \
        .kind = kind_, .size = sizeof(((struct nlct_flow *)0)->member),                            \
        .offset = offsetof(struct nlct_flow, member), .bit = bit_                                  \
    }
#define NESTED(table_)                                                                             \
    {                                                                                              \
        .kind = NEST, .nest = &table_                                                              \
    }

_Static_assert(offsetof(struct nlct_tuple, present) == 0, "'present' opens a tuple");
_Static_assert(offsetof(struct nlct_flow, present) == 0, "'present' opens a flow");

/* Tuples */

static const struct rule ip_rules[] = {
    [CTA_IP_V4_SRC] = {BYTES, AF_INET, 4, offsetof(struct nlct_tuple, src), NLCT_TUPLE_SRC, 0,
                       NULL},
    [CTA_IP_V4_DST] = {BYTES, AF_INET, 4, offsetof(struct nlct_tuple, dst), NLCT_TUPLE_DST, 0,
                       NULL},
    [CTA_IP_V6_SRC] = {IN_TUPLE(BYTES, src, NLCT_TUPLE_SRC), .family = AF_INET6},
    [CTA_IP_V6_DST] = {IN_TUPLE(BYTES, dst, NLCT_TUPLE_DST), .family = AF_INET6},
};
static const struct table ip_table = TABLE(ip_rules);

/* Which of the two sets of ICMP is used follows from the protocol, not from the family. */
#define ICMP_RULES(prefix, proto_)                                                                 \
    [prefix##_ID] = {IN_TUPLE(NUMBER, icmp_id, NLCT_TUPLE_ICMP_ID), .proto = proto_},              \
    [prefix##_TYPE] = {IN_TUPLE(NUMBER, icmp_type, NLCT_TUPLE_ICMP_TYPE), .proto = proto_},        \
    [prefix##_CODE] = {IN_TUPLE(NUMBER, icmp_code, NLCT_TUPLE_ICMP_CODE), .proto = proto_}

static const struct rule proto_rules[] = {
    [CTA_PROTO_NUM] = {IN_TUPLE(NUMBER, proto, NLCT_TUPLE_PROTO)},
    [CTA_PROTO_SRC_PORT] = {IN_TUPLE(NUMBER, sport, NLCT_TUPLE_SPORT)},
    [CTA_PROTO_DST_PORT] = {IN_TUPLE(NUMBER, dport, NLCT_TUPLE_DPORT)},
    ICMP_RULES(CTA_PROTO_ICMP, IPPROTO_ICMP),
    ICMP_RULES(CTA_PROTO_ICMPV6, IPPROTO_ICMPV6),
};
static const struct table proto_table = TABLE(proto_rules);

static const struct rule tuple_rules[] = {
    [CTA_TUPLE_IP] = NESTED(ip_table),
    [CTA_TUPLE_PROTO] = NESTED(proto_table),
    [CTA_TUPLE_ZONE] = {IN_TUPLE(NUMBER, zone, NLCT_TUPLE_ZONE)},
};
static const struct table tuple_table = TABLE(tuple_rules);

/* The rest of a flow */

static const struct rule tcp_rules[] = {
    [CTA_PROTOINFO_TCP_STATE] = IN_FLOW(NUMBER, tcp_state, NLCT_FLOW_TCP_STATE),
    [CTA_PROTOINFO_TCP_WSCALE_ORIGINAL] =
        IN_FLOW(NUMBER, tcp_wscale_orig, NLCT_FLOW_TCP_WSCALE_ORIG),
    [CTA_PROTOINFO_TCP_WSCALE_REPLY] =
        IN_FLOW(NUMBER, tcp_wscale_reply, NLCT_FLOW_TCP_WSCALE_REPLY),
    [CTA_PROTOINFO_TCP_FLAGS_ORIGINAL] = IN_FLOW(FLAGS, tcp_flags_orig, NLCT_FLOW_TCP_FLAGS_ORIG),
    [CTA_PROTOINFO_TCP_FLAGS_REPLY] = IN_FLOW(FLAGS, tcp_flags_reply, NLCT_FLOW_TCP_FLAGS_REPLY),
};
static const struct table tcp_table = TABLE(tcp_rules);

static const struct rule sctp_rules[] = {
    [CTA_PROTOINFO_SCTP_STATE] = IN_FLOW(NUMBER, sctp_state, NLCT_FLOW_SCTP_STATE),
    [CTA_PROTOINFO_SCTP_VTAG_ORIGINAL] = IN_FLOW(NUMBER, sctp_vtag_orig, NLCT_FLOW_SCTP_VTAG_ORIG),
    [CTA_PROTOINFO_SCTP_VTAG_REPLY] = IN_FLOW(NUMBER, sctp_vtag_reply, NLCT_FLOW_SCTP_VTAG_REPLY),
};
static const struct table sctp_table = TABLE(sctp_rules);

static const struct rule dccp_rules[] = {
    [CTA_PROTOINFO_DCCP_STATE] = IN_FLOW(NUMBER, dccp_state, NLCT_FLOW_DCCP_STATE),
    [CTA_PROTOINFO_DCCP_ROLE] = IN_FLOW(NUMBER, dccp_role, NLCT_FLOW_DCCP_ROLE),
    [CTA_PROTOINFO_DCCP_HANDSHAKE_SEQ] =
        IN_FLOW(NUMBER, dccp_handshake_seq, NLCT_FLOW_DCCP_HANDSHAKE_SEQ),
    [CTA_PROTOINFO_DCCP_PAD] = {.kind = PADDING},
};
static const struct table dccp_table = TABLE(dccp_rules);

static const struct rule protoinfo_rules[] = {
    [CTA_PROTOINFO_TCP] = NESTED(tcp_table),
    [CTA_PROTOINFO_DCCP] = NESTED(dccp_table),
    [CTA_PROTOINFO_SCTP] = NESTED(sctp_table),
};
static const struct table protoinfo_table = TABLE(protoinfo_rules);

static const struct rule counters_orig_rules[] = {
    [CTA_COUNTERS_PACKETS] = IN_FLOW(NUMBER, packets_orig, NLCT_FLOW_PACKETS_ORIG),
    [CTA_COUNTERS_BYTES] = IN_FLOW(NUMBER, bytes_orig, NLCT_FLOW_BYTES_ORIG),
    [CTA_COUNTERS_PAD] = {.kind = PADDING},
};
static const struct table counters_orig_table = TABLE(counters_orig_rules);

static const struct rule counters_reply_rules[] = {
    [CTA_COUNTERS_PACKETS] = IN_FLOW(NUMBER, packets_reply, NLCT_FLOW_PACKETS_REPLY),
    [CTA_COUNTERS_BYTES] = IN_FLOW(NUMBER, bytes_reply, NLCT_FLOW_BYTES_REPLY),
    [CTA_COUNTERS_PAD] = {.kind = PADDING},
};
static const struct table counters_reply_table = TABLE(counters_reply_rules);

static const struct rule timestamp_rules[] = {
    [CTA_TIMESTAMP_START] = IN_FLOW(NUMBER, timestamp_start, NLCT_FLOW_TIMESTAMP_START),
    [CTA_TIMESTAMP_STOP] = IN_FLOW(NUMBER, timestamp_stop, NLCT_FLOW_TIMESTAMP_STOP),
    [CTA_TIMESTAMP_PAD] = {.kind = PADDING},
};
static const struct table timestamp_table = TABLE(timestamp_rules);

static const struct rule help_rules[] = {
    [CTA_HELP_NAME] = IN_FLOW(TEXT, helper, NLCT_FLOW_HELPER),
    [CTA_HELP_INFO] = IN_FLOW(SPAN, helper_info, NLCT_FLOW_HELPER_INFO),
};
static const struct table help_table = TABLE(help_rules);

#define SEQADJ_RULES(direction, DIRECTION)                                                         \
    [CTA_SEQADJ_CORRECTION_POS] =                                                                  \
        IN_FLOW(NUMBER, seqadj_##direction##_pos, NLCT_FLOW_SEQADJ_##DIRECTION##_POS),             \
    [CTA_SEQADJ_OFFSET_BEFORE] =                                                                   \
        IN_FLOW(NUMBER, seqadj_##direction##_before, NLCT_FLOW_SEQADJ_##DIRECTION##_BEFORE),       \
    [CTA_SEQADJ_OFFSET_AFTER] =                                                                    \
        IN_FLOW(NUMBER, seqadj_##direction##_after, NLCT_FLOW_SEQADJ_##DIRECTION##_AFTER)

static const struct rule seqadj_orig_rules[] = {SEQADJ_RULES(orig, ORIG)};
static const struct table seqadj_orig_table = TABLE(seqadj_orig_rules);
static const struct rule seqadj_reply_rules[] = {SEQADJ_RULES(reply, REPLY)};
static const struct table seqadj_reply_table = TABLE(seqadj_reply_rules);

static const struct rule secctx_rules[] = {
    [CTA_SECCTX_NAME] = IN_FLOW(SPAN, secctx, NLCT_FLOW_SECCTX),
};
static const struct table secctx_table = TABLE(secctx_rules);

static const struct rule synproxy_rules[] = {
    [SYNPROXY_ISN] = IN_FLOW(NUMBER, synproxy_isn, NLCT_FLOW_SYNPROXY_ISN),
    [SYNPROXY_ITS] = IN_FLOW(NUMBER, synproxy_its, NLCT_FLOW_SYNPROXY_ITS),
    [SYNPROXY_TSOFF] = IN_FLOW(NUMBER, synproxy_tsoff, NLCT_FLOW_SYNPROXY_TSOFF),
};
static const struct table synproxy_table = TABLE(synproxy_rules);

#define TUPLE_RULE(member, bit_)                                                                   \
    {                                                                                              \
        TUPLE, .offset = offsetof(struct nlct_flow, member), .bit = bit_, .nest = &tuple_table     \
    }

static const struct rule flow_rules[] = {
    [CTA_TUPLE_ORIG] = TUPLE_RULE(orig, NLCT_FLOW_ORIG),
    [CTA_TUPLE_REPLY] = TUPLE_RULE(reply, NLCT_FLOW_REPLY),
    [CTA_STATUS] = IN_FLOW(NUMBER, status, NLCT_FLOW_STATUS),
    [CTA_PROTOINFO] = NESTED(protoinfo_table),
    [CTA_HELP] = NESTED(help_table),
    [CTA_NAT_SRC] = {.kind = NAT},
    [CTA_TIMEOUT] = IN_FLOW(NUMBER, timeout, NLCT_FLOW_TIMEOUT),
    [CTA_MARK] = IN_FLOW(NUMBER, mark, NLCT_FLOW_MARK),
    [CTA_COUNTERS_ORIG] = NESTED(counters_orig_table),
    [CTA_COUNTERS_REPLY] = NESTED(counters_reply_table),
    [CTA_USE] = IN_FLOW(NUMBER, use, NLCT_FLOW_USE),
    [CTA_ID] = IN_FLOW(NUMBER, id, NLCT_FLOW_ID),
    [CTA_NAT_DST] = {.kind = NAT},
    [CTA_TUPLE_MASTER] = TUPLE_RULE(master, NLCT_FLOW_MASTER),
    [CTA_SEQ_ADJ_ORIG] = NESTED(seqadj_orig_table),
    [CTA_SEQ_ADJ_REPLY] = NESTED(seqadj_reply_table),
    [CTA_ZONE] = IN_FLOW(NUMBER, zone, NLCT_FLOW_ZONE),
    [CTA_SECCTX] = NESTED(secctx_table),
    [CTA_TIMESTAMP] = NESTED(timestamp_table),
    [CTA_LABELS] = IN_FLOW(BYTES, labels, NLCT_FLOW_LABELS),
    [SYNPROXY] = NESTED(synproxy_table),
    [TIMESTAMP_EVENT] = IN_FLOW(NUMBER, timestamp_event, NLCT_FLOW_TIMESTAMP_EVENT),
};
static const struct table flow_table = TABLE(flow_rules);

/* decode() keeps a bit a type. */
#define FITS(rules_)                                                                               \
    _Static_assert(sizeof(rules_) / sizeof((rules_)[0]) <= VIEW_ATTRS, "a bit a type")
FITS(proto_rules);
FITS(flow_rules);

#define BIT(field) (UINT64_C(1) << (field))

/* What the kernel lets one set; the rest it counts, measures or gives out by itself. */
static const uint64_t changeable =
    BIT(NLCT_FLOW_STATUS) | BIT(NLCT_FLOW_TIMEOUT) | BIT(NLCT_FLOW_MARK) |
    BIT(NLCT_FLOW_TCP_STATE) | BIT(NLCT_FLOW_TCP_WSCALE_ORIG) | BIT(NLCT_FLOW_TCP_WSCALE_REPLY) |
    BIT(NLCT_FLOW_TCP_FLAGS_ORIG) | BIT(NLCT_FLOW_TCP_FLAGS_REPLY) | BIT(NLCT_FLOW_SCTP_STATE) |
    BIT(NLCT_FLOW_SCTP_VTAG_ORIG) | BIT(NLCT_FLOW_SCTP_VTAG_REPLY) | BIT(NLCT_FLOW_DCCP_STATE) |
    BIT(NLCT_FLOW_DCCP_ROLE) | BIT(NLCT_FLOW_DCCP_HANDSHAKE_SEQ) | BIT(NLCT_FLOW_LABELS) |
    BIT(NLCT_FLOW_HELPER) | BIT(NLCT_FLOW_HELPER_INFO) | BIT(NLCT_FLOW_SEQADJ_ORIG_POS) |
    BIT(NLCT_FLOW_SEQADJ_ORIG_BEFORE) | BIT(NLCT_FLOW_SEQADJ_ORIG_AFTER) |
    BIT(NLCT_FLOW_SEQADJ_REPLY_POS) | BIT(NLCT_FLOW_SEQADJ_REPLY_BEFORE) |
    BIT(NLCT_FLOW_SEQADJ_REPLY_AFTER) | BIT(NLCT_FLOW_SYNPROXY_ISN) | BIT(NLCT_FLOW_SYNPROXY_ITS) |
    BIT(NLCT_FLOW_SYNPROXY_TSOFF);
static const uint64_t named = BIT(NLCT_FLOW_ORIG) | BIT(NLCT_FLOW_ZONE);
static const uint64_t creatable = changeable | BIT(NLCT_FLOW_ORIG) | BIT(NLCT_FLOW_ZONE) |
                                  BIT(NLCT_FLOW_REPLY) | BIT(NLCT_FLOW_MASTER);

/* Views --------------------------------------------------------------------------------------- */

int view_parse(struct view *view, struct wire payload)
{
    struct attr attr;
    int rc;

    if (payload.left < sizeof(struct nfgenmsg))
        return -EBADMSG;
    view->family = payload.at[offsetof(struct nfgenmsg, nfgen_family)];
    view->payload = payload;
    view->present = view->decoded = view->unknown = 0;
    wire_skip(&payload, sizeof(struct nfgenmsg));
    while ((rc = wire_attr(&payload, &attr)) > 0) {
        if (!attr.type || attr.type >= VIEW_ATTRS) {
            view->unknown |= 1U; /* bit 0 stands for all that have none */
            continue;
        }
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

static uint64_t *present_of(void *base)
{
    return base;
}

static void store(void *to, const uint8_t *data, size_t size)
{
    uint16_t two;
    uint32_t four;
    uint64_t eight;

    switch (size) {
    case 2:
        two = wire_be16(data);
        memcpy(to, &two, sizeof(two));
        break;
    case 4:
        four = wire_be32(data);
        memcpy(to, &four, sizeof(four));
        break;
    case 8:
        eight = (uint64_t)wire_be32(data) << 32 | wire_be32(data + 4);
        memcpy(to, &eight, sizeof(eight));
        break;
    default:
        *(uint8_t *)to = *data;
    }
}

/* Text of less than 'size' bytes, with its null byte or without. */
static int store_text(void *to, const struct rule *rule, const struct attr *attr)
{
    size_t length = strnlen((const char *)attr->data, attr->size);

    if (length >= rule->size)
        return -EBADMSG;
    memset(to, 0, rule->size);
    memcpy(to, attr->data, length);
    return 0;
}

/* Spans count from the payload until flow_decode() brings them to a heap. */
static int store_span(void *to, const struct view *view, const struct attr *attr)
{
    struct nlct_span span = {(uint32_t)(attr->data - view->payload.at), attr->size};

    memcpy(to, &span, sizeof(span));
    return 0;
}

static int store_value(const struct rule *rule, const struct attr *attr, const struct view *view,
                       uint8_t *to)
{
    switch (rule->kind) {
    case TEXT:
        return store_text(to, rule, attr);
    case SPAN:
        return store_span(to, view, attr);
    case FLAGS: /* what is set, and what of it is meant */
        if (attr->size != 2)
            return -EBADMSG;
        *to = attr->data[0];
        return 0;
    }
    if (attr->size != rule->size)
        return -EBADMSG;
    if (rule->kind == NUMBER)
        store(to, attr->data, attr->size);
    else
        memcpy(to, attr->data, attr->size);
    return 0;
}

static int decode(const struct table *table, struct wire wire, struct view *view, void *base,
                  bool *unknown);
static int decode_nat(struct view *view, const struct attr *attr, bool *unknown);

static int decode_attr(const struct rule *rule, const struct attr *attr, struct view *view,
                       void *base, bool *unknown)
{
    uint8_t *to = (uint8_t *)base + rule->offset;

    switch (rule->kind) {
    case PADDING:
        return 0;
    case NEST:
        return decode(rule->nest, wire_nest(attr), view, base, unknown);
    case NAT:
        return decode_nat(view, attr, unknown);
    }
    if (rule->family && rule->family != view->family)
        return -EBADMSG;
    *present_of(base) |= bit(rule->bit);
    if (rule->kind != TUPLE)
        return store_value(rule, attr, view, to);
    ((struct nlct_tuple *)(void *)to)->family = view->family;
    return decode(rule->nest, wire_nest(attr), view, to, unknown);
}

static const struct rule *find_rule(const struct table *table, unsigned type)
{
    if (type >= table->count || table->rules[type].kind == UNKNOWN)
        return NULL;
    return &table->rules[type];
}

static int decode(const struct table *table, struct wire wire, struct view *view, void *base,
                  bool *unknown)
{
    uint32_t seen = 0;
    struct attr attr;
    int rc;

    while ((rc = wire_attr(&wire, &attr)) > 0) {
        const struct rule *rule = find_rule(table, attr.type);

        if (!rule) {
            *unknown = true;
            continue;
        }
        if (seen & 1U << attr.type)
            return -EBADMSG;
        seen |= 1U << attr.type;
        rc = decode_attr(rule, &attr, view, base, unknown);
        if (rc < 0)
            return rc;
    }
    return rc;
}

/* Decodes a top-level attribute, once. */
static int decode_type(struct view *view, unsigned type)
{
    const struct attr *attr = view_attr(view, type);
    const struct rule *rule = find_rule(&flow_table, type);
    bool unknown = !rule;
    int rc;

    if (!view->decoded) {
        memset(&view->flow, 0, sizeof(view->flow));
        view->flow.family = view->family;
        view->decoded = 1U; /* no attribute has type 0 */
    }
    if (!attr || view->decoded & 1U << type)
        return 0;
    view->decoded |= 1U << type;
    rc = rule ? decode_attr(rule, attr, view, &view->flow, &unknown) : 0;
    if (unknown)
        view->unknown |= 1U << type;
    return rc;
}

static int decode_zone(struct view *view)
{
    int zone = view_zone(view);

    if (zone < 0)
        return zone;
    view->flow.zone = (uint16_t)zone;
    view->flow.present |= bit(NLCT_FLOW_ZONE);
    return 0;
}

int view_decode(struct view *view, const struct field *field)
{
    int rc = decode_type(view, field->attr);

    return rc == 0 && field->attr == CTA_ZONE ? decode_zone(view) : rc;
}

static int keep_span(const struct view *view, struct nlct_span *span, struct nlct_heap *heap)
{
    const uint8_t *data = view->payload.at + span->at;

    span->at = (uint32_t)heap->size;
    return heap_add(heap, data, span->size);
}

static int keep_unknown(struct view *view, struct nlct_heap *heap)
{
    struct nlct_span *span = &view->flow.unknown;
    struct wire wire = view->payload;
    struct attr attr;
    int rc;

    span->at = (uint32_t)heap->size;
    view->flow.present |= bit(NLCT_FLOW_UNKNOWN);
    wire_skip(&wire, sizeof(struct nfgenmsg));
    while ((rc = wire_attr(&wire, &attr)) > 0) {
        static const uint8_t padding[4];

        if (attr.type < VIEW_ATTRS && !(view->unknown & 1U << attr.type))
            continue;
        rc = heap_add(heap, attr.start, attr.whole);
        if (rc == 0)
            rc = heap_add(heap, padding, wire_align(attr.whole) - attr.whole);
        if (rc < 0)
            return rc;
    }
    span->size = (uint32_t)heap->size - span->at;
    return rc;
}

int flow_decode(struct view *view, struct nlct_heap *heap)
{
    struct nlct_flow *flow = &view->flow;
    uint64_t types = view->present & ~view->decoded;
    int rc = decode_type(view, 0);

    while (types && rc == 0)
        rc = decode_type(view, next_bit(&types));
    if (rc == 0)
        rc = decode_zone(view);
    if (rc == 0 && has(flow->present, NLCT_FLOW_HELPER_INFO))
        rc = keep_span(view, &flow->helper_info, heap);
    if (rc == 0 && has(flow->present, NLCT_FLOW_SECCTX)) {
        rc = keep_span(view, &flow->secctx, heap);
        /* Text, whose null byte is not of interest. */
        if (rc == 0 && flow->secctx.size && !heap->data[heap->size - 1])
            flow->secctx.size--;
    }
    if (rc == 0 && view->unknown)
        rc = keep_unknown(view, heap);
    return rc;
}

int nlct_flow_parse(const void *message, size_t size, struct nlct_flow *flow,
                    struct nlct_heap *heap)
{
    struct wire wire = {message, size};
    struct nlmsghdr header;
    struct wire payload;
    struct view view;
    int rc;

    if (wire_message(&wire, &header, &payload) != 1 || wire.left)
        return -EBADMSG;
    rc = view_parse(&view, payload);
    if (rc == 0)
        rc = flow_decode(&view, heap);
    if (rc == 0)
        *flow = view.flow;
    return rc;
}

/* Flow -> message ----------------------------------------------------------------------------- */

static void put_number(struct message *message, uint16_t type, const void *value, size_t size)
{
    uint16_t two;
    uint32_t four;
    uint64_t eight;

    switch (size) {
    case 2:
        memcpy(&two, value, sizeof(two));
        message_put_be16(message, type, two);
        break;
    case 4:
        memcpy(&four, value, sizeof(four));
        message_put_be32(message, type, four);
        break;
    case 8:
        memcpy(&eight, value, sizeof(eight));
        eight = htobe64(eight);
        message_put(message, type, &eight, sizeof(eight));
        break;
    default:
        message_put(message, type, value, size);
    }
}

static void put_span(struct message *message, uint16_t type, const void *value, const uint8_t *heap)
{
    struct nlct_span span;

    memcpy(&span, value, sizeof(span));
    if (heap)
        message_put(message, type, heap + span.at, span.size);
}

static void put_value(struct message *message, uint16_t type, const struct rule *rule,
                      const uint8_t *from, const uint8_t *heap)
{
    const uint8_t flags[2] = {*from, UINT8_MAX};

    switch (rule->kind) {
    case NUMBER:
        put_number(message, type, from, rule->size);
        break;
    case FLAGS:
        message_put(message, type, flags, sizeof(flags));
        break;
    case TEXT:
        message_put(message, type, from, strnlen((const char *)from, rule->size - 1U) + 1);
        break;
    case SPAN:
        put_span(message, type, from, heap);
        break;
    default:
        message_put(message, type, from, rule->size);
    }
}

/* Puts what 'base' holds of 'table', as far as 'wanted' and its own 'present' say. */
static void put(struct message *message, const struct table *table, uint8_t family,
                const void *base, uint64_t wanted, const uint8_t *heap)
{
    uint64_t present;
    uint16_t type;

    memcpy(&present, base, sizeof(present));
    for (type = 0; type < table->count; type++) {
        const struct rule *rule = &table->rules[type];
        const uint8_t *from = (const uint8_t *)base + rule->offset;
        size_t nest;

        if (rule->kind == UNKNOWN || rule->kind == PADDING || rule->kind == NAT)
            continue;
        if (rule->family && rule->family != family)
            continue;
        if (rule->kind != NEST && !has(present & wanted, rule->bit))
            continue;
        if (rule->proto && rule->proto != ((const struct nlct_tuple *)base)->proto)
            continue;
        if (rule->kind != NEST && rule->kind != TUPLE) {
            put_value(message, type, rule, from, heap);
            continue;
        }
        nest = message_nest_begin(message, type);
        if (rule->kind == TUPLE)
            put(message, rule->nest, family, from, UINT64_MAX, heap);
        else
            put(message, rule->nest, family, base, wanted, heap);
        if (rule->kind == NEST && message_nest_is_empty(message, nest))
            message_nest_drop(message, nest);
        else
            message_nest_end(message, nest);
    }
}

/* The zone is named in the tuple that it belongs to, or for the whole flow. Kernels without zones
   refuse the attribute, and without it a flow is in zone 0 everywhere. */
static uint64_t without_zone(const struct nlct_flow *flow)
{
    bool own = has(flow->orig.present, NLCT_TUPLE_ZONE) ||
               (has(flow->present, NLCT_FLOW_REPLY) && has(flow->reply.present, NLCT_TUPLE_ZONE));

    return own || !flow->zone ? BIT(NLCT_FLOW_ZONE) : 0;
}

void flow_put_tuple(struct message *message, uint16_t type, const struct nlct_tuple *tuple)
{
    const size_t nest = message_nest_begin(message, type);

    put(message, &tuple_table, tuple->family, tuple, UINT64_MAX, NULL);
    message_nest_end(message, nest);
}

void flow_put_key(struct message *message, const struct nlct_flow *flow, uint16_t type)
{
    const uint64_t tuple = bit(type == CTA_TUPLE_ORIG ? NLCT_FLOW_ORIG : NLCT_FLOW_REPLY);

    put(message, &flow_table, flow->family, flow,
        (tuple | bit(NLCT_FLOW_ZONE)) & ~without_zone(flow), NULL);
}

/* Every flow in the table is confirmed, and the kernel refuses to make one otherwise. */
static void confirm(struct nlct_flow *flow)
{
    if (has(flow->present, NLCT_FLOW_STATUS))
        flow->status |= IPS_CONFIRMED;
}

void flow_put_update(struct message *message, const struct nlct_flow *flow, const uint8_t *heap)
{
    struct nlct_flow whole = *flow;

    confirm(&whole);
    put(message, &flow_table, flow->family, &whole, (named | changeable) & ~without_zone(flow),
        heap);
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

static uint64_t moved(uint64_t present, unsigned from, unsigned to)
{
    return has(present, from) ? bit(to) : 0;
}

/* The reverse of the original tuple; a zone of one direction stays there. */
static void reverse(const struct nlct_flow *flow, struct nlct_tuple *reply)
{
    const struct nlct_tuple *orig = &flow->orig;
    const uint64_t turned = BIT(NLCT_TUPLE_SRC) | BIT(NLCT_TUPLE_DST) | BIT(NLCT_TUPLE_SPORT) |
                            BIT(NLCT_TUPLE_DPORT) | BIT(NLCT_TUPLE_ZONE);

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

/* Translation (NAT) --------------------------------------------------------------------------- */

/*
 * A flow is translated where its reply is not the reverse of its original tuple. The kernel sets
 * that up by itself: it is told the reverse, and what the reply's destination (for source NAT) and
 * its source (for destination NAT) shall become.
 */

static size_t address_size(uint8_t family)
{
    return family == AF_INET ? 4 : 16;
}

/* What the port stands in: the destination's for source NAT. */
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

static void put_nat(struct message *message, uint16_t type, struct nlct_tuple reply)
{
    const bool src = type == CTA_NAT_SRC;
    const unsigned port = port_of(&reply, src);
    const size_t nest = message_nest_begin(message, type);

    message_put(message, reply.family == AF_INET ? CTA_NAT_V4_MINIP : CTA_NAT_V6_MINIP,
                src ? reply.dst : reply.src, address_size(reply.family));
    if (has(reply.present, port)) {
        const size_t proto = message_nest_begin(message, CTA_NAT_PROTO);

        message_put_be16(message, CTA_PROTONAT_PORT_MIN, *port_value(&reply, port));
        message_nest_end(message, proto);
    }
    message_nest_end(message, nest);
}

enum { TO_ADDRESS, TO_PORT };

/* What a request wants a flow translated to. */
struct translation {
    uint64_t present;
    uint8_t address[16];
    uint16_t port;
};

static const struct rule nat_proto_rules[] = {
    [CTA_PROTONAT_PORT_MIN] = {.kind = NUMBER,
                               .size = 2,
                               .offset = offsetof(struct translation, port),
                               .bit = TO_PORT},
};
static const struct table nat_proto_table = TABLE(nat_proto_rules);

#define NAT_ADDRESS_RULE(family_, size_)                                                           \
    {                                                                                              \
        .kind = BYTES, .family = family_, .size = size_,                                           \
        .offset = offsetof(struct translation, address), .bit = TO_ADDRESS                         \
    }
static const struct rule nat_rules[] = {
    [CTA_NAT_V4_MINIP] = NAT_ADDRESS_RULE(AF_INET, 4),
    [CTA_NAT_V6_MINIP] = NAT_ADDRESS_RULE(AF_INET6, 16),
    [CTA_NAT_PROTO] = NESTED(nat_proto_table),
};
static const struct table nat_table = TABLE(nat_rules);

/* The reverse of put_nat(); the reply tuple precedes it, and what that lacks stays unknown. */
static int decode_nat(struct view *view, const struct attr *nest, bool *unknown)
{
    struct nlct_tuple *reply = &view->flow.reply;
    const bool src = nest->type == CTA_NAT_SRC;
    const unsigned port = port_of(reply, src);
    struct translation to = {0};
    int rc = decode(&nat_table, wire_nest(nest), view, &to, unknown);

    if (rc < 0)
        return rc;
    if (has(to.present, TO_ADDRESS) && has(reply->present, src ? NLCT_TUPLE_DST : NLCT_TUPLE_SRC))
        memcpy(src ? reply->dst : reply->src, to.address, sizeof(to.address));
    else if (has(to.present, TO_ADDRESS))
        *unknown = true;
    if (has(to.present, TO_PORT) && has(reply->present, port))
        *port_value(reply, port) = to.port;
    else if (has(to.present, TO_PORT))
        *unknown = true;
    return 0;
}

/* What the kernel is told of the reply: with NAT the reverse, in the reply's own zone. */
static void plain_reply(const struct nlct_flow *flow, struct nlct_tuple *reply)
{
    reverse(flow, reply);
    if (has(flow->present, NLCT_FLOW_REPLY) && has(flow->reply.present, NLCT_TUPLE_ZONE)) {
        reply->present |= BIT(NLCT_TUPLE_ZONE);
        reply->zone = flow->reply.zone;
    }
}

/* The bits of NAT that 'flow' asks for. */
static uint32_t nat_of(const struct nlct_flow *flow)
{
    return has(flow->present, NLCT_FLOW_STATUS) ? flow->status & IPS_NAT_MASK : 0;
}

/* Does its reply say what it is translated to? */
static bool has_translation(const struct nlct_flow *flow)
{
    const uint64_t addresses = BIT(NLCT_TUPLE_SRC) | BIT(NLCT_TUPLE_DST);

    return has(flow->present, NLCT_FLOW_REPLY) && (flow->reply.present & addresses) == addresses;
}

int nlct_flow_build(const struct nlct_flow *flow, const uint8_t *heap, void *buffer,
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
    whole.present |= BIT(NLCT_FLOW_REPLY);
    /* The kernel gives this to a flow with a master. */
    if (has(flow->present, NLCT_FLOW_MASTER))
        whole.status &= ~(uint32_t)IPS_EXPECTED;
    message_begin(&message, buffer, capacity, NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW,
                  NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL, flow->family);
    put(&message, &flow_table, flow->family, &whole, creatable & ~without_zone(flow), heap);
    /* Left to itself the kernel would choose another source port where the reply is taken. */
    if (nat)
        put_nat(&message, CTA_NAT_SRC, flow->reply);
    if (nat & IPS_DST_NAT)
        put_nat(&message, CTA_NAT_DST, flow->reply);
    return message_end(&message);
}

/* Fields -------------------------------------------------------------------------------------- */

#define OF_FLOW(member_, kind_, bit_, attr_)                                                       \
    {                                                                                              \
        {#member_, sizeof(((struct nlct_flow *)0)->member_), kind_,                                \
         offsetof(struct nlct_flow, member_)},                                                     \
            0, bit_, bit_, attr_                                                                   \
    }
#define NUMBER_OF_FLOW(member_, bit_, attr_) OF_FLOW(member_, NLCT_NUMBER, bit_, attr_)
#define OF_TUPLE(name_, tuple_, member_, kind_, bit_, part_, attr_)                                \
    {                                                                                              \
        {name_, sizeof(((struct nlct_tuple *)0)->member_), kind_,                                  \
         offsetof(struct nlct_flow, tuple_) + offsetof(struct nlct_tuple, member_)},               \
            offsetof(struct nlct_flow, tuple_), bit_, part_, attr_                                 \
    }
#define OF_EACH_TUPLE(prefix, tuple_, part, attr)                                                  \
    OF_TUPLE(prefix "src", tuple_, src, NLCT_ADDRESS, NLCT_TUPLE_SRC, part, attr),                 \
        OF_TUPLE(prefix "dst", tuple_, dst, NLCT_ADDRESS, NLCT_TUPLE_DST, part, attr),             \
        OF_TUPLE(prefix "proto", tuple_, proto, NLCT_NUMBER, NLCT_TUPLE_PROTO, part, attr),        \
        OF_TUPLE(prefix "sport", tuple_, sport, NLCT_NUMBER, NLCT_TUPLE_SPORT, part, attr),        \
        OF_TUPLE(prefix "dport", tuple_, dport, NLCT_NUMBER, NLCT_TUPLE_DPORT, part, attr),        \
        OF_TUPLE(prefix "icmp_id", tuple_, icmp_id, NLCT_NUMBER, NLCT_TUPLE_ICMP_ID, part, attr),  \
        OF_TUPLE(prefix "icmp_type", tuple_, icmp_type, NLCT_NUMBER, NLCT_TUPLE_ICMP_TYPE, part,   \
                 attr),                                                                            \
        OF_TUPLE(prefix "icmp_code", tuple_, icmp_code, NLCT_NUMBER, NLCT_TUPLE_ICMP_CODE, part,   \
                 attr)

static const struct field fields[] = {
    NUMBER_OF_FLOW(family, NLCT_FLOW_ORIG, 0),
    NUMBER_OF_FLOW(zone, NLCT_FLOW_ZONE, CTA_ZONE),
    OF_EACH_TUPLE("", orig, NLCT_FLOW_ORIG, CTA_TUPLE_ORIG),
    OF_EACH_TUPLE("reply_", reply, NLCT_FLOW_REPLY, CTA_TUPLE_REPLY),
    NUMBER_OF_FLOW(status, NLCT_FLOW_STATUS, CTA_STATUS),
    NUMBER_OF_FLOW(timeout, NLCT_FLOW_TIMEOUT, CTA_TIMEOUT),
    NUMBER_OF_FLOW(mark, NLCT_FLOW_MARK, CTA_MARK),
    NUMBER_OF_FLOW(id, NLCT_FLOW_ID, CTA_ID),
    NUMBER_OF_FLOW(use, NLCT_FLOW_USE, CTA_USE),
    NUMBER_OF_FLOW(tcp_state, NLCT_FLOW_TCP_STATE, CTA_PROTOINFO),
    NUMBER_OF_FLOW(tcp_wscale_orig, NLCT_FLOW_TCP_WSCALE_ORIG, CTA_PROTOINFO),
    NUMBER_OF_FLOW(tcp_wscale_reply, NLCT_FLOW_TCP_WSCALE_REPLY, CTA_PROTOINFO),
    NUMBER_OF_FLOW(tcp_flags_orig, NLCT_FLOW_TCP_FLAGS_ORIG, CTA_PROTOINFO),
    NUMBER_OF_FLOW(tcp_flags_reply, NLCT_FLOW_TCP_FLAGS_REPLY, CTA_PROTOINFO),
    NUMBER_OF_FLOW(sctp_state, NLCT_FLOW_SCTP_STATE, CTA_PROTOINFO),
    NUMBER_OF_FLOW(sctp_vtag_orig, NLCT_FLOW_SCTP_VTAG_ORIG, CTA_PROTOINFO),
    NUMBER_OF_FLOW(sctp_vtag_reply, NLCT_FLOW_SCTP_VTAG_REPLY, CTA_PROTOINFO),
    NUMBER_OF_FLOW(dccp_state, NLCT_FLOW_DCCP_STATE, CTA_PROTOINFO),
    NUMBER_OF_FLOW(dccp_role, NLCT_FLOW_DCCP_ROLE, CTA_PROTOINFO),
    NUMBER_OF_FLOW(dccp_handshake_seq, NLCT_FLOW_DCCP_HANDSHAKE_SEQ, CTA_PROTOINFO),
    NUMBER_OF_FLOW(packets_orig, NLCT_FLOW_PACKETS_ORIG, CTA_COUNTERS_ORIG),
    NUMBER_OF_FLOW(bytes_orig, NLCT_FLOW_BYTES_ORIG, CTA_COUNTERS_ORIG),
    NUMBER_OF_FLOW(packets_reply, NLCT_FLOW_PACKETS_REPLY, CTA_COUNTERS_REPLY),
    NUMBER_OF_FLOW(bytes_reply, NLCT_FLOW_BYTES_REPLY, CTA_COUNTERS_REPLY),
    NUMBER_OF_FLOW(timestamp_start, NLCT_FLOW_TIMESTAMP_START, CTA_TIMESTAMP),
    NUMBER_OF_FLOW(timestamp_stop, NLCT_FLOW_TIMESTAMP_STOP, CTA_TIMESTAMP),
    NUMBER_OF_FLOW(timestamp_event, NLCT_FLOW_TIMESTAMP_EVENT, TIMESTAMP_EVENT),
    OF_FLOW(labels, NLCT_LABELS, NLCT_FLOW_LABELS, CTA_LABELS),
    OF_FLOW(helper, NLCT_TEXT, NLCT_FLOW_HELPER, CTA_HELP),
    OF_FLOW(helper_info, NLCT_SPAN, NLCT_FLOW_HELPER_INFO, CTA_HELP),
    NUMBER_OF_FLOW(seqadj_orig_pos, NLCT_FLOW_SEQADJ_ORIG_POS, CTA_SEQ_ADJ_ORIG),
    NUMBER_OF_FLOW(seqadj_orig_before, NLCT_FLOW_SEQADJ_ORIG_BEFORE, CTA_SEQ_ADJ_ORIG),
    NUMBER_OF_FLOW(seqadj_orig_after, NLCT_FLOW_SEQADJ_ORIG_AFTER, CTA_SEQ_ADJ_ORIG),
    NUMBER_OF_FLOW(seqadj_reply_pos, NLCT_FLOW_SEQADJ_REPLY_POS, CTA_SEQ_ADJ_REPLY),
    NUMBER_OF_FLOW(seqadj_reply_before, NLCT_FLOW_SEQADJ_REPLY_BEFORE, CTA_SEQ_ADJ_REPLY),
    NUMBER_OF_FLOW(seqadj_reply_after, NLCT_FLOW_SEQADJ_REPLY_AFTER, CTA_SEQ_ADJ_REPLY),
    OF_FLOW(secctx, NLCT_SPAN, NLCT_FLOW_SECCTX, CTA_SECCTX),
    NUMBER_OF_FLOW(synproxy_isn, NLCT_FLOW_SYNPROXY_ISN, SYNPROXY),
    NUMBER_OF_FLOW(synproxy_its, NLCT_FLOW_SYNPROXY_ITS, SYNPROXY),
    NUMBER_OF_FLOW(synproxy_tsoff, NLCT_FLOW_SYNPROXY_TSOFF, SYNPROXY),
    OF_FLOW(unknown, NLCT_SPAN, NLCT_FLOW_UNKNOWN, 0),
    OF_TUPLE("orig_zone", orig, zone, NLCT_NUMBER, NLCT_TUPLE_ZONE, NLCT_FLOW_ORIG, CTA_TUPLE_ORIG),
    OF_TUPLE("reply_zone", reply, zone, NLCT_NUMBER, NLCT_TUPLE_ZONE, NLCT_FLOW_REPLY,
             CTA_TUPLE_REPLY),
    OF_EACH_TUPLE("master_", master, NLCT_FLOW_MASTER, CTA_TUPLE_MASTER),
    OF_TUPLE("master_zone", master, zone, NLCT_NUMBER, NLCT_TUPLE_ZONE, NLCT_FLOW_MASTER,
             CTA_TUPLE_MASTER),
};

_Static_assert(sizeof(fields) / sizeof(fields[0]) <= FLOW_FIELDS_MAX, "room for every field");

unsigned flow_fields(void)
{
    return sizeof(fields) / sizeof(fields[0]);
}

const struct field *flow_field(unsigned number)
{
    return number < flow_fields() ? &fields[number] : NULL;
}

bool flow_has(const struct nlct_flow *flow, const struct field *field)
{
    uint64_t present;

    if (!has(flow->present, field->part))
        return false;
    memcpy(&present, (const uint8_t *)flow + field->present, sizeof(present));
    return has(present, field->bit);
}

int nlct_field_get(unsigned number, struct nlct_field *field)
{
    const struct field *found = flow_field(number);

    if (!found)
        return -ENOENT;
    *field = found->public;
    return 0;
}
