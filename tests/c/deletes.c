/* Deletes for many at once: each answer of the kernel goes to those whose request it answers. */
#include "cases.h"
#include "check.h"
#include "fake.h"

#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <sys/socket.h>

static struct packet packet;

/* Targets: zone 1, zone 2, UDP from low ports, every label; the last is what no flow has. */
enum { ZONE_1, ZONE_2, LOW, LABELLED, TARGETS };

enum { LOW_PORTS = 100 };

struct storm {
    struct nlct_socket *sock;
    struct nlct_sink *sink;
    struct nlct_filter *low;
    struct nlct_filter *labelled;
};

static void storm_begin(struct storm *storm, size_t room)
{
    const struct nlct_range ports = {0, LOW_PORTS};
    const struct nlct_mask labels = {{1, 0}, {1, 0}};
    const struct nlct_test low = {
        field_number("sport"), NLCT_TEST_RANGES, NLCT_MATCH, NLCT_DROP, 1, &ports};
    const struct nlct_test labelled = {
        field_number("labels"), NLCT_TEST_MASKS, NLCT_MATCH, NLCT_DROP, 1, &labels};
    struct nlct_target targets[TARGETS] = {
        [ZONE_1] = {.wants = NLCT_WANTS_ZONE, .zone = 1},
        [ZONE_2] = {.wants = NLCT_WANTS_ZONE, .zone = 2},
        [LOW] = {.wants = NLCT_WANTS_FILTER},
        [LABELLED] = {.wants = NLCT_WANTS_FILTER},
    };

    fake_reset();
    storm->sock = fake_open();
    storm->sock->room = room;
    CHECK_IS(nlct_filter_new(&storm->low, &low, 1), 0);
    CHECK_IS(nlct_filter_new(&storm->labelled, &labelled, 1), 0);
    targets[LOW].filter = storm->low;
    targets[LABELLED].filter = storm->labelled;
    CHECK_IS(nlct_deletes_new(&storm->sink, storm->sock, targets, TARGETS), 0);
}

static void storm_end(struct storm *storm)
{
    nlct_sink_free(&storm->sink);
    nlct_filter_free(&storm->low);
    nlct_filter_free(&storm->labelled);
    fake_close(storm->sock);
}

/* Begins a flow whose number is its source port and its id. */
static void begin(uint16_t zone, uint16_t number)
{
    packet_begin_flow(&packet, AF_INET);
    packet_tuple(&packet, CTA_TUPLE_ORIG, "10.0.0.1", "192.0.2.1", IPPROTO_UDP, number, 53);
    packet_be16(&packet, CTA_ZONE, zone);
    packet_be32(&packet, CTA_ID, number);
}

/* Gives the flow in the packet to the sink. Returns what that says. */
static int give(struct storm *storm)
{
    struct view view;

    CHECK_IS(packet_view(&packet, &view), 0);
    return storm->sink->take(storm->sink, &view);
}

static void flow(struct storm *storm, uint16_t zone, uint16_t number)
{
    begin(zone, number);
    CHECK_IS(give(storm), 0);
}

static uint64_t refused(const struct storm *storm, size_t target, int wanted)
{
    const uint64_t *counts;
    size_t i;
    int error;

    for (i = 0; (counts = nlct_deletes_refused(storm->sink, i, &error)); i++)
        if (error == wanted)
            return counts[target];
    return 0;
}

static void check_outcome(const struct storm *storm, size_t target, unsigned matched,
                          unsigned deleted)
{
    CHECK_IS(nlct_deletes_get(storm->sink)[target].matched, matched);
    CHECK_IS(nlct_deletes_get(storm->sink)[target].deleted, deleted);
}

/* What the request with this number gets, from 1; see fake_answer_each(). An acknowledgement is due
   for the last one alone. */
static int (*answer_to)(uint32_t number, bool is_last);

static int answer_by_number(const struct nlmsghdr *header)
{
    return answer_to(header->nlmsg_seq, header->nlmsg_flags & NLM_F_ACK);
}

static void answer_each(const uint8_t *data, size_t size)
{
    fake_answer_each(data, size, answer_by_number);
}

static int odd_are_gone(uint32_t number, bool is_last)
{
    if (number % 2)
        return ENOENT;
    return is_last ? 0 : FAKE_SILENT;
}

static void a_flow_counts_for_each_who_wants_it_and_is_deleted_once(void)
{
    struct storm storm;

    storm_begin(&storm, 1 << 20);
    fake_answer(fake_acknowledge);
    flow(&storm, 1, 1);
    flow(&storm, 1, 1000);
    flow(&storm, 2, 2);
    flow(&storm, 3, 3);
    CHECK_IS(fake_sent.sends, 0);
    flow(&storm, 3, 1000);
    CHECK_IS(storm.sink->finish(storm.sink), 0);
    CHECK_IS(storm.sock->sequence, 4);
    CHECK_IS(fake_sent.sends, 1);
    check_outcome(&storm, ZONE_1, 2, 2);
    check_outcome(&storm, ZONE_2, 1, 1);
    check_outcome(&storm, LOW, 3, 3);
    check_outcome(&storm, LABELLED, 0, 0);
    CHECK(!nlct_deletes_refused(storm.sink, 0, &(int){0}));
    storm_end(&storm);
}

static void a_refusal_goes_to_those_who_wanted_the_flow(void)
{
    struct storm storm;

    storm_begin(&storm, 1 << 20);
    answer_to = odd_are_gone;
    fake_answer(answer_each);
    flow(&storm, 1, 1); /* refused */
    flow(&storm, 2, 1000);
    flow(&storm, 1, 1000); /* refused */
    flow(&storm, 1, 2);
    CHECK_IS(storm.sink->finish(storm.sink), 0);
    check_outcome(&storm, ZONE_1, 3, 1);
    check_outcome(&storm, ZONE_2, 1, 1);
    check_outcome(&storm, LOW, 2, 1);
    CHECK_IS(refused(&storm, ZONE_1, ENOENT), 2);
    CHECK_IS(refused(&storm, ZONE_2, ENOENT), 0);
    CHECK_IS(refused(&storm, LOW, ENOENT), 1);
    storm_end(&storm);
}

static void every_batch_has_its_own_account(void)
{
    const unsigned flows = 1000;
    struct storm storm;
    uint16_t i;

    /* Room for the answers to a few requests only: many small batches. */
    storm_begin(&storm, 5 * 1024);
    answer_to = odd_are_gone;
    fake_answer(answer_each);
    for (i = 1; i <= flows; i++)
        flow(&storm, i % 2 ? 1 : 2, i);
    CHECK_IS(storm.sink->finish(storm.sink), 0);
    CHECK(fake_sent.sends >= flows / 5);
    check_outcome(&storm, ZONE_1, flows / 2, 0);
    check_outcome(&storm, ZONE_2, flows / 2, flows / 2);
    check_outcome(&storm, LOW, LOW_PORTS, LOW_PORTS / 2);
    CHECK_IS(refused(&storm, ZONE_1, ENOENT), flows / 2);
    CHECK_IS(refused(&storm, ZONE_2, ENOENT), 0);
    CHECK_IS(refused(&storm, LOW, ENOENT), LOW_PORTS / 2);
    storm_end(&storm);
}

static int all_but_the_last_are_gone(uint32_t number, bool is_last)
{
    (void)number;
    return is_last ? 0 : ENOENT;
}

static void another_request_in_between_shifts_no_answer(void)
{
    struct storm storm;

    storm_begin(&storm, 1 << 20);
    flow(&storm, 1, 1000);
    fake_answer(fake_acknowledge);
    CHECK_IS(nlct_flush_zone(storm.sock, 9, NLCT_ZONE_PLAIN), 0);
    flow(&storm, 2, 1000);
    answer_to = all_but_the_last_are_gone;
    fake_answer(answer_each);
    CHECK_IS(storm.sink->finish(storm.sink), 0);
    check_outcome(&storm, ZONE_1, 1, 0);
    check_outcome(&storm, ZONE_2, 1, 1);
    CHECK_IS(refused(&storm, ZONE_1, ENOENT), 1);
    storm_end(&storm);
}

static int first_is_busy_then_silence(uint32_t number, bool is_last)
{
    (void)is_last;
    return number == 1 ? EBUSY : FAKE_SILENT;
}

static void what_has_no_answer_counts_as_lost_for_its_owner(void)
{
    struct storm storm;

    storm_begin(&storm, 1 << 20);
    answer_to = first_is_busy_then_silence;
    fake_answer(answer_each);
    flow(&storm, 1, 1000);
    flow(&storm, 2, 1);
    CHECK_IS(storm.sink->finish(storm.sink), 0);
    check_outcome(&storm, ZONE_1, 1, 0);
    check_outcome(&storm, ZONE_2, 1, 0);
    CHECK_IS(refused(&storm, ZONE_1, EBUSY), 1);
    CHECK_IS(refused(&storm, ZONE_1, ENOBUFS), 0);
    CHECK_IS(refused(&storm, ZONE_2, ENOBUFS), 1);
    CHECK_IS(refused(&storm, LOW, ENOBUFS), 1);
    storm_end(&storm);
}

static int all_twice(uint32_t number, bool is_last)
{
    (void)is_last;
    packet.size = 0;
    packet_verdict(&packet, number, ENOENT);
    fake_queue(packet.bytes, packet.size, 0, 0);
    return ENOENT;
}

static void a_second_answer_to_a_request_does_not_count(void)
{
    struct storm storm;

    storm_begin(&storm, 1 << 20);
    answer_to = all_twice;
    fake_answer(answer_each);
    flow(&storm, 1, 1);
    flow(&storm, 1, 1000);
    CHECK_IS(storm.sink->finish(storm.sink), 0);
    CHECK_IS(refused(&storm, ZONE_1, ENOENT), 2);
    CHECK_IS(refused(&storm, LOW, ENOENT), 1);
    storm_end(&storm);
}

static void a_filter_that_cannot_tell_troubles_its_target_alone(void)
{
    struct storm storm;

    storm_begin(&storm, 1 << 20);
    fake_answer(fake_acknowledge);
    begin(1, 1);
    packet_attr(&packet, CTA_LABELS, "odd", 3);
    CHECK_IS(give(&storm), 0);
    CHECK_IS(storm.sink->finish(storm.sink), 0);
    check_outcome(&storm, ZONE_1, 1, 1);
    check_outcome(&storm, LOW, 1, 1);
    check_outcome(&storm, LABELLED, 0, 0);
    CHECK_IS(refused(&storm, LABELLED, EBADMSG), 1);
    CHECK_IS(refused(&storm, ZONE_1, EBADMSG), 0);
    storm_end(&storm);
}

/* What the first filter found out is what the next one finds. */
static void a_malformed_attribute_is_malformed_for_every_target(void)
{
    const struct nlct_mask masks[] = {{{0, 0}, {1, 0}}, {{0, 0}, {2, 0}}, {{0, 0}, {4, 0}}};
    struct nlct_socket *sock = fake_open();
    struct nlct_target targets[3];
    struct nlct_filter *filters[3];
    struct storm storm = {.sock = sock};
    struct nlct_test test;
    size_t i;

    fake_reset();
    fake_answer(fake_acknowledge);
    for (i = 0; i < 3; i++) {
        test = (struct nlct_test){
            field_number("labels"), NLCT_TEST_MASKS, NLCT_MATCH, NLCT_DROP, 1, &masks[i]};
        CHECK_IS(nlct_filter_new(&filters[i], &test, 1), 0);
        targets[i] = (struct nlct_target){.wants = NLCT_WANTS_FILTER, .filter = filters[i]};
    }
    CHECK_IS(nlct_deletes_new(&storm.sink, sock, targets, 3), 0);
    begin(1, 1);
    packet_attr(&packet, CTA_LABELS, "odd", 3);
    CHECK_IS(give(&storm), 0);
    CHECK_IS(storm.sink->finish(storm.sink), 0);
    CHECK_IS(fake_sent.sends, 0);
    for (i = 0; i < 3; i++) {
        check_outcome(&storm, i, 0, 0);
        CHECK_IS(refused(&storm, i, EBADMSG), 1);
        nlct_filter_free(&filters[i]);
    }
    nlct_sink_free(&storm.sink);
    fake_close(sock);
}

static void a_flow_that_cannot_be_named_is_never_sent(void)
{
    struct storm storm;

    storm_begin(&storm, 1 << 20);
    fake_answer(fake_acknowledge);
    packet_begin_flow(&packet, AF_INET);
    packet_be16(&packet, CTA_ZONE, 1);
    packet_be32(&packet, CTA_ID, 1);
    CHECK_IS(give(&storm), 0);
    CHECK_IS(storm.sink->finish(storm.sink), 0);
    CHECK_IS(fake_sent.sends, 0);
    check_outcome(&storm, ZONE_1, 1, 0);
    CHECK_IS(refused(&storm, ZONE_1, EBADMSG), 1);
    CHECK_IS(refused(&storm, ZONE_2, EBADMSG), 0);
    storm_end(&storm);
}

static void what_nobody_wants_is_left_alone(void)
{
    struct storm storm;

    storm_begin(&storm, 1 << 20);
    flow(&storm, 0, 1000);
    flow(&storm, 258, 1000);
    flow(&storm, UINT16_MAX, 1000);
    CHECK_IS(storm.sink->finish(storm.sink), 0);
    CHECK_IS(fake_sent.sends, 0);
    storm_end(&storm);
}

/* Beside others: whoever wants everything has every flow counted, and each is deleted once. */
static void a_target_may_want_whatever_the_dump_lets_through(void)
{
    const struct nlct_target targets[] = {
        {.wants = NLCT_WANTS_ALL},
        {.wants = NLCT_WANTS_ZONE, .zone = 7},
    };
    struct storm storm = {.sock = fake_open()};

    fake_reset();
    answer_to = odd_are_gone;
    fake_answer(answer_each);
    CHECK_IS(nlct_deletes_new(&storm.sink, storm.sock, targets, 2), 0);
    flow(&storm, 7, 1);
    flow(&storm, 7, 2);
    flow(&storm, 0, 3);
    flow(&storm, 8, 4);
    CHECK_IS(storm.sink->finish(storm.sink), 0);
    CHECK_IS(storm.sock->sequence, 4);
    check_outcome(&storm, 0, 4, 2);
    check_outcome(&storm, 1, 2, 1);
    CHECK_IS(refused(&storm, 0, ENOENT), 2);
    CHECK_IS(refused(&storm, 1, ENOENT), 1);
    nlct_sink_free(&storm.sink);
    fake_close(storm.sock);
}

static void two_targets_with_one_zone_are_refused(void)
{
    const struct nlct_target targets[] = {
        {.wants = NLCT_WANTS_ZONE, .zone = 7},
        {.wants = NLCT_WANTS_ZONE, .zone = 8},
        {.wants = NLCT_WANTS_ZONE, .zone = 7},
    };
    struct nlct_socket *sock = fake_open();
    struct nlct_sink *sink = NULL;

    CHECK_IS(nlct_deletes_new(&sink, sock, targets, 3), -EINVAL);
    CHECK_IS(nlct_deletes_new(&sink, sock, targets, 2), 0);
    nlct_sink_free(&sink);
    CHECK_IS(nlct_deletes_new(&sink, sock, targets, 0), 0);
    nlct_sink_free(&sink);
    CHECK_IS(nlct_deletes_new(&sink, sock, targets, SIZE_MAX), -EINVAL);
    fake_close(sock);
}

/* A mistake of the caller must not delete anything, least of all zone 0. */
static void a_target_that_names_nothing_is_refused(void)
{
    static const struct nlct_target wrong[] = {
        {.zone = 0},
        {.zone = 7},
        {.wants = NLCT_WANTS_FILTER},
        {.wants = NLCT_WANTS_ALL + 1},
    };
    struct nlct_socket *sock = fake_open();
    struct nlct_sink *sink = NULL;
    size_t i;

    for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        const struct nlct_target targets[] = {{.wants = NLCT_WANTS_ALL}, wrong[i]};

        CHECK_IS(nlct_deletes_new(&sink, sock, &wrong[i], 1), -EINVAL);
        CHECK_IS(nlct_deletes_new(&sink, sock, targets, 2), -EINVAL);
        CHECK(!sink);
    }
    fake_close(sock);
}

/* Flows that are given ------------------------------------------------------------------------ */

static struct nlct_flow given(uint16_t zone, uint16_t number)
{
    struct nlct_bytes none = {0};
    struct nlct_flow read;

    begin(zone, number);
    packet_tuple(&packet, CTA_TUPLE_REPLY, "192.0.2.1", "10.0.0.1", IPPROTO_UDP, 53, number);
    packet_end(&packet);
    CHECK_IS(nlct_flow_parse(packet.bytes, packet.size, &read, &none), 0);
    return read;
}

/* Deletes them over a socket with this room for answers, and says what came of each. */
static void delete_given(const struct nlct_flow *flows, size_t count, size_t room, int *results)
{
    struct nlct_socket *sock = fake_open();

    sock->room = room;
    CHECK_IS(nlct_delete_flows(sock, flows, count, results), 0);
    fake_close(sock);
}

/* Of three requests in a batch the second is not found, nor is its reply. */
static int second_is_gone(uint32_t number, bool is_last)
{
    if (number == 2 || number > 3)
        return ENOENT;
    return is_last ? 0 : FAKE_SILENT;
}

static void each_given_flow_has_its_result(void)
{
    const struct nlct_flow flows[] = {given(1, 1), given(2, 2), given(3, 3)};
    int results[3] = {1, 1, 1};

    fake_reset();
    answer_to = second_is_gone;
    fake_answer(answer_each);
    delete_given(flows, 3, 1 << 20, results);
    CHECK_IS(fake_sent.sends, 2);
    CHECK_IS(results[0], 0);
    CHECK_IS(results[1], -ENOENT);
    CHECK_IS(results[2], 0);
    delete_given(flows, 0, 1 << 20, results);
    CHECK_IS(fake_sent.sends, 2);
}

static int odd_are_gone_or_the_last_of_all(uint32_t number, bool is_last)
{
    return number % 2 && !is_last ? ENOENT : is_last ? 0 : FAKE_SILENT;
}

/* In batches of two the first of each is not found; its reply, alone in a batch, is. */
static void what_is_not_found_is_tried_by_its_reply_in_every_batch(void)
{
    enum { FLOWS = 100 };
    struct nlct_flow flows[FLOWS];
    int results[FLOWS];
    uint16_t i;

    for (i = 0; i < FLOWS; i++) {
        flows[i] = given(i, i);
        results[i] = 1;
    }
    fake_reset();
    answer_to = odd_are_gone_or_the_last_of_all;
    fake_answer(answer_each);
    delete_given(flows, FLOWS, 2 * 1024, results);
    CHECK(fake_sent.sends > FLOWS / 2);
    for (i = 0; i < FLOWS; i++)
        CHECK_IS(results[i], 0);
}

static void a_given_flow_that_cannot_be_named_is_never_sent(void)
{
    struct nlct_flow flows[6];
    int results[6];
    size_t i;

    for (i = 0; i < 6; i++)
        flows[i] = given(7, 1000);
    flows[1].present &= ~BIT(NLCT_FLOW_ID);
    flows[2].present &= ~BIT(NLCT_FLOW_ORIG);
    flows[3].orig.present &= ~BIT(NLCT_TUPLE_PROTO);
    flows[4].orig.present &= ~(BIT(NLCT_TUPLE_SRC) | BIT(NLCT_TUPLE_DST));
    flows[5].family = AF_UNSPEC;
    fake_reset();
    fake_answer(fake_acknowledge);
    delete_given(flows, 6, 1 << 20, results);
    CHECK_IS(fake_sent.sends, 1);
    CHECK(fake_sent.size < 100);
    CHECK_IS(results[0], 0);
    for (i = 1; i < 5; i++)
        CHECK_IS(results[i], -EINVAL);
    CHECK(results[5] < 0);
}

static int all_are_gone(uint32_t number, bool is_last)
{
    (void)number;
    (void)is_last;
    return ENOENT;
}

/* Writes a tuple in which a zone applies, if there is one. */
static void tuple_in(uint16_t type, const char *src, const char *dst, uint16_t zone)
{
    const size_t tuple = packet_nest(&packet, type);

    packet_addresses(&packet, src, dst);
    packet_ports(&packet, IPPROTO_TCP, 1024, 53);
    if (zone)
        packet_be16(&packet, CTA_TUPLE_ZONE, zone);
    packet_end_nest(&packet, tuple);
}

/* The requests for the flow in the packet and for that flow given are the same, byte by byte. */
static void check_same_requests(void)
{
    const struct nlct_target everything = {.wants = NLCT_WANTS_ALL};
    struct storm storm = {.sock = fake_open()};
    struct nlct_bytes none = {0};
    static struct fake_sent sent;
    struct nlct_flow read;
    int result;

    packet_end(&packet);
    CHECK_IS(nlct_flow_parse(packet.bytes, packet.size, &read, &none), 0);
    answer_to = all_are_gone;
    fake_reset();
    fake_answer(answer_each);
    CHECK_IS(nlct_deletes_new(&storm.sink, storm.sock, &everything, 1), 0);
    CHECK_IS(give(&storm), 0);
    CHECK_IS(storm.sink->finish(storm.sink), 0);
    nlct_sink_free(&storm.sink);
    fake_close(storm.sock);
    sent = fake_sent;
    CHECK_IS(sent.sends, 2);
    fake_reset();
    fake_answer(answer_each);
    delete_given(&read, 1, 1 << 20, &result);
    CHECK_IS(result, -ENOENT);
    CHECK_IS(fake_sent.size, sent.size);
    CHECK_BYTES(fake_sent.bytes, sent.bytes, sent.size);
}

/* The zone of both directions, of none, of the original one and of the reply; either family. */
static void a_given_flow_is_named_as_its_message_would_be(void)
{
    static const uint16_t zones[][3] = {{258, 0, 0}, {0, 0, 0}, {0, 258, 0}, {0, 0, 258}};
    size_t i;

    for (i = 0; i < 8; i++) {
        const bool ipv6 = i % 2;
        const uint16_t *zone = zones[i / 2];
        const char *src = ipv6 ? "fd00::1" : "10.0.0.1";
        const char *dst = ipv6 ? "2001:db8::1" : "192.0.2.1";

        packet_begin_flow(&packet, ipv6 ? AF_INET6 : AF_INET);
        tuple_in(CTA_TUPLE_ORIG, src, dst, zone[1]);
        tuple_in(CTA_TUPLE_REPLY, dst, src, zone[2]);
        if (zone[0])
            packet_be16(&packet, CTA_ZONE, zone[0]);
        packet_be32(&packet, CTA_ID, 0x01020304);
        packet_be32(&packet, CTA_MARK, 7);
        check_same_requests();
    }
}

const struct test_case delete_cases[] = {
    CASE(a_flow_counts_for_each_who_wants_it_and_is_deleted_once),
    CASE(a_refusal_goes_to_those_who_wanted_the_flow),
    CASE(every_batch_has_its_own_account),
    CASE(another_request_in_between_shifts_no_answer),
    CASE(what_has_no_answer_counts_as_lost_for_its_owner),
    CASE(a_second_answer_to_a_request_does_not_count),
    CASE(a_filter_that_cannot_tell_troubles_its_target_alone),
    CASE(a_malformed_attribute_is_malformed_for_every_target),
    CASE(a_flow_that_cannot_be_named_is_never_sent),
    CASE(what_nobody_wants_is_left_alone),
    CASE(a_target_may_want_whatever_the_dump_lets_through),
    CASE(two_targets_with_one_zone_are_refused),
    CASE(a_target_that_names_nothing_is_refused),
    CASE(each_given_flow_has_its_result),
    CASE(what_is_not_found_is_tried_by_its_reply_in_every_batch),
    CASE(a_given_flow_that_cannot_be_named_is_never_sent),
    CASE(a_given_flow_is_named_as_its_message_would_be),
    END_OF_CASES,
};
