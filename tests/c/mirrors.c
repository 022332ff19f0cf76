/* Mirrors: what feeds them, rounds, growth and failures. */
#include "cases.h"
#include "check.h"
#include "specs.h"

#include <arpa/inet.h>
#include <netinet/in.h>

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
    CHECK_IS(count_all(&fed), 0);
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
    CHECK_IS(count_zone(&fed, 5), 1);
    free_fed(&fed);
}

/* A flow that ctnetlink made is reported after it was inserted. */
static void events_of_one_tuple_come_in_any_order(void)
{
    struct fed fed = make_fed(false);

    CHECK_IS(give(fed.feed, &udp, DESTROY), 0);
    CHECK_IS(give(fed.feed, &udp_reborn, NEW), 0);
    CHECK_IS(give(fed.feed, &udp, NEW), 0);
    CHECK_IS(count_zone(&fed, 5), 2);
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
        CHECK_IS(count_all(&fed), 1);
    }
    CHECK_IS(counters_of(&fed).inserted, 1);
    CHECK_IS(counters_of(&fed).repeated, 2);
    CHECK_IS(give(fed.feed, &udp, DESTROY), 0);
    CHECK_IS(give(fed.feed, &udp, DESTROY), 0);
    CHECK_IS(count_all(&fed), 0);
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
    for (defects = 1; defects < DEFECTS; defects <<= 1) {
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
    CHECK_IS(count_all(&fed), 0);
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
    CHECK_IS(count_zone(&fed, 9), 1);
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

static void a_new_flow_comes_in_spite_of_its_tombstone(void)
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
    CHECK_IS(count_all(&fed), 2);
    end_round(&fed);
    CHECK_IS(count_all(&fed), 2);
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

/* Of flows 0 to 99, those from 50 on are in the table; 100 and 101 are there unknown. */
static void a_round_drops_what_it_did_not_see(void)
{
    struct fed fed = make_fed(true);
    struct nlct_sink *audit;
    struct nlct_flow rows[MANY / 2 + 1];
    struct nlct_flow expected;
    struct spec spec;
    unsigned i;
    int rc;

    CHECK_IS(nlct_audit_new(&audit, fed.mirror, rows, MANY / 2 + 1), 0);
    CHECK_IS(nlct_mirror_round_end(fed.mirror, 1), -EINVAL);
    for (i = 0; i < MANY; i++)
        CHECK_IS(give(fed.feed, (spec = numbered(i), &spec), NEW), 0);
    nlct_mirror_round_begin(fed.mirror, NLCT_ROUND_AUDIT);
    for (i = MANY / 2; i < MANY + 1; i++)
        CHECK_IS(give(audit, (spec = numbered(i), &spec), ROW), 0);
    /* The second of the unknown ones has no room at first. */
    CHECK_IS(give(audit, (spec = numbered(MANY + 1), &spec), ROW), 1);
    CHECK_IS(nlct_audit_take(audit), 1);
    CHECK(!is_there(&fed, (spec = numbered(MANY), &spec)));
    expect_row(&expected, &spec);
    CHECK(is_same(&rows[0], &expected));
    CHECK_IS(give(audit, (spec = numbered(MANY + 1), &spec), ROW), 0);
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
    CHECK_IS(count_all(&fed), MANY / 2 + 2 + 1 + i);
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
    CHECK_IS(count_all(&fed), MANY);
    /* The next one begins anew: what the first saw counts no longer. */
    nlct_mirror_round_begin(fed.mirror, NLCT_ROUND_AUDIT);
    nlct_mirror_round_begin(fed.mirror, NLCT_ROUND_FEED);
    for (i = MANY / 2; i < MANY; i++)
        CHECK_IS(give(fed.feed, (spec = numbered(i), &spec), ROW), 0);
    end_round(&fed);
    CHECK_IS(count_all(&fed), MANY / 2);
    CHECK_IS(counters_of(&fed).ghosts, MANY / 2);
    free_fed(&fed);
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

static unsigned count_lists(const struct nlct_mirror *mirror, enum nlct_list_kind kind)
{
    struct nlct_count counts[100];
    unsigned lists = 0;
    uint32_t at = 0;
    int got;

    while ((got = nlct_mirror_lists(mirror, kind, &at, counts, 100)) > 0)
        lists += (unsigned)got;
    CHECK_IS(got, 0);
    return lists;
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
    CHECK_IS(count_all(&fed), flows);
    CHECK_IS(count_zone(&fed, 499), flows / 500);
    CHECK_IS(count_zone(&fed, 500), 0);
    CHECK_IS(count_lists(fed.mirror, NLCT_LIST_ZONE), 500);
    if (addresses)
        CHECK_IS(count_lists(fed.mirror, NLCT_LIST_SRC), flows / 2);
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
    grow(true, 400000);
}

/* Failures ------------------------------------------------------------------------------------ */

/* Wherever memory runs out, the mirror says so and stays whole. */
static void without_memory_nothing_is_half_done(void)
{
    const struct spec ipv6 = {.id = 3, .zone = 5, .tuple = IPV6};
    const struct nlct_list by_src = {
        .kind = NLCT_LIST_SRC, .family = AF_INET, .address = {10, [3] = 1}};
    struct nlct_list by_reply_src = {.kind = NLCT_LIST_REPLY_SRC, .family = AF_INET6};
    struct nlct_mirror *mirror = NULL;
    struct nlct_sink *sink = NULL;
    struct nlct_walk *walk = NULL;
    int failures = 0;
    int after;
    int rc = -ENOMEM;

    CHECK_IS(inet_pton(AF_INET6, mirror_tuples[IPV6].reply_src, by_reply_src.address), 1);
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
        CHECK_IS(count_all(&fed), is_there(&fed, &udp) + is_there(&fed, &ipv6));
        CHECK_IS(nlct_mirror_count(fed.mirror, &by_src), is_there(&fed, &udp));
        CHECK_IS(nlct_mirror_count(fed.mirror, &by_reply_src), is_there(&fed, &ipv6));
        CHECK_IS(give(fed.feed, &ipv6, NEW), 0);
        CHECK_IS(give(fed.feed, &ipv6, DESTROY), 0);
        CHECK_IS(give(fed.feed, &udp, DESTROY), 0);
        CHECK_IS(count_all(&fed), 0);
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

/* The second of its addresses would be the first of a new segment. */
static void without_memory_no_address_is_left_over(void)
{
    enum { BEFORE = 2047 };
    struct nlct_list by_src = {.kind = NLCT_LIST_SRC, .family = AF_INET};
    struct fed fed = make_fed(true);
    struct nlct_flow flow;
    unsigned i;

    expect_row(&flow, &udp);
    for (i = 0; i <= BEFORE; i++) {
        const uint32_t src = htobe32(i);
        const uint32_t dst = htobe32(1U << 24 | i);

        memcpy(flow.orig.src, &src, sizeof(src));
        memcpy(flow.reply.dst, &src, sizeof(src));
        memcpy(flow.orig.dst, &dst, sizeof(dst));
        memcpy(flow.reply.src, &dst, sizeof(dst));
        memcpy(by_src.address, &src, sizeof(src));
        fake_fail_memory(i == BEFORE ? 0 : -1);
        CHECK_IS(nlct_mirror_add(fed.mirror, &flow), i == BEFORE ? -ENOMEM : 1);
    }
    CHECK_IS(nlct_mirror_count(fed.mirror, &by_src), 0);
    CHECK_IS(count_all(&fed), BEFORE);
    fake_fail_memory(-1);
    CHECK_IS(nlct_mirror_add(fed.mirror, &flow), 1);
    CHECK_IS(nlct_mirror_count(fed.mirror, &by_src), 1);
    free_fed(&fed);
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

const struct test_case mirror_cases[] = {
    CASE(a_destroy_removes_that_very_flow),
    CASE(one_id_may_end_and_begin_again),
    CASE(events_of_one_tuple_come_in_any_order),
    CASE(repeats_change_nothing),
    CASE(what_names_no_flow_is_an_error),
    CASE(flows_without_a_name_are_refused),
    CASE(a_late_row_brings_no_flow_back),
    CASE(an_acknowledged_delete_leaves_a_tombstone_too),
    CASE(a_new_flow_comes_in_spite_of_its_tombstone),
    CASE(outside_a_feeding_round_there_are_no_tombstones),
    CASE(a_round_drops_what_it_did_not_see),
    CASE(a_round_that_is_given_up_drops_nothing),
    CASE(mirrors_grow),
    CASE(without_memory_nothing_is_half_done),
    CASE(without_memory_no_address_is_left_over),
    CASE(a_mirror_needs_a_key),
    CASE(lists_that_are_not_kept_are_refused),
    END_OF_CASES,
};
