/* A flow as the line that `conntrack -L` prints for it, or `conntrack -E` for an event. */
#include "put.h"

#include <linux/netfilter/nf_conntrack_common.h>
#include <netinet/in.h>
#include <time.h>

/* The longest line without a security context. Only nlct_flow_text() checks for room. */
enum {
    LONGEST = sizeof(
        "[DESTROY] unknown  255 4294967295 ESTABLISHED SHUTDOWN_ACK_SENT PARTOPEN "
        "src=1111:2222:3333:4444:5555:6666:7777:8888 dst=1111:2222:3333:4444:5555:6666:7777:8888 "
        "srckey=0xffff dstkey=0xffff zone-orig=65535 "
        "packets=18446744073709551615 bytes=18446744073709551615 [UNREPLIED] "
        "src=1111:2222:3333:4444:5555:6666:7777:8888 dst=1111:2222:3333:4444:5555:6666:7777:8888 "
        "srckey=0xffff dstkey=0xffff zone-reply=65535 "
        "packets=18446744073709551615 bytes=18446744073709551615 [HW_OFFLOAD] "
        "mark=4294967295 secctx= zone=65535 delta-time=18446744073709551615 "
        "helper=0123456789abcdef use=4294967295 ")
};
_Static_assert((int)LONGEST <= (int)NLCT_TEXT_MAX, "the longest line fits");

/* Bits of a status that the headers of older kernels lack. */
enum { OFFLOAD = 1 << 14, HW_OFFLOAD = 1 << 15 };

enum { NANOSECONDS = 1000000000 };

static char *put_hex(char *at, uint16_t number)
{
    int shift = 12;

    while (shift && !(number >> shift))
        shift -= 4;
    for (; shift >= 0; shift -= 4)
        at = put_char(at, "0123456789abcdef"[number >> shift & 15]);
    return at;
}

/* Addresses ----------------------------------------------------------------------------------- */

#define TEN(tens_)                                                                                 \
    tens_ "0.", tens_ "1.", tens_ "2.", tens_ "3.", tens_ "4.", tens_ "5.", tens_ "6.",            \
        tens_ "7.", tens_ "8.", tens_ "9."

static const char octets[][8] = {
    TEN(""),   TEN("1"),  TEN("2"),  TEN("3"),  TEN("4"),  TEN("5"),  TEN("6"),
    TEN("7"),  TEN("8"),  TEN("9"),  TEN("10"), TEN("11"), TEN("12"), TEN("13"),
    TEN("14"), TEN("15"), TEN("16"), TEN("17"), TEN("18"), TEN("19"), TEN("20"),
    TEN("21"), TEN("22"), TEN("23"), TEN("24"), TEN("25"),
};

/* Writes an octet and a dot, without a branch to mispredict: always four bytes, of which two to
   four count. */
static inline char *put_octet(char *at, uint8_t octet)
{
    memcpy(at, octets[octet], 4);
    return at + 2 + (octet >= 10) + (octet >= 100);
}

static char *put_ipv4(char *at, const uint8_t *address)
{
    int i;

    for (i = 0; i < 4; i++)
        at = put_octet(at, address[i]);
    return at - 1;
}

enum { IPV6_WORDS = 8 };

struct run {
    int first;
    int size;
};

/* What "::" stands for: the longest run of two or more zeros, the first if there are several. */
static struct run find_zeros(const uint16_t *words)
{
    struct run longest_run = {.first = IPV6_WORDS, .size = 1};
    int first = 0;
    int i;

    for (i = 0; i < IPV6_WORDS; i++) {
        if (words[i])
            first = i + 1;
        else if (i + 1 - first > longest_run.size)
            longest_run = (struct run){first, i + 1 - first};
    }
    return longest_run;
}

/* As inet_ntop() does, without its way through printf(). */
static char *put_ipv6(char *at, const uint8_t *address)
{
    uint16_t words[IPV6_WORDS];
    struct run zeros;
    bool embeds_ipv4;
    int i;

    for (i = 0; i < IPV6_WORDS; i++)
        words[i] = wire_be16(address + 2 * i);
    zeros = find_zeros(words);
    embeds_ipv4 = zeros.first == 0 && (zeros.size == 6 || (zeros.size == 5 && words[5] == 0xffff));
    for (i = 0; i < IPV6_WORDS; i++) {
        if (i == zeros.first) {
            at = WORD(at, "::");
            i += zeros.size;
        } else if (i) {
            at = put_char(at, ':');
        }
        if (i == 6 && embeds_ipv4)
            return put_ipv4(at, address + 12);
        if (i < IPV6_WORDS)
            at = put_hex(at, words[i]);
    }
    return at;
}

char *text_address(char *at, const uint8_t *address, uint8_t family)
{
    return family == AF_INET ? put_ipv4(at, address) : put_ipv6(at, address);
}

static char *put_addresses(char *at, const struct nlct_tuple *tuple,
                           char *(*put)(char *at, const uint8_t *address))
{
    at = put_char(put(WORD(at, "src="), tuple->src), ' ');
    return put_char(put(WORD(at, "dst="), tuple->dst), ' ');
}

/* Protocols ----------------------------------------------------------------------------------- */

static char *put_ports(char *at, const struct nlct_tuple *tuple)
{
    at = NUMBER(at, "sport=", tuple->sport);
    return NUMBER(at, "dport=", tuple->dport);
}

static char *put_gre_keys(char *at, const struct nlct_tuple *tuple)
{
    at = put_hex(WORD(at, "srckey=0x"), tuple->sport);
    return put_char(put_hex(WORD(at, " dstkey=0x"), tuple->dport), ' ');
}

static char *put_icmp(char *at, const struct nlct_tuple *tuple)
{
    at = NUMBER(at, "type=", tuple->icmp_type);
    at = NUMBER(at, "code=", tuple->icmp_code);
    return NUMBER(at, "id=", tuple->icmp_id);
}

enum { NAME_WIDTH = 8 };

static const struct protocol {
    char name[NAME_WIDTH + 1];
    char *(*put_keys)(char *at, const struct nlct_tuple *tuple);
} protocols[256] = {
    [IPPROTO_ICMP] = {"icmp    ", put_icmp},    [IPPROTO_TCP] = {"tcp     ", put_ports},
    [IPPROTO_UDP] = {"udp     ", put_ports},    [IPPROTO_DCCP] = {"dccp    ", put_ports},
    [IPPROTO_GRE] = {"gre     ", put_gre_keys}, [IPPROTO_ICMPV6] = {"icmpv6  ", put_icmp},
    [IPPROTO_SCTP] = {"sctp    ", put_ports},   [IPPROTO_UDPLITE] = {"udplite ", put_ports},
};

char *text_keys(char *at, const struct nlct_tuple *tuple)
{
    const struct protocol *protocol = &protocols[tuple->proto];

    return protocol->put_keys ? protocol->put_keys(at, tuple) : at;
}

char *text_event(char *at, uint8_t event)
{
    switch (event) {
    case NLCT_EVENT_NEW:
        return WORD(at, "    [NEW] ");
    case NLCT_EVENT_UPDATE:
        return WORD(at, " [UPDATE] ");
    case NLCT_EVENT_DESTROY:
        return WORD(at, "[DESTROY] ");
    default:
        return at;
    }
}

static char *put_protocol(char *at, uint8_t proto)
{
    const char *name = protocols[proto].name;

    at = put_bytes(at, *name ? name : "unknown ", NAME_WIDTH);
    return NUMBER(at, " ", proto);
}

/* States -------------------------------------------------------------------------------------- */

static const char *const tcp_states[] = {
    "NONE",       "SYN_SENT", "SYN_RECV",  "ESTABLISHED", "FIN_WAIT",
    "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE",       "SYN_SENT2",
};
static const char *const sctp_states[] = {
    "NONE",          "CLOSED",        "COOKIE_WAIT",       "COOKIE_ECHOED",  "ESTABLISHED",
    "SHUTDOWN_SENT", "SHUTDOWN_RECD", "SHUTDOWN_ACK_SENT", "HEARTBEAT_SENT", "HEARTBEAT_ACKED",
};
static const char *const dccp_states[] = {
    "NONE",     "REQUEST", "RESPOND",  "PARTOPEN", "OPEN",
    "CLOSEREQ", "CLOSING", "TIMEWAIT", "IGNORE",   "INVALID",
};

const char *text_state(uint8_t proto, unsigned state)
{
    switch (proto) {
    case IPPROTO_TCP:
        return state < COUNT(tcp_states) ? tcp_states[state] : NULL;
    case IPPROTO_SCTP:
        return state < COUNT(sctp_states) ? sctp_states[state] : NULL;
    case IPPROTO_DCCP:
        return state < COUNT(dccp_states) ? dccp_states[state] : NULL;
    default:
        return NULL;
    }
}

/* A state without a name is printed as none. */
static char *put_state(char *at, uint8_t proto, uint8_t state)
{
    const char *name = text_state(proto, state);

    name = name ? name : "NONE";
    return put_char(put_bytes(at, name, strlen(name)), ' ');
}

static char *put_states(char *at, const struct nlct_flow *flow)
{
    if (has(flow->present, NLCT_FLOW_TCP_STATE))
        at = put_state(at, IPPROTO_TCP, flow->tcp_state);
    if (has(flow->present, NLCT_FLOW_SCTP_STATE))
        at = put_state(at, IPPROTO_SCTP, flow->sctp_state);
    if (has(flow->present, NLCT_FLOW_DCCP_STATE))
        at = put_state(at, IPPROTO_DCCP, flow->dccp_state);
    return at;
}

/* The line, from left to right ---------------------------------------------------------------- */

/* An absent tuple has no family and no protocol; an absent address is printed as zero. */
static char *put_tuple(char *at, const struct nlct_tuple *tuple)
{
    if (tuple->family == AF_INET)
        at = put_addresses(at, tuple, put_ipv4);
    else if (tuple->family == AF_INET6)
        at = put_addresses(at, tuple, put_ipv6);
    return text_keys(at, tuple);
}

static char *put_counters(char *at, uint64_t packets, uint64_t bytes)
{
    at = NUMBER(at, "packets=", packets);
    return NUMBER(at, "bytes=", bytes);
}

static char *put_orig(char *at, const struct nlct_flow *flow)
{
    at = put_tuple(at, &flow->orig);
    if (has(flow->orig.present, NLCT_TUPLE_ZONE))
        at = NUMBER(at, "zone-orig=", flow->orig.zone);
    if (has(flow->present, NLCT_FLOW_PACKETS_ORIG) && has(flow->present, NLCT_FLOW_BYTES_ORIG))
        at = put_counters(at, flow->packets_orig, flow->bytes_orig);
    if (has(flow->present, NLCT_FLOW_STATUS) && !(flow->status & IPS_SEEN_REPLY))
        at = WORD(at, "[UNREPLIED] ");
    return at;
}

static char *put_reply(char *at, const struct nlct_flow *flow)
{
    at = put_tuple(at, &flow->reply);
    if (has(flow->reply.present, NLCT_TUPLE_ZONE))
        at = NUMBER(at, "zone-reply=", flow->reply.zone);
    if (has(flow->present, NLCT_FLOW_PACKETS_REPLY) && has(flow->present, NLCT_FLOW_BYTES_REPLY))
        at = put_counters(at, flow->packets_reply, flow->bytes_reply);
    if (flow->status & HW_OFFLOAD)
        at = WORD(at, "[HW_OFFLOAD] ");
    else if (flow->status & OFFLOAD)
        at = WORD(at, "[OFFLOAD] ");
    else if (flow->status & IPS_ASSURED)
        at = WORD(at, "[ASSURED] ");
    return at;
}

static char *put_secctx(char *at, const struct nlct_flow *flow, const uint8_t *bytes)
{
    const struct nlct_span *span = &flow->secctx;
    const char *text;

    at = WORD(at, "secctx=");
    if (span->size) {
        text = (const char *)bytes + span->at;
        at = put_bytes(at, text, strnlen(text, span->size));
    }
    return put_char(at, ' ');
}

/* A zone of both directions, which the kernel names here, but not zone 0. */
static bool has_common_zone(const struct nlct_flow *flow)
{
    return has(flow->present, NLCT_FLOW_ZONE) && flow->zone &&
           !has(flow->orig.present | flow->reply.present, NLCT_TUPLE_ZONE);
}

/* As conntrack does: whole seconds of each, so a clock that was set back gives a huge number. */
static char *put_age(char *at, const struct nlct_flow *flow)
{
    uint64_t start = flow->timestamp_start / NANOSECONDS;
    uint64_t stop =
        flow->timestamp_stop ? flow->timestamp_stop / NANOSECONDS : (uint64_t)time(NULL);

    return NUMBER(at, "delta-time=", stop - start);
}

static char *put_helper(char *at, const struct nlct_flow *flow)
{
    size_t size = strnlen(flow->helper, sizeof(flow->helper));

    return put_char(put_bytes(WORD(at, "helper="), flow->helper, size), ' ');
}

static char *put_rest(char *at, const struct nlct_flow *flow, const uint8_t *bytes)
{
    if (has(flow->present, NLCT_FLOW_MARK))
        at = NUMBER(at, "mark=", flow->mark);
    if (has(flow->present, NLCT_FLOW_SECCTX))
        at = put_secctx(at, flow, bytes);
    if (has_common_zone(flow))
        at = NUMBER(at, "zone=", flow->zone);
    if (has(flow->present, NLCT_FLOW_TIMESTAMP_START))
        at = put_age(at, flow);
    if (has(flow->present, NLCT_FLOW_HELPER))
        at = put_helper(at, flow);
    if (has(flow->present, NLCT_FLOW_USE))
        at = NUMBER(at, "use=", flow->use);
    return at;
}

int nlct_flow_text(const struct nlct_flow *flow, const uint8_t *bytes, char *buffer,
                   size_t capacity)
{
    char *at = buffer;

    if (capacity < NLCT_TEXT_MAX || capacity - NLCT_TEXT_MAX < flow->secctx.size)
        return -EMSGSIZE;
    at = text_event(at, flow->event);
    at = put_protocol(at, flow->orig.proto);
    if (has(flow->present, NLCT_FLOW_TIMEOUT))
        at = NUMBER(at, "", flow->timeout);
    at = put_states(at, flow);
    at = put_orig(at, flow);
    at = put_reply(at, flow);
    at = put_rest(at, flow, bytes);
    at[-1] = '\n'; /* in place of the last space */
    return (int)(at - buffer);
}
