/* Event streams: what is malformed, what is lost, and what comes from somebody else. */
#include "cases.h"
#include "check.h"
#include "fake.h"
#include "make.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CREATED = NLM_F_CREATE | NLM_F_EXCL,
    NEW = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW,
    DELETE = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE,
    EXPECT_NEW = NFNL_SUBSYS_CTNETLINK_EXP << 8 | IPCTNL_MSG_EXP_NEW,
    EXPECT_DELETE = NFNL_SUBSYS_CTNETLINK_EXP << 8 | IPCTNL_MSG_EXP_DELETE,
    ALL = 1 << NLCT_EVENT_NEW | 1 << NLCT_EVENT_UPDATE | 1 << NLCT_EVENT_DESTROY,
    ROWS = 16,
};

static struct nlct_filter *everything;
static struct nlct_events *events;
static struct nlct_sink *sink;
static struct nlct_flow rows[ROWS];
static struct nlct_bytes spans;
static struct packet packet;

static void begin_kinds(unsigned kinds, const struct nlct_kernel_filter *kernel_filter,
                        size_t capacity)
{
    fake_reset();
    packet.size = 0;
    CHECK_IS(nlct_filter_new(&everything, NULL, 0), 0);
    CHECK_IS(nlct_events_open(&events, NULL, kinds, everything, kernel_filter, 4096), 0);
    sink = make_rows(rows, capacity, &spans);
    CHECK(sink);
}

static void begin(void)
{
    begin_kinds(ALL, NULL, ROWS);
}

static void end(void)
{
    nlct_events_close(&events);
    nlct_events_close(&events);
    nlct_sink_free(&sink);
    nlct_bytes_free(&spans);
    nlct_filter_free(&everything);
}

/* Adds an event of a flow whose id is 'number'. */
static void put(uint16_t type, uint16_t flags, uint32_t number)
{
    packet_begin(&packet, type, flags, 0, FAKE_PORT);
    packet_general(&packet, AF_INET);
    packet_tuple(&packet, CTA_TUPLE_ORIG, "10.0.0.1", "192.0.2.1", IPPROTO_UDP, 1024, 53);
    packet_be32(&packet, CTA_ID, number);
    packet_end(&packet);
}

static void queue_from(uint32_t port, int flags)
{
    fake_queue(packet.bytes, packet.size, port, flags);
    packet.size = 0;
}

/* Queues a datagram for each number from 'first' to 'last'. */
static void queue(uint32_t first, uint32_t last)
{
    for (; first <= last; first++) {
        put(NEW, CREATED, first);
        queue_from(0, 0);
    }
}

static int take(void)
{
    return nlct_events_take(events, sink);
}

/* The rows are those numbered 'first' to 'last'. */
static void check_rows(uint32_t first, uint32_t last)
{
    const size_t count = nlct_rows_take(sink);
    size_t i;

    CHECK_IS(count, last - first + 1);
    for (i = 0; i < count; i++)
        CHECK_IS(rows[i].id, first + i);
}

static void check_no_rows(void)
{
    CHECK_IS(nlct_rows_take(sink), 0);
}

static void check_progress(uint64_t received, uint64_t matched)
{
    struct nlct_events_progress progress;

    nlct_events_progress(events, &progress);
    CHECK_IS(progress.received, received);
    CHECK_IS(progress.matched, matched);
}

static void check_lost(uint64_t wanted)
{
    uint64_t count = 99;

    CHECK(nlct_events_lost(events, &count));
    CHECK(nlct_events_lost(events, &count));
    nlct_events_told(events);
    CHECK_IS(count, wanted);
    CHECK(!nlct_events_lost(events, &count));
    CHECK_IS(count, 0);
}

static void check_none_lost(void)
{
    uint64_t count = 99;

    CHECK(!nlct_events_lost(events, &count));
    CHECK_IS(count, 0);
}

/* Opening ------------------------------------------------------------------------------------- */

static void the_filter_is_there_before_the_groups_each_joined_twice(void)
{
    static const struct nlct_kernel_filter kernel_filter = {.family = AF_INET6};

    begin();
    CHECK(strcmp(fake_options, "gggggg") == 0);
    end();
    begin_kinds(1 << NLCT_EVENT_DESTROY, &kernel_filter, ROWS);
    CHECK(strcmp(fake_options, "fgg") == 0);
    end();
}

/* What comes ---------------------------------------------------------------------------------- */

static void types_and_flags_tell_the_kind(void)
{
    static const uint8_t kinds[] = {NLCT_EVENT_NEW, NLCT_EVENT_UPDATE, NLCT_EVENT_UPDATE,
                                    NLCT_EVENT_DESTROY};
    size_t i;

    begin();
    put(NEW, CREATED, 1);
    queue_from(0, 0);
    put(NEW, 0, 2);
    queue_from(0, 0);
    put(NEW, NLM_F_EXCL, 3);
    queue_from(0, 0);
    put(DELETE, 0, 4);
    queue_from(0, 0);
    CHECK_IS(take(), 0);
    for (i = 0; i < sizeof(kinds); i++)
        CHECK_IS(rows[i].event, kinds[i]);
    check_rows(1, 4);
    check_progress(4, 4);
    check_none_lost();
    end();
}

static void other_messages_are_no_events(void)
{
    begin();
    put(NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET, CREATED, 1);
    put(NFNL_SUBSYS_CTNETLINK_EXP << 8 | IPCTNL_MSG_EXP_NEW, CREATED, 2);
    put(NLMSG_NOOP, 0, 3);
    put(NLMSG_DONE, 0, 4);
    put(NLMSG_ERROR, 0, 5);
    put(NEW, CREATED, 6);
    queue_from(0, 0);
    CHECK_IS(take(), 0);
    check_rows(6, 6);
    check_progress(1, 1);
    end();
}

static void a_datagram_may_hold_several_events(void)
{
    begin_kinds(ALL, NULL, 2);
    put(NEW, CREATED, 1);
    put(NEW, CREATED, 2);
    put(NEW, CREATED, 3);
    queue_from(0, 0);
    queue(4, 4);
    CHECK_IS(take(), 1);
    check_rows(1, 2);
    check_progress(2, 2);
    CHECK_IS(take(), 0);
    check_rows(3, 4);
    check_progress(4, 4);
    end();
}

static void a_full_sink_gets_nothing_twice(void)
{
    uint32_t number;

    begin_kinds(ALL, NULL, 1);
    queue(1, 200);
    for (number = 1; number < 200; number++) {
        CHECK_IS(take(), 1);
        CHECK_IS(take(), 1);
        check_rows(number, number);
    }
    CHECK_IS(take(), 0);
    check_rows(200, 200);
    CHECK_IS(take(), 0);
    check_no_rows();
    check_progress(200, 200);
    end();
}

static void without_a_sink_events_are_counted(void)
{
    begin();
    queue(1, 100);
    CHECK_IS(nlct_events_take(events, NULL), 0);
    check_progress(100, 100);
    end();
}

static void a_malformed_event_is_an_error_and_the_next_one_follows(void)
{
    begin();
    put(NEW, CREATED, 1);
    put(NEW, CREATED, 2);
    /* The tuple's length. */
    packet.bytes[packet.message + 20] = 3;
    packet.bytes[packet.message + 21] = 0;
    put(NEW, CREATED, 3);
    queue_from(0, 0);
    CHECK_IS(take(), -EBADMSG);
    check_rows(1, 1);
    CHECK_IS(take(), 0);
    check_rows(3, 3);
    end();
}

static void a_message_that_is_cut_ends_its_datagram(void)
{
    begin();
    put(NEW, CREATED, 1);
    put(NEW, CREATED, 2);
    packet.size -= 4;
    queue_from(0, 0);
    packet_bytes(&packet, "\x10\0\0", 3);
    queue_from(0, 0);
    put(NEW, CREATED, 3);
    memset(packet.bytes, 0, 4);
    queue_from(0, 0);
    queue(4, 4);
    CHECK_IS(take(), -EBADMSG);
    check_rows(1, 1);
    CHECK_IS(take(), -EBADMSG);
    CHECK_IS(take(), -EBADMSG);
    check_no_rows();
    CHECK_IS(take(), 0);
    check_rows(4, 4);
    end();
}

static void a_datagram_that_is_too_large_is_an_error(void)
{
    begin();
    queue(1, 1);
    put(NEW, CREATED, 2);
    queue_from(0, MSG_TRUNC);
    queue(3, 3);
    CHECK_IS(take(), -EMSGSIZE);
    check_rows(1, 1);
    CHECK_IS(take(), 0);
    check_rows(3, 3);
    end();
}

static void what_is_not_from_the_kernel_is_ignored(void)
{
    begin();
    queue(1, 1);
    put(NEW, CREATED, 2);
    queue_from(FAKE_PORT, 0);
    put(NEW, CREATED, 3);
    queue_from(1, MSG_TRUNC);
    fake_queue("", 0, 0, 0);
    queue(4, 4);
    CHECK_IS(take(), 0);
    CHECK_IS(rows[1].id, 4);
    CHECK_IS(nlct_rows_take(sink), 2);
    check_progress(2, 2);
    end();
}

static void signals_and_failures_of_the_system(void)
{
    begin();
    fake_queue_error(EINTR);
    queue(1, 1);
    fake_queue_error(EINTR);
    fake_queue_error(ENOMEM);
    queue(2, 2);
    CHECK_IS(take(), -ENOMEM);
    check_rows(1, 1);
    CHECK_IS(take(), 0);
    check_rows(2, 2);
    end();
}

static void muted_deletes_are_dropped_also_where_they_were_queued(void)
{
    begin();
    CHECK_IS(nlct_events_mute(events, FAKE_PORT), 0);
    CHECK(strcmp(fake_options, "ggggggf") == 0);
    put(NEW, CREATED, 1);
    put(DELETE, 0, 2);
    queue_from(0, 0);
    CHECK_IS(take(), 0);
    check_rows(1, 1);
    check_progress(1, 1);
    check_none_lost();
    end();
}

/* A sink that has no memory for the second of its flows. */
static unsigned calls;

static int take_with_little_memory(struct nlct_sink *ours, struct view *view)
{
    (void)ours;
    (void)view;
    return ++calls == 2 ? -ENOMEM : 0;
}

static void an_event_that_a_sink_has_no_memory_for_comes_again(void)
{
    struct nlct_sink poor = {.take = take_with_little_memory};

    begin();
    calls = 0;
    put(NEW, CREATED, 1);
    put(NEW, CREATED, 2);
    queue_from(0, 0);
    CHECK_IS(nlct_events_take(events, &poor), -ENOMEM);
    check_progress(1, 1);
    CHECK_IS(nlct_events_take(events, &poor), 0);
    CHECK_IS(calls, 3);
    check_progress(2, 2);
    end();
}

/* What is lost -------------------------------------------------------------------------------- */

static void a_loss_is_told_when_the_queue_is_empty(void)
{
    begin_kinds(ALL, NULL, 3);
    queue(1, 2);
    fake_queue_drops(5);
    fake_queue_error(ENOBUFS);
    queue(3, 4);
    fake_queue_drops(2);
    CHECK_IS(take(), 1);
    check_none_lost();
    check_rows(1, 3);
    CHECK_IS(take(), 0);
    check_rows(4, 4);
    check_lost(7);
    CHECK_IS(take(), 0);
    check_none_lost();
    end();
}

static void drops_without_an_error_are_a_loss(void)
{
    begin();
    queue(1, 1);
    fake_queue_drops(3);
    CHECK_IS(take(), 0);
    check_rows(1, 1);
    check_lost(3);
    end();
}

static void an_error_without_drops_is_a_loss_of_unknown_size(void)
{
    begin();
    fake_queue_error(ENOBUFS);
    queue(1, 1);
    CHECK_IS(take(), 0);
    check_rows(1, 1);
    check_lost(0);
    end();
}

static void losses_that_nobody_asks_for_add_up(void)
{
    begin();
    fake_queue_drops(3);
    fake_queue_error(ENOBUFS);
    CHECK_IS(take(), 0);
    fake_queue_drops(4);
    fake_queue_error(ENOBUFS);
    CHECK_IS(take(), 0);
    check_lost(7);
    end();
}

static void the_count_of_drops_may_wrap(void)
{
    begin();
    fake_queue_drops(UINT32_MAX - 1);
    CHECK_IS(take(), 0);
    check_lost(UINT32_MAX - 1);
    fake_queue_drops(5);
    CHECK_IS(take(), 0);
    check_lost(5);
    end();
}

static void a_kernel_that_does_not_count_drops(void)
{
    begin();
    fake_fail_meminfo(ENOPROTOOPT);
    queue(1, 1);
    fake_queue_error(ENOBUFS);
    queue(2, 2);
    CHECK_IS(take(), 0);
    check_rows(1, 2);
    check_lost(0);
    end();
}

static void a_loss_is_told_though_the_queue_never_runs_empty(void)
{
    uint64_t count = 0;
    uint32_t last = 200;
    bool lost = false;

    begin();
    queue(1, 10);
    fake_queue_drops(5);
    fake_queue_error(ENOBUFS);
    queue(11, last);
    /* As many come as are taken. */
    while (!lost) {
        CHECK(last < 1000);
        queue(last + 1, last + ROWS);
        last += ROWS;
        CHECK(take() >= 0);
        CHECK(nlct_rows_take(sink) > 0);
        lost = nlct_events_lost(events, &count);
        nlct_events_told(events);
    }
    CHECK_IS(count, 5);
    /* And what is queued is still there. */
    CHECK_IS(nlct_events_take(events, NULL), 0);
    check_progress(last, last);
    end();
}

static void memory_that_is_never_there_is_an_error_and_a_loss(void)
{
    unsigned i;

    begin();
    queue(1, 1);
    for (i = 0; i < 150; i++)
        fake_queue_error(ENOBUFS);
    queue(2, 2);
    CHECK_IS(take(), -ENOBUFS);
    check_rows(1, 1);
    check_none_lost();
    CHECK_IS(take(), 0);
    check_rows(2, 2);
    check_lost(0);
    end();
}

/* Of expectations ----------------------------------------------------------------------------- */

static struct nlct_expect expectations[ROWS];
static size_t expectation_count;

static void begin_expectations(void)
{
    fake_reset();
    packet.size = 0;
    expectation_count = 0;
    CHECK_IS(nlct_expect_events_open(&events, NULL, ALL, 4096), 0);
}

static void put_expectation(uint16_t type, uint16_t flags, uint32_t number)
{
    packet_begin(&packet, type, flags, 0, 0);
    packet_general(&packet, AF_INET);
    packet_tuple(&packet, CTA_EXPECT_TUPLE, "10.0.0.1", "192.0.2.1", IPPROTO_UDP, 1024, 53);
    packet_be32(&packet, CTA_EXPECT_ID, number);
    packet_end(&packet);
}

static int take_expectations(size_t capacity)
{
    return nlct_expect_events_take(events, expectations, capacity, &expectation_count);
}

/* The expectations are those numbered 'first' to 'last'. */
static void check_expectations(uint32_t first, uint32_t last)
{
    size_t i;

    CHECK_IS(expectation_count, last - first + 1);
    for (i = 0; i < expectation_count; i++)
        CHECK_IS(expectations[i].id, first + i);
    expectation_count = 0;
}

static void each_stream_has_its_own_way_to_take_events(void)
{
    begin();
    queue(1, 1);
    expectation_count = 0;
    CHECK_IS(take_expectations(ROWS), -EINVAL);
    CHECK_IS(expectation_count, 0);
    check_progress(0, 0);
    CHECK_IS(take(), 0);
    check_rows(1, 1);
    end();
    begin_expectations();
    CHECK(strcmp(fake_options, "gggggg") == 0);
    put_expectation(EXPECT_NEW, CREATED, 1);
    queue_from(0, 0);
    CHECK_IS(nlct_events_take(events, NULL), -EINVAL);
    check_progress(0, 0);
    CHECK_IS(take_expectations(ROWS), 0);
    check_expectations(1, 1);
    nlct_events_close(&events);
}

static void full_rows_get_no_expectation_twice(void)
{
    uint32_t number;

    begin_expectations();
    for (number = 1; number <= 5; number++)
        put_expectation(EXPECT_NEW, CREATED, number);
    queue_from(0, 0);
    put_expectation(EXPECT_NEW, CREATED, 6);
    queue_from(0, 0);
    CHECK_IS(take_expectations(0), 1);
    CHECK_IS(expectation_count, 0);
    CHECK_IS(take_expectations(2), 1);
    CHECK_IS(take_expectations(2), 1);
    check_progress(2, 2);
    /* What is there already stays. */
    CHECK_IS(take_expectations(3), 1);
    check_expectations(1, 3);
    CHECK_IS(take_expectations(3), 0);
    check_expectations(4, 6);
    check_progress(6, 6);
    nlct_events_close(&events);
}

static void what_is_no_event_of_an_expectation_is_skipped(void)
{
    begin_expectations();
    put(NEW, CREATED, 1);
    put(DELETE, 0, 2);
    put_expectation(EXPECT_NEW, CREATED, 3);
    put(NLMSG_NOOP, 0, 4);
    put(NLMSG_DONE, 0, 5);
    put_expectation(NFNL_SUBSYS_CTNETLINK_EXP << 8 | IPCTNL_MSG_EXP_GET, CREATED, 6);
    put_expectation(EXPECT_DELETE, 0, 4);
    queue_from(0, 0);
    put(NEW, CREATED, 7);
    queue_from(0, 0);
    put_expectation(EXPECT_NEW, 0, 5);
    queue_from(0, 0);
    put_expectation(EXPECT_NEW, CREATED, 8);
    queue_from(FAKE_PORT, 0);
    CHECK_IS(take_expectations(ROWS), 0);
    CHECK_IS(expectations[0].event, NLCT_EVENT_NEW);
    CHECK_IS(expectations[1].event, NLCT_EVENT_DESTROY);
    CHECK_IS(expectations[2].event, NLCT_EVENT_UPDATE);
    check_expectations(3, 5);
    check_progress(3, 3);
    check_none_lost();
    nlct_events_close(&events);
}

static void behind_a_malformed_expectation_the_next_one_follows(void)
{
    begin_expectations();
    put_expectation(EXPECT_NEW, CREATED, 1);
    put_expectation(EXPECT_NEW, CREATED, 2);
    /* The tuple's length. */
    packet.bytes[packet.message + 20] = 3;
    packet.bytes[packet.message + 21] = 0;
    put_expectation(EXPECT_NEW, CREATED, 2);
    queue_from(0, 0);
    put_expectation(EXPECT_DELETE, 0, 3);
    queue_from(0, MSG_TRUNC);
    put_expectation(EXPECT_NEW, CREATED, 3);
    queue_from(0, 0);
    CHECK_IS(take_expectations(ROWS), -EBADMSG);
    CHECK_IS(expectation_count, 1);
    CHECK_IS(take_expectations(ROWS), -EMSGSIZE);
    CHECK_IS(expectation_count, 2);
    CHECK_IS(take_expectations(ROWS), 0);
    check_expectations(1, 3);
    /* It came, and was no row. */
    check_progress(4, 3);
    nlct_events_close(&events);
}

/* What the kernel is asked to drop ------------------------------------------------------------ */

/* The tests of a program: each bit is a field that is wanted. */
enum { WANTED = 10 };

static struct nlct_kernel_filter wanted_by(unsigned bits)
{
    static const unsigned fields[] = {NLCT_TUPLE_PROTO, NLCT_TUPLE_SPORT, NLCT_TUPLE_DPORT,
                                      NLCT_TUPLE_SRC, NLCT_TUPLE_DST};
    struct nlct_kernel_filter wanted = {0};
    size_t i;

    if (bits & 1U)
        wanted.family = bits & 2U ? AF_INET6 : AF_INET;
    if (bits & 4U)
        wanted.zone_request = NLCT_ZONE_PLAIN;
    if (bits & 8U)
        wanted.mark = wanted.mark_mask = UINT32_MAX;
    if (bits & 16U)
        wanted.status = wanted.status_mask = UINT32_MAX;
    if (bits & 2U)
        wanted.zone = 7;
    wanted.orig.family = bits & 2U ? AF_INET6 : AF_INET;
    for (i = 0; i < 5; i++)
        if (bits & 32U << i)
            wanted.orig.present |= BIT(fields[i]);
    return wanted;
}

static void check_jumps(const struct sock_filter *code, size_t count)
{
    size_t i;

    for (i = 0; i < count; i++) {
        const struct sock_filter *one = &code[i];

        if (BPF_CLASS(one->code) != BPF_JMP)
            continue;
        if (BPF_OP(one->code) == BPF_JA)
            CHECK(i + 1 + one->k == count - 1);
        else
            CHECK(i + 1 + one->jt < count && i + 1 + one->jf < count);
    }
}

/* Every program there is, for the kernel to look at; an emulator of processes lets none through. */
static void the_kernel_takes_every_program(void)
{
    static struct sock_filter code[2 * EVENT_FILTER_MAX];
    const int sock = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
    size_t largest = 0;
    unsigned bits;

    CHECK(sock >= 0 || errno == EPFNOSUPPORT || errno == EPROTONOSUPPORT);
    for (bits = 0; bits < 2U << WANTED; bits++) {
        const struct nlct_kernel_filter wanted = wanted_by(bits);
        const uint32_t muted = bits >> WANTED ? 4711 : 0;
        const size_t count = event_filter_build(code, &wanted, muted);
        const struct sock_fprog program = {(unsigned short)count, code};

        CHECK(count <= EVENT_FILTER_MAX);
        if (count == 0)
            continue;
        check_jumps(code, count);
        CHECK_IS(code[count - 1].k, 0);
        CHECK_IS(code[count - 2].k, UINT32_MAX);
        if (sock >= 0)
            CHECK_IS(setsockopt(sock, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)), 0);
        if (count > largest)
            largest = count;
    }
    CHECK(largest > EVENT_FILTER_MAX / 2);
    if (sock >= 0)
        close(sock);
}

const struct test_case event_cases[] = {
    CASE(the_filter_is_there_before_the_groups_each_joined_twice),
    CASE(types_and_flags_tell_the_kind),
    CASE(other_messages_are_no_events),
    CASE(a_datagram_may_hold_several_events),
    CASE(a_full_sink_gets_nothing_twice),
    CASE(without_a_sink_events_are_counted),
    CASE(a_malformed_event_is_an_error_and_the_next_one_follows),
    CASE(a_message_that_is_cut_ends_its_datagram),
    CASE(a_datagram_that_is_too_large_is_an_error),
    CASE(what_is_not_from_the_kernel_is_ignored),
    CASE(signals_and_failures_of_the_system),
    CASE(muted_deletes_are_dropped_also_where_they_were_queued),
    CASE(an_event_that_a_sink_has_no_memory_for_comes_again),
    CASE(a_loss_is_told_when_the_queue_is_empty),
    CASE(drops_without_an_error_are_a_loss),
    CASE(an_error_without_drops_is_a_loss_of_unknown_size),
    CASE(losses_that_nobody_asks_for_add_up),
    CASE(the_count_of_drops_may_wrap),
    CASE(a_kernel_that_does_not_count_drops),
    CASE(a_loss_is_told_though_the_queue_never_runs_empty),
    CASE(memory_that_is_never_there_is_an_error_and_a_loss),
    CASE(each_stream_has_its_own_way_to_take_events),
    CASE(full_rows_get_no_expectation_twice),
    CASE(what_is_no_event_of_an_expectation_is_skipped),
    CASE(behind_a_malformed_expectation_the_next_one_follows),
    CASE(the_kernel_takes_every_program),
    END_OF_CASES,
};
