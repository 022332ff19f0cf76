/* What is sent, byte by byte: single requests, what a dump asks for, batches of creates. */
#include "cases.h"
#include "check.h"
#include "fake.h"

#include <arpa/inet.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <sys/socket.h>

enum {
    NEW = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW,
    GET = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET,
    DELETE = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE,
    CREATE_FLAGS = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK,
};

/* Not in every kernel's headers. */
enum { SYNPROXY = 24, FILTER = 25, FILTER_ORIG_FLAGS = 1, FILTER_ZONE = 3 };

static struct packet expected;

static void expect(uint16_t type, uint16_t flags, uint8_t family)
{
    expected.size = 0;
    packet_begin(&expected, type, flags, 1, 0);
    packet_general(&expected, family);
}

static void check_sent(void)
{
    packet_end(&expected);
    CHECK_IS(fake_sent.size, expected.size);
    CHECK_BYTES(fake_sent.bytes, expected.bytes, expected.size);
}

static struct nlct_socket *open_acknowledging(void)
{
    fake_reset();
    fake_answer(fake_acknowledge);
    return fake_open();
}

static struct nlct_tuple tuple_of(const char *src, const char *dst, uint8_t proto, uint16_t sport,
                                  uint16_t dport)
{
    struct nlct_tuple tuple = {
        .present = BIT(NLCT_TUPLE_SRC) | BIT(NLCT_TUPLE_DST) | BIT(NLCT_TUPLE_PROTO) |
                   BIT(NLCT_TUPLE_SPORT) | BIT(NLCT_TUPLE_DPORT),
        .family = strchr(src, ':') ? AF_INET6 : AF_INET,
        .proto = proto,
        .sport = sport,
        .dport = dport,
    };

    CHECK_IS(inet_pton(tuple.family, src, tuple.src), 1);
    CHECK_IS(inet_pton(tuple.family, dst, tuple.dst), 1);
    return tuple;
}

static struct nlct_flow flow_of(void)
{
    struct nlct_flow flow = {
        .present = BIT(NLCT_FLOW_ORIG) | BIT(NLCT_FLOW_ZONE),
        .family = AF_INET,
        .zone = 258,
        .orig = tuple_of("10.0.0.1", "192.0.2.1", IPPROTO_UDP, 1024, 53),
    };

    return flow;
}

static void expect_orig(void)
{
    packet_tuple(&expected, CTA_TUPLE_ORIG, "10.0.0.1", "192.0.2.1", IPPROTO_UDP, 1024, 53);
}

/* The tuple of flow_of() with a zone of its own. */
static void expect_orig_in_zone(uint16_t zone)
{
    const size_t tuple = packet_nest(&expected, CTA_TUPLE_ORIG);

    packet_addresses(&expected, "10.0.0.1", "192.0.2.1");
    packet_ports(&expected, IPPROTO_UDP, 1024, 53);
    packet_be16(&expected, CTA_TUPLE_ZONE, zone);
    packet_end_nest(&expected, tuple);
}

/* Deletes ------------------------------------------------------------------------------------- */

static void a_delete_names_tuple_zone_and_id(void)
{
    struct nlct_socket *sock = open_acknowledging();
    struct nlct_flow flow = flow_of();

    /* What else is in the flow would turn the request into a filter, on some kernels. */
    flow.present |= BIT(NLCT_FLOW_ID) | BIT(NLCT_FLOW_MARK) | BIT(NLCT_FLOW_STATUS);
    flow.id = 0x01020304;
    flow.mark = 5;
    flow.status = 8;
    CHECK_IS(nlct_delete(sock, &flow), 0);
    expect(DELETE, NLM_F_REQUEST | NLM_F_ACK, AF_INET);
    expect_orig();
    packet_be16(&expected, CTA_ZONE, 258);
    packet_be32(&expected, CTA_ID, 0x01020304);
    check_sent();
    fake_close(sock);
}

static void a_delete_leaves_the_zone_in_its_tuple(void)
{
    struct nlct_socket *sock = open_acknowledging();
    struct nlct_flow flow = flow_of();

    flow.present |= BIT(NLCT_FLOW_ID);
    flow.id = 1;
    flow.orig.present |= BIT(NLCT_TUPLE_ZONE);
    flow.orig.zone = 258;
    CHECK_IS(nlct_delete(sock, &flow), 0);
    expect(DELETE, NLM_F_REQUEST | NLM_F_ACK, AF_INET);
    expect_orig_in_zone(258);
    packet_be32(&expected, CTA_ID, 1);
    check_sent();
    fake_close(sock);
}

/* The kernel finds a flow whose zone applies to the reply alone by its original tuple, in zone 0;
   so it does a flow of zone 0. */
static void a_delete_names_no_zone_where_there_is_none(void)
{
    struct nlct_socket *sock;
    struct nlct_flow flow = flow_of();
    int i;

    flow.present |= BIT(NLCT_FLOW_ID) | BIT(NLCT_FLOW_REPLY);
    flow.reply = tuple_of("192.0.2.1", "10.0.0.1", IPPROTO_UDP, 53, 1024);
    flow.reply.present |= BIT(NLCT_TUPLE_ZONE);
    flow.reply.zone = 258;
    for (i = 0; i < 2; i++) {
        sock = open_acknowledging();
        CHECK_IS(nlct_delete(sock, &flow), 0);
        expect(DELETE, NLM_F_REQUEST | NLM_F_ACK, AF_INET);
        expect_orig();
        packet_be32(&expected, CTA_ID, 0);
        check_sent();
        fake_close(sock);
        flow.reply.present &= ~BIT(NLCT_TUPLE_ZONE);
        flow.zone = 0;
    }
}

static void refuse_delete(const struct nlct_flow *flow)
{
    struct nlct_socket *sock = open_acknowledging();

    CHECK_IS(nlct_delete(sock, flow), -EINVAL);
    CHECK_IS(fake_sent.sends, 0);
    fake_close(sock);
}

static void a_delete_that_does_not_name_one_flow_is_never_sent(void)
{
    const uint64_t addresses = BIT(NLCT_TUPLE_SRC) | BIT(NLCT_TUPLE_DST);
    struct nlct_flow whole = flow_of();
    struct nlct_flow flow = whole;

    refuse_delete(&flow);
    whole.present |= BIT(NLCT_FLOW_ID);
    flow = whole;
    flow.present &= ~BIT(NLCT_FLOW_ORIG);
    refuse_delete(&flow);
    flow = whole;
    flow.orig.present = 0;
    refuse_delete(&flow);
    flow = whole;
    flow.orig.present &= ~addresses;
    refuse_delete(&flow);
    flow = whole;
    flow.orig.present &= addresses;
    refuse_delete(&flow);
    flow = whole;
    flow.family = AF_UNSPEC;
    refuse_delete(&flow);
    flow = whole;
    flow.family = AF_INET6 + 1;
    refuse_delete(&flow);
}

/* Gets and updates ---------------------------------------------------------------------------- */

static void an_expectation_is_deleted_by_name_or_not_at_all(void)
{
    struct nlct_expect whole = {
        .present = BIT(NLCT_EXPECT_TUPLE) | BIT(NLCT_EXPECT_ID) | BIT(NLCT_EXPECT_ZONE) |
                   BIT(NLCT_EXPECT_HELPER) | BIT(NLCT_EXPECT_MASTER),
        .tuple = tuple_of("10.0.0.2", "10.0.0.1", IPPROTO_TCP, 0, 50000),
        .family = AF_INET,
        .id = 7,
        .zone = 9,
        .helper = "ftp",
    };
    struct nlct_socket *sock = open_acknowledging();
    unsigned i;

    expect(NFNL_SUBSYS_CTNETLINK_EXP << 8 | IPCTNL_MSG_EXP_DELETE, NLM_F_REQUEST | NLM_F_ACK,
           AF_INET);
    packet_tuple(&expected, CTA_EXPECT_TUPLE, "10.0.0.2", "10.0.0.1", IPPROTO_TCP, 0, 50000);
    packet_be32(&expected, CTA_EXPECT_ID, 7);
    packet_be16(&expected, CTA_EXPECT_ZONE, 9);
    CHECK_IS(nlct_expect_delete(sock, &whole), 0);
    memcpy(expected.bytes + 8, fake_sent.bytes + 8, 4); /* the number of the request */
    check_sent();
    for (i = 0; i < 8; i++) {
        struct nlct_expect broken = whole;

        if (i < 5)
            broken.tuple.present &= ~BIT(i);
        else if (i == 5)
            broken.present &= ~BIT(NLCT_EXPECT_ID);
        else if (i == 6)
            broken.present &= ~BIT(NLCT_EXPECT_TUPLE);
        else
            broken.family = AF_UNSPEC;
        fake_reset();
        fake_answer(fake_acknowledge);
        CHECK_IS(nlct_expect_delete(sock, &broken), -EINVAL);
        CHECK_IS(fake_sent.size, 0);
    }
    fake_close(sock);
}

static void a_get_names_tuple_and_zone(void)
{
    struct nlct_socket *sock = open_acknowledging();
    struct nlct_flow flow = flow_of();
    struct nlct_bytes bytes = {0};
    struct nlct_flow found;

    flow.present |= BIT(NLCT_FLOW_ID) | BIT(NLCT_FLOW_MARK);
    /* An acknowledgement without a flow. */
    CHECK_IS(nlct_get(sock, &flow, &found, &bytes), -EBADMSG);
    expect(GET, NLM_F_REQUEST | NLM_F_ACK, AF_INET);
    expect_orig();
    packet_be16(&expected, CTA_ZONE, 258);
    check_sent();
    nlct_bytes_free(&bytes);
    fake_close(sock);
}

static void done(const uint8_t *request, size_t size)
{
    static const uint8_t success[4];
    static struct packet packet;
    struct nlmsghdr header;

    (void)size;
    packet.size = 0;
    memcpy(&header, request, sizeof(header));
    packet_begin(&packet, NLMSG_DONE, NLM_F_MULTI, header.nlmsg_seq, FAKE_PORT);
    packet_bytes(&packet, success, sizeof(success));
    packet_end(&packet);
    fake_queue(packet.bytes, packet.size, 0, 0);
}

static void only_a_dump_ends_without_an_acknowledgement(void)
{
    struct nlct_flow flow = flow_of();
    struct nlct_bytes bytes = {0};
    struct nlct_socket *sock;
    struct nlct_flow found;

    fake_reset();
    fake_answer(done);
    sock = fake_open();
    CHECK_IS(nlct_get(sock, &flow, &found, &bytes), -EBADMSG);
    CHECK_IS(nlct_create(sock, &flow, NULL), -EBADMSG);
    CHECK_IS(nlct_expect_dump(sock, &bytes), 0);
    nlct_bytes_free(&bytes);
    fake_close(sock);
}

static void an_update_says_what_changes_and_nothing_else(void)
{
    struct nlct_socket *sock = open_acknowledging();
    struct nlct_flow flow = flow_of();

    flow.present |= BIT(NLCT_FLOW_MARK) | BIT(NLCT_FLOW_TIMEOUT) | BIT(NLCT_FLOW_STATUS);
    flow.mark = 0xdeadbeef;
    flow.timeout = 77;
    flow.status = IPS_SEEN_REPLY;
    /* The kernel's own, and what may not change. */
    flow.present |= BIT(NLCT_FLOW_ID) | BIT(NLCT_FLOW_USE) | BIT(NLCT_FLOW_PACKETS_ORIG) |
                    BIT(NLCT_FLOW_TIMESTAMP_START) | BIT(NLCT_FLOW_SECCTX) | BIT(NLCT_FLOW_REPLY) |
                    BIT(NLCT_FLOW_MASTER) | BIT(NLCT_FLOW_UNKNOWN);
    flow.reply = flow.master = flow.orig;
    CHECK_IS(nlct_update(sock, &flow, NULL), 0);
    expect(NEW, NLM_F_REQUEST | NLM_F_ACK, AF_INET);
    expect_orig();
    packet_be32(&expected, CTA_STATUS, IPS_SEEN_REPLY | IPS_CONFIRMED);
    packet_be32(&expected, CTA_TIMEOUT, 77);
    packet_be32(&expected, CTA_MARK, 0xdeadbeef);
    packet_be16(&expected, CTA_ZONE, 258);
    check_sent();
    fake_close(sock);
}

static void expect_nest_of_be32(uint16_t type, unsigned first, const uint32_t *values, size_t count)
{
    const size_t nest = packet_nest(&expected, type);
    size_t i;

    for (i = 0; i < count; i++)
        packet_be32(&expected, (uint16_t)(first + i), values[i]);
    packet_end_nest(&expected, nest);
}

static void expect_tcp(void)
{
    const size_t info = packet_nest(&expected, CTA_PROTOINFO);
    const size_t tcp = packet_nest(&expected, CTA_PROTOINFO_TCP);

    packet_attr(&expected, CTA_PROTOINFO_TCP_STATE, "\3", 1);
    packet_attr(&expected, CTA_PROTOINFO_TCP_WSCALE_ORIGINAL, "\7", 1);
    packet_attr(&expected, CTA_PROTOINFO_TCP_WSCALE_REPLY, "\10", 1);
    packet_attr(&expected, CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, "\12\13", 2);
    packet_attr(&expected, CTA_PROTOINFO_TCP_FLAGS_REPLY, "\13\13", 2);
    packet_end_nest(&expected, tcp);
    packet_end_nest(&expected, info);
}

static void expect_helper(void)
{
    const size_t help = packet_nest(&expected, CTA_HELP);

    packet_attr(&expected, CTA_HELP_NAME, "ftp", 4);
    packet_attr(&expected, CTA_HELP_INFO, "\1\2\3", 3);
    packet_end_nest(&expected, help);
}

static void an_update_says_all_that_may_change(void)
{
    static const uint8_t bytes[] = {9, 1, 2, 3, 9};
    const uint32_t orig[] = {1, 2, 3};
    const uint32_t reply[] = {4, 5, 6};
    const uint32_t synproxy[] = {7, 8, 9};
    struct nlct_socket *sock = open_acknowledging();
    struct nlct_flow flow = flow_of();
    unsigned field;

    for (field = NLCT_FLOW_TCP_STATE; field <= NLCT_FLOW_TCP_FLAGS_REPLY; field++)
        flow.present |= BIT(field);
    for (field = NLCT_FLOW_LABELS; field <= NLCT_FLOW_SEQADJ_REPLY_AFTER; field++)
        flow.present |= BIT(field);
    for (field = NLCT_FLOW_SYNPROXY_ISN; field <= NLCT_FLOW_SYNPROXY_TSOFF; field++)
        flow.present |= BIT(field);
    flow.tcp_state = 3;
    flow.tcp_wscale_orig = 7;
    flow.tcp_wscale_reply = 8;
    /* Of these, 0x30 and 0xf4 are the kernel's. */
    flow.tcp_flags_orig = 0x3a;
    flow.tcp_flags_reply = 0xff;
    memcpy(flow.labels, "0123456789abcdef", sizeof(flow.labels));
    memcpy(flow.helper, "ftp", 4);
    flow.helper_info = (struct nlct_span){1, 3};
    memcpy(&flow.seqadj_orig_pos, orig, sizeof(orig));
    memcpy(&flow.seqadj_reply_pos, reply, sizeof(reply));
    memcpy(&flow.synproxy_isn, synproxy, sizeof(synproxy));
    CHECK_IS(nlct_update(sock, &flow, bytes), 0);
    expect(NEW, NLM_F_REQUEST | NLM_F_ACK, AF_INET);
    expect_orig();
    expect_tcp();
    expect_helper();
    expect_nest_of_be32(CTA_SEQ_ADJ_ORIG, 1, orig, 3);
    expect_nest_of_be32(CTA_SEQ_ADJ_REPLY, 1, reply, 3);
    packet_be16(&expected, CTA_ZONE, 258);
    packet_attr(&expected, CTA_LABELS, "0123456789abcdef", 16);
    expect_nest_of_be32(SYNPROXY, 1, synproxy, 3);
    check_sent();
    fake_close(sock);
}

/* Creates ------------------------------------------------------------------------------------- */

static void expect_nat(uint16_t type, const char *address, uint16_t port)
{
    const size_t nest = packet_nest(&expected, type);
    const bool ipv6 = strchr(address, ':') != NULL;
    uint8_t bytes[16];
    size_t proto;

    CHECK_IS(inet_pton(ipv6 ? AF_INET6 : AF_INET, address, bytes), 1);
    packet_attr(&expected, ipv6 ? CTA_NAT_V6_MINIP : CTA_NAT_V4_MINIP, bytes, ipv6 ? 16 : 4);
    proto = packet_nest(&expected, CTA_NAT_PROTO);
    packet_be16(&expected, CTA_PROTONAT_PORT_MIN, port);
    packet_end_nest(&expected, proto);
    packet_end_nest(&expected, nest);
}

static void a_create_says_the_reverse_and_its_translation(void)
{
    struct nlct_socket *sock = open_acknowledging();
    struct nlct_flow flow = flow_of();

    flow.present |= BIT(NLCT_FLOW_STATUS) | BIT(NLCT_FLOW_REPLY);
    flow.status = IPS_SRC_NAT | IPS_DST_NAT;
    flow.reply = tuple_of("198.51.100.1", "203.0.113.1", IPPROTO_UDP, 5353, 2048);
    CHECK_IS(nlct_create(sock, &flow, NULL), 0);
    expect(NEW, CREATE_FLAGS, AF_INET);
    expect_orig();
    packet_tuple(&expected, CTA_TUPLE_REPLY, "192.0.2.1", "10.0.0.1", IPPROTO_UDP, 53, 1024);
    packet_be32(&expected, CTA_STATUS, IPS_SRC_NAT | IPS_DST_NAT | IPS_CONFIRMED);
    packet_be16(&expected, CTA_ZONE, 258);
    expect_nat(CTA_NAT_SRC, "203.0.113.1", 2048);
    expect_nat(CTA_NAT_DST, "198.51.100.1", 5353);
    check_sent();
    fake_close(sock);
}

static void a_create_translates_ipv6_addresses(void)
{
    struct nlct_socket *sock = open_acknowledging();
    struct nlct_flow flow = {
        .present = BIT(NLCT_FLOW_ORIG) | BIT(NLCT_FLOW_STATUS) | BIT(NLCT_FLOW_REPLY),
        .family = AF_INET6,
        .status = IPS_DST_NAT,
        .orig = tuple_of("fd00::1", "2001:db8::1", IPPROTO_TCP, 1024, 80),
        .reply = tuple_of("2001:db8::2", "fd00::1", IPPROTO_TCP, 8080, 1024),
    };

    CHECK_IS(nlct_create(sock, &flow, NULL), 0);
    expect(NEW, CREATE_FLAGS, AF_INET6);
    packet_tuple(&expected, CTA_TUPLE_ORIG, "fd00::1", "2001:db8::1", IPPROTO_TCP, 1024, 80);
    packet_tuple(&expected, CTA_TUPLE_REPLY, "2001:db8::1", "fd00::1", IPPROTO_TCP, 80, 1024);
    packet_be32(&expected, CTA_STATUS, IPS_DST_NAT | IPS_CONFIRMED);
    expect_nat(CTA_NAT_SRC, "fd00::1", 1024);
    expect_nat(CTA_NAT_DST, "2001:db8::2", 8080);
    check_sent();
    fake_close(sock);
}

static void what_crashes_kernels_is_never_sent(void)
{
    struct nlct_socket *sock = open_acknowledging();
    struct nlct_flow flow = flow_of();
    struct nlct_expect expect = {.present = BIT(NLCT_EXPECT_TUPLE), .family = AF_INET};

    flow.present |= BIT(NLCT_FLOW_MASTER);
    flow.orig.proto = flow.reply.proto = IPPROTO_GRE;
    flow.master = tuple_of("10.0.0.1", "192.0.2.1", IPPROTO_TCP, 1024, 1723);
    expect.tuple = flow.orig;
    CHECK_IS(nlct_create(sock, &flow, NULL), -EOPNOTSUPP);
    CHECK_IS(nlct_expect_create(sock, &expect), -EOPNOTSUPP);
    expect.tuple.proto = IPPROTO_TCP;
    expect.present |= BIT(NLCT_EXPECT_FUNCTION);
    CHECK_IS(nlct_expect_create(sock, &expect), -EINVAL);
    expect.present |= BIT(NLCT_EXPECT_NAT) | BIT(NLCT_EXPECT_NAT_DIRECTION);
    expect.nat_direction = 2;
    CHECK_IS(nlct_expect_create(sock, &expect), -EINVAL);
    flow.present = BIT(NLCT_FLOW_ORIG) | BIT(NLCT_FLOW_HELPER) | BIT(NLCT_FLOW_HELPER_INFO);
    CHECK_IS(nlct_create(sock, &flow, NULL), -EOPNOTSUPP);
    CHECK_IS(nlct_update(sock, &flow, NULL), -EINVAL);
    flow.orig.proto = IPPROTO_SCTP;
    flow.present = BIT(NLCT_FLOW_ORIG) | BIT(NLCT_FLOW_SCTP_STATE);
    flow.sctp_state = 9;
    CHECK_IS(nlct_create(sock, &flow, NULL), -ERANGE);
    CHECK_IS(nlct_update(sock, &flow, NULL), -ERANGE);
    flow.orig.proto = IPPROTO_TCP;
    flow.present = BIT(NLCT_FLOW_ORIG) | BIT(NLCT_FLOW_TCP_WSCALE_REPLY);
    flow.sctp_state = 0;
    flow.tcp_wscale_reply = 15;
    CHECK_IS(nlct_create(sock, &flow, NULL), -ERANGE);
    CHECK_IS(nlct_update(sock, &flow, NULL), -ERANGE);
    CHECK_IS(fake_sent.size, 0);
    fake_close(sock);
}

static void a_create_with_a_master_leaves_expected_to_the_kernel(void)
{
    struct nlct_socket *sock = open_acknowledging();
    struct nlct_flow flow = flow_of();

    flow.present |= BIT(NLCT_FLOW_STATUS) | BIT(NLCT_FLOW_MASTER);
    flow.status = IPS_EXPECTED | IPS_SEEN_REPLY;
    flow.zone = 0;
    flow.master = tuple_of("10.0.0.1", "192.0.2.1", IPPROTO_TCP, 1024, 21);
    CHECK_IS(nlct_create(sock, &flow, NULL), 0);
    expect(NEW, CREATE_FLAGS, AF_INET);
    expect_orig();
    packet_tuple(&expected, CTA_TUPLE_REPLY, "192.0.2.1", "10.0.0.1", IPPROTO_UDP, 53, 1024);
    packet_be32(&expected, CTA_STATUS, IPS_SEEN_REPLY | IPS_CONFIRMED);
    packet_tuple(&expected, CTA_TUPLE_MASTER, "10.0.0.1", "192.0.2.1", IPPROTO_TCP, 1024, 21);
    check_sent();
    fake_close(sock);
}

static void a_create_translates_to_a_reply_without_a_protocol(void)
{
    struct nlct_socket *sock = open_acknowledging();
    struct nlct_flow flow = flow_of();

    flow.present |= BIT(NLCT_FLOW_STATUS) | BIT(NLCT_FLOW_REPLY);
    flow.status = IPS_SRC_NAT;
    flow.reply = tuple_of("192.0.2.1", "203.0.113.1", 0, 53, 2048);
    flow.reply.present &= ~(uint32_t)BIT(NLCT_TUPLE_PROTO);
    CHECK_IS(nlct_create(sock, &flow, NULL), 0);
    expect(NEW, CREATE_FLAGS, AF_INET);
    expect_orig();
    packet_tuple(&expected, CTA_TUPLE_REPLY, "192.0.2.1", "10.0.0.1", IPPROTO_UDP, 53, 1024);
    packet_be32(&expected, CTA_STATUS, IPS_SRC_NAT | IPS_CONFIRMED);
    packet_be16(&expected, CTA_ZONE, 258);
    expect_nat(CTA_NAT_SRC, "203.0.113.1", 2048);
    check_sent();
    fake_close(sock);
}

static void refuse_create(const struct nlct_flow *flow)
{
    struct nlct_socket *sock = open_acknowledging();

    CHECK_IS(nlct_create(sock, flow, NULL), -EINVAL);
    CHECK_IS(fake_sent.sends, 0);
    fake_close(sock);
}

static void a_create_that_the_kernel_would_drop_from_is_never_sent(void)
{
    const struct nlct_flow whole = flow_of(); /* of UDP */
    struct nlct_flow flow = whole;

    flow.present |= BIT(NLCT_FLOW_TIMEOUT);
    refuse_create(&flow);
    flow = whole;
    flow.tcp_flags_reply = 1;
    refuse_create(&flow);
    flow = whole;
    flow.sctp_vtag_orig = 1;
    refuse_create(&flow);
    flow = whole;
    flow.dccp_handshake_seq = 1;
    refuse_create(&flow);
    flow = whole;
    flow.orig.icmp_code = 1;
    refuse_create(&flow);
    flow = whole;
    flow.reply.icmp_type = 1;
    refuse_create(&flow);
    flow = whole;
    flow.orig.proto = IPPROTO_ESP;
    refuse_create(&flow);
}

/* Has a tuple of this protocol been sent since then? */
static bool sent_protocol(size_t since, uint8_t proto)
{
    const struct nlattr header = {sizeof(header) + 1, CTA_PROTO_NUM};
    uint8_t bytes[sizeof(header) + 1];

    memcpy(bytes, &header, sizeof(header));
    bytes[sizeof(header)] = proto;
    return memmem(fake_sent.bytes + since, fake_sent.size - since, bytes, sizeof(bytes));
}

static void masters_are_loaded_before_their_children(void)
{
    uint8_t created[3] = {0};
    static uint8_t family[] = {AF_INET, AF_INET, AF_UNSPEC};
    static uint8_t proto[] = {17, 6, 17};
    static uint8_t master_proto[] = {0, 17, 0};
    static uint8_t has_master[] = {0, 1, 0};
    static struct nlct_tally tally;
    const struct nlct_column columns[] = {
        {field_number("family"), family, NULL},
        {field_number("proto"), proto, NULL},
        {field_number("master_proto"), master_proto, has_master},
    };
    struct nlct_socket *sock = open_acknowledging();
    size_t sent;

    CHECK_IS(nlct_load(sock, columns, 3, NULL, 0, 0, 3, false, &tally, created), 0);
    CHECK_IS(tally.done, 1);
    CHECK_BYTES(created, "\1\0\0", 3);
    CHECK_IS(tally.refused[EINVAL], 1);
    CHECK(sent_protocol(0, IPPROTO_UDP));
    CHECK(!sent_protocol(0, IPPROTO_TCP));
    sent = fake_sent.size;
    CHECK_IS(nlct_load(sock, columns, 3, NULL, 0, 0, 3, true, &tally, created), 0);
    CHECK_IS(tally.done, 2);
    CHECK_BYTES(created, "\1\1\0", 3);
    CHECK_IS(tally.refused[EINVAL], 1);
    CHECK(sent_protocol(sent, IPPROTO_TCP));
    fake_close(sock);
}

/* What a dump asks for ------------------------------------------------------------------------ */

static void start_dump(const struct nlct_kernel_filter *kernel_filter)
{
    struct nlct_socket *sock;
    struct nlct_filter *everything;
    struct nlct_dump *dump;

    fake_reset();
    sock = fake_open();
    CHECK_IS(nlct_filter_new(&everything, NULL, 0), 0);
    CHECK_IS(nlct_dump_start(&dump, sock, everything, kernel_filter, -1), 0);
    nlct_dump_free(&dump);
    nlct_filter_free(&everything);
    fake_close(sock);
}

static void expect_dump(uint8_t family)
{
    expect(GET, NLM_F_REQUEST | NLM_F_DUMP, family);
}

static void a_dump_asks_for_nothing_by_itself(void)
{
    const struct nlct_kernel_filter kernel_filter = {.mark = 7, .status = 7, .zone = 7};

    start_dump(NULL);
    expect_dump(AF_UNSPEC);
    check_sent();
    start_dump(&kernel_filter);
    check_sent();
}

static void a_dump_asks_for_marks_and_status_with_their_masks(void)
{
    const struct nlct_kernel_filter kernel_filter = {
        .family = AF_INET6, .mark = 0, .mark_mask = 0xff00, .status = 2, .status_mask = 6};

    start_dump(&kernel_filter);
    expect_dump(AF_INET6);
    packet_be32(&expected, CTA_MARK, 0);
    packet_be32(&expected, CTA_MARK_MASK, 0xff00);
    packet_be32(&expected, CTA_STATUS, 2);
    packet_be32(&expected, CTA_STATUS_MASK, 6);
    check_sent();
}

static void expect_filter(uint16_t type, const void *data, size_t size)
{
    const size_t nest = packet_nest(&expected, FILTER);

    packet_attr(&expected, type, data, size);
    packet_end_nest(&expected, nest);
}

static void expect_filter_flags(uint32_t flags)
{
    expect_filter(FILTER_ORIG_FLAGS, &flags, sizeof(flags));
}

static void a_dump_asks_for_a_zone_in_two_ways(void)
{
    struct nlct_kernel_filter kernel_filter = {.zone_request = NLCT_ZONE_PLAIN, .zone = 0};

    start_dump(&kernel_filter);
    expect_dump(AF_UNSPEC);
    packet_be16(&expected, CTA_ZONE, 0);
    check_sent();
    kernel_filter.zone_request = NLCT_ZONE_EXPLICIT;
    kernel_filter.zone = 258;
    start_dump(&kernel_filter);
    expect_dump(AF_UNSPEC);
    packet_be16(&expected, CTA_ZONE, 258);
    expect_filter(FILTER_ZONE, NULL, 0);
    check_sent();
}

/* The kernel's flags: 1 source, 2 destination, 8 protocol, 16 and 32 the ports. */
static void a_dump_asks_for_a_tuple_by_what_is_safe(void)
{
    struct nlct_kernel_filter kernel_filter = {
        .family = AF_INET,
        .orig = tuple_of("10.0.0.1", "192.0.2.1", IPPROTO_UDP, 1024, 53),
    };
    size_t tuple, addresses;

    start_dump(&kernel_filter);
    expect_dump(AF_INET);
    expect_orig();
    expect_filter_flags(1 | 2 | 8 | 16 | 32);
    check_sent();

    /* One field alone, and none of those that are not asked for. */
    kernel_filter.orig.present = BIT(NLCT_TUPLE_DST);
    start_dump(&kernel_filter);
    expect_dump(AF_INET);
    tuple = packet_nest(&expected, CTA_TUPLE_ORIG);
    addresses = packet_nest(&expected, CTA_TUPLE_IP);
    packet_attr(&expected, CTA_IP_V4_DST, "\300\0\2\1", 4);
    packet_end_nest(&expected, addresses);
    packet_end_nest(&expected, tuple);
    expect_filter_flags(2);
    check_sent();
}

static void expect_protocol(uint8_t proto)
{
    const size_t tuple = packet_nest(&expected, CTA_TUPLE_ORIG);
    const size_t nest = packet_nest(&expected, CTA_TUPLE_PROTO);

    packet_attr(&expected, CTA_PROTO_NUM, &proto, sizeof(proto));
    packet_end_nest(&expected, nest);
    packet_end_nest(&expected, tuple);
    expect_filter_flags(8);
}

static void a_dump_never_asks_for_ipv6_addresses(void)
{
    struct nlct_kernel_filter kernel_filter = {
        .family = AF_INET6,
        .orig = tuple_of("fd00::1", "2001:db8::1", IPPROTO_TCP, 1024, 80),
    };
    size_t tuple;

    start_dump(&kernel_filter);
    expect_dump(AF_INET6);
    tuple = packet_nest(&expected, CTA_TUPLE_ORIG);
    packet_ports(&expected, IPPROTO_TCP, 1024, 80);
    packet_end_nest(&expected, tuple);
    expect_filter_flags(8 | 16 | 32);
    check_sent();

    kernel_filter.orig.present = BIT(NLCT_TUPLE_SRC) | BIT(NLCT_TUPLE_DST);
    start_dump(&kernel_filter);
    expect_dump(AF_INET6);
    check_sent();
}

static void a_dump_never_asks_for_more_of_a_tuple_than_kernels_get_right(void)
{
    static const uint8_t others[] = {IPPROTO_ICMP, IPPROTO_GRE,  IPPROTO_ICMPV6,
                                     IPPROTO_SCTP, IPPROTO_DCCP, IPPROTO_UDPLITE,
                                     253};
    struct nlct_kernel_filter kernel_filter = {
        .family = AF_INET,
        .orig = tuple_of("10.0.0.1", "192.0.2.1", IPPROTO_UDP, 1024, 53),
    };
    const uint64_t addresses = BIT(NLCT_TUPLE_SRC) | BIT(NLCT_TUPLE_DST);
    size_t i;

    /* ICMP and zones, not at all. */
    kernel_filter.orig.present = BIT(NLCT_TUPLE_ZONE) | BIT(NLCT_TUPLE_ICMP_ID) |
                                 BIT(NLCT_TUPLE_ICMP_TYPE) | BIT(NLCT_TUPLE_ICMP_CODE);
    start_dump(&kernel_filter);
    expect_dump(AF_INET);
    check_sent();
    /* Ports without their protocol. */
    kernel_filter.orig.present = BIT(NLCT_TUPLE_SPORT) | BIT(NLCT_TUPLE_DPORT);
    start_dump(&kernel_filter);
    check_sent();
    /* Ports of a protocol that has none, or whose ports no kernel compares. */
    for (i = 0; i < sizeof(others); i++) {
        kernel_filter.orig = tuple_of("10.0.0.1", "192.0.2.1", others[i], 1024, 53);
        kernel_filter.orig.present &= ~addresses;
        start_dump(&kernel_filter);
        expect_dump(AF_INET);
        expect_protocol(others[i]);
        check_sent();
    }
    /* Without the family the kernel refuses a tuple. */
    kernel_filter.orig = tuple_of("10.0.0.1", "192.0.2.1", IPPROTO_UDP, 1024, 53);
    kernel_filter.family = AF_UNSPEC;
    start_dump(&kernel_filter);
    expect_dump(AF_UNSPEC);
    check_sent();
}

static void a_dump_has_one_filter_at_most(void)
{
    const struct nlct_kernel_filter explicit_zone = {
        .zone_request = NLCT_ZONE_EXPLICIT,
        .zone = 9,
        .family = AF_INET,
        .orig = tuple_of("10.0.0.1", "192.0.2.1", IPPROTO_UDP, 1024, 53),
    };
    struct nlct_kernel_filter plain_zone = explicit_zone;

    start_dump(&explicit_zone);
    expect_dump(AF_INET);
    packet_be16(&expected, CTA_ZONE, 9);
    expect_filter(FILTER_ZONE, NULL, 0);
    check_sent();
    plain_zone.zone_request = NLCT_ZONE_PLAIN;
    start_dump(&plain_zone);
    expect_dump(AF_INET);
    packet_be16(&expected, CTA_ZONE, 9);
    expect_orig();
    expect_filter_flags(1 | 2 | 8 | 16 | 32);
    check_sent();
}

static void a_dump_that_cannot_be_asked_for_is_reported(void)
{
    struct nlct_filter *everything;
    struct nlct_dump *dump = NULL;
    struct nlct_socket *sock;

    fake_reset();
    sock = fake_open();
    CHECK_IS(nlct_filter_new(&everything, NULL, 0), 0);
    fake_fail_send(EPERM);
    CHECK_IS(nlct_dump_start(&dump, sock, everything, NULL, -1), -EPERM);
    CHECK(!dump);
    nlct_filter_free(&everything);
    fake_close(sock);
}

const struct test_case request_cases[] = {
    CASE(a_delete_names_tuple_zone_and_id),
    CASE(a_delete_leaves_the_zone_in_its_tuple),
    CASE(a_delete_names_no_zone_where_there_is_none),
    CASE(a_delete_that_does_not_name_one_flow_is_never_sent),
    CASE(an_expectation_is_deleted_by_name_or_not_at_all),
    CASE(a_get_names_tuple_and_zone),
    CASE(only_a_dump_ends_without_an_acknowledgement),
    CASE(an_update_says_what_changes_and_nothing_else),
    CASE(an_update_says_all_that_may_change),
    CASE(a_create_says_the_reverse_and_its_translation),
    CASE(a_create_translates_ipv6_addresses),
    CASE(a_create_translates_to_a_reply_without_a_protocol),
    CASE(a_create_with_a_master_leaves_expected_to_the_kernel),
    CASE(what_crashes_kernels_is_never_sent),
    CASE(a_create_that_the_kernel_would_drop_from_is_never_sent),
    CASE(masters_are_loaded_before_their_children),
    CASE(a_dump_asks_for_nothing_by_itself),
    CASE(a_dump_asks_for_marks_and_status_with_their_masks),
    CASE(a_dump_asks_for_a_zone_in_two_ways),
    CASE(a_dump_asks_for_a_tuple_by_what_is_safe),
    CASE(a_dump_never_asks_for_ipv6_addresses),
    CASE(a_dump_never_asks_for_more_of_a_tuple_than_kernels_get_right),
    CASE(a_dump_has_one_filter_at_most),
    CASE(a_dump_that_cannot_be_asked_for_is_reported),
    END_OF_CASES,
};
