/* Changing the flows of a dump: what is sent, and what becomes of each answer. */
#include "cases.h"
#include "check.h"
#include "fake.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <sys/socket.h>

static struct packet packet;

struct work {
    struct nlct_socket *sock;
    struct nlct_sink *sink;
    struct nlct_change change;
    struct nlct_updated updated;
};

/* Sets the low byte of the mark to 7. */
static void work_begin(struct work *work, size_t room)
{
    *work = (struct work){.sock = NULL};
    work->change.to.present = UINT64_C(1) << NLCT_FLOW_MARK;
    work->change.to.mark = 7;
    work->change.mark_mask = 0xff;
    fake_reset();
    work->sock = fake_open();
    work->sock->room = room;
    CHECK_IS(nlct_updates_new(&work->sink, work->sock, &work->change, &work->updated), 0);
}

static void work_end(struct work *work)
{
    nlct_sink_free(&work->sink);
    fake_close(work->sock);
}

static void begin(uint16_t number)
{
    packet_begin_flow(&packet, AF_INET);
    packet_tuple(&packet, CTA_TUPLE_ORIG, "10.0.0.1", "192.0.2.1", IPPROTO_UDP, number, 53);
    packet_be32(&packet, CTA_ID, number);
}

static int give(struct work *work)
{
    struct view view;

    CHECK_IS(packet_view(&packet, &view), 0);
    return work->sink->take(work->sink, &view);
}

static void flow(struct work *work, uint16_t number, uint32_t mark)
{
    begin(number);
    packet_be32(&packet, CTA_MARK, mark);
    CHECK_IS(give(work), 0);
}

static int (*answer_to)(uint32_t number, bool is_last);
static unsigned requests;

/* Looks at each request: an update that creates nothing. */
static int answer_by_number(const struct nlmsghdr *header)
{
    CHECK_IS(header->nlmsg_type, NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW);
    CHECK_IS(header->nlmsg_flags & ~NLM_F_ACK, NLM_F_REQUEST);
    requests++;
    return answer_to(header->nlmsg_seq, header->nlmsg_flags & NLM_F_ACK);
}

static void answer_each(const uint8_t *data, size_t size)
{
    fake_answer_each(data, size, answer_by_number);
}

static int third_is_gone_fourth_is_busy(uint32_t number, bool is_last)
{
    if (number == 3 || number == 4)
        return number == 3 ? ENOENT : EBUSY;
    return is_last ? 0 : FAKE_SILENT;
}

static void each_answer_counts_and_what_is_so_is_not_sent(void)
{
    struct work work;

    work_begin(&work, 1 << 20);
    answer_to = third_is_gone_fourth_is_busy;
    requests = 0;
    fake_answer(answer_each);
    flow(&work, 1, 0);
    flow(&work, 2, 0xff07); /* is so */
    flow(&work, 3, 0xff08);
    flow(&work, 4, 1);
    flow(&work, 5, 1);
    flow(&work, 6, 1);
    begin(7); /* has no mark */
    CHECK_IS(give(&work), 0);
    CHECK_IS(work.sink->finish(work.sink), 0);
    CHECK_IS(fake_sent.sends, 1);
    CHECK_IS(requests, 5);
    CHECK_IS(work.updated.tally.done, 3);
    CHECK_IS(work.updated.tally.refused[ENOENT], 1);
    CHECK_IS(work.updated.tally.refused[EBUSY], 1);
    CHECK_IS(work.updated.unchanged, 2);
    CHECK_IS(work.updated.no_mark, 1);
    work_end(&work);
}

static int nothing(uint32_t number, bool is_last)
{
    (void)number;
    (void)is_last;
    return FAKE_SILENT;
}

static void what_has_no_answer_counts_as_lost(void)
{
    struct work work;

    work_begin(&work, 1 << 20);
    answer_to = nothing;
    fake_answer(answer_each);
    flow(&work, 1, 0);
    flow(&work, 2, 0);
    CHECK_IS(work.sink->finish(work.sink), 0);
    CHECK_IS(work.updated.tally.done, 0);
    CHECK_IS(work.updated.tally.refused[ENOBUFS], 2);
    work_end(&work);
}

static int denied(uint32_t number, bool is_last)
{
    (void)is_last;
    return number == 1 ? EPERM : FAKE_SILENT;
}

static void a_missing_privilege_ends_it(void)
{
    struct work work;

    work_begin(&work, 1 << 20);
    answer_to = denied;
    fake_answer(answer_each);
    flow(&work, 1, 0);
    CHECK_IS(work.sink->finish(work.sink), -EPERM);
    work_end(&work);
}

static void a_flow_without_a_name_is_never_sent(void)
{
    struct work work;

    work_begin(&work, 1 << 20);
    answer_to = nothing;
    fake_answer(answer_each);
    /* No tuple; a tuple without addresses; a zone of one byte; a malformed mark. */
    packet_begin_flow(&packet, AF_INET);
    packet_be32(&packet, CTA_MARK, 0);
    CHECK_IS(give(&work), 0);
    packet_begin_flow(&packet, AF_INET);
    packet_attr(&packet, CTA_TUPLE_ORIG | NLA_F_NESTED, NULL, 0);
    packet_be32(&packet, CTA_MARK, 0);
    CHECK_IS(give(&work), 0);
    begin(1);
    packet_attr(&packet, CTA_ZONE, "x", 1);
    packet_be32(&packet, CTA_MARK, 0);
    CHECK_IS(give(&work), 0);
    begin(2);
    packet_attr(&packet, CTA_MARK, "odd", 3);
    CHECK_IS(give(&work), 0);
    CHECK_IS(work.sink->finish(work.sink), 0);
    CHECK_IS(fake_sent.sends, 0);
    CHECK_IS(work.updated.tally.refused[EBADMSG], 4);
    work_end(&work);
}

static void a_change_that_is_none_is_refused(void)
{
    static const struct nlct_change wrong[] = {
        {.to.present = 0},
        {.to = {.present = UINT64_C(1) << NLCT_FLOW_ID, .id = 1}},
        {.to.present = UINT64_C(1) << NLCT_FLOW_TIMEOUT},
        {.to.present = UINT64_C(1) << NLCT_FLOW_MARK},
        {.to.present = UINT64_C(1) << NLCT_FLOW_HELPER},
        {.to = {.present = UINT64_C(1) << NLCT_FLOW_MARK, .mark = 3}, .mark_mask = 2},
        {.to.present = UINT64_C(1) << NLCT_FLOW_LABELS},
        {.to = {.present = UINT64_C(1) << NLCT_FLOW_LABELS, .labels = {0, 1}},
         .labels_mask = {1, 0}},
    };
    struct nlct_socket *sock = fake_open();
    struct nlct_updated updated = {0};
    struct nlct_sink *sink = NULL;
    size_t i;

    for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        CHECK_IS(nlct_updates_new(&sink, sock, &wrong[i], &updated), -EINVAL);
        CHECK(!sink);
    }
    fake_close(sock);
}

const struct test_case update_cases[] = {
    CASE(each_answer_counts_and_what_is_so_is_not_sent),
    CASE(what_has_no_answer_counts_as_lost),
    CASE(a_missing_privilege_ends_it),
    CASE(a_flow_without_a_name_is_never_sent),
    CASE(a_change_that_is_none_is_refused),
    END_OF_CASES,
};
