#include "specs.h"
#include "check.h"

#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>

const struct mirror_tuple mirror_tuples[TUPLES] = {
    {"10.0.0.1", "192.0.2.1", "192.0.2.1", "10.0.0.1", IPPROTO_UDP},
    {"10.0.0.1", "192.0.2.1", "192.0.2.1", "10.0.0.1", IPPROTO_TCP},
    {"10.0.0.3", "192.0.2.1", "192.0.2.1", "198.51.100.9", IPPROTO_TCP},
    {"10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.1", IPPROTO_ICMP},
    {"192.0.2.1", "10.0.0.1", "10.0.0.1", "192.0.2.1", IPPROTO_GRE},
    {"2001:db8::1", "2001:db8::2", "2001:db8::2", "2001:db8::1", IPPROTO_UDP},
    {"2001:db8::1", "a00:1::", "2001:db8::7", "2001:db8::1", IPPROTO_ICMPV6},
    {"10.0.0.2", "192.0.2.1", "192.0.2.1", "10.0.0.2", IPPROTO_ESP},
};

static struct packet packet;

static void put_proto(uint8_t proto, bool reply)
{
    const size_t nest = packet_nest(&packet, CTA_TUPLE_PROTO);
    const uint8_t type = reply ? 0 : 8;

    packet_attr(&packet, CTA_PROTO_NUM, &proto, 1);
    if (proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6) {
        const bool four = proto == IPPROTO_ICMP;

        packet_be16(&packet, four ? CTA_PROTO_ICMP_ID : CTA_PROTO_ICMPV6_ID, 4711);
        packet_attr(&packet, four ? CTA_PROTO_ICMP_TYPE : CTA_PROTO_ICMPV6_TYPE, &type, 1);
        packet_attr(&packet, four ? CTA_PROTO_ICMP_CODE : CTA_PROTO_ICMPV6_CODE, "\1", 1);
    } else if (proto != IPPROTO_ESP) {
        packet_be16(&packet, CTA_PROTO_SRC_PORT, reply ? 53 : 1024);
        packet_be16(&packet, CTA_PROTO_DST_PORT, reply ? 1024 : 53);
    }
    packet_end_nest(&packet, nest);
}

static void put_tuple(uint16_t type, const char *src, const char *dst, uint8_t proto,
                      const uint16_t *zone)
{
    const size_t nest = packet_nest(&packet, type);

    packet_addresses(&packet, src, dst);
    put_proto(proto, type == CTA_TUPLE_REPLY);
    if (zone)
        packet_be16(&packet, CTA_TUPLE_ZONE, *zone);
    packet_end_nest(&packet, nest);
}

void make_view(struct view *view, const struct spec *spec, uint8_t event, unsigned defects)
{
    const struct mirror_tuple *tuple = &mirror_tuples[spec->tuple];
    const uint8_t proto = tuple->proto;
    const uint16_t *orig_zone = spec->direction == ORIG ? &spec->zone : NULL;
    const uint16_t *reply_zone = spec->direction == REPLY ? &spec->zone : NULL;

    packet_begin_flow(&packet, strchr(tuple->src, ':') ? AF_INET6 : AF_INET);
    if (!(defects & NO_ORIG))
        put_tuple(CTA_TUPLE_ORIG, tuple->src, tuple->dst, proto, orig_zone);
    if (!(defects & NO_REPLY))
        put_tuple(CTA_TUPLE_REPLY, tuple->reply_src, tuple->reply_dst, proto, reply_zone);
    packet_be32(&packet, CTA_MARK, spec->id);
    packet_be32(&packet, CTA_STATUS, 8);
    if (defects & SHORT_ZONE)
        packet_attr(&packet, CTA_ZONE, "\1", 1);
    else if (spec->zone && spec->direction == BOTH)
        packet_be16(&packet, CTA_ZONE, spec->zone);
    if (defects & SHORT_ID)
        packet_be16(&packet, CTA_ID, 7);
    else if (!(defects & NO_ID))
        packet_be32(&packet, CTA_ID, spec->id);
    CHECK_IS(packet_view(&packet, view), 0);
    view->event = event;
}

void expect_row(struct nlct_flow *flow, const struct spec *spec)
{
    struct nlct_bytes bytes = {0};
    struct view view;

    make_view(&view, spec, 0, 0);
    CHECK_IS(flow_decode(&view, &bytes), 0);
    *flow = view.flow;
    flow->present =
        BIT(NLCT_FLOW_ORIG) | BIT(NLCT_FLOW_REPLY) | BIT(NLCT_FLOW_ZONE) | BIT(NLCT_FLOW_ID);
}

bool is_same(const struct nlct_flow *row, const struct nlct_flow *other)
{
    unsigned i;

    for (i = 0; i < flow_fields(); i++) {
        const struct field *field = flow_field(i);

        if (flow_has(row, field) != flow_has(other, field))
            return false;
        if (flow_has(row, field) &&
            memcmp(flow_value(row, field), flow_value(other, field), field->public.size) != 0)
            return false;
    }
    return row->orig.family == other->orig.family && row->reply.family == other->reply.family &&
           row->orig.present == other->orig.present && row->reply.present == other->reply.present;
}

struct fed make_fed(bool addresses)
{
    struct fed fed = {NULL, NULL};

    CHECK_IS(nlct_mirror_new(&fed.mirror, addresses), 0);
    CHECK_IS(nlct_feed_new(&fed.feed, fed.mirror), 0);
    return fed;
}

void free_fed(struct fed *fed)
{
    nlct_sink_free(&fed->feed);
    nlct_mirror_free(&fed->mirror);
}

int give(struct nlct_sink *sink, const struct spec *spec, uint8_t event)
{
    struct view view;

    make_view(&view, spec, event, 0);
    return sink->take(sink, &view);
}

bool is_there(const struct fed *fed, const struct spec *spec)
{
    struct nlct_flow flow;

    expect_row(&flow, spec);
    return nlct_mirror_has(fed->mirror, &flow) == 1;
}

int64_t count_all(const struct fed *fed)
{
    return nlct_mirror_count(fed->mirror, &(struct nlct_list){.kind = NLCT_LIST_ALL});
}

int64_t count_zone(const struct fed *fed, uint16_t zone)
{
    return nlct_mirror_count(fed->mirror,
                             &(struct nlct_list){.kind = NLCT_LIST_ZONE, .zone = zone});
}

struct nlct_mirror_counters counters_of(const struct fed *fed)
{
    struct nlct_mirror_counters counters;

    nlct_mirror_counters(fed->mirror, &counters);
    return counters;
}

struct spec numbered(unsigned number)
{
    return (struct spec){.id = 1000 + number, .zone = (uint16_t)(number % 7)};
}
