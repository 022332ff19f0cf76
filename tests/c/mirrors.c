/* Mirrors by themselves: what feeds them, rounds, walks and deletes, against plain expectations. */
#include "cases.h"
#include "check.h"
#include "fake.h"

#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <sys/socket.h>

/* Flows --------------------------------------------------------------------------------------- */

enum direction { BOTH, ORIG, REPLY };
enum { ROW = 0, NEW = NLCT_EVENT_NEW, UPDATE = NLCT_EVENT_UPDATE, DESTROY = NLCT_EVENT_DESTROY };

/* A flow in few words. */
struct spec {
    uint32_t id;
    uint16_t zone;
    enum direction direction;
    unsigned tuple; /* one of those below */
};

static const struct {
    const char *src;
    const char *dst;
    const char *reply_src;
    const char *reply_dst;
    uint8_t proto;
} tuples[] = {
    {"10.0.0.1", "192.0.2.1", "192.0.2.1", "10.0.0.1", IPPROTO_UDP},
    {"10.0.0.1", "192.0.2.1", "192.0.2.1", "10.0.0.1", IPPROTO_TCP},
    {"10.0.0.3", "192.0.2.1", "192.0.2.1", "198.51.100.9", IPPROTO_TCP},
    {"10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.1", IPPROTO_ICMP},
    {"192.0.2.1", "10.0.0.1", "10.0.0.1", "192.0.2.1", IPPROTO_GRE},
    {"2001:db8::1", "2001:db8::2", "2001:db8::2", "2001:db8::1", IPPROTO_UDP},
    {"2001:db8::1", "a00:1::", "2001:db8::7", "2001:db8::1", IPPROTO_ICMPV6},
    {"10.0.0.2", "192.0.2.1", "192.0.2.1", "10.0.0.2", 50},
};

enum { TUPLES = sizeof(tuples) / sizeof(tuples[0]) };

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
    } else if (proto != 50) {
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

/* What may be missing or wrong. */
enum {
    NO_ID = 1 << 0,
    NO_ORIG = 1 << 1,
    NO_REPLY = 1 << 2,
    SHORT_ID = 1 << 3,
    SHORT_ZONE = 1 << 4,
    ENDS = 1 << 5,
    DEFECTS = 1 << 6
};

/* Puts the message that the kernel sends of a flow, and reads it. */
static void make_view(struct view *view, const struct spec *spec, uint8_t event, unsigned defects)
{
    const unsigned number = spec->tuple;
    const uint8_t proto = tuples[number].proto;
    const uint16_t *orig_zone = spec->direction == ORIG ? &spec->zone : NULL;
    const uint16_t *reply_zone = spec->direction == REPLY ? &spec->zone : NULL;

    packet_begin_flow(&packet, strchr(tuples[number].src, ':') ? AF_INET6 : AF_INET);
    if (!(defects & NO_ORIG))
        put_tuple(CTA_TUPLE_ORIG, tuples[number].src, tuples[number].dst, proto, orig_zone);
    if (!(defects & NO_REPLY))
        put_tuple(CTA_TUPLE_REPLY, tuples[number].reply_src, tuples[number].reply_dst, proto,
                  reply_zone);
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
    if (defects & ENDS)
        packet_bytes(&packet, "\1\0\0\0", 4);
    CHECK_IS(packet_view(&packet, view), defects & ENDS ? -EBADMSG : 0);
    view->event = event;
}

/* What a mirror should keep of the flow. */
static void expect_row(struct nlct_flow *flow, const struct spec *spec)
{
    struct nlct_bytes bytes = {0};
    struct view view;

    make_view(&view, spec, 0, 0);
    CHECK_IS(flow_decode(&view, &bytes), 0);
    *flow = view.flow;
    flow->present =
        BIT(NLCT_FLOW_ORIG) | BIT(NLCT_FLOW_REPLY) | BIT(NLCT_FLOW_ZONE) | BIT(NLCT_FLOW_ID);
}

static bool is_same(const struct nlct_flow *row, const struct nlct_flow *other)
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

/* A mirror and what feeds it. */
struct fed {
    struct nlct_mirror *mirror;
    struct nlct_sink *feed;
};

static struct fed make_fed(bool addresses)
{
    struct fed fed = {NULL, NULL};

    CHECK_IS(nlct_mirror_new(&fed.mirror, addresses), 0);
    CHECK_IS(nlct_feed_new(&fed.feed, fed.mirror), 0);
    return fed;
}

static void free_fed(struct fed *fed)
{
    nlct_sink_free(&fed->feed);
    nlct_mirror_free(&fed->mirror);
}

static int give(struct nlct_sink *sink, const struct spec *spec, uint8_t event)
{
    struct view view;

    make_view(&view, spec, event, 0);
    return sink->take(sink, &view);
}

static bool is_there(const struct fed *fed, const struct spec *spec)
{
    struct nlct_flow flow;

    expect_row(&flow, spec);
    return nlct_mirror_has(fed->mirror, &flow) == 1;
}

static int64_t count_all(const struct nlct_mirror *mirror)
{
    return nlct_mirror_count(mirror, &(struct nlct_list){.kind = NLCT_LIST_ALL});
}

static int64_t count_zone(const struct nlct_mirror *mirror, uint16_t zone)
{
    return nlct_mirror_count(mirror, &(struct nlct_list){.kind = NLCT_LIST_ZONE, .zone = zone});
}

static struct nlct_mirror_counters counters_of(const struct fed *fed)
{
    struct nlct_mirror_counters counters;

    nlct_mirror_counters(fed->mirror, &counters);
    return counters;
}

/* Events -------------------------------------------------------------------------------------- */

static const struct spec udp = {.id = 1, .zone = 5};
static const struct spec udp_reborn = {.id = 2, .zone = 5};

static void a_destroy_removes_that_very_flow(void)
{
    const struct spec others[] = {
        {.id = 2, .zone = 5},
        {.id = 1, .zone = 6},
        {.id = 1, .zone = 5, .direction = ORIG},
        {.id = 1, .zone = 5, .direction = REPLY},
        {.id = 1, .zone = 5, .tuple = 1},
        {.id = 1, .zone = 5, .tuple = 4},
    };
    struct fed fed = make_fed(false);
    size_t i;

    CHECK_IS(give(fed.feed, &udp, NEW), 0);
    for (i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        CHECK(!is_there(&fed, &others[i]));
        CHECK_IS(give(fed.feed, &others[i], DESTROY), 0);
        CHECK(is_there(&fed, &udp));
    }
    CHECK_IS(counters_of(&fed).strangers, i);
    CHECK_IS(give(fed.feed, &udp, UPDATE), 0);
    CHECK_IS(give(fed.feed, &udp, DESTROY), 0);
    CHECK_IS(count_all(fed.mirror), 0);
    CHECK_IS(counters_of(&fed).destroyed, 1);
    free_fed(&fed);
}

static void one_id_may_end_and_begin_again(void)
{
    struct fed fed = make_fed(true);

    CHECK_IS(give(fed.feed, &udp, NEW), 0);
    CHECK_IS(give(fed.feed, &udp, DESTROY), 0);
    CHECK_IS(give(fed.feed, &udp, NEW), 0);
    CHECK(is_there(&fed, &udp));
    CHECK_IS(count_zone(fed.mirror, 5), 1);
    free_fed(&fed);
}

/* A flow that ctnetlink made is reported after it was inserted. */
static void events_of_one_tuple_come_in_any_order(void)
{
    struct fed fed = make_fed(false);

    CHECK_IS(give(fed.feed, &udp, DESTROY), 0);
    CHECK_IS(give(fed.feed, &udp_reborn, NEW), 0);
    CHECK_IS(give(fed.feed, &udp, NEW), 0);
    CHECK_IS(count_zone(fed.mirror, 5), 2);
    CHECK(is_there(&fed, &udp) && is_there(&fed, &udp_reborn));
    CHECK_IS(give(fed.feed, &udp, DESTROY), 0);
    CHECK(!is_there(&fed, &udp) && is_there(&fed, &udp_reborn));
    free_fed(&fed);
}

static void repeats_change_nothing(void)
{
    struct fed fed = make_fed(true);
    int i;

    for (i = 0; i < 3; i++) {
        CHECK_IS(give(fed.feed, &udp, NEW), 0);
        CHECK_IS(give(fed.feed, &udp, ROW), 0);
        CHECK_IS(count_all(fed.mirror), 1);
    }
    CHECK_IS(counters_of(&fed).inserted, 1);
    CHECK_IS(counters_of(&fed).repeated, 2);
    CHECK_IS(give(fed.feed, &udp, DESTROY), 0);
    CHECK_IS(give(fed.feed, &udp, DESTROY), 0);
    CHECK_IS(count_all(fed.mirror), 0);
    free_fed(&fed);
}

static void what_names_no_flow_is_an_error(void)
{
    const uint8_t events[] = {ROW, NEW, DESTROY};
    struct fed fed = make_fed(true);
    struct nlct_sink *audit;
    struct nlct_flow row;
    struct view view;
    unsigned defects;
    size_t i;

    CHECK_IS(nlct_audit_new(&audit, fed.mirror, &row, 1), 0);
    for (defects = 1; defects < ENDS; defects <<= 1) {
        for (i = 0; i < sizeof(events); i++) {
            make_view(&view, &udp, events[i], defects);
            CHECK_IS(fed.feed->take(fed.feed, &view), -EBADMSG);
        }
        make_view(&view, &udp, UPDATE, defects);
        CHECK_IS(fed.feed->take(fed.feed, &view), 0);
        make_view(&view, &udp, ROW, defects);
        CHECK_IS(audit->take(audit, &view), -EBADMSG);
    }
    CHECK_IS(nlct_audit_take(audit), 0);
    CHECK_IS(count_all(fed.mirror), 0);
    nlct_sink_free(&audit);
    free_fed(&fed);
}

static void flows_without_a_name_are_refused(void)
{
    struct fed fed = make_fed(false);
    struct nlct_flow whole;
    struct nlct_flow flows[8];
    size_t i;

    expect_row(&whole, &udp);
    for (i = 0; i < 8; i++)
        flows[i] = whole;
    flows[0].present &= ~BIT(NLCT_FLOW_ID);
    flows[1].present &= ~BIT(NLCT_FLOW_ORIG);
    flows[2].present &= ~BIT(NLCT_FLOW_REPLY);
    flows[3].orig.present &= ~BIT(NLCT_TUPLE_SRC);
    flows[4].reply.present &= ~BIT(NLCT_TUPLE_DST);
    flows[5].orig.present |= BIT(NLCT_TUPLE_ICMP_ID);
    flows[6].family = AF_UNSPEC;
    flows[7].orig.present |= BIT(NLCT_TUPLE_ZONE); /* 0, but the flow is in 5 */
    for (i = 0; i < 8; i++) {
        CHECK_IS(nlct_mirror_add(fed.mirror, &flows[i]), -EINVAL);
        CHECK_IS(nlct_mirror_remove(fed.mirror, &flows[i]), -EINVAL);
        CHECK_IS(nlct_mirror_has(fed.mirror, &flows[i]), -EINVAL);
    }
    CHECK_IS(nlct_mirror_add(fed.mirror, &whole), 1);
    CHECK_IS(nlct_mirror_add(fed.mirror, &whole), 0);
    /* The zone may be in a tuple alone, as people write it. */
    expect_row(&whole, &(struct spec){.id = 3, .zone = 9, .direction = REPLY});
    whole.present &= ~BIT(NLCT_FLOW_ZONE);
    whole.zone = 0;
    CHECK_IS(nlct_mirror_add(fed.mirror, &whole), 1);
    CHECK_IS(count_zone(fed.mirror, 9), 1);
    CHECK_IS(nlct_mirror_remove(fed.mirror, &whole), 1);
    CHECK_IS(nlct_mirror_remove(fed.mirror, &whole), 0);
    CHECK_IS(counters_of(&fed).deleted, 1);
    free_fed(&fed);
}

/* Rounds -------------------------------------------------------------------------------------- */

static void end_round(struct fed *fed)
{
    CHECK_IS(nlct_mirror_round_end(fed->mirror, SIZE_MAX), 0);
}

/* Read before the flow ended, it comes after the event. */
static void a_late_row_brings_no_flow_back(void)
{
    struct fed fed = make_fed(false);
    struct nlct_flow flow;
    int known;

    expect_row(&flow, &udp);
    for (known = 0; known < 2; known++) {
        if (known)
            CHECK_IS(give(fed.feed, &udp, NEW), 0);
        nlct_mirror_round_begin(fed.mirror, NLCT_ROUND_FEED);
        CHECK_IS(give(fed.feed, &udp, DESTROY), 0);
        CHECK_IS(give(fed.feed, &udp, DESTROY), 0);
        CHECK_IS(give(fed.feed, &udp, ROW), 0);
        CHECK_IS(nlct_mirror_add(fed.mirror, &flow), 0);
        CHECK(!is_there(&fed, &udp));
        /* Another flow of this tuple may come. */
        CHECK_IS(give(fed.feed, &udp_reborn, ROW), 0);
        CHECK(is_there(&fed, &udp_reborn));
        end_round(&fed);
        CHECK_IS(give(fed.feed, &udp, ROW), 0);
        CHECK(is_there(&fed, &udp));
        CHECK_IS(nlct_mirror_remove(fed.mirror, &flow), 1);
    }
    CHECK_IS(counters_of(&fed).outdated, 4);
    free_fed(&fed);
}

static void an_acknowledged_delete_leaves_a_tombstone_too(void)
{
    struct fed fed = make_fed(true);
    struct nlct_flow flow;
    int known;

    expect_row(&flow, &udp);
    for (known = 0; known < 2; known++) {
        nlct_mirror_round_begin(fed.mirror, NLCT_ROUND_FEED);
        if (known)
            CHECK_IS(give(fed.feed, &udp, ROW), 0);
        CHECK_IS(nlct_mirror_remove(fed.mirror, &flow), known);
        CHECK_IS(give(fed.feed, &udp, ROW), 0);
        CHECK(!is_there(&fed, &udp));
        nlct_mirror_round_drop(fed.mirror);
        CHECK_IS(give(fed.feed, &udp, ROW), 0);
        CHECK(is_there(&fed, &udp));
        CHECK_IS(give(fed.feed, &udp, DESTROY), 0);
    }
    free_fed(&fed);
}

static void a_new_flow_clears_its_tombstone(void)
{
    struct fed fed = make_fed(false);

    nlct_mirror_round_begin(fed.mirror, NLCT_ROUND_FEED);
    CHECK_IS(give(fed.feed, &udp, DESTROY), 0);
    CHECK_IS(give(fed.feed, &udp_reborn, NEW), 0);
    CHECK_IS(give(fed.feed, &udp, ROW), 0);
    CHECK(!is_there(&fed, &udp));
    CHECK_IS(give(fed.feed, &udp, NEW), 0);
    CHECK(is_there(&fed, &udp));
    CHECK_IS(give(fed.feed, &udp, ROW), 0);
    CHECK_IS(count_all(fed.mirror), 2);
    end_round(&fed);
    CHECK_IS(count_all(fed.mirror), 2);
    free_fed(&fed);
}

static void outside_a_feeding_round_there_are_no_tombstones(void)
{
    struct fed fed = make_fed(false);

    CHECK_IS(give(fed.feed, &udp, DESTROY), 0);
    CHECK_IS(give(fed.feed, &udp, ROW), 0);
    CHECK(is_there(&fed, &udp));
    nlct_mirror_round_begin(fed.mirror, NLCT_ROUND_AUDIT);
    CHECK_IS(give(fed.feed, &udp, DESTROY), 0);
    CHECK_IS(give(fed.feed, &udp, ROW), 0);
    CHECK(is_there(&fed, &udp));
    free_fed(&fed);
}

enum { MANY = 100 };

static struct spec numbered(unsigned number)
{
    return (struct spec){.id = 1000 + number, .zone = (uint16_t)(number % 7)};
}

/* Of flows 0 to 99, those from 50 on are in the table; 100 and 101 are there unknown. */
static void a_round_drops_what_it_did_not_see(void)
{
    struct fed fed = make_fed(true);
    struct nlct_sink *audit;
    struct nlct_flow rows[1];
    struct nlct_flow expected;
    struct spec spec;
    unsigned i;
    int rc;

    CHECK_IS(nlct_audit_new(&audit, fed.mirror, rows, 1), 0);
    CHECK_IS(nlct_mirror_round_end(fed.mirror, 1), -EINVAL);
    for (i = 0; i < MANY; i++)
        CHECK_IS(give(fed.feed, (spec = numbered(i), &spec), NEW), 0);
    nlct_mirror_round_begin(fed.mirror, NLCT_ROUND_AUDIT);
    for (i = MANY / 2; i < MANY + 1; i++)
        CHECK_IS(give(audit, (spec = numbered(i), &spec), ROW), 0);
    CHECK(!is_there(&fed, &spec));
    expect_row(&expected, &spec);
    CHECK(is_same(&rows[0], &expected));
    /* The second of the unknown ones has no room at first. */
    CHECK_IS(give(audit, (spec = numbered(MANY + 1), &spec), ROW), 1);
    CHECK_IS(nlct_audit_take(audit), 1);
    CHECK_IS(give(audit, &spec, ROW), 0);
    CHECK_IS(nlct_audit_take(audit), 1);
    /* What is announced or added meanwhile is no ghost. */
    CHECK_IS(give(fed.feed, (spec = numbered(0), &spec), NEW), 0);
    CHECK_IS(nlct_mirror_add(fed.mirror, &rows[0]), 1);
    CHECK_IS(give(fed.feed, (spec = numbered(1), &spec), DESTROY), 0);
    CHECK_IS(give(fed.feed, (spec = numbered(1), &spec), NEW), 0);
    for (i = 0; (rc = nlct_mirror_round_end(fed.mirror, 10)) == 1; i++)
        CHECK_IS(give(fed.feed, (spec = numbered(200 + i), &spec), NEW), 0);
    CHECK_IS(rc, 0);
    CHECK_IS(counters_of(&fed).ghosts, MANY / 2 - 2);
    CHECK_IS(count_all(fed.mirror), MANY / 2 + 2 + 1 + i);
    CHECK(is_there(&fed, (spec = numbered(0), &spec)));
    CHECK(!is_there(&fed, (spec = numbered(2), &spec)));
    CHECK(is_there(&fed, (spec = numbered(MANY + 1), &spec)));
    CHECK_IS(nlct_mirror_round_end(fed.mirror, 1), -EINVAL);
    nlct_sink_free(&audit);
    free_fed(&fed);
}

static void a_round_that_is_given_up_drops_nothing(void)
{
    struct fed fed = make_fed(false);
    struct spec spec;
    unsigned i;

    for (i = 0; i < MANY; i++)
        CHECK_IS(give(fed.feed, (spec = numbered(i), &spec), NEW), 0);
    nlct_mirror_round_begin(fed.mirror, NLCT_ROUND_FEED);
    for (i = 0; i < MANY / 2; i++)
        CHECK_IS(give(fed.feed, (spec = numbered(i), &spec), ROW), 0);
    nlct_mirror_round_drop(fed.mirror);
    CHECK_IS(count_all(fed.mirror), MANY);
    /* The next one begins anew: what the first saw counts no longer. */
    nlct_mirror_round_begin(fed.mirror, NLCT_ROUND_AUDIT);
    nlct_mirror_round_begin(fed.mirror, NLCT_ROUND_FEED);
    for (i = MANY / 2; i < MANY; i++)
        CHECK_IS(give(fed.feed, (spec = numbered(i), &spec), ROW), 0);
    end_round(&fed);
    CHECK_IS(count_all(fed.mirror), MANY / 2);
    CHECK_IS(counters_of(&fed).ghosts, MANY / 2);
    free_fed(&fed);
}

/* Random streams ------------------------------------------------------------------------------ */

static const uint16_t zones[] = {0, 5, 65535};

enum { IDS = 2, IDENTITIES = TUPLES * 3 * 3 * IDS, WALKS = 4 };

static uint64_t random_state;

static unsigned draw(unsigned below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (unsigned)(random_state >> 33) % below;
}

/* What a plain model knows of one identity. */
struct known {
    struct spec spec;
    struct nlct_flow row;
    bool there;
    bool seen;      /* during this round */
    bool tombstone; /* of this round */
    unsigned life;  /* counts how often it was inserted */
};

static struct known model[IDENTITIES];
static bool feeding;
static bool ending;

/* A walk, and the lives that it must and may meet. */
struct walking {
    struct nlct_walk *walk;
    struct nlct_list list;
    unsigned life[IDENTITIES]; /* 0: none */
};

static bool is_in(const struct nlct_list *list, const struct nlct_flow *flow)
{
    const uint8_t *addresses[] = {flow->orig.src, flow->orig.dst, flow->reply.src, flow->reply.dst};

    if (list->kind == NLCT_LIST_ALL)
        return true;
    if (list->kind == NLCT_LIST_ZONE)
        return flow->zone == list->zone;
    return flow->family == list->family &&
           memcmp(addresses[list->kind - NLCT_LIST_SRC], list->address, 16) == 0;
}

static struct nlct_list any_list(bool addresses)
{
    struct nlct_list list = {.kind = NLCT_LIST_ZONE, .zone = zones[draw(3)]};
    const char *text = tuples[draw(TUPLES)].src;

    if (draw(5) == 0)
        list.kind = NLCT_LIST_ALL;
    else if (addresses && draw(3)) {
        list.kind = (enum nlct_list_kind)(NLCT_LIST_SRC + draw(4));
        list.family = strchr(text, ':') ? AF_INET6 : AF_INET;
        CHECK_IS(inet_pton(list.family, text, list.address), 1);
    }
    return list;
}

static void begin_walk(struct walking *walking, struct fed *fed, bool addresses)
{
    unsigned i;

    walking->list = any_list(addresses);
    CHECK_IS(nlct_walk_new(&walking->walk, fed->mirror, &walking->list), 0);
    for (i = 0; i < IDENTITIES; i++) {
        const bool in = model[i].there && is_in(&walking->list, &model[i].row);

        walking->life[i] = in ? model[i].life : 0;
    }
}

static unsigned identity_of(const struct nlct_flow *row)
{
    unsigned i;

    for (i = 0; i < IDENTITIES; i++)
        if (is_same(row, &model[i].row))
            return i;
    CHECK(!"a row of the model");
    return 0;
}

/* Returns whether the walk goes on. */
static bool go_on(struct walking *walking, size_t capacity)
{
    struct nlct_flow rows[IDENTITIES];
    size_t count;
    size_t i;
    const int rc = nlct_walk_rows(walking->walk, NULL, rows, capacity, &count);

    CHECK(count <= capacity);
    for (i = 0; i < count; i++) {
        const unsigned number = identity_of(&rows[i]);

        CHECK(model[number].there);
        CHECK(walking->life[number] == model[number].life || walking->list.kind == NLCT_LIST_ALL);
        walking->life[number] = 0;
    }
    if (rc == 1)
        return true;
    CHECK_IS(rc, 0);
    for (i = 0; i < IDENTITIES; i++)
        CHECK(!model[i].there || walking->life[i] != model[i].life);
    nlct_walk_free(&walking->walk);
    return false;
}

static void insert(struct known *known)
{
    if (!known->there)
        known->life++;
    known->there = known->seen = true;
}

static void end_life(struct known *known)
{
    known->there = false;
    known->tombstone = feeding;
}

/* One event or row, to the mirror and to the model. */
static void happen(struct fed *fed, struct known *known)
{
    const bool was = known->there;

    switch (draw(6)) {
    case 0:
        CHECK_IS(give(fed->feed, &known->spec, NEW), 0);
        known->tombstone = false;
        insert(known);
        break;
    case 1:
        CHECK_IS(give(fed->feed, &known->spec, DESTROY), 0);
        end_life(known);
        break;
    case 2:
        CHECK_IS(give(fed->feed, &known->spec, ROW), 0);
        if (!known->tombstone)
            insert(known);
        break;
    case 3:
        CHECK_IS(nlct_mirror_add(fed->mirror, &known->row), !was && !known->tombstone);
        if (!known->tombstone)
            insert(known);
        break;
    case 4:
        CHECK_IS(nlct_mirror_remove(fed->mirror, &known->row), was);
        end_life(known);
        break;
    default:
        CHECK_IS(give(fed->feed, &known->spec, UPDATE), 0);
    }
}

static void begin_round(struct fed *fed)
{
    unsigned i;

    feeding = draw(2);
    ending = false;
    nlct_mirror_round_begin(fed->mirror, feeding ? NLCT_ROUND_FEED : NLCT_ROUND_AUDIT);
    for (i = 0; i < IDENTITIES; i++)
        model[i].seen = model[i].tombstone = false;
}

/* Ends what there is, at once: in steps the model would have to know the order. */
static void finish_round(struct fed *fed)
{
    unsigned i;

    if (nlct_mirror_round_end(fed->mirror, SIZE_MAX) < 0)
        return;
    feeding = false;
    for (i = 0; i < IDENTITIES; i++) {
        model[i].tombstone = false;
        if (!model[i].seen)
            model[i].there = false;
    }
}

static void audit_one(struct fed *fed, struct known *known)
{
    struct nlct_sink *audit;
    struct nlct_flow row;

    CHECK_IS(nlct_audit_new(&audit, fed->mirror, &row, 1), 0);
    CHECK_IS(give(audit, &known->spec, ROW), 0);
    CHECK_IS(nlct_audit_take(audit), !known->there);
    if (known->there)
        known->seen = true;
    else
        CHECK(is_same(&row, &known->row));
    nlct_sink_free(&audit);
}

static void check_list(const struct fed *fed, const struct nlct_list *list)
{
    int64_t count = 0;
    unsigned i;

    for (i = 0; i < IDENTITIES; i++)
        count += model[i].there && is_in(list, &model[i].row);
    CHECK_IS(nlct_mirror_count(fed->mirror, list), count);
}

/* The lists of one kind, with their counts, are those of the model. */
static void check_lists(const struct fed *fed, enum nlct_list_kind kind)
{
    const size_t capacity = 1 + draw(4);
    struct nlct_count counts[5];
    int64_t sum = 0;
    uint32_t at = 0;
    int got;
    int i;

    while ((got = nlct_mirror_lists(fed->mirror, kind, &at, counts, capacity)) > 0) {
        for (i = 0; i < got; i++) {
            struct nlct_list list = {.kind = kind, .family = counts[i].family};

            memcpy(&list.zone, counts[i].values[0], sizeof(list.zone));
            memcpy(list.address, counts[i].values[0], sizeof(list.address));
            CHECK(counts[i].count > 0);
            CHECK_IS(counts[i].count, nlct_mirror_count(fed->mirror, &list));
            check_list(fed, &list);
            sum += (int64_t)counts[i].count;
        }
    }
    CHECK_IS(got, 0);
    CHECK_IS(sum, count_all(fed->mirror));
}

static void check_all(struct fed *fed, bool addresses)
{
    struct walking walking = {.walk = NULL};
    struct nlct_list list;
    unsigned i;

    check_list(fed, &(struct nlct_list){.kind = NLCT_LIST_ALL});
    check_lists(fed, NLCT_LIST_ZONE);
    for (i = 0; i < 4; i++)
        if (addresses)
            check_lists(fed, (enum nlct_list_kind)(NLCT_LIST_SRC + i));
    list = any_list(addresses);
    check_list(fed, &list);
    for (i = 0; i < IDENTITIES; i++)
        CHECK_IS(nlct_mirror_has(fed->mirror, &model[i].row), model[i].there);
    begin_walk(&walking, fed, addresses);
    while (go_on(&walking, 1 + draw(50)))
        ;
}

static void run_at_random(bool addresses, unsigned steps)
{
    struct walking walkings[WALKS] = {{.walk = NULL}};
    struct fed fed = make_fed(addresses);
    unsigned i;

    feeding = false;
    for (i = 0; i < IDENTITIES; i++) {
        model[i] = (struct known){.spec = {.id = 1 + i % IDS,
                                           .zone = zones[i / IDS % 3],
                                           .direction = (enum direction)(i / IDS / 3 % 3),
                                           .tuple = i / IDS / 9}};
        expect_row(&model[i].row, &model[i].spec);
    }
    for (i = 0; i < steps; i++) {
        struct known *known = &model[draw(IDENTITIES)];
        struct walking *walking = &walkings[draw(WALKS)];

        happen(&fed, known);
        if (draw(4) == 0)
            audit_one(&fed, known);
        if (draw(3) == 0 && walking->walk)
            go_on(walking, draw(4));
        else if (draw(20) == 0 && walking->walk)
            nlct_walk_free(&walking->walk);
        else if (!walking->walk)
            begin_walk(walking, &fed, addresses);
        if (draw(200) == 0)
            begin_round(&fed);
        if (draw(400) == 0)
            finish_round(&fed);
        if (draw(100) == 0)
            check_all(&fed, addresses);
    }
    for (i = 0; i < WALKS; i++)
        nlct_walk_free(&walkings[i].walk);
    check_all(&fed, addresses);
    free_fed(&fed);
}

static void any_stream_agrees_with_a_plain_model(void)
{
    unsigned seed;

    for (seed = 1; seed <= 20; seed++) {
        random_state = seed * UINT64_C(0x9e3779b97f4a7c15);
        run_at_random(seed % 2, 3000);
    }
}

/* Growth -------------------------------------------------------------------------------------- */

/* So many that every table grows through many segments, and that some hashes are the same. Half of
   them differ in zone and id alone, the others have an address of their own. */
static struct nlct_flow one_of_many(unsigned number)
{
    static struct nlct_flow flow;
    const uint32_t address = htobe32(0x0a000000 + (number / 2 % 2 ? 0 : number));

    if (!flow.present)
        expect_row(&flow, &udp);
    flow.id = number * 7;
    flow.zone = (uint16_t)(number % 500);
    memcpy(flow.orig.src, &address, sizeof(address));
    memcpy(flow.reply.dst, &address, sizeof(address));
    return flow;
}

static void grow(bool addresses, unsigned flows)
{
    struct nlct_list shared = {.kind = NLCT_LIST_SRC, .family = AF_INET, .address = {10}};
    struct fed fed = make_fed(addresses);
    struct nlct_flow flow;
    size_t bytes;
    unsigned i;

    for (i = 0; i < flows; i++)
        CHECK_IS(nlct_mirror_add(fed.mirror, (flow = one_of_many(i), &flow)), 1);
    bytes = nlct_mirror_bytes(fed.mirror);
    CHECK(bytes / flows < (addresses ? 180 : 96));
    CHECK_IS(count_all(fed.mirror), flows);
    CHECK_IS(count_zone(fed.mirror, 499), flows / 500);
    CHECK_IS(count_zone(fed.mirror, 500), 0);
    for (i = 0; i < flows; i += 2)
        CHECK_IS(nlct_mirror_remove(fed.mirror, (flow = one_of_many(i), &flow)), 1);
    for (i = 0; i < flows; i++)
        CHECK_IS(nlct_mirror_has(fed.mirror, (flow = one_of_many(i), &flow)), i % 2);
    CHECK_IS(nlct_mirror_count(fed.mirror, &shared), addresses ? (int)flows / 4 : -EINVAL);
    for (i = 0; i < flows; i += 2)
        CHECK_IS(nlct_mirror_add(fed.mirror, (flow = one_of_many(i), &flow)), 1);
    CHECK_IS(nlct_mirror_bytes(fed.mirror), bytes);
    free_fed(&fed);
}

static void mirrors_grow(void)
{
    grow(false, 1000000);
    grow(true, 100000);
}

/* Failures ------------------------------------------------------------------------------------ */

/* Wherever memory runs out, the mirror says so and stays whole. */
static void without_memory_nothing_is_half_done(void)
{
    const struct spec ipv6 = {.id = 3, .zone = 5, .tuple = 5};
    const struct nlct_list by_src = {
        .kind = NLCT_LIST_SRC, .family = AF_INET, .address = {10, [3] = 1}};
    struct nlct_list by_reply_src = {.kind = NLCT_LIST_REPLY_SRC, .family = AF_INET6};
    struct nlct_mirror *mirror = NULL;
    struct nlct_sink *sink = NULL;
    struct nlct_walk *walk = NULL;
    int failures = 0;
    int after;
    int rc = -ENOMEM;

    CHECK_IS(inet_pton(AF_INET6, tuples[5].reply_src, by_reply_src.address), 1);
    for (after = 0; nlct_mirror_free(&mirror), rc < 0; after++) {
        fake_fail_memory(after);
        rc = nlct_mirror_new(&mirror, true);
        CHECK(rc == 0 ? mirror != NULL : rc == -ENOMEM && !mirror);
    }
    CHECK_IS(after, 3);
    fake_fail_memory(-1);
    for (after = 0, rc = -ENOMEM; rc < 0; after++) {
        struct fed fed = make_fed(true);

        CHECK_IS(give(fed.feed, &udp, NEW), 0);
        nlct_mirror_round_begin(fed.mirror, NLCT_ROUND_FEED);
        fake_fail_memory(after);
        rc = give(fed.feed, &ipv6, NEW);
        if (rc == 0)
            rc = give(fed.feed, &udp, DESTROY);
        fake_fail_memory(-1);
        CHECK(rc == 0 || rc == -ENOMEM);
        failures += rc < 0;
        CHECK_IS(count_all(fed.mirror), is_there(&fed, &udp) + is_there(&fed, &ipv6));
        CHECK_IS(nlct_mirror_count(fed.mirror, &by_src), is_there(&fed, &udp));
        CHECK_IS(nlct_mirror_count(fed.mirror, &by_reply_src), is_there(&fed, &ipv6));
        CHECK_IS(give(fed.feed, &ipv6, NEW), 0);
        CHECK_IS(give(fed.feed, &ipv6, DESTROY), 0);
        CHECK_IS(give(fed.feed, &udp, DESTROY), 0);
        CHECK_IS(count_all(fed.mirror), 0);
        free_fed(&fed);
    }
    CHECK(failures >= 4);
    CHECK_IS(nlct_mirror_new(&mirror, true), 0);
    fake_fail_memory(0);
    CHECK_IS(nlct_feed_new(&sink, mirror), -ENOMEM);
    CHECK_IS(nlct_audit_new(&sink, mirror, NULL, 0), -ENOMEM);
    CHECK_IS(nlct_walk_new(&walk, mirror, &by_src), -ENOMEM);
    fake_fail_memory(-1);
    CHECK(!sink && !walk);
    nlct_mirror_free(&mirror);
}

/* Without it others could choose flows that share one bucket. */
static void a_mirror_needs_a_key(void)
{
    struct nlct_mirror *mirror = NULL;

    fake_fail_random(ENOSYS);
    CHECK_IS(nlct_mirror_new(&mirror, false), 0);
    nlct_mirror_free(&mirror);
    nlct_mirror_free(&mirror);
}

static void lists_that_are_not_kept_are_refused(void)
{
    const struct nlct_list none = {.zone = 5};
    const struct nlct_list by_src = {.kind = NLCT_LIST_SRC, .family = AF_INET};
    const struct nlct_list no_family = {.kind = NLCT_LIST_DST};
    struct fed fed = make_fed(false);
    struct fed by_address = make_fed(true);
    struct nlct_walk *walk = NULL;
    struct nlct_count count;
    uint32_t at = 0;

    CHECK_IS(nlct_mirror_count(fed.mirror, &none), -EINVAL);
    CHECK_IS(nlct_walk_new(&walk, fed.mirror, &none), -EINVAL);
    CHECK_IS(nlct_mirror_count(fed.mirror, &by_src), -EINVAL);
    CHECK_IS(nlct_walk_new(&walk, fed.mirror, &by_src), -EINVAL);
    CHECK_IS(nlct_mirror_lists(fed.mirror, NLCT_LIST_SRC, &at, &count, 1), -EINVAL);
    CHECK_IS(nlct_mirror_lists(fed.mirror, NLCT_LIST_ALL, &at, &count, 1), -EINVAL);
    CHECK_IS(nlct_mirror_count(by_address.mirror, &no_family), -EINVAL);
    CHECK_IS(nlct_mirror_count(by_address.mirror, &by_src), 0);
    CHECK(!walk);
    free_fed(&fed);
    free_fed(&by_address);
}

/* Deletes ------------------------------------------------------------------------------------- */

/* Which flows, by id, the kernel refuses, and how; of what it is sent it notes the ids. */
static int refusals[MANY * 2];
static unsigned asked[MANY * 2];

static void kernel(const uint8_t *data, size_t size)
{
    static struct packet answers;
    struct nlmsghdr header;
    size_t at;

    answers.size = 0;
    for (at = 0; at < size; at += (header.nlmsg_len + 3) & ~3U) {
        struct view view;
        uint32_t id;

        memcpy(&header, data + at, sizeof(header));
        CHECK_IS(header.nlmsg_type, NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE);
        CHECK_IS(view_parse(&view, (struct wire){data + at + sizeof(header),
                                                 header.nlmsg_len - sizeof(header)}),
                 0);
        CHECK(view_attr(&view, CTA_ID));
        id = wire_be32(view_attr(&view, CTA_ID)->data) - 1000;
        CHECK(id < MANY * 2);
        asked[id]++;
        if (refusals[id] || header.nlmsg_flags & NLM_F_ACK)
            packet_verdict(&answers, header.nlmsg_seq, -refusals[id]);
    }
    fake_queue(answers.bytes, answers.size, 0, 0);
}

static struct nlct_socket *open_kernel(void)
{
    fake_reset();
    fake_answer(kernel);
    memset(refusals, 0, sizeof(refusals));
    memset(asked, 0, sizeof(asked));
    return fake_open();
}

static int delete_list(struct nlct_mirror *mirror, struct nlct_socket *sock,
                       const struct nlct_list *list, const struct nlct_filter *filter,
                       struct nlct_tally *tally)
{
    struct nlct_walk *walk = NULL;
    int rc;

    *tally = (struct nlct_tally){.done = 0};
    CHECK_IS(nlct_walk_new(&walk, mirror, list), 0);
    while ((rc = nlct_walk_delete(walk, sock, filter, 0, tally)) == 1)
        ;
    nlct_walk_free(&walk);
    return rc;
}

static void deletes_are_of_the_walk_and_leave_the_mirror(void)
{
    const struct nlct_list zone = {.kind = NLCT_LIST_ZONE, .zone = 3};
    const struct nlct_list empty = {.kind = NLCT_LIST_ZONE, .zone = 77};
    struct fed fed = make_fed(false);
    struct nlct_socket *sock = open_kernel();
    struct nlct_tally tally;
    struct spec spec;
    unsigned i;

    for (i = 0; i < MANY; i++)
        CHECK_IS(give(fed.feed, (spec = numbered(i), &spec), NEW), 0);
    refusals[3] = -EBUSY;
    refusals[10] = -ENOENT;
    CHECK_IS(delete_list(fed.mirror, sock, &empty, NULL, &tally), 0);
    CHECK_IS(fake_sent.sends, 0);
    CHECK_IS(delete_list(fed.mirror, sock, &zone, NULL, &tally), 0);
    CHECK_IS(tally.done, 12);
    CHECK_IS(tally.refused[EBUSY], 1);
    CHECK_IS(tally.refused[ENOENT], 1);
    for (i = 0; i < MANY; i++) {
        const bool kept = i % 7 != 3 || i == 3 || i == 10;

        CHECK_IS(is_there(&fed, (spec = numbered(i), &spec)), kept);
        /* What its original tuple does not find is tried by its reply. */
        CHECK_IS(asked[i], i % 7 != 3 ? 0 : i == 10 ? 2 : 1);
    }
    CHECK_IS(count_zone(fed.mirror, 3), 2);
    CHECK_IS(counters_of(&fed).deleted, 12);
    fake_close(sock);
    free_fed(&fed);
}

static void deletes_go_on_where_they_were(void)
{
    const struct nlct_list zone = {.kind = NLCT_LIST_ZONE, .zone = 5};
    struct fed fed = make_fed(true);
    struct nlct_socket *sock = open_kernel();
    struct nlct_tally tally = {.done = 0};
    struct nlct_walk *walk = NULL;
    struct spec spec = udp;
    unsigned i;

    for (i = 0; i < MANY; i++) {
        spec.id = 1000 + i;
        CHECK_IS(give(fed.feed, &spec, NEW), 0);
    }
    CHECK_IS(nlct_walk_new(&walk, fed.mirror, &zone), 0);
    CHECK_IS(nlct_walk_delete(walk, sock, NULL, 0, &tally), 1);
    CHECK(tally.done > 0 && tally.done < MANY);
    /* The next one goes, and others come. */
    spec.id = 1000 + MANY - 1 - (unsigned)tally.done;
    CHECK_IS(give(fed.feed, &spec, DESTROY), 0);
    for (i = MANY; i < MANY + 10; i++) {
        spec.id = 1000 + i;
        CHECK_IS(give(fed.feed, &spec, NEW), 0);
    }
    CHECK_IS(nlct_walk_delete(walk, sock, NULL, 1000, &tally), 0);
    CHECK_IS(nlct_walk_delete(walk, sock, NULL, 1000, &tally), 0);
    CHECK_IS(tally.done, MANY - 1);
    CHECK_IS(count_all(fed.mirror), 10);
    for (i = MANY; i < MANY + 10; i++)
        CHECK_IS(asked[i], 0);
    nlct_walk_free(&walk);
    fake_close(sock);
    free_fed(&fed);
}

static struct nlct_filter *filter_by(const char *field, uint64_t value)
{
    const struct nlct_range range = {value, value};
    const struct nlct_test test = {.field = field_number(field),
                                   .kind = NLCT_TEST_RANGES,
                                   .yes = NLCT_MATCH,
                                   .no = NLCT_DROP,
                                   .count = 1,
                                   .values = &range};
    struct nlct_filter *filter = NULL;

    CHECK_IS(nlct_filter_new(&filter, &test, 1), 0);
    return filter;
}

static void a_filter_is_of_what_is_kept(void)
{
    static const char *const kept[] = {"zone",        "orig_zone", "reply_zone", "proto",
                                       "reply_sport", "icmp_type", "id",         "family"};
    static const char *const changing[] = {"mark", "status", "timeout", "tcp_state",
                                           "packets_orig"};
    const struct nlct_list all = {.kind = NLCT_LIST_ALL};
    struct nlct_socket *sock = open_kernel();
    struct fed fed = make_fed(false);
    struct nlct_walk *walk = NULL;
    struct nlct_tally tally;
    struct nlct_flow row;
    struct spec spec;
    size_t count;
    unsigned i;

    for (i = 0; i < MANY; i++)
        CHECK_IS(give(fed.feed, (spec = numbered(i), &spec), NEW), 0);
    CHECK_IS(nlct_walk_new(&walk, fed.mirror, &all), 0);
    for (i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
        struct nlct_filter *filter = filter_by(kept[i], 999);

        CHECK_IS(nlct_walk_rows(walk, filter, &row, 1, &count), 1);
        CHECK_IS(count, 0);
        nlct_filter_free(&filter);
    }
    for (i = 0; i < sizeof(changing) / sizeof(changing[0]); i++) {
        struct nlct_filter *filter = filter_by(changing[i], 0);

        CHECK_IS(nlct_walk_rows(walk, filter, &row, 1, &count), -EINVAL);
        CHECK_IS(nlct_walk_delete(walk, sock, filter, 1, &tally), -EINVAL);
        nlct_filter_free(&filter);
    }
    nlct_walk_free(&walk);
    CHECK_IS(fake_sent.sends, 0);
    {
        struct nlct_filter *filter = filter_by("id", 1042);

        CHECK_IS(delete_list(fed.mirror, sock, &all, filter, &tally), 0);
        nlct_filter_free(&filter);
    }
    CHECK_IS(tally.done, 1);
    for (i = 0; i < MANY; i++)
        CHECK_IS(asked[i], i == 42);
    CHECK_IS(count_all(fed.mirror), MANY - 1);
    fake_close(sock);
    free_fed(&fed);
}

static void failures_of_the_socket_end_deletes(void)
{
    const struct nlct_list all = {.kind = NLCT_LIST_ALL};
    struct nlct_socket *sock = open_kernel();
    struct fed fed = make_fed(true);
    struct nlct_tally tally;
    struct spec spec;
    unsigned i;

    for (i = 0; i < MANY; i++)
        CHECK_IS(give(fed.feed, (spec = numbered(i), &spec), NEW), 0);
    fake_fail_send(EPERM);
    CHECK_IS(delete_list(fed.mirror, sock, &all, NULL, &tally), -EPERM);
    CHECK_IS(tally.done, 0);
    CHECK_IS(count_all(fed.mirror), MANY);
    refusals[0] = -EPERM;
    CHECK_IS(delete_list(fed.mirror, sock, &all, NULL, &tally), -EPERM);
    fake_close(sock);
    free_fed(&fed);
}

/* It reads the table anew: a delete during a round must not be undone by a late row. */
static void deletes_during_a_round_leave_tombstones(void)
{
    const struct nlct_list zone = {.kind = NLCT_LIST_ZONE, .zone = 3};
    struct nlct_socket *sock = open_kernel();
    struct fed fed = make_fed(true);
    struct nlct_tally tally;
    struct spec spec;
    unsigned i;

    nlct_mirror_round_begin(fed.mirror, NLCT_ROUND_FEED);
    for (i = 0; i < MANY; i++)
        CHECK_IS(give(fed.feed, (spec = numbered(i), &spec), ROW), 0);
    CHECK_IS(delete_list(fed.mirror, sock, &zone, NULL, &tally), 0);
    for (i = 0; i < MANY; i++)
        CHECK_IS(give(fed.feed, (spec = numbered(i), &spec), ROW), 0);
    CHECK_IS(count_zone(fed.mirror, 3), 0);
    CHECK_IS(counters_of(&fed).outdated, tally.done);
    end_round(&fed);
    CHECK_IS(count_all(fed.mirror), MANY - (int64_t)tally.done);
    fake_close(sock);
    free_fed(&fed);
}

const struct test_case mirror_cases[] = {
    CASE(a_destroy_removes_that_very_flow),
    CASE(one_id_may_end_and_begin_again),
    CASE(events_of_one_tuple_come_in_any_order),
    CASE(repeats_change_nothing),
    CASE(what_names_no_flow_is_an_error),
    CASE(flows_without_a_name_are_refused),
    CASE(a_late_row_brings_no_flow_back),
    CASE(an_acknowledged_delete_leaves_a_tombstone_too),
    CASE(a_new_flow_clears_its_tombstone),
    CASE(outside_a_feeding_round_there_are_no_tombstones),
    CASE(a_round_drops_what_it_did_not_see),
    CASE(a_round_that_is_given_up_drops_nothing),
    CASE(any_stream_agrees_with_a_plain_model),
    CASE(mirrors_grow),
    CASE(without_memory_nothing_is_half_done),
    CASE(a_mirror_needs_a_key),
    CASE(lists_that_are_not_kept_are_refused),
    CASE(deletes_are_of_the_walk_and_leave_the_mirror),
    CASE(deletes_go_on_where_they_were),
    CASE(a_filter_is_of_what_is_kept),
    CASE(failures_of_the_socket_end_deletes),
    CASE(deletes_during_a_round_leave_tombstones),
    END_OF_CASES,
};
