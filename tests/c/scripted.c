/*
 * The core against a kernel that plays a script: what no real kernel can be made to do. Here are
 * dumps, deletes and verdicts; other files have the rest.
 */
#include "cases.h"
#include "check.h"
#include "fake.h"
#include "make.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    NEW = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW,
    DELETE = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE,
    STATS = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET_STATS,
    HEADERS = sizeof(struct nlmsghdr) + sizeof(struct nfgenmsg),
};

/* What may be wrong with a flow message. */
enum defect {
    NO_ID = 1 << 0,
    LONG_ID = 1 << 1,
    NO_TUPLE = 1 << 2,
    EMPTY_TUPLE = 1 << 3,
    NO_IP = 1 << 4,
    EMPTY_IP = 1 << 5,
    NO_PROTO = 1 << 6,
    EMPTY_PROTO = 1 << 7,
    LONG_ZONE = 1 << 8,
    SHORT_ZONE = 1 << 9,
    BIG_TUPLE = 1 << 10,
    NO_FAMILY = 1 << 11,
    LEFTOVER_TUPLE = 1 << 12,
};

static struct nlct_filter *everything;
static struct packet packet;

static void put_tuple(uint8_t number, unsigned defects)
{
    const uint8_t src[4] = {10, 0, 0, number};
    const uint8_t dst[4] = {192, 0, 2, 1};
    const uint8_t proto = IPPROTO_UDP;
    const uint8_t port[2] = {4, number};
    static const uint8_t much[1100];
    size_t tuple = packet_nest(&packet, CTA_TUPLE_ORIG);
    size_t nest;

    if (!(defects & (EMPTY_TUPLE | NO_IP))) {
        nest = packet_nest(&packet, CTA_TUPLE_IP);
        if (!(defects & EMPTY_IP)) {
            packet_attr(&packet, CTA_IP_V4_SRC, src, sizeof(src));
            packet_attr(&packet, CTA_IP_V4_DST, dst, sizeof(dst));
        }
        packet_end_nest(&packet, nest);
    }
    if (!(defects & (EMPTY_TUPLE | NO_PROTO))) {
        nest = packet_nest(&packet, CTA_TUPLE_PROTO);
        if (!(defects & EMPTY_PROTO)) {
            packet_attr(&packet, CTA_PROTO_NUM, &proto, sizeof(proto));
            packet_attr(&packet, CTA_PROTO_SRC_PORT, port, sizeof(port));
            packet_attr(&packet, CTA_PROTO_DST_PORT, port, sizeof(port));
        }
        packet_end_nest(&packet, nest);
    }
    if (defects & BIG_TUPLE)
        packet_attr(&packet, 99, much, sizeof(much));
    if (defects & LEFTOVER_TUPLE)
        packet_bytes(&packet, "\xff\xff\xff\xff", 4);
    packet_end_nest(&packet, tuple);
}

/* Adds a flow of zone 7 to the packet; 'number' is in its addresses, ports and id. */
static void put_flow(uint8_t number, unsigned defects, uint32_t sequence, uint32_t port)
{
    const struct nfgenmsg general = {.nfgen_family = defects & NO_FAMILY ? AF_UNSPEC : AF_INET};
    const uint8_t zone[4] = {0, 7, 0, 0};
    const uint8_t id[8] = {0, 0, 1, number};

    packet_begin(&packet, NEW, NLM_F_MULTI, sequence, port);
    packet_bytes(&packet, &general, sizeof(general));
    if (!(defects & NO_TUPLE))
        put_tuple(number, defects);
    packet_attr(&packet, CTA_STATUS, "\0\0\0\10", 4);
    packet_attr(&packet, CTA_ZONE, zone, defects & LONG_ZONE ? 4 : defects & SHORT_ZONE ? 1 : 2);
    if (!(defects & NO_ID))
        packet_attr(&packet, CTA_ID, id, defects & LONG_ID ? 8 : 4);
    packet_end(&packet);
}

static void put_done(uint32_t sequence, const void *payload, size_t size)
{
    packet_begin(&packet, NLMSG_DONE, NLM_F_MULTI, sequence, FAKE_PORT);
    packet_bytes(&packet, payload, size);
    packet_end(&packet);
}

static void queue_packet(void)
{
    fake_queue(packet.bytes, packet.size, 0, 0);
    packet.size = 0;
}

/* A dump with nothing queued yet; its answers carry the sequence number 1. */
struct dumping {
    struct nlct_socket *sock;
    struct nlct_dump *dump;
    struct nlct_sink *sink;
    struct nlct_flow rows[16];
    struct nlct_bytes bytes;
    struct nlct_progress progress;
    int buckets;
};

static void dumping_begin(struct dumping *dumping)
{
    fake_reset();
    packet.size = 0;
    dumping->sock = fake_open();
    CHECK_IS(nlct_dump_start(&dumping->dump, dumping->sock, everything, NULL, dumping->buckets), 0);
    dumping->sink = make_rows(dumping->rows, 16, &dumping->bytes);
    CHECK(dumping->sink);
}

static int dumping_next(struct dumping *dumping)
{
    int rc = nlct_dump_next(dumping->dump, dumping->sink, 1000);

    nlct_dump_progress(dumping->dump, &dumping->progress);
    return rc;
}

static void dumping_end(struct dumping *dumping)
{
    nlct_dump_free(&dumping->dump);
    nlct_sink_free(&dumping->sink);
    nlct_bytes_free(&dumping->bytes);
    fake_close(dumping->sock);
}

/* Runs a whole dump over what is in the packet. Returns what the core says. */
static int dumping_over_packet(struct dumping *dumping)
{
    static struct packet wanted;
    int rc;

    wanted = packet;
    dumping_begin(dumping);
    fake_queue(wanted.bytes, wanted.size, 0, 0);
    rc = dumping_next(dumping);
    dumping_end(dumping);
    return rc;
}

/* Dumps --------------------------------------------------------------------------------------- */

static void dump_takes_flows_to_the_end(void)
{
    struct dumping dumping = {.buckets = -1};

    dumping_begin(&dumping);
    put_flow(1, 0, 1, FAKE_PORT);
    put_flow(2, 0, 1, FAKE_PORT);
    queue_packet();
    put_flow(3, 0, 1, FAKE_PORT);
    queue_packet();
    put_done(1, "\0\0\0\0", 4);
    queue_packet();
    CHECK_IS(dumping_next(&dumping), 0);
    CHECK_IS(nlct_rows_take(dumping.sink), 3);
    CHECK_IS(dumping.rows[2].id, 0x103);
    CHECK_IS(dumping.rows[2].zone, 7);
    CHECK_IS(dumping.rows[2].orig.sport, 0x403);
    CHECK_IS(dumping.progress.scanned, 3);
    CHECK_IS(dumping.progress.matched, 3);
    CHECK(!dumping.progress.interrupted && !dumping.progress.resized);
    dumping_end(&dumping);
}

static void dump_ignores_what_answers_others(void)
{
    struct dumping dumping = {.buckets = -1};

    dumping_begin(&dumping);
    put_flow(1, 0, 1, FAKE_PORT + 1);
    put_flow(2, 0, 0, FAKE_PORT);
    put_flow(3, 0, 2, FAKE_PORT);
    put_done(0, "\0\0\0\0", 4);
    put_done(2, "\0\0\0\0", 4);
    put_flow(4, 0, 1, FAKE_PORT);
    put_done(1, "\0\0\0\0", 4);
    queue_packet();
    CHECK_IS(dumping_next(&dumping), 0);
    CHECK_IS(nlct_rows_take(dumping.sink), 1);
    CHECK_IS(dumping.rows[0].id, 0x104);
    dumping_end(&dumping);
}

static void dump_ignores_other_senders(void)
{
    struct dumping dumping = {.buckets = -1};

    dumping_begin(&dumping);
    put_flow(1, 0, 1, FAKE_PORT);
    put_done(1, "\0\0\0\0", 4);
    fake_queue(packet.bytes, packet.size, 1234, 0);
    packet.size = 0;
    CHECK_IS(dumping_next(&dumping), 1);
    put_flow(2, 0, 1, FAKE_PORT);
    put_done(1, "\0\0\0\0", 4);
    queue_packet();
    CHECK_IS(dumping_next(&dumping), 0);
    CHECK_IS(nlct_rows_take(dumping.sink), 1);
    CHECK_IS(dumping.rows[0].id, 0x102);
    dumping_end(&dumping);
}

static void dump_gives_a_full_sink_its_flow_again(void)
{
    struct dumping dumping = {.buckets = -1};
    struct nlct_flow row;
    unsigned number;

    dumping_begin(&dumping);
    nlct_sink_free(&dumping.sink);
    dumping.sink = make_rows(&row, 1, &dumping.bytes);
    for (number = 1; number <= 3; number++)
        put_flow((uint8_t)number, 0, 1, FAKE_PORT);
    put_done(1, "\0\0\0\0", 4);
    queue_packet();
    for (number = 1; number <= 3; number++) {
        CHECK_IS(dumping_next(&dumping), number < 3);
        CHECK_IS(nlct_rows_take(dumping.sink), 1);
        CHECK_IS(row.id, 0x100 + number);
        CHECK_IS(dumping.progress.matched, number);
        CHECK_IS(dumping.progress.scanned, number);
    }
    dumping_end(&dumping);
}

static void dump_sees_an_inconsistent_dump(void)
{
    struct dumping dumping = {.buckets = -1};

    dumping_begin(&dumping);
    put_flow(1, 0, 1, FAKE_PORT);
    packet_header(&packet)->nlmsg_flags |= NLM_F_DUMP_INTR;
    put_done(1, "\0\0\0\0", 4);
    queue_packet();
    CHECK_IS(dumping_next(&dumping), 0);
    CHECK(dumping.progress.interrupted);
    dumping_end(&dumping);
}

static void dump_sees_a_resize(void)
{
    char path[] = "/tmp/nlct-buckets-XXXXXX";
    struct dumping dumping = {.buckets = mkstemp(path)};

    CHECK(dumping.buckets >= 0);
    CHECK_IS(unlink(path), 0);
    CHECK_IS(pwrite(dumping.buckets, "65536\n", 6, 0), 6);
    dumping_begin(&dumping);
    put_flow(1, 0, 1, FAKE_PORT);
    queue_packet();
    CHECK_IS(dumping_next(&dumping), 1);
    CHECK(!dumping.progress.resized);
    CHECK_IS(pwrite(dumping.buckets, "32768\n", 6, 0), 6);
    put_done(1, "\0\0\0\0", 4);
    queue_packet();
    CHECK_IS(dumping_next(&dumping), 0);
    CHECK(dumping.progress.resized);
    dumping_end(&dumping);
    close(dumping.buckets);
}

static void dump_reports_an_overrun(void)
{
    struct dumping dumping = {.buckets = -1};

    dumping_begin(&dumping);
    fake_queue_error(ENOBUFS);
    CHECK_IS(dumping_next(&dumping), -ENOBUFS);
    dumping_end(&dumping);
}

static void dump_survives_signals(void)
{
    struct dumping dumping = {.buckets = -1};

    dumping_begin(&dumping);
    fake_fail_poll(EINTR);
    CHECK_IS(dumping_next(&dumping), 1);
    fake_queue_error(EINTR);
    put_flow(1, 0, 1, FAKE_PORT);
    put_done(1, "\0\0\0\0", 4);
    queue_packet();
    CHECK_IS(dumping_next(&dumping), 0);
    CHECK_IS(nlct_rows_take(dumping.sink), 1);
    dumping_end(&dumping);
}

static void dump_comes_back_when_the_kernel_is_silent(void)
{
    struct dumping dumping = {.buckets = -1};

    dumping_begin(&dumping);
    CHECK_IS(dumping_next(&dumping), 1);
    CHECK_IS(dumping.progress.scanned, 0);
    dumping_end(&dumping);
}

static void dump_refuses_a_truncated_datagram(void)
{
    struct dumping dumping = {.buckets = -1};

    dumping_begin(&dumping);
    put_flow(1, 0, 1, FAKE_PORT);
    fake_queue(packet.bytes, packet.size, 0, MSG_TRUNC);
    CHECK_IS(dumping_next(&dumping), -EMSGSIZE);
    dumping_end(&dumping);
}

static void dump_reports_errors_in_its_midst(void)
{
    struct dumping dumping = {.buckets = -1};

    packet.size = 0;
    put_flow(1, 0, 1, FAKE_PORT);
    packet_verdict(&packet, 1, EBUSY);
    CHECK_IS(dumping_over_packet(&dumping), -EBUSY);
    CHECK_IS(dumping.progress.scanned, 1);
}

static void dump_reads_the_error_in_its_end(void)
{
    struct dumping dumping = {.buckets = -1};
    int32_t error = -ENOMEM;
    int32_t bytes = 120;

    packet.size = 0;
    put_done(1, &error, sizeof(error));
    CHECK_IS(dumping_over_packet(&dumping), -ENOMEM);
    packet.size = 0;
    put_done(1, &bytes, sizeof(bytes));
    CHECK_IS(dumping_over_packet(&dumping), 0);
    packet.size = 0;
    put_done(1, NULL, 0);
    CHECK_IS(dumping_over_packet(&dumping), 0);
    packet.size = 0;
    put_done(1, &error, 3);
    CHECK_IS(dumping_over_packet(&dumping), -EBADMSG);
    packet.size = 0;
    error = -4096;
    put_done(1, &error, sizeof(error));
    CHECK_IS(dumping_over_packet(&dumping), -EBADMSG);
}

static void dump_refuses_messages_of_other_kinds(void)
{
    struct dumping dumping = {.buckets = -1};

    packet.size = 0;
    packet_begin(&packet, NLMSG_NOOP, 0, 1, FAKE_PORT);
    packet_end(&packet);
    put_done(1, NULL, 0);
    CHECK_IS(dumping_over_packet(&dumping), 0);
    packet.size = 0;
    packet_begin(&packet, DELETE, 0, 1, FAKE_PORT);
    packet_end(&packet);
    CHECK_IS(dumping_over_packet(&dumping), -EBADMSG);
}

static void dump_refuses_malformed_datagrams(void)
{
    const uint32_t sizes[] = {0, 15, 1 << 20, UINT32_MAX};
    struct dumping dumping = {.buckets = -1};
    size_t i;

    for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        packet.size = 0;
        put_flow(1, 0, 1, FAKE_PORT);
        memcpy(packet.bytes, &sizes[i], sizeof(sizes[i]));
        CHECK_IS(dumping_over_packet(&dumping), -EBADMSG);
    }
    packet.size = 0;
    put_flow(1, 0, 1, FAKE_PORT);
    packet_bytes(&packet, "rest", 4);
    CHECK_IS(dumping_over_packet(&dumping), -EBADMSG);
    packet.size = 0;
    put_flow(1, LEFTOVER_TUPLE, 1, FAKE_PORT);
    CHECK_IS(dumping_over_packet(&dumping), -EBADMSG);
}

/* Else a flow would be missing from a dump that comes to its end. */
static void dump_that_failed_does_not_go_on(void)
{
    struct dumping dumping = {.buckets = -1};
    unsigned i;

    dumping_begin(&dumping);
    put_flow(1, 0, 1, FAKE_PORT);
    put_flow(2, LEFTOVER_TUPLE, 1, FAKE_PORT);
    put_flow(3, 0, 1, FAKE_PORT);
    put_done(1, "\0\0\0\0", 4);
    queue_packet();
    for (i = 0; i < 3; i++)
        CHECK_IS(dumping_next(&dumping), -EBADMSG);
    CHECK_IS(dumping.progress.scanned, 1);
    CHECK_IS(nlct_rows_take(dumping.sink), 1);
    dumping_end(&dumping);
}

/* Verdicts and their texts --------------------------------------------------------------------- */

/* An NLMSG_ERROR with a text of 'length' bytes, all of it 'x'. */
static void put_text(uint32_t sequence, int error, size_t length)
{
    static uint8_t text[1000];

    packet_verdict(&packet, sequence, error);
    packet_header(&packet)->nlmsg_flags |= NLM_F_ACK_TLVS;
    memset(text, 'x', sizeof(text));
    packet_attr(&packet, NLMSGERR_ATTR_MSG, text, length);
    packet_end(&packet);
}

static void texts_are_kept_as_far_as_they_fit(void)
{
    const size_t lengths[] = {0, 1, 254, 255, 256, 1000};
    size_t i;

    for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        struct dumping dumping = {.buckets = -1};
        size_t kept = lengths[i] > 255 ? 255 : lengths[i];

        dumping_begin(&dumping);
        put_text(1, ERANGE, lengths[i]);
        queue_packet();
        CHECK_IS(dumping_next(&dumping), -ERANGE);
        CHECK_IS(strlen(nlct_socket_text(dumping.sock)), kept);
        CHECK_IS(strspn(nlct_socket_text(dumping.sock), "x"), kept);
        dumping_end(&dumping);
    }
}

static void texts_do_not_outlive_the_next_request(void)
{
    struct nlct_socket *sock = fake_open();

    fake_reset();
    packet.size = 0;
    put_text(1, ERANGE, 5);
    queue_packet();
    CHECK_IS(nlct_flush_zone(sock, 1, NLCT_ZONE_PLAIN), -ERANGE);
    CHECK_IS(strcmp(nlct_socket_text(sock), "xxxxx"), 0);
    packet_verdict(&packet, 2, ENOENT);
    queue_packet();
    CHECK_IS(nlct_flush_zone(sock, 1, NLCT_ZONE_PLAIN), -ENOENT);
    CHECK_IS(strcmp(nlct_socket_text(sock), ""), 0);
    fake_close(sock);
}

static void short_verdicts_are_refused(void)
{
    struct dumping dumping = {.buckets = -1};
    uint32_t cut;
    uint32_t size;

    for (cut = 1; cut <= 20; cut++) {
        packet.size = 0;
        packet_verdict(&packet, 1, EBUSY);
        size = (uint32_t)packet.size - cut;
        memcpy(packet.bytes, &size, sizeof(size));
        packet.size = size;
        CHECK_IS(dumping_over_packet(&dumping), -EBADMSG);
    }
}

static void an_echoed_request_must_fit_its_verdict(void)
{
    struct dumping dumping = {.buckets = -1};
    const uint32_t sizes[] = {0, 15, 17, UINT32_MAX};
    size_t i;

    for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        packet.size = 0;
        packet_verdict(&packet, 1, EBUSY);
        packet_header(&packet)->nlmsg_flags &= UINT8_MAX;
        memcpy(packet.bytes + 20, &sizes[i], sizeof(sizes[i]));
        CHECK_IS(dumping_over_packet(&dumping), -EBADMSG);
    }
}

/* Deletes ------------------------------------------------------------------------------------- */

/* A scan that deletes: the dump on one socket, the deletes on another. */
struct scan {
    struct nlct_socket *sock;
    int buckets;
    struct nlct_dump *dump;
    struct nlct_sink *sink;
    struct nlct_tally tally;
    struct nlct_progress progress;
};

static void scan_begin(struct scan *scan, size_t room)
{
    memset(scan, 0, sizeof(*scan));
    fake_reset();
    packet.size = 0;
    scan->sock = fake_open();
    scan->sock->room = room;
    scan->buckets = -1;
}

/* Runs a whole scan over the flows in the packet; 'answer' (may be NULL) answers the deletes.
   Returns what the core says. */
static int scan_run(struct scan *scan, void (*answer)(const uint8_t *data, size_t size))
{
    struct nlct_socket *dumping = fake_open();
    int rc;

    CHECK_IS(nlct_dump_start(&scan->dump, dumping, everything, NULL, scan->buckets), 0);
    fake_sent.size = 0;
    fake_sent.sends = 0;
    fake_answer(answer);
    scan->sink = make_deletes(scan->sock);
    CHECK(scan->sink);
    put_done(1, NULL, 0);
    /* Ahead of every answer to a delete: both sockets read from one queue. */
    fake_queue(packet.bytes, packet.size, 0, 0);
    rc = nlct_dump_next(scan->dump, scan->sink, 1000);
    nlct_dump_progress(scan->dump, &scan->progress);
    nlct_dump_free(&scan->dump);
    read_tally(scan->sink, &scan->tally);
    nlct_sink_free(&scan->sink);
    fake_close(dumping);
    return rc;
}

static uint64_t refused(const struct nlct_tally *tally)
{
    uint64_t sum = 0;
    size_t i;

    for (i = 0; i < sizeof(tally->refused) / sizeof(tally->refused[0]); i++)
        sum += tally->refused[i];
    return sum;
}

static void scan_end(struct scan *scan)
{
    fake_close(scan->sock);
}

static void delete_echoes_tuple_zone_and_id(void)
{
    static struct packet expected;
    struct scan scan;
    struct nfgenmsg general = {.nfgen_family = AF_INET};

    scan_begin(&scan, 1 << 20);
    put_tuple(1, 0);
    expected.size = 0;
    packet_begin(&expected, DELETE, NLM_F_REQUEST | NLM_F_ACK, 1, 0);
    packet_bytes(&expected, &general, sizeof(general));
    packet_bytes(&expected, packet.bytes, packet.size);
    packet_attr(&expected, CTA_ZONE, "\0\7", 2);
    packet_attr(&expected, CTA_ID, "\0\0\1\1", 4);
    packet_end(&expected);

    packet.size = 0;
    put_flow(1, 0, 1, FAKE_PORT);
    CHECK_IS(scan_run(&scan, fake_acknowledge), 0);
    CHECK_IS(fake_sent.size, expected.size);
    CHECK_IS(memcmp(fake_sent.bytes, expected.bytes, expected.size), 0);
    CHECK_IS(scan.tally.done, 1);
    CHECK_IS(refused(&scan.tally), 0);
    scan_end(&scan);
}

static int resized_file = -1;

static void resize_and_acknowledge(const uint8_t *data, size_t size)
{
    CHECK_IS(pwrite(resized_file, "32768\n", 6, 0), 6);
    fake_acknowledge(data, size);
}

static void a_resize_is_seen_until_the_last_delete(void)
{
    char path[] = "/tmp/nlct-buckets-XXXXXX";
    struct scan scan;

    resized_file = mkstemp(path);
    CHECK(resized_file >= 0);
    CHECK_IS(unlink(path), 0);
    CHECK_IS(pwrite(resized_file, "65536\n", 6, 0), 6);
    scan_begin(&scan, 1 << 20);
    scan.buckets = resized_file;
    put_flow(1, 0, 1, FAKE_PORT);
    CHECK_IS(scan_run(&scan, resize_and_acknowledge), 0);
    CHECK_IS(scan.tally.done, 1);
    CHECK(scan.progress.resized);
    scan_end(&scan);
    close(resized_file);
}

static const struct {
    unsigned defect;
    int error;
} unnamed[] = {
    {NO_ID, EBADMSG},
    {LONG_ID, EBADMSG},
    {NO_TUPLE, EBADMSG},
    {EMPTY_TUPLE, EBADMSG},
    {NO_IP, EBADMSG},
    {EMPTY_IP, EBADMSG},
    {NO_PROTO, EBADMSG},
    {EMPTY_PROTO, EBADMSG},
    {LONG_ZONE, EBADMSG},
    {SHORT_ZONE, EBADMSG},
    {BIG_TUPLE, EMSGSIZE},
    {NO_FAMILY, EBADMSG},
    {NO_ID | NO_TUPLE, EBADMSG},
    {LEFTOVER_TUPLE, EBADMSG},
};

static void nothing_is_sent_that_does_not_name_a_flow(void)
{
    struct scan scan;
    size_t i;

    for (i = 0; i < sizeof(unnamed) / sizeof(unnamed[0]); i++) {
        scan_begin(&scan, 1 << 20);
        put_flow(1, unnamed[i].defect, 1, FAKE_PORT);
        CHECK_IS(scan_run(&scan, fake_acknowledge), 0);
        CHECK_IS(fake_sent.sends, 0);
        CHECK_IS(scan.tally.done, 0);
        CHECK_IS(scan.tally.refused[unnamed[i].error], 1);
        CHECK_IS(refused(&scan.tally), 1);
        CHECK_IS(scan.progress.matched, 1);
        scan_end(&scan);
    }
}

static void one_bad_flow_does_not_stop_the_others(void)
{
    static struct packet request;
    struct scan scan;
    size_t i;

    scan_begin(&scan, 1 << 20);
    put_flow(1, 0, 1, FAKE_PORT);
    CHECK_IS(scan_run(&scan, fake_acknowledge), 0);
    memcpy(request.bytes, fake_sent.bytes, fake_sent.size);
    request.size = fake_sent.size;
    scan_end(&scan);

    for (i = 0; i < sizeof(unnamed) / sizeof(unnamed[0]); i++) {
        scan_begin(&scan, 1 << 20);
        put_flow(2, 0, 1, FAKE_PORT);
        put_flow(3, unnamed[i].defect, 1, FAKE_PORT);
        put_flow(4, 0, 1, FAKE_PORT);
        put_flow(5, unnamed[i].defect, 1, FAKE_PORT);
        CHECK_IS(scan_run(&scan, fake_acknowledge), 0);
        CHECK_IS(fake_sent.sends, 1);
        CHECK_IS(fake_sent.size, 2 * request.size);
        CHECK_IS(scan.tally.done, 2);
        CHECK_IS(scan.tally.refused[unnamed[i].error], 2);
        CHECK_IS(refused(&scan.tally), 2);
        scan_end(&scan);
    }
}

static void a_zone_of_wrong_size_never_matches(void)
{
    const struct nlct_range zones = {0, UINT16_MAX};
    const struct nlct_test test = {
        field_number("zone"), NLCT_TEST_RANGES, NLCT_MATCH, NLCT_DROP, 1, &zones};
    struct nlct_filter *filter;
    struct nlct_dump *dump;
    struct scan scan;
    unsigned deleting;

    CHECK_IS(nlct_filter_new(&filter, &test, 1), 0);
    /* Neither in a dump alone nor where all that it lets through is deleted. */
    for (deleting = 0; deleting < 2; deleting++) {
        scan_begin(&scan, 1 << 20);
        if (deleting)
            scan.sink = make_deletes(scan.sock);
        CHECK_IS(nlct_dump_start(&dump, scan.sock, filter, NULL, -1), 0);
        fake_sent.sends = 0;
        put_flow(1, LONG_ZONE, 1, FAKE_PORT);
        queue_packet();
        CHECK_IS(nlct_dump_next(dump, scan.sink, 1000), -EBADMSG);
        CHECK_IS(fake_sent.sends, 0);
        nlct_dump_free(&dump);
        nlct_sink_free(&scan.sink);
        scan_end(&scan);
    }
    nlct_filter_free(&filter);
}

/* Refuses the first, third, fifth, ... request of a batch with ENOENT; acknowledges the last. */
static void refuse_every_other(const uint8_t *data, size_t size)
{
    static struct packet answer;
    struct nlmsghdr header;
    bool odd = true;
    size_t at;

    for (at = 0; at < size; at += (header.nlmsg_len + 3) & ~3U, odd = !odd) {
        memcpy(&header, data + at, sizeof(header));
        if (!odd && !(header.nlmsg_flags & NLM_F_ACK))
            continue;
        answer.size = 0;
        packet_verdict(&answer, header.nlmsg_seq, odd ? ENOENT : 0);
        fake_queue(answer.bytes, answer.size, 0, 0);
    }
}

static void every_refusal_is_counted(void)
{
    const size_t rooms[] = {0, 1024, 5000, 1 << 20};
    const unsigned sends[] = {10, 10, 3, 1};
    struct scan scan;
    size_t i;
    uint8_t number;

    for (i = 0; i < sizeof(rooms) / sizeof(rooms[0]); i++) {
        scan_begin(&scan, rooms[i]);
        for (number = 1; number <= 10; number++)
            put_flow(number, 0, 1, FAKE_PORT);
        CHECK_IS(scan_run(&scan, refuse_every_other), 0);
        /* A receive buffer without room for many refusals means small batches. */
        CHECK_IS(fake_sent.sends, sends[i]);
        CHECK_IS(scan.tally.done + refused(&scan.tally), 10);
        CHECK_IS(scan.tally.refused[ENOENT], sends[i] == 10 ? 10 : 5);
        scan_end(&scan);
    }
}

static void batches_end_where_requests_still_fit(void)
{
    struct scan scan;
    struct nlmsghdr header;
    unsigned requests = 0;
    unsigned acks = 0;
    size_t at;
    int number;

    scan_begin(&scan, 1 << 20);
    for (number = 0; number < 600; number++)
        put_flow((uint8_t)number, 0, 1, FAKE_PORT);
    CHECK(packet.size < SOCKET_BUFFER);
    CHECK_IS(scan_run(&scan, fake_acknowledge), 0);
    CHECK_IS(scan.tally.done, 600);
    CHECK_IS(fake_sent.sends, 3);
    for (at = 0; at < fake_sent.size; at += header.nlmsg_len) {
        memcpy(&header, fake_sent.bytes + at, sizeof(header));
        CHECK_IS(header.nlmsg_type, DELETE);
        CHECK_IS(header.nlmsg_seq, ++requests);
        acks += (header.nlmsg_flags & NLM_F_ACK) != 0;
    }
    CHECK_IS(requests, 600);
    CHECK_IS(acks, 3);
    scan_end(&scan);
}

static void a_batch_without_its_ack_counts_as_lost(void)
{
    struct scan scan;

    scan_begin(&scan, 1 << 20);
    put_flow(1, 0, 1, FAKE_PORT);
    put_flow(2, 0, 1, FAKE_PORT);
    CHECK_IS(scan_run(&scan, NULL), 0);
    CHECK_IS(scan.tally.done, 0);
    CHECK_IS(scan.tally.refused[ENOBUFS], 2);
    scan_end(&scan);
}

static void overrun_then_acknowledge(const uint8_t *data, size_t size)
{
    fake_queue_error(ENOBUFS);
    fake_acknowledge(data, size);
}

static void a_batch_that_lost_answers_counts_as_lost(void)
{
    struct scan scan;

    scan_begin(&scan, 1 << 20);
    put_flow(1, 0, 1, FAKE_PORT);
    put_flow(2, 0, 1, FAKE_PORT);
    CHECK_IS(scan_run(&scan, overrun_then_acknowledge), 0);
    CHECK_IS(scan.tally.done, 0);
    CHECK_IS(scan.tally.refused[ENOBUFS], 2);
    scan_end(&scan);
}

static void deny_the_first(const uint8_t *data, size_t size)
{
    static struct packet answer;
    struct nlmsghdr header;

    CHECK(size >= sizeof(header));
    memcpy(&header, data, sizeof(header));
    answer.size = 0;
    packet_verdict(&answer, header.nlmsg_seq, EPERM);
    fake_queue(answer.bytes, answer.size, 0, 0);
}

static void missing_privilege_ends_the_dump(void)
{
    struct scan scan;

    scan_begin(&scan, 1 << 20);
    put_flow(1, 0, 1, FAKE_PORT);
    put_flow(2, 0, 1, FAKE_PORT);
    CHECK_IS(scan_run(&scan, deny_the_first), -EPERM);
    CHECK_IS(scan.tally.done, 0);
    scan_end(&scan);
}

/* Answers that must not be taken for the answer: from a stranger, to a stranger, of the past, of
   the future, and no error message at all. */
static void answer_beside_the_point(const uint8_t *data, size_t size)
{
    static struct packet answer;
    uint32_t other = FAKE_PORT + 1;
    struct nlmsghdr header;

    CHECK(size >= sizeof(header));
    memcpy(&header, data, sizeof(header));
    answer.size = 0;
    packet_verdict(&answer, header.nlmsg_seq, 0);
    fake_queue(answer.bytes, answer.size, 1234, 0);
    memcpy(answer.bytes + offsetof(struct nlmsghdr, nlmsg_pid), &other, sizeof(other));
    fake_queue(answer.bytes, answer.size, 0, 0);
    answer.size = 0;
    packet_verdict(&answer, header.nlmsg_seq - 1, EINVAL);
    packet_verdict(&answer, header.nlmsg_seq + 1, EINVAL);
    packet_begin(&answer, NEW, 0, header.nlmsg_seq, FAKE_PORT);
    packet_end(&answer);
    fake_queue(answer.bytes, answer.size, 0, 0);
}

static void only_the_answer_counts(void)
{
    struct scan scan;

    scan_begin(&scan, 1 << 20);
    put_flow(1, 0, 1, FAKE_PORT);
    CHECK_IS(scan_run(&scan, answer_beside_the_point), 0);
    CHECK_IS(scan.tally.done, 0);
    CHECK_IS(scan.tally.refused[ENOBUFS], 1);
    CHECK_IS(refused(&scan.tally), 1);
    scan_end(&scan);
}

static void sequence_numbers_may_wrap(void)
{
    struct scan scan;
    uint8_t number;

    scan_begin(&scan, 1 << 20);
    scan.sock->sequence = UINT32_MAX - 2;
    for (number = 1; number <= 8; number++)
        put_flow(number, 0, 1, FAKE_PORT);
    CHECK_IS(scan_run(&scan, refuse_every_other), 0);
    CHECK_IS(scan.tally.done, 4);
    CHECK_IS(scan.tally.refused[ENOENT], 4);
    scan_end(&scan);
}

static void a_send_that_fails_is_reported(void)
{
    struct nlct_sink *sink;
    struct nlmsghdr header;
    struct wire payload;
    struct wire wire;
    struct view view;
    struct scan scan;

    scan_begin(&scan, 1 << 20);
    put_flow(1, 0, 1, FAKE_PORT);
    wire = (struct wire){packet.bytes, packet.size};
    CHECK_IS(wire_message(&wire, &header, &payload), 1);
    CHECK_IS(view_parse(&view, payload), 0);
    sink = make_deletes(scan.sock);
    CHECK(sink);
    CHECK_IS(sink->take(sink, &view), 0);
    fake_fail_send(ECONNREFUSED);
    CHECK_IS(sink->finish(sink), -ECONNREFUSED);
    read_tally(sink, &scan.tally);
    CHECK_IS(scan.tally.done, 0);
    CHECK_IS(refused(&scan.tally), 1);
    /* The next batch begins with nothing of the lost one. */
    fake_answer(fake_acknowledge);
    CHECK_IS(sink->take(sink, &view), 0);
    CHECK_IS(sink->finish(sink), 0);
    CHECK_IS(fake_sent.sends, 1);
    CHECK_IS(nlct_deletes_get(sink)->deleted, 1);
    nlct_sink_free(&sink);
    scan_end(&scan);
}

/* Single requests ----------------------------------------------------------------------------- */

static void a_request_without_an_answer_times_out(void)
{
    struct nlct_socket *sock = fake_open();

    fake_reset();
    CHECK_IS(nlct_flush_all(sock), -ETIMEDOUT);
    fake_close(sock);
}

static void a_request_survives_signals(void)
{
    struct nlct_socket *sock = fake_open();

    fake_reset();
    fake_fail_send(EINTR);
    fake_fail_poll(EINTR);
    CHECK_IS(nlct_flush_all(sock), -ETIMEDOUT);
    CHECK_IS(fake_sent.sends, 1);
    fake_queue_error(EINTR);
    packet.size = 0;
    packet_verdict(&packet, 2, 0);
    queue_packet();
    CHECK_IS(nlct_flush_all(sock), 0);
    fake_close(sock);
}

static void a_request_reports_an_overrun(void)
{
    struct nlct_socket *sock = fake_open();

    fake_reset();
    fake_queue_error(ENOBUFS);
    CHECK_IS(nlct_flush_all(sock), -ENOBUFS);
    fake_close(sock);
}

/* What must be sent to have one zone flushed: CTA_ZONE, and for the explicit filter a CTA_FILTER
   that holds the flag CTA_FILTER_ZONE, which is number 3. */
static void expect_zone_flush(struct packet *expected, uint16_t zone, enum nlct_zone_request ask)
{
    const uint8_t be[2] = {(uint8_t)(zone >> 8), (uint8_t)zone};
    const struct nfgenmsg general = {.nfgen_family = AF_UNSPEC};
    const struct nlattr flag = {.nla_len = sizeof(flag), .nla_type = 3};

    expected->size = 0;
    packet_begin(expected, DELETE, NLM_F_REQUEST | NLM_F_ACK, 1, 0);
    packet_bytes(expected, &general, sizeof(general));
    packet_attr(expected, CTA_ZONE, be, sizeof(be));
    if (ask == NLCT_ZONE_EXPLICIT)
        packet_attr(expected, CTA_FILTER | NLA_F_NESTED, &flag, sizeof(flag));
    packet_end(expected);
}

static void flush_zones(enum nlct_zone_request ask)
{
    const uint16_t zones[] = {0, 1, 258, 65535};
    static struct packet expected;
    size_t i;

    for (i = 0; i < sizeof(zones) / sizeof(zones[0]); i++) {
        struct nlct_socket *sock = fake_open();

        fake_reset();
        fake_answer(fake_acknowledge);
        expect_zone_flush(&expected, zones[i], ask);
        CHECK_IS(nlct_flush_zone(sock, zones[i], ask), 0);
        CHECK_IS(fake_sent.size, expected.size);
        CHECK_IS(memcmp(fake_sent.bytes, expected.bytes, expected.size), 0);
        fake_close(sock);
    }
}

static void a_zone_flush_says_the_zone_and_nothing_else(void)
{
    flush_zones(NLCT_ZONE_PLAIN);
    flush_zones(NLCT_ZONE_EXPLICIT);
}

static void a_zone_flush_that_asks_for_no_zone_is_never_sent(void)
{
    struct nlct_socket *sock = fake_open();

    fake_reset();
    fake_answer(fake_acknowledge);
    CHECK_IS(nlct_flush_zone(sock, 1, NLCT_ZONE_UNASKED), -EINVAL);
    CHECK_IS(fake_sent.size, 0);
    fake_close(sock);
}

static void a_flow_that_is_got_must_be_well_formed(void)
{
    const struct nlct_flow key = {.family = AF_INET};
    struct nlct_socket *sock = fake_open();
    struct nlct_bytes bytes = {0};
    struct nlct_flow found = {0};

    fake_reset();
    packet.size = 0;
    put_flow(1, 0, 1, FAKE_PORT);
    packet_verdict(&packet, 1, 0);
    queue_packet();
    CHECK_IS(nlct_get(sock, &key, &found, &bytes), 0);
    CHECK_IS(found.id, 0x101);
    put_flow(1, LONG_ZONE, 2, FAKE_PORT);
    packet_verdict(&packet, 2, 0);
    queue_packet();
    CHECK_IS(nlct_get(sock, &key, &found, &bytes), -EBADMSG);
    nlct_bytes_free(&bytes);
    fake_close(sock);
}

static int count_message(void *context, struct wire payload)
{
    CHECK(payload.left > sizeof(struct nfgenmsg));
    ++*(unsigned *)context;
    return 0;
}

/* Asks for what is in the packet, in one datagram and an empty one. Returns what the core says. */
static int request_small_dump(unsigned *messages)
{
    struct nlct_socket *sock = fake_open();
    uint8_t room[REQUEST_MAX];
    struct message request;
    int rc;

    fake_reset();
    queue_packet();
    put_done(1, NULL, 0);
    queue_packet();
    message_begin(&request, room, sizeof(room), STATS, NLM_F_REQUEST | NLM_F_DUMP, AF_UNSPEC);
    rc = request_run(sock, room, message_end(&request), NEW, count_message, messages);
    CHECK_IS(fake_sent.sends, 1);
    fake_close(sock);
    return rc;
}

static void a_small_dump_hands_over_each_message(void)
{
    unsigned messages = 0;

    packet.size = 0;
    put_flow(1, 0, 1, FAKE_PORT);
    put_flow(2, 0, 1, FAKE_PORT);
    put_flow(3, 0, 7, FAKE_PORT); /* answers somebody else */
    CHECK_IS(request_small_dump(&messages), 0);
    CHECK_IS(messages, 2);
    /* One without anything in it is no failure. */
    put_flow(1, 0, 7, FAKE_PORT);
    CHECK_IS(request_small_dump(&messages), 0);
    CHECK_IS(messages, 2);
}

static void a_small_dump_that_is_inconsistent_is_an_error(void)
{
    struct nlmsghdr header;
    unsigned messages = 0;

    packet.size = 0;
    put_flow(1, 0, 1, FAKE_PORT);
    memcpy(&header, packet.bytes, sizeof(header));
    header.nlmsg_flags |= NLM_F_DUMP_INTR;
    memcpy(packet.bytes, &header, sizeof(header));
    put_flow(2, 0, 1, FAKE_PORT);
    CHECK_IS(request_small_dump(&messages), -EINTR);
    CHECK_IS(messages, 2);
}

static void counters_must_be_complete(void)
{
    const struct nfgenmsg general = {.nfgen_family = AF_UNSPEC};
    const size_t sizes[][2] = {{4, 4}, {4, 0}, {2, 4}, {4, 8}};
    static const uint8_t value[8] = {0, 0, 1, 2};
    size_t i;

    for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct nlct_socket *sock = fake_open();
        uint32_t entries = 0;
        uint32_t limit = 0;

        fake_reset();
        packet.size = 0;
        packet_begin(&packet, STATS, 0, 1, FAKE_PORT);
        packet_bytes(&packet, &general, sizeof(general));
        packet_attr(&packet, CTA_STATS_GLOBAL_ENTRIES, value, sizes[i][0]);
        if (sizes[i][1])
            packet_attr(&packet, CTA_STATS_GLOBAL_MAX_ENTRIES, value, sizes[i][1]);
        packet_end(&packet);
        packet_verdict(&packet, 1, 0);
        queue_packet();
        CHECK_IS(nlct_stats(sock, &entries, &limit), i ? -EBADMSG : 0);
        CHECK_IS(entries, i ? 0 : 258);
        CHECK_IS(limit, i ? 0 : 258);
        fake_close(sock);
    }
}

static void counters_of_processors_are_all_handed_over(void)
{
    const uint16_t answers[] = {message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET_STATS_CPU),
                                message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_EXP_GET_STATS_CPU)};
    const struct nfgenmsg general = {.res_id = htons(300)};
    static const uint8_t value[8] = {0, 0, 1, 2, 0, 0, 0, 3};
    size_t i;

    for (i = 0; i < 2; i++) {
        const struct nlct_counter wanted[] = {{300, 2, 258}, {300, 99, UINT64_C(0x10200000003)}};
        struct nlct_socket *sock = fake_open();
        struct nlct_bytes bytes = {0};

        fake_reset();
        packet.size = 0;
        packet_begin(&packet, answers[i], NLM_F_MULTI, 1, FAKE_PORT);
        packet_bytes(&packet, &general, sizeof(general));
        packet_attr(&packet, 2, value, 4);
        packet_attr(&packet, 98, value, 3); /* no number */
        packet_attr(&packet, 99, value, 8);
        packet_end(&packet);
        put_done(1, NULL, 0);
        queue_packet();
        CHECK_IS(nlct_stats_cpu(sock, i == 1, &bytes), 0);
        CHECK_IS(bytes.size, sizeof(wanted));
        /* Not by memcmp(): between the members is room that has no value. */
        for (size_t n = 0; n < 2; n++) {
            struct nlct_counter found;

            memcpy(&found, (const uint8_t *)bytes.data + n * sizeof(found), sizeof(found));
            CHECK_IS(found.cpu, wanted[n].cpu);
            CHECK_IS(found.attribute, wanted[n].attribute);
            CHECK(found.value == wanted[n].value);
        }
        nlct_bytes_free(&bytes);
        /* Without the header it is no counter. */
        fake_reset();
        packet_begin(&packet, answers[i], NLM_F_MULTI, 2, FAKE_PORT);
        packet_bytes(&packet, &general, 2);
        packet_end(&packet);
        queue_packet();
        CHECK_IS(nlct_stats_cpu(sock, i == 1, &bytes), -EBADMSG);
        nlct_bytes_free(&bytes);
        fake_close(sock);
    }
}

static void other_lists_are_asked_for(void)
{
    const struct {
        enum nlct_unlisted list;
        uint8_t operation;
    } cases[] = {{NLCT_DYING, IPCTNL_MSG_CT_GET_DYING},
                 {NLCT_UNCONFIRMED, IPCTNL_MSG_CT_GET_UNCONFIRMED}};
    size_t i;

    for (i = 0; i < 2; i++) {
        struct nlct_socket *sock = fake_open();
        struct nlct_dump *dump = NULL;
        struct nlmsghdr header;

        fake_reset();
        packet.size = 0;
        CHECK_IS(nlct_dump_start_unlisted(&dump, sock, everything, cases[i].list), 0);
        memcpy(&header, fake_sent.bytes, sizeof(header));
        CHECK_IS(header.nlmsg_type, message_type(NFNL_SUBSYS_CTNETLINK, cases[i].operation));
        CHECK_IS(header.nlmsg_flags, NLM_F_REQUEST | NLM_F_DUMP);
        put_done(1, NULL, 0);
        queue_packet();
        CHECK_IS(nlct_dump_next(dump, NULL, 1000), 0);
        nlct_dump_free(&dump);
        fake_close(sock);
    }
}

/* Zeroing ------------------------------------------------------------------------------------- */

enum { ZEROED = 3 };

struct zeroing {
    struct nlct_socket *sock;
    struct nlct_sink *sink;
    struct nlct_flow flows[ZEROED];
    struct nlct_flow rows[ZEROED];
    struct nlct_bytes bytes;
    struct nlct_zeroing told;
};

static void zeroing_begin(struct zeroing *zeroing)
{
    uint8_t i;

    *zeroing = (struct zeroing){.sock = fake_open()};
    for (i = 0; i < ZEROED; i++) {
        packet.size = 0;
        put_flow((uint8_t)(i + 1), 0, 1, FAKE_PORT);
        CHECK_IS(nlct_flow_parse(packet.bytes, packet.size, &zeroing->flows[i], &zeroing->bytes),
                 0);
    }
    fake_reset();
    packet.size = 0;
    zeroing->sink = make_rows(zeroing->rows, ZEROED, &zeroing->bytes);
}

static int zeroing_run(struct zeroing *zeroing, size_t count)
{
    return nlct_zero(zeroing->sock, zeroing->flows, count, zeroing->sink, 1000, &zeroing->told);
}

static void zeroing_end(struct zeroing *zeroing)
{
    nlct_sink_free(&zeroing->sink);
    nlct_bytes_free(&zeroing->bytes);
    fake_close(zeroing->sock);
}

static void queue_flow(uint8_t number, uint32_t sequence)
{
    put_flow(number, 0, sequence, FAKE_PORT);
    queue_packet();
}

static void queue_verdict(uint32_t sequence, int error)
{
    packet_verdict(&packet, sequence, error);
    queue_packet();
}

static void zeroing_spares_what_is_not_the_flow(void)
{
    struct zeroing zeroing;

    zeroing_begin(&zeroing);
    queue_flow(9, 1); /* another id */
    queue_flow(2, 2);
    queue_verdict(3, EOPNOTSUPP);
    queue_flow(2, 4); /* as it was, and is zero now */
    CHECK_IS(zeroing_run(&zeroing, 3), 0);
    CHECK_IS(fake_sent.sends, 2);
    CHECK_IS(zeroing.told.next, 3);
    CHECK_IS(zeroing.told.zeroed, 1);
    CHECK_IS(zeroing.told.replaced, 0);
    CHECK_IS(zeroing.told.already_gone, 1);
    CHECK_IS(zeroing.told.refused[EOPNOTSUPP], 1);
    CHECK_IS(zeroing.told.lost, 0);
    CHECK_IS(nlct_rows_take(zeroing.sink), 1);
    CHECK_IS(zeroing.rows[0].id, zeroing.flows[1].id);
    /* It is told which flow was zeroed, if another came in between. */
    queue_flow(1, 5);
    queue_flow(9, 6);
    zeroing.told.next = 0;
    CHECK_IS(zeroing_run(&zeroing, 1), 0);
    CHECK_IS(zeroing.told.zeroed, 2);
    CHECK_IS(zeroing.told.replaced, 1);
    CHECK_IS(nlct_rows_take(zeroing.sink), 1);
    zeroing_end(&zeroing);
}

static void zeroing_counts_what_is_lost(void)
{
    struct zeroing zeroing;

    zeroing_begin(&zeroing);
    queue_flow(1, 1);
    queue_flow(2, 2);
    fake_queue_error(ENOBUFS); /* in place of the third; what follows comes from before */
    CHECK_IS(zeroing_run(&zeroing, 3), 0);
    CHECK_IS(zeroing.told.next, 3);
    CHECK_IS(zeroing.told.zeroed, 0);
    CHECK_IS(zeroing.told.refused[ENOBUFS], 1);
    CHECK_IS(zeroing.told.lost, 2);
    zeroing_end(&zeroing);
}

static void zeroing_ends_without_the_right_to(void)
{
    struct zeroing zeroing;

    zeroing_begin(&zeroing);
    queue_verdict(1, EPERM);
    CHECK_IS(zeroing_run(&zeroing, 3), -EPERM);
    CHECK_IS(zeroing.told.next, 0);
    CHECK_IS(zeroing.told.already_gone + zeroing.told.zeroed + zeroing.told.lost, 0);
    zeroing_end(&zeroing);
}

const struct test_case dump_cases[] = {
    CASE(counters_of_processors_are_all_handed_over),
    CASE(other_lists_are_asked_for),
    CASE(zeroing_spares_what_is_not_the_flow),
    CASE(zeroing_counts_what_is_lost),
    CASE(zeroing_ends_without_the_right_to),
    CASE(dump_takes_flows_to_the_end),
    CASE(dump_ignores_what_answers_others),
    CASE(dump_ignores_other_senders),
    CASE(dump_gives_a_full_sink_its_flow_again),
    CASE(dump_sees_an_inconsistent_dump),
    CASE(dump_sees_a_resize),
    CASE(dump_reports_an_overrun),
    CASE(dump_survives_signals),
    CASE(dump_comes_back_when_the_kernel_is_silent),
    CASE(dump_refuses_a_truncated_datagram),
    CASE(dump_reports_errors_in_its_midst),
    CASE(dump_reads_the_error_in_its_end),
    CASE(dump_refuses_messages_of_other_kinds),
    CASE(dump_refuses_malformed_datagrams),
    CASE(dump_that_failed_does_not_go_on),
    CASE(texts_are_kept_as_far_as_they_fit),
    CASE(texts_do_not_outlive_the_next_request),
    CASE(short_verdicts_are_refused),
    CASE(an_echoed_request_must_fit_its_verdict),
    CASE(delete_echoes_tuple_zone_and_id),
    CASE(a_resize_is_seen_until_the_last_delete),
    CASE(nothing_is_sent_that_does_not_name_a_flow),
    CASE(one_bad_flow_does_not_stop_the_others),
    CASE(a_zone_of_wrong_size_never_matches),
    CASE(every_refusal_is_counted),
    CASE(batches_end_where_requests_still_fit),
    CASE(a_batch_without_its_ack_counts_as_lost),
    CASE(a_batch_that_lost_answers_counts_as_lost),
    CASE(missing_privilege_ends_the_dump),
    CASE(only_the_answer_counts),
    CASE(sequence_numbers_may_wrap),
    CASE(a_send_that_fails_is_reported),
    CASE(a_request_without_an_answer_times_out),
    CASE(a_request_survives_signals),
    CASE(a_request_reports_an_overrun),
    CASE(a_zone_flush_says_the_zone_and_nothing_else),
    CASE(a_zone_flush_that_asks_for_no_zone_is_never_sent),
    CASE(a_flow_that_is_got_must_be_well_formed),
    CASE(a_small_dump_hands_over_each_message),
    CASE(a_small_dump_that_is_inconsistent_is_an_error),
    CASE(counters_must_be_complete),
    END_OF_CASES,
};

static const struct test_case *const all_cases[] = {
    dump_cases,   request_cases,   flow_cases,  filter_cases, sink_cases, delete_cases,
    update_cases, readahead_cases, table_cases, mirror_cases, walk_cases, event_cases,
};

/* Runs the case named, or all. */
int main(int count, char **arguments)
{
    const struct test_case *one;
    unsigned run = 0;
    size_t i;

    CHECK_IS(nlct_filter_new(&everything, NULL, 0), 0);
    for (i = 0; i < sizeof(all_cases) / sizeof(all_cases[0]); i++) {
        for (one = all_cases[i]; one->name; one++) {
            if (count > 1 && strcmp(arguments[1], one->name) != 0)
                continue;
            one->run();
            run++;
        }
    }
    nlct_filter_free(&everything);
    CHECK(run > 0);
    printf("%u cases\n", run);
    return 0;
}
