/*
 * A mirror and the kernel's table, at random: flows of every kind are made and deleted by others,
 * and by walks, while events and dumps come as they may. An audit must then find that the mirror
 * knows every flow of the table, and no other.
 */
#include "check.h"
#include "driver.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

enum { ROUNDS = 20, STEPS = 150, KINDS = 600, STRANGERS = 16 };

static struct nlct_filter *everything;
static struct nlct_mirror *mirror;
static struct nlct_sink *feed;
static struct nlct_sink *audit;
static struct nlct_flow strangers[STRANGERS];
static struct nlct_events *events;
static struct nlct_socket *ours; /* whose deletes make no events */
static struct nlct_socket *others;
static uint32_t random_state;

static unsigned draw(unsigned below)
{
    random_state = random_state * 1664525 + 1013904223;
    return (random_state >> 8) % below;
}

static void put_ends(struct nlct_tuple *tuple, uint8_t proto, bool reply)
{
    tuple->proto = proto;
    tuple->present |= BIT(NLCT_TUPLE_SRC) | BIT(NLCT_TUPLE_DST) | BIT(NLCT_TUPLE_PROTO);
    if (proto == IPPROTO_ICMP) {
        tuple->icmp_id = 7;
        tuple->icmp_type = reply ? 0 : 8;
        tuple->present |=
            BIT(NLCT_TUPLE_ICMP_ID) | BIT(NLCT_TUPLE_ICMP_TYPE) | BIT(NLCT_TUPLE_ICMP_CODE);
    } else {
        tuple->sport = reply ? 53 : 1024;
        tuple->dport = reply ? 1024 : 53;
        tuple->present |= BIT(NLCT_TUPLE_SPORT) | BIT(NLCT_TUPLE_DPORT);
    }
}

static void put_zone(struct nlct_tuple *tuple, uint16_t zone)
{
    tuple->zone = zone;
    tuple->present |= BIT(NLCT_TUPLE_ZONE);
}

/* UDP, TCP, ICMP, UDP over IPv6; in five zones, for both directions or for one. */
static struct nlct_flow any_flow(void)
{
    static const uint8_t protocols[] = {IPPROTO_UDP, IPPROTO_TCP, IPPROTO_ICMP, IPPROTO_UDP};
    const unsigned number = draw(KINDS);
    const uint8_t proto = protocols[number % 4];
    const uint8_t family = number % 4 == 3 ? AF_INET6 : AF_INET;
    const unsigned direction = number / 20 % 3;
    struct nlct_flow flow = {
        .present = BIT(NLCT_FLOW_ORIG) | BIT(NLCT_FLOW_REPLY) | BIT(NLCT_FLOW_ZONE) |
                   BIT(NLCT_FLOW_TIMEOUT),
        .timeout = 600,
        .zone = (uint16_t)(number / 4 % 5),
        .family = family,
        .orig = {.family = family, .src = {32, 1, 2, (uint8_t)(number / 60)}, .dst = {32, 2, 3, 4}},
        .reply = {.family = family,
                  .src = {32, 2, 3, 4},
                  .dst = {32, 1, 2, (uint8_t)(number / 60)}},
    };

    put_ends(&flow.orig, proto, false);
    put_ends(&flow.reply, proto, true);
    if (flow.zone && direction)
        put_zone(direction == 1 ? &flow.orig : &flow.reply, flow.zone);
    return flow;
}

static void take_events(void)
{
    uint64_t lost;

    CHECK_IS(nlct_events_take(events, feed), 0);
    CHECK(!nlct_events_lost(events, &lost));
}

static void delete_one(struct nlct_flow flow)
{
    struct nlct_bytes bytes = {NULL, 0, 0};
    struct nlct_flow found;

    flow.present &= ~BIT(NLCT_FLOW_TIMEOUT);
    if (nlct_get(others, &flow, &found, &bytes) == 0)
        CHECK_IS(nlct_delete(others, &found), 0);
    nlct_bytes_free(&bytes);
}

static void flush_zone(void)
{
    const struct nlct_list list = {.kind = NLCT_LIST_ZONE, .zone = (uint16_t)draw(5)};
    struct nlct_tally *tally = calloc(1, sizeof(*tally));
    struct nlct_walk *walk = NULL;
    int64_t there;

    CHECK(tally);
    take_events();
    there = nlct_mirror_count(mirror, &list);
    CHECK_IS(nlct_walk_new(&walk, mirror, &list), 0);
    CHECK_IS(nlct_walk_delete(walk, ours, NULL, 10000, tally), 0);
    CHECK_IS(tally->done, there);
    CHECK_IS(nlct_mirror_count(mirror, &list), 0);
    nlct_walk_free(&walk);
    free(tally);
}

/* What others do, and what a mirror does beside a dump that feeds it. */
static void step(struct nlct_dump **dump)
{
    const unsigned what = draw(100);
    const struct nlct_flow flow = any_flow();
    int rc;

    if (what < 70) {
        rc = nlct_create(others, &flow, NULL);
        CHECK(rc == 0 || rc == -EEXIST);
    } else if (what < 95) {
        delete_one(flow);
    } else if (what < 97) {
        flush_zone();
    } else if (what < 98) {
        take_events();
    } else if (*dump && nlct_dump_next(*dump, feed, 0) == 0) {
        nlct_dump_free(dump);
    }
}

static struct nlct_dump *start_dump(struct nlct_socket **sock, const struct nlct_netns *netns)
{
    struct nlct_dump *dump = NULL;

    CHECK_IS(nlct_socket_open(sock, netns), 0);
    CHECK_IS(nlct_dump_start(&dump, *sock, everything, NULL, -1), 0);
    return dump;
}

static void end_round(void)
{
    int rc;

    while ((rc = nlct_mirror_round_end(mirror, 100)) == 1)
        ;
    CHECK_IS(rc, 0);
}

static void check_by_audit(const struct nlct_netns *netns)
{
    const struct nlct_list all = {.kind = NLCT_LIST_ALL};
    struct nlct_mirror_counters before;
    struct nlct_mirror_counters after;
    struct nlct_progress progress;
    struct nlct_socket *sock;
    struct nlct_dump *dump;
    int rc;

    take_events();
    nlct_mirror_counters(mirror, &before);
    nlct_mirror_round_begin(mirror, NLCT_ROUND_AUDIT);
    dump = start_dump(&sock, netns);
    do {
        rc = nlct_dump_next(dump, audit, 10000);
        CHECK_IS(nlct_audit_take(audit), 0);
    } while (rc > 0);
    CHECK_IS(rc, 0);
    nlct_dump_progress(dump, &progress);
    end_round();
    nlct_mirror_counters(mirror, &after);
    CHECK_IS(after.ghosts, before.ghosts);
    CHECK_IS(nlct_mirror_count(mirror, &all), progress.matched);
    nlct_dump_free(&dump);
    nlct_socket_close(&sock);
}

static void run_round(const struct nlct_netns *netns, bool feeding)
{
    struct nlct_socket *sock = NULL;
    struct nlct_dump *dump = NULL;
    unsigned i;
    int rc;

    if (feeding) {
        nlct_mirror_round_begin(mirror, NLCT_ROUND_FEED);
        dump = start_dump(&sock, netns);
    }
    for (i = 0; i < STEPS; i++)
        step(&dump);
    while (dump) {
        rc = nlct_dump_next(dump, feed, 1000);
        CHECK(rc >= 0);
        if (rc == 0)
            nlct_dump_free(&dump);
    }
    take_events();
    if (feeding)
        end_round();
    nlct_socket_close(&sock);
    check_by_audit(netns);
}

void a_mirror_agrees_with_the_table(const struct nlct_netns *netns, unsigned seed)
{
    const unsigned kinds = 1U << NLCT_EVENT_NEW | 1U << NLCT_EVENT_DESTROY;
    unsigned i;

    random_state = seed;
    CHECK_IS(nlct_filter_new(&everything, NULL, 0), 0);
    CHECK_IS(nlct_socket_open(&ours, netns), 0);
    CHECK_IS(nlct_socket_open(&others, netns), 0);
    CHECK_IS(nlct_events_open(&events, netns, kinds, everything, NULL, 1 << 22), 0);
    CHECK_IS(nlct_events_mute(events, nlct_socket_port(ours)), 0);
    CHECK_IS(nlct_mirror_new(&mirror, seed % 2), 0);
    CHECK_IS(nlct_feed_new(&feed, mirror), 0);
    CHECK_IS(nlct_audit_new(&audit, mirror, strangers, STRANGERS), 0);
    for (i = 0; i < ROUNDS; i++)
        run_round(netns, draw(2));
    CHECK_IS(nlct_flush_all(others), 0);
    check_by_audit(netns);
    nlct_sink_free(&audit);
    nlct_sink_free(&feed);
    nlct_mirror_free(&mirror);
    nlct_events_close(&events);
    nlct_socket_close(&others);
    nlct_socket_close(&ours);
    nlct_filter_free(&everything);
}
