/* Messages to flows: what of them goes to their bytes, and what of them is refused. */
#include "cases.h"
#include "check.h"
#include "fake.h"

#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <sys/socket.h>

static struct packet packet;

static int parse(struct nlct_flow *flow, struct nlct_bytes *bytes)
{
    packet_end(&packet);
    return nlct_flow_parse(packet.bytes, packet.size, flow, bytes);
}

static void begin(void)
{
    packet_begin_flow(&packet, AF_INET);
    packet_tuple(&packet, CTA_TUPLE_ORIG, "10.0.0.1", "192.0.2.1", IPPROTO_UDP, 1024, 53);
}

/* Bytes --------------------------------------------------------------------------------------- */

static void bytes_grow(void)
{
    struct nlct_bytes bytes = {0};
    unsigned i;

    CHECK_IS(bytes_add(&bytes, NULL, 0), 0);
    CHECK_IS(bytes.size, 0);
    for (i = 0; i < 1000; i++)
        CHECK_IS(bytes_add(&bytes, &i, sizeof(i)), 0);
    CHECK_IS(bytes.size, 1000 * sizeof(i));
    CHECK(bytes.capacity >= bytes.size);
    for (i = 0; i < 1000; i++)
        CHECK_BYTES(bytes.data + i * sizeof(i), &i, sizeof(i));
    nlct_bytes_free(&bytes);
    CHECK(!bytes.data && !bytes.size && !bytes.capacity);
    nlct_bytes_free(&bytes);
}

static void bytes_end_where_spans_do(void)
{
    struct nlct_bytes bytes = {.size = UINT32_MAX - 3, .capacity = UINT32_MAX};

    CHECK_IS(bytes_add(&bytes, "four", 4), -ENOMEM);
    CHECK_IS(bytes_add(&bytes, "four", SIZE_MAX), -ENOMEM);
    CHECK_IS(bytes.size, UINT32_MAX - 3);
    CHECK(!bytes.data);
}

/* Spans --------------------------------------------------------------------------------------- */

static void check_span(const struct nlct_bytes *bytes, struct nlct_span span, const void *data,
                       size_t size)
{
    CHECK_IS(span.size, size);
    CHECK(span.at <= bytes->size && size <= bytes->size - span.at);
    CHECK_BYTES(bytes->data + span.at, data, size);
}

static void put_context(const char *text, size_t size)
{
    const size_t nest = packet_nest(&packet, CTA_SECCTX);

    packet_attr(&packet, CTA_SECCTX_NAME, text, size);
    packet_end_nest(&packet, nest);
}

static void put_helper(const char *name, size_t size, const char *info, size_t info_size)
{
    const size_t nest = packet_nest(&packet, CTA_HELP);

    packet_attr(&packet, CTA_HELP_NAME, name, size);
    packet_attr(&packet, CTA_HELP_INFO, info, info_size);
    packet_end_nest(&packet, nest);
}

static void spans_go_to_the_end_of_the_bytes(void)
{
    struct nlct_bytes bytes = {0};
    struct nlct_flow first;
    struct nlct_flow second;

    begin();
    put_context("system_u", 9);
    put_helper("ftp", 4, "\0\1", 2);
    CHECK_IS(parse(&first, &bytes), 0);
    begin();
    put_helper("tftp", 5, "", 0);
    put_context("user_u", 6);
    CHECK_IS(parse(&second, &bytes), 0);
    check_span(&bytes, first.secctx, "system_u", 8);
    check_span(&bytes, first.helper_info, "\0\1", 2);
    check_span(&bytes, second.secctx, "user_u", 6);
    check_span(&bytes, second.helper_info, "", 0);
    CHECK(has(second.present, NLCT_FLOW_HELPER_INFO));
    CHECK(!has(second.present, NLCT_FLOW_UNKNOWN));
    CHECK_IS(strcmp(first.helper, "ftp"), 0);
    nlct_bytes_free(&bytes);
}

static void helpers_have_names_of_up_to_15_bytes(void)
{
    static const char name[] = "0123456789abcdefg";
    struct nlct_bytes bytes = {0};
    struct nlct_flow flow;
    size_t size;

    for (size = 0; size < sizeof(name); size++) {
        begin();
        put_helper(name, size, "", 0);
        CHECK_IS(parse(&flow, &bytes), size <= 15 ? 0 : -EBADMSG);
        if (size > 15)
            continue;
        CHECK_IS(strlen(flow.helper), size);
        CHECK_BYTES(flow.helper, name, size);
    }
    nlct_bytes_free(&bytes);
}

/* Unknown attributes -------------------------------------------------------------------------- */

/* Checks that the flow keeps what lies in the packet between two places, and nothing else. */
static void check_unknown(size_t first, size_t last)
{
    struct nlct_bytes bytes = {0};
    struct nlct_flow flow;

    CHECK_IS(parse(&flow, &bytes), 0);
    CHECK(has(flow.present, NLCT_FLOW_UNKNOWN));
    check_span(&bytes, flow.unknown, packet.bytes + first, last - first);
    CHECK_IS(flow.orig.sport, 1024);
    CHECK_IS(flow.mark, 7);
    nlct_bytes_free(&bytes);
}

static void unknown_attributes_are_kept_as_they_are(void)
{
    static const uint16_t types[] = {0,   30,  31,     32,
                                     255, 511, 0x3fff, 40 | NLA_F_NESTED | NLA_F_NET_BYTEORDER};
    size_t first;
    size_t size;
    size_t i;

    for (i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        for (size = 0; size < 9; size++) {
            begin();
            first = packet.size;
            packet_attr(&packet, types[i], "01234567", size);
            packet_be32(&packet, CTA_MARK, 7);
            check_unknown(first, first + 4 + wire_align(size));
        }
    }
}

static void unknown_attributes_are_kept_in_their_order(void)
{
    size_t first;

    begin();
    packet_be32(&packet, CTA_MARK, 7);
    first = packet.size;
    packet_attr(&packet, 99, "one", 3);
    packet_attr(&packet, 0, NULL, 0);
    packet_attr(&packet, 31, "three", 5);
    packet_attr(&packet, 99, "four", 4);
    packet_attr(&packet, 0, "five", 4);
    check_unknown(first, packet.size);
}

static void the_last_unknown_attribute_gets_its_padding(void)
{
    struct nlct_bytes bytes = {0};
    struct nlct_flow flow;
    size_t first;

    begin();
    first = packet.size;
    packet_attr(&packet, 99, "x", 1);
    packet.size -= 3;
    CHECK_IS(parse(&flow, &bytes), 0);
    /* The zeros are still there. */
    check_span(&bytes, flow.unknown, packet.bytes + first, 8);
    nlct_bytes_free(&bytes);
}

/* A nest of known attributes with an unknown one, at each depth there is. */
static void unknown_attributes_inside_known_ones_keep_the_whole(void)
{
    static const uint16_t tops[] = {
        CTA_TUPLE_REPLY,  CTA_TUPLE_MASTER, CTA_PROTOINFO, CTA_HELP,      CTA_COUNTERS_ORIG,
        CTA_SEQ_ADJ_ORIG, CTA_SECCTX,       CTA_NAT_SRC,   CTA_TIMESTAMP, 24};
    size_t first;
    size_t last;
    size_t outer;
    size_t inner;
    size_t i;

    for (i = 0; i < sizeof(tops) / sizeof(tops[0]); i++) {
        begin();
        first = packet.size;
        outer = packet_nest(&packet, tops[i]);
        packet_attr(&packet, 100, "new", 3);
        packet_end_nest(&packet, outer);
        last = packet.size;
        packet_be32(&packet, CTA_MARK, 7);
        check_unknown(first, last);
    }
    begin();
    first = packet.size;
    outer = packet_nest(&packet, CTA_PROTOINFO);
    inner = packet_nest(&packet, CTA_PROTOINFO_TCP);
    packet_attr(&packet, CTA_PROTOINFO_TCP_STATE, "\3", 1);
    packet_attr(&packet, 0, "new", 3);
    packet_end_nest(&packet, inner);
    packet_end_nest(&packet, outer);
    last = packet.size;
    packet_be32(&packet, CTA_MARK, 7);
    check_unknown(first, last);
}

static void padding_is_nothing_unknown(void)
{
    struct nlct_bytes bytes = {0};
    struct nlct_flow flow;
    size_t nest;

    begin();
    nest = packet_nest(&packet, CTA_COUNTERS_ORIG);
    packet_attr(&packet, CTA_COUNTERS_PAD, NULL, 0);
    packet_be64(&packet, CTA_COUNTERS_PACKETS, 1);
    packet_end_nest(&packet, nest);
    nest = packet_nest(&packet, CTA_TIMESTAMP);
    packet_attr(&packet, CTA_TIMESTAMP_PAD, NULL, 0);
    packet_be64(&packet, CTA_TIMESTAMP_START, 2);
    packet_end_nest(&packet, nest);
    CHECK_IS(parse(&flow, &bytes), 0);
    CHECK(!has(flow.present, NLCT_FLOW_UNKNOWN));
    CHECK_IS(flow.packets_orig, 1);
    CHECK_IS(flow.timestamp_start, 2);
    nlct_bytes_free(&bytes);
}

/* A refused message may leave something in the bytes, but nothing that was there is lost. */
static void a_refused_message_leaves_the_bytes_good(void)
{
    struct nlct_bytes bytes = {0};
    struct nlct_flow flow;

    begin();
    put_context("kept", 4);
    CHECK_IS(parse(&flow, &bytes), 0);
    begin();
    put_context("lost", 4);
    packet_attr(&packet, CTA_MARK, "123", 3);
    CHECK_IS(parse(&flow, &bytes), -EBADMSG);
    CHECK_BYTES(bytes.data, "kept", 4);
    nlct_bytes_free(&bytes);
}

/* Saved lines --------------------------------------------------------------------------------- */

#define DCCP                                                                                       \
    "-A -t 5 -u SEEN_REPLY --reply-zone 9 -s 10.0.0.1 -d 10.0.0.2 -g 10.0.0.3 -q 10.0.0.1 "        \
    "-p dccp --sport 1 --dport 2 --reply-port-src 2 --reply-port-dst 1 --state OPEN "

/* Protocols that the kernel at hand may not know. */
static void a_saved_line_is_written_as_it_was_read(void)
{
    static const char line[] = DCCP "--role server -m 7\n";
    char buffer[NLCT_TEXT_MAX];
    struct nlct_bad_line bad;
    struct nlct_flow flow;

    CHECK_IS(save_read(line, sizeof(line) - 2, &flow, &bad), 1);
    flow.status |= IPS_DST_NAT_DONE; /* as the kernel says it */
    CHECK_IS(nlct_flow_save(&flow, buffer, sizeof(buffer)), (int)sizeof(line) - 1);
    CHECK_BYTES(buffer, line, sizeof(line) - 1);
    CHECK_IS(nlct_flow_save(&flow, buffer, sizeof(buffer) - 1), -EMSGSIZE);
}

static void a_line_that_conntrack_cannot_read_is_a_comment(void)
{
    static const char line[] = DCCP;
    char buffer[NLCT_TEXT_MAX];
    struct nlct_bad_line bad;
    struct nlct_flow flow;

    CHECK_IS(save_read(line, sizeof(line) - 1, &flow, &bad), 1);
    CHECK(nlct_flow_save(&flow, buffer, sizeof(buffer)) > 0);
    CHECK_BYTES(buffer, "# -A", 4);
}

static void a_full_sink_takes_no_saved_line(void)
{
    static const char text[] = DCCP "\n" DCCP "\n";
    const uint8_t wanted[FLOW_FIELDS_MAX] = {1};
    struct nlct_sink *columns = NULL;
    struct nlct_bad_line bad;

    CHECK_IS(nlct_columns_new(&columns, wanted, 1), 0);
    CHECK_IS(nlct_save_read(columns, text, sizeof(text) - 1, &bad), -ENOMEM);
    CHECK_IS(nlct_columns_count(columns), 1);
    nlct_sink_free(&columns);
}

const struct test_case flow_cases[] = {
    CASE(a_saved_line_is_written_as_it_was_read),
    CASE(a_line_that_conntrack_cannot_read_is_a_comment),
    CASE(a_full_sink_takes_no_saved_line),
    CASE(bytes_grow),
    CASE(bytes_end_where_spans_do),
    CASE(spans_go_to_the_end_of_the_bytes),
    CASE(helpers_have_names_of_up_to_15_bytes),
    CASE(unknown_attributes_are_kept_as_they_are),
    CASE(unknown_attributes_are_kept_in_their_order),
    CASE(the_last_unknown_attribute_gets_its_padding),
    CASE(unknown_attributes_inside_known_ones_keep_the_whole),
    CASE(padding_is_nothing_unknown),
    CASE(a_refused_message_leaves_the_bytes_good),
    END_OF_CASES,
};
