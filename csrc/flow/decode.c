/* Message -> flow: indexed at once, decoded on demand. */
#include "attributes.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

/* Views --------------------------------------------------------------------------------------- */

int view_parse(struct view *view, struct wire payload)
{
    struct attr attr;
    int rc;

    if (payload.left < sizeof(struct nfgenmsg))
        return -EBADMSG;
    view->family = payload.at[offsetof(struct nfgenmsg, nfgen_family)];
    view->event = 0;
    view->payload = payload;
    view->present = view->decoded = view->unknown = 0;
    wire_skip(&payload, sizeof(struct nfgenmsg));
    while ((rc = wire_attr(&payload, &attr)) > 0) {
        if (!attr.type || attr.type >= VIEW_ATTRS) {
            view->unknown |= 1U; /* bit 0 stands for all types without a bit */
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
    int zone = -ENOENT;
    struct wire wire;
    struct attr attr;
    int rc;

    if (!tuple)
        return -ENOENT;
    wire = wire_nest(tuple);
    while ((rc = wire_attr(&wire, &attr)) > 0) {
        if (attr.type != CTA_TUPLE_ZONE)
            continue;
        if (attr.size != 2 || zone >= 0)
            return -EBADMSG;
        zone = wire_be16(attr.data);
    }
    return rc ? rc : zone;
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

/* Decoding ------------------------------------------------------------------------------------ */

static uint64_t *present_of(void *base)
{
    return base;
}

/* Text of less than 'size' bytes, with or without its null byte. */
static int store_text(void *to, const struct rule *rule, const struct attr *attr)
{
    size_t length = strnlen((const char *)attr->data, attr->size);

    if (length >= rule->size)
        return -EBADMSG;
    memset(to, 0, rule->size);
    memcpy(to, attr->data, length);
    return 0;
}

/* A span points into the payload until flow_decode() copies its bytes. */
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
    case FLAGS: /* the flags, and a mask */
        if (attr->size != 2)
            return -EBADMSG;
        *to = attr->data[0];
        return 0;
    }
    if (attr->size != rule->size)
        return -EBADMSG;
    if (rule->kind == NUMBER)
        number_write(to, number_turn(number_read(attr->data, rule->size), rule->size), rule->size);
    else
        memcpy(to, attr->data, attr->size);
    return 0;
}

/* The reply tuple precedes it. */
static int decode_nat(const struct rule *rule, const struct attr *attr, struct view *view,
                      bool *unknown)
{
    struct translation to = {0};
    int rc = table_decode(rule->nest, wire_nest(attr), view, &to, unknown);

    if (rc < 0)
        return rc;
    if (!nat_apply(&view->flow.reply, attr->type, to))
        *unknown = true;
    return 0;
}

static int decode_attr(const struct rule *rule, const struct attr *attr, struct view *view,
                       void *base, bool *unknown)
{
    uint8_t *to = (uint8_t *)base + rule->offset;
    int rc;

    if (rule->family && rule->family != view->family)
        return -EBADMSG;
    switch (rule->kind) {
    case PADDING:
        return 0;
    case NEST:
        return table_decode(rule->nest, wire_nest(attr), view, base, unknown);
    case NAT:
        return decode_nat(rule, attr, view, unknown);
    case TUPLE:
        ((struct nlct_tuple *)(void *)to)->family = view->family;
        rc = table_decode(rule->nest, wire_nest(attr), view, to, unknown);
        break;
    default:
        rc = store_value(rule, attr, view, to);
    }
    if (rc == 0)
        *present_of(base) |= bit(rule->bit);
    return rc;
}

static const struct rule *find_rule(const struct table *table, unsigned type)
{
    if (type >= table->count || table->rules[type].kind == UNKNOWN)
        return NULL;
    return &table->rules[type];
}

int table_decode(const struct table *table, struct wire wire, struct view *view, void *base,
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

/* Decodes a top-level attribute, once. A malformed one stays undecoded, so that the next call
   refuses it again. */
static int decode_type(struct view *view, unsigned type)
{
    const struct attr *attr = view_attr(view, type);
    const struct rule *rule = find_rule(&flow_table, type);
    bool unknown = !rule;
    int rc;

    if (!view->decoded) {
        memset(&view->flow, 0, sizeof(view->flow));
        view->flow.family = view->family;
        view->flow.event = view->event;
        view->flow.present = view->event ? bit(NLCT_FLOW_EVENT) : 0;
        view->decoded = 1U; /* no attribute has type 0 */
    }
    if (!attr || view->decoded & 1U << type)
        return 0;
    rc = rule ? decode_attr(rule, attr, view, &view->flow, &unknown) : 0;
    if (rc < 0)
        return rc;
    view->decoded |= 1U << type;
    if (unknown)
        view->unknown |= 1U << type;
    return 0;
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

static int keep_unknown(struct view *view, struct nlct_bytes *bytes)
{
    struct nlct_span *span = &view->flow.unknown;
    struct wire wire = view->payload;
    struct attr attr;
    int rc;

    span->at = (uint32_t)bytes->size;
    view->flow.present |= bit(NLCT_FLOW_UNKNOWN);
    wire_skip(&wire, sizeof(struct nfgenmsg));
    while ((rc = wire_attr(&wire, &attr)) > 0) {
        static const uint8_t padding[4];

        if (attr.type < VIEW_ATTRS && !(view->unknown & 1U << attr.type))
            continue;
        rc = bytes_add(bytes, attr.start, attr.whole);
        if (rc == 0)
            rc = bytes_add(bytes, padding, wire_align(attr.whole) - attr.whole);
        if (rc < 0)
            return rc;
    }
    span->size = (uint32_t)bytes->size - span->at;
    return rc;
}

int flow_decode(struct view *view, struct nlct_bytes *bytes)
{
    struct nlct_flow *flow = &view->flow;
    uint64_t types = view->present & ~view->decoded;
    int rc = decode_type(view, 0);

    while (types && rc == 0)
        rc = decode_type(view, next_bit(&types));
    if (rc == 0)
        rc = decode_zone(view);
    if (rc == 0 && has(flow->present, NLCT_FLOW_HELPER_INFO))
        rc = bytes_bring(bytes, view->payload.at, &flow->helper_info);
    if (rc == 0 && has(flow->present, NLCT_FLOW_SECCTX)) {
        rc = bytes_bring(bytes, view->payload.at, &flow->secctx);
        /* Text: without its null byte. */
        if (rc == 0 && flow->secctx.size && !bytes->data[bytes->size - 1])
            flow->secctx.size--;
    }
    if (rc == 0 && view->unknown)
        rc = keep_unknown(view, bytes);
    return rc;
}

int flow_read(struct wire payload, struct nlct_flow *flow, struct nlct_bytes *bytes)
{
    struct view view;
    int rc = view_parse(&view, payload);

    if (rc == 0)
        rc = flow_decode(&view, bytes);
    if (rc == 0)
        *flow = view.flow;
    return rc;
}

int nlct_flow_parse(const void *message, size_t size, struct nlct_flow *flow,
                    struct nlct_bytes *bytes)
{
    struct wire wire = {message, size};
    struct nlmsghdr header;
    struct wire payload;

    if (wire_message(&wire, &header, &payload) != 1 || wire.left)
        return -EBADMSG;
    return flow_read(payload, flow, bytes);
}
