/*
 * A flow as the line that `conntrack -L -o save` prints for it, and such a line as a flow.
 *
 * The lines are commands of conntrack(8), which `conntrack -R` runs. They say less than a flow has:
 * no helper, master or labels, no sequence adjustment, no window scales and flags of TCP.
 */
#include "put.h"

#include <arpa/inet.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <netinet/in.h>

/* Protocols that conntrack(8) has options for ------------------------------------------------- */

/* Options that belong together; a protocol has some of them. */
enum {
    PORTS = 1 << 0,
    KEYS = 1 << 1,
    ICMP = 1 << 2,
    ICMPV6 = 1 << 3,
    STATE = 1 << 4,
    VTAGS = 1 << 5,
    ROLE = 1 << 6,
};

static const struct protocol {
    const char *name;
    uint8_t number;
    uint8_t options;
} protocols[] = {
    {"tcp", IPPROTO_TCP, PORTS | STATE},
    {"udp", IPPROTO_UDP, PORTS},
    {"icmp", IPPROTO_ICMP, ICMP},
    {"icmpv6", IPPROTO_ICMPV6, ICMPV6},
    {"gre", IPPROTO_GRE, KEYS},
    {"sctp", IPPROTO_SCTP, PORTS | STATE | VTAGS},
    {"dccp", IPPROTO_DCCP, PORTS | STATE | ROLE},
    {"udplite", IPPROTO_UDPLITE, PORTS},
};

static const struct protocol *find_protocol(uint8_t number)
{
    size_t i;

    for (i = 0; i < COUNT(protocols); i++)
        if (protocols[i].number == number)
            return &protocols[i];
    return NULL;
}

static const char *const roles[] = {"client", "server"};

/* The states of SCTP that conntrack(8) has a word for. */
enum { SCTP_STATES = 8 };

/* A name that -R reads; NULL if the flow has no state, or one without such a name. */
static const char *state_name(const struct nlct_flow *flow)
{
    switch (flow->orig.proto) {
    case IPPROTO_TCP:
        return has(flow->present, NLCT_FLOW_TCP_STATE) ? text_state(IPPROTO_TCP, flow->tcp_state)
                                                       : NULL;
    case IPPROTO_SCTP:
        return has(flow->present, NLCT_FLOW_SCTP_STATE) ? text_state(IPPROTO_SCTP, flow->sctp_state)
                                                        : NULL;
    case IPPROTO_DCCP:
        return has(flow->present, NLCT_FLOW_DCCP_STATE) ? text_state(IPPROTO_DCCP, flow->dccp_state)
                                                        : NULL;
    default:
        return NULL;
    }
}

/* conntrack(8) writes and reads the tags of SCTP with their bytes in network order. */
static uint32_t turn_vtag(uint32_t tag)
{
    return htonl(tag);
}

/* Writing ------------------------------------------------------------------------------------- */

static const struct status {
    const char *name;
    uint32_t bit;
} written_status[] = {
    {"SEEN_REPLY", IPS_SEEN_REPLY},
    {"ASSURED", IPS_ASSURED},
    {"FIXED_TIMEOUT", IPS_FIXED_TIMEOUT},
};

static char *put_status(char *at, uint32_t status)
{
    bool first = true;
    size_t i;

    at = WORD(at, "-u ");
    for (i = 0; i < COUNT(written_status); i++) {
        if (!(status & written_status[i].bit))
            continue;
        at = put_text(first ? at : put_char(at, ','), written_status[i].name);
        first = false;
    }
    return put_char(first ? WORD(at, "UNSET") : at, ' ');
}

static char *put_zones(char *at, const struct nlct_flow *flow)
{
    const bool orig = has(flow->orig.present, NLCT_TUPLE_ZONE);
    const bool reply = has(flow->reply.present, NLCT_TUPLE_ZONE);

    if (!orig && !reply && has(flow->present, NLCT_FLOW_ZONE) && flow->zone)
        at = NUMBER(at, "-w ", flow->zone);
    if (orig)
        at = NUMBER(at, "--orig-zone ", flow->orig.zone);
    if (reply)
        at = NUMBER(at, "--reply-zone ", flow->reply.zone);
    return at;
}

static char *put_address(char *at, const char *option, const struct nlct_tuple *tuple, bool src)
{
    if (!has(tuple->present, src ? NLCT_TUPLE_SRC : NLCT_TUPLE_DST))
        return at;
    at = put_text(at, option);
    return put_char(text_address(at, src ? tuple->src : tuple->dst, tuple->family), ' ');
}

/* Is this address of the reply what the flow is translated to? */
static bool translates(const struct nlct_flow *flow, uint32_t done, bool src)
{
    const uint8_t *there = src ? flow->reply.src : flow->reply.dst;
    const uint8_t *plain = src ? flow->orig.dst : flow->orig.src;

    if (has(flow->present, NLCT_FLOW_STATUS) && !(flow->status & done))
        return false;
    return memcmp(there, plain, sizeof(flow->orig.src)) != 0;
}

static char *put_tuples(char *at, const struct nlct_flow *flow)
{
    const bool dst_nat = translates(flow, IPS_DST_NAT_DONE, true);
    const bool src_nat = translates(flow, IPS_SRC_NAT_DONE, false);

    at = put_address(at, "-s ", &flow->orig, true);
    at = put_address(at, "-d ", &flow->orig, false);
    at = put_address(at, dst_nat ? "-g " : "-r ", &flow->reply, true);
    return put_address(at, src_nat ? "-n " : "-q ", &flow->reply, false);
}

static char *put_member(char *at, const char *option, const struct nlct_tuple *tuple,
                        unsigned field, uint16_t value)
{
    return has(tuple->present, field) ? NUMBER(put_text(at, option), "", value) : at;
}

static char *put_pairs(char *at, const struct nlct_flow *flow, const char *const options[4])
{
    at = put_member(at, options[0], &flow->orig, NLCT_TUPLE_SPORT, flow->orig.sport);
    at = put_member(at, options[1], &flow->orig, NLCT_TUPLE_DPORT, flow->orig.dport);
    at = put_member(at, options[2], &flow->reply, NLCT_TUPLE_SPORT, flow->reply.sport);
    return put_member(at, options[3], &flow->reply, NLCT_TUPLE_DPORT, flow->reply.dport);
}

static char *put_icmp(char *at, const struct nlct_tuple *tuple, const char *const options[3])
{
    at = put_member(at, options[0], tuple, NLCT_TUPLE_ICMP_TYPE, tuple->icmp_type);
    at = put_member(at, options[1], tuple, NLCT_TUPLE_ICMP_CODE, tuple->icmp_code);
    return put_member(at, options[2], tuple, NLCT_TUPLE_ICMP_ID, tuple->icmp_id);
}

static char *put_options(char *at, const struct nlct_flow *flow, uint8_t options)
{
    static const char *const ports[] = {"--sport ", "--dport ", "--reply-port-src ",
                                        "--reply-port-dst "};
    static const char *const keys[] = {"--srckey ", "--dstkey ", "--reply-key-src ",
                                       "--reply-key-dst "};
    static const char *const icmp[] = {"--icmp-type ", "--icmp-code ", "--icmp-id "};
    static const char *const icmpv6[] = {"--icmpv6-type ", "--icmpv6-code ", "--icmpv6-id "};
    const char *state = options & STATE ? state_name(flow) : NULL;

    if (options & (PORTS | KEYS))
        at = put_pairs(at, flow, options & PORTS ? ports : keys);
    if (options & (ICMP | ICMPV6))
        at = put_icmp(at, &flow->orig, options & ICMP ? icmp : icmpv6);
    if (state)
        at = put_char(put_text(WORD(at, "--state "), state), ' ');
    if (options & ROLE && has(flow->present, NLCT_FLOW_DCCP_ROLE) && flow->dccp_role < COUNT(roles))
        at = put_char(put_text(WORD(at, "--role "), roles[flow->dccp_role]), ' ');
    if (options & VTAGS && has(flow->present, NLCT_FLOW_SCTP_VTAG_ORIG))
        at = NUMBER(at, "--orig-vtag ", turn_vtag(flow->sctp_vtag_orig));
    if (options & VTAGS && has(flow->present, NLCT_FLOW_SCTP_VTAG_REPLY))
        at = NUMBER(at, "--reply-vtag ", turn_vtag(flow->sctp_vtag_reply));
    return at;
}

static char *put_protocol(char *at, const struct nlct_flow *flow)
{
    const struct protocol *protocol = find_protocol(flow->orig.proto);

    if (!protocol)
        return NUMBER(at, "-p ", flow->orig.proto);
    at = put_char(put_text(WORD(at, "-p "), protocol->name), ' ');
    return put_options(at, flow, protocol->options);
}

static bool has_keys(const struct nlct_flow *flow, uint8_t options)
{
    const uint64_t pair = bit(NLCT_TUPLE_SPORT) | bit(NLCT_TUPLE_DPORT);
    const uint64_t icmp =
        bit(NLCT_TUPLE_ICMP_TYPE) | bit(NLCT_TUPLE_ICMP_CODE) | bit(NLCT_TUPLE_ICMP_ID);

    if (options & (PORTS | KEYS) && (flow->orig.present & pair) != pair)
        return false;
    return !(options & (ICMP | ICMPV6)) || (flow->orig.present & icmp) == icmp;
}

static bool has_options(const struct nlct_flow *flow, uint8_t options)
{
    const uint64_t vtags = bit(NLCT_FLOW_SCTP_VTAG_ORIG) | bit(NLCT_FLOW_SCTP_VTAG_REPLY);

    if (options & STATE && !state_name(flow))
        return false;
    if (options & VTAGS && ((flow->present & vtags) != vtags || flow->sctp_state >= SCTP_STATES))
        return false;
    return !(options & ROLE) ||
           (has(flow->present, NLCT_FLOW_DCCP_ROLE) && flow->dccp_role < COUNT(roles));
}

/* Can -R read the line? */
static bool is_readable(const struct nlct_flow *flow)
{
    const struct protocol *protocol = find_protocol(flow->orig.proto);
    const uint8_t options = protocol ? protocol->options : 0;

    return has(flow->present, NLCT_FLOW_TIMEOUT) && has_keys(flow, options) &&
           has_options(flow, options);
}

int nlct_flow_save(const struct nlct_flow *flow, char *buffer, size_t capacity)
{
    char *at = buffer;

    if (capacity < NLCT_TEXT_MAX)
        return -EMSGSIZE;
    if (!is_readable(flow))
        at = WORD(at, "# ");
    at = WORD(at, "-A ");
    if (has(flow->present, NLCT_FLOW_TIMEOUT))
        at = NUMBER(at, "-t ", flow->timeout);
    if (has(flow->present, NLCT_FLOW_STATUS))
        at = put_status(at, flow->status);
    at = put_zones(at, flow);
    at = put_tuples(at, flow);
    at = put_protocol(at, flow);
    if (has(flow->present, NLCT_FLOW_MARK) && flow->mark)
        at = NUMBER(at, "-m ", flow->mark);
    at[-1] = '\n'; /* in place of the last space */
    return (int)(at - buffer);
}

/* Reading: words ------------------------------------------------------------------------------ */

struct word {
    const char *at;
    size_t size;
};

/* A line that is being read. */
struct reading {
    struct word left;
    struct nlct_flow *flow;
    unsigned options; /* given so far: bits of what belongs to protocols */
    struct word state;
    struct word role;
    struct word bad;
    const char *why;
};

static int refuse(struct reading *reading, struct word bad, const char *why)
{
    reading->bad = bad;
    reading->why = why;
    return -EINVAL;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* The next word of the line; empty at its end. */
static struct word next_word(struct word *left)
{
    struct word word;

    while (left->size && is_space(*left->at)) {
        left->at++;
        left->size--;
    }
    word = (struct word){left->at, 0};
    while (left->size && !is_space(*left->at)) {
        left->at++;
        left->size--;
        word.size++;
    }
    return word;
}

static bool is(struct word word, const char *text)
{
    return word.size == strlen(text) && memcmp(word.at, text, word.size) == 0;
}

/* As is(), whatever the case of the letters. 'text' has only letters, digits and underscores. */
static bool is_name(struct word word, const char *text)
{
    size_t i;

    if (word.size != strlen(text))
        return false;
    for (i = 0; i < word.size; i++) {
        const char c = word.at[i];

        if ((c >= 'A' && c <= 'Z' ? c | 0x20 : c) !=
            (text[i] >= 'A' && text[i] <= 'Z' ? text[i] | 0x20 : text[i]))
            return false;
    }
    return true;
}

static int digit_of(char c, unsigned base)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return base == 16 && c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A number up to 'highest', decimal or 0x...; conntrack(8) takes some leading zeros for octal. */
static bool read_number(struct word word, uint64_t highest, uint64_t *number)
{
    unsigned base = 10;
    uint64_t value = 0;

    if (word.size > 2 && word.at[0] == '0' && (word.at[1] | 0x20) == 'x') {
        base = 16;
        word.at += 2;
        word.size -= 2;
    } else if (word.size > 1 && word.at[0] == '0') {
        return false;
    }
    if (!word.size)
        return false;
    for (; word.size; word.at++, word.size--) {
        const int digit = digit_of(*word.at, base);

        if (digit < 0)
            return false;
        value = value * base + (unsigned)digit;
        if (value > highest)
            return false;
    }
    *number = value;
    return true;
}

/* An address, as 16 bytes. Returns its family, 0 if it is none. */
static uint8_t read_address(struct word word, uint8_t *address)
{
    char text[INET6_ADDRSTRLEN];

    if (word.size >= sizeof(text))
        return 0;
    memcpy(text, word.at, word.size);
    text[word.size] = '\0';
    /* A null byte would hide the rest. */
    if (strlen(text) < word.size)
        return 0;
    memset(address, 0, 16);
    if (inet_pton(AF_INET, text, address) == 1)
        return AF_INET;
    return inet_pton(AF_INET6, text, address) == 1 ? AF_INET6 : 0;
}

/* Reading: options ---------------------------------------------------------------------------- */

struct option;
typedef int read_option(struct reading *reading, const struct option *option, struct word value);

/* What an option's value is, and where it goes: 'offset' and 'size' in the flow, and the bit of the
   'present' at 'present'. 'group': of what protocols it is. */
struct option {
    const char *name;
    const char *other;
    read_option *read;
    uint16_t offset;
    uint16_t present;
    uint8_t size;
    uint8_t field;
    uint8_t group;
};

static bool take_bit(struct reading *reading, const struct option *option)
{
    uint8_t *flow = (uint8_t *)reading->flow;
    uint64_t present;
    bool taken;

    memcpy(&present, flow + option->present, sizeof(present));
    taken = has(present, option->field);
    present |= bit(option->field);
    memcpy(flow + option->present, &present, sizeof(present));
    return !taken;
}

static int read_value(struct reading *reading, const struct option *option, struct word value)
{
    const uint64_t highest = UINT64_MAX >> (64 - 8 * option->size);
    uint64_t number;

    if (!read_number(value, highest, &number))
        return refuse(reading, value,
                      option->size == 1   ? "must be a number from 0 to 255"
                      : option->size == 2 ? "must be a number from 0 to 65535"
                                          : "must be a number from 0 to 4294967295");
    if (!take_bit(reading, option))
        return refuse(reading, value, "is a second value of one field");
    number_write((uint8_t *)reading->flow + option->offset, number, option->size);
    return 0;
}

static int read_vtag(struct reading *reading, const struct option *option, struct word value)
{
    const int rc = read_value(reading, option, value);
    uint8_t *at = (uint8_t *)reading->flow + option->offset;

    if (rc == 0)
        number_write(at, turn_vtag((uint32_t)number_read(at, 4)), 4);
    return rc;
}

/* The zone of one direction, which is the flow's as well. */
static int read_zone(struct reading *reading, const struct option *option, struct word value)
{
    const int rc = read_value(reading, option, value);

    if (rc < 0)
        return rc;
    if (has(reading->flow->present, NLCT_FLOW_ZONE))
        return refuse(reading, value, "is a second zone: a flow has one");
    reading->flow->present |= bit(NLCT_FLOW_ZONE);
    reading->flow->zone =
        (uint16_t)number_read((uint8_t *)reading->flow + option->offset, option->size);
    return 0;
}

static int read_whole_zone(struct reading *reading, const struct option *option, struct word value)
{
    if (has(reading->flow->present, NLCT_FLOW_ZONE))
        return refuse(reading, value, "is a second zone: a flow has one");
    return read_value(reading, option, value);
}

static int set_family(struct reading *reading, struct word value, uint8_t family)
{
    if (reading->flow->family && reading->flow->family != family)
        return refuse(reading, value, "is of another family than the rest");
    reading->flow->family = family;
    return 0;
}

static int read_end(struct reading *reading, const struct option *option, struct word value)
{
    uint8_t address[16];
    const uint8_t family = read_address(value, address);

    if (!family)
        return refuse(reading, value, "is no IPv4 or IPv6 address");
    if (!take_bit(reading, option))
        return refuse(reading, value, "is a second value of one field");
    memcpy((uint8_t *)reading->flow + option->offset, address, sizeof(address));
    return set_family(reading, value, family);
}

/* Takes the port away from "address:port" or "[address]:port". Returns false if it is none. */
static bool split_port(struct word *value, bool *has_port, uint64_t *port)
{
    const bool bracket = value->size && value->at[0] == '[';
    const char *end = memchr(value->at, bracket ? ']' : ':', value->size);
    struct word address, rest;

    *has_port = false;
    if (!end)
        return !bracket;
    address = (struct word){value->at + bracket, (size_t)(end - value->at) - bracket};
    rest = (struct word){end + bracket, value->size - (size_t)(end + bracket - value->at)};
    /* Several colons are an IPv6 address. */
    if (!bracket && memchr(rest.at + 1, ':', rest.size - 1))
        return true;
    *value = address;
    *has_port = rest.size > 0;
    if (!*has_port)
        return true;
    return rest.at[0] == ':' &&
           read_number((struct word){rest.at + 1, rest.size - 1}, UINT16_MAX, port);
}

static int read_nat(struct reading *reading, const struct option *option, struct word value)
{
    const bool src = option->field == NLCT_TUPLE_DST; /* the reply goes to it */
    struct nlct_tuple *reply = &reading->flow->reply;
    const struct word whole = value;
    bool has_port;
    uint64_t port;
    int rc;

    if (!split_port(&value, &has_port, &port))
        return refuse(reading, whole, "must be ADDRESS or ADDRESS:PORT");
    rc = read_end(reading, option, value);
    if (rc < 0)
        return rc;
    reading->flow->present |= bit(NLCT_FLOW_STATUS);
    reading->flow->status |= src ? IPS_SRC_NAT : IPS_DST_NAT;
    if (!has_port)
        return 0;
    reading->options |= PORTS;
    if (has(reply->present, src ? NLCT_TUPLE_DPORT : NLCT_TUPLE_SPORT))
        return refuse(reading, whole, "is a second port of the reply");
    reply->present |= bit(src ? NLCT_TUPLE_DPORT : NLCT_TUPLE_SPORT);
    *(src ? &reply->dport : &reply->sport) = (uint16_t)port;
    return 0;
}

/* Names of bits; 0 where conntrack(8) takes the name and sets nothing. EXPECTED says that there is
   a master, which a line cannot say. */
static const struct status read_status_names[] = {
    {"SEEN_REPLY", IPS_SEEN_REPLY},
    {"ASSURED", IPS_ASSURED},
    {"FIXED_TIMEOUT", IPS_FIXED_TIMEOUT},
    {"UNSET", 0},
    {"EXPECTED", 0},
    {"SRC_NAT", 0},
    {"DST_NAT", 0},
    {"OFFLOAD", 0},
    {"HW_OFFLOAD", 0},
};

static bool find_status(struct word name, uint32_t *status)
{
    size_t i;

    for (i = 0; i < COUNT(read_status_names); i++) {
        if (!is_name(name, read_status_names[i].name))
            continue;
        *status |= read_status_names[i].bit;
        return true;
    }
    return false;
}

static int read_status(struct reading *reading, const struct option *option, struct word value)
{
    (void)option;
    while (true) {
        const char *comma = memchr(value.at, ',', value.size);
        const struct word name = {value.at, comma ? (size_t)(comma - value.at) : value.size};

        if (!find_status(name, &reading->flow->status))
            return refuse(reading, name, "is no status");
        if (!comma)
            break;
        value.at += name.size + 1;
        value.size -= name.size + 1;
    }
    reading->flow->present |= bit(NLCT_FLOW_STATUS);
    return 0;
}

static int read_protocol(struct reading *reading, const struct option *option, struct word value)
{
    uint64_t number;
    size_t i;

    for (i = 0; i < COUNT(protocols); i++)
        if (is_name(value, protocols[i].name))
            break;
    if (i < COUNT(protocols))
        number = protocols[i].number;
    else if (!read_number(value, UINT8_MAX, &number))
        return refuse(reading, value, "is no protocol that nlct knows; a number is");
    if (!take_bit(reading, option))
        return refuse(reading, value, "is a second protocol");
    reading->flow->orig.proto = (uint8_t)number;
    return 0;
}

static int read_family(struct reading *reading, const struct option *option, struct word value)
{
    (void)option;
    if (!is(value, "ipv4") && !is(value, "ipv6"))
        return refuse(reading, value, "must be ipv4 or ipv6");
    return set_family(reading, value, is(value, "ipv4") ? AF_INET : AF_INET6);
}

/* A name, kept until the protocol is known. */
static int keep_name(struct reading *reading, const struct option *option, struct word value)
{
    struct word *kept = option->group == STATE ? &reading->state : &reading->role;

    if (kept->at)
        return refuse(reading, value, "is a second value of one field");
    *kept = value;
    return 0;
}

#define OF_FLOW(member_, field_)                                                                   \
    offsetof(struct nlct_flow, member_), offsetof(struct nlct_flow, present),                      \
        sizeof(((struct nlct_flow *)0)->member_), field_
#define OF_TUPLE(tuple_, member_, field_)                                                          \
    offsetof(struct nlct_flow, tuple_.member_), offsetof(struct nlct_flow, tuple_.present),        \
        sizeof(((struct nlct_flow *)0)->tuple_.member_), field_

static const struct option options[] = {
    {"-t", "--timeout", read_value, OF_FLOW(timeout, NLCT_FLOW_TIMEOUT), 0},
    {"-u", "--status", read_status, OF_FLOW(status, NLCT_FLOW_STATUS), 0},
    {"-s", "--src", read_end, OF_TUPLE(orig, src, NLCT_TUPLE_SRC), 0},
    {"-d", "--dst", read_end, OF_TUPLE(orig, dst, NLCT_TUPLE_DST), 0},
    {"-r", "--reply-src", read_end, OF_TUPLE(reply, src, NLCT_TUPLE_SRC), 0},
    {"-q", "--reply-dst", read_end, OF_TUPLE(reply, dst, NLCT_TUPLE_DST), 0},
    {"-p", "--protonum", read_protocol, OF_TUPLE(orig, proto, NLCT_TUPLE_PROTO), 0},
    {"--sport", "--orig-port-src", read_value, OF_TUPLE(orig, sport, NLCT_TUPLE_SPORT), PORTS},
    {"--dport", "--orig-port-dst", read_value, OF_TUPLE(orig, dport, NLCT_TUPLE_DPORT), PORTS},
    {"--reply-port-src", "", read_value, OF_TUPLE(reply, sport, NLCT_TUPLE_SPORT), PORTS},
    {"--reply-port-dst", "", read_value, OF_TUPLE(reply, dport, NLCT_TUPLE_DPORT), PORTS},
    {"-w", "--zone", read_whole_zone, OF_FLOW(zone, NLCT_FLOW_ZONE), 0},
    {"--orig-zone", "", read_zone, OF_TUPLE(orig, zone, NLCT_TUPLE_ZONE), 0},
    {"--reply-zone", "", read_zone, OF_TUPLE(reply, zone, NLCT_TUPLE_ZONE), 0},
    {"-n", "--src-nat", read_nat, OF_TUPLE(reply, dst, NLCT_TUPLE_DST), 0},
    {"-g", "--dst-nat", read_nat, OF_TUPLE(reply, src, NLCT_TUPLE_SRC), 0},
    {"-m", "--mark", read_value, OF_FLOW(mark, NLCT_FLOW_MARK), 0},
    {"--state", "", keep_name, 0, 0, 0, 0, STATE},
    {"--role", "", keep_name, 0, 0, 0, 0, ROLE},
    {"--orig-vtag", "", read_vtag, OF_FLOW(sctp_vtag_orig, NLCT_FLOW_SCTP_VTAG_ORIG), VTAGS},
    {"--reply-vtag", "", read_vtag, OF_FLOW(sctp_vtag_reply, NLCT_FLOW_SCTP_VTAG_REPLY), VTAGS},
    {"--icmp-type", "", read_value, OF_TUPLE(orig, icmp_type, NLCT_TUPLE_ICMP_TYPE), ICMP},
    {"--icmp-code", "", read_value, OF_TUPLE(orig, icmp_code, NLCT_TUPLE_ICMP_CODE), ICMP},
    {"--icmp-id", "", read_value, OF_TUPLE(orig, icmp_id, NLCT_TUPLE_ICMP_ID), ICMP},
    {"--icmpv6-type", "", read_value, OF_TUPLE(orig, icmp_type, NLCT_TUPLE_ICMP_TYPE), ICMPV6},
    {"--icmpv6-code", "", read_value, OF_TUPLE(orig, icmp_code, NLCT_TUPLE_ICMP_CODE), ICMPV6},
    {"--icmpv6-id", "", read_value, OF_TUPLE(orig, icmp_id, NLCT_TUPLE_ICMP_ID), ICMPV6},
    {"--srckey", "--orig-key-src", read_value, OF_TUPLE(orig, sport, NLCT_TUPLE_SPORT), KEYS},
    {"--dstkey", "--orig-key-dst", read_value, OF_TUPLE(orig, dport, NLCT_TUPLE_DPORT), KEYS},
    {"--reply-key-src", "", read_value, OF_TUPLE(reply, sport, NLCT_TUPLE_SPORT), KEYS},
    {"--reply-key-dst", "", read_value, OF_TUPLE(reply, dport, NLCT_TUPLE_DPORT), KEYS},
    {"--orig-src", "", read_end, OF_TUPLE(orig, src, NLCT_TUPLE_SRC), 0},
    {"--orig-dst", "", read_end, OF_TUPLE(orig, dst, NLCT_TUPLE_DST), 0},
    {"-f", "--family", read_family, 0, 0, 0, 0, 0},
};

static const struct option *find_option(struct word name)
{
    size_t i;

    for (i = 0; i < COUNT(options); i++)
        if (is(name, options[i].name) || is(name, options[i].other))
            return &options[i];
    return NULL;
}

static int take_option(struct reading *reading, struct word name)
{
    const struct option *option;
    const char *equals = memchr(name.at, '=', name.size);
    struct word value;

    if (equals && name.size > 2 && name.at[1] == '-') {
        value = (struct word){equals + 1, name.size - (size_t)(equals + 1 - name.at)};
        name.size = (size_t)(equals - name.at);
    } else {
        value = next_word(&reading->left);
    }
    option = find_option(name);
    if (!option)
        return refuse(reading, name, "is no option of a line that creates a flow");
    if (!value.size)
        return refuse(reading, name, "needs a value");
    reading->options |= option->group;
    return option->read(reading, option, value);
}

/* Reading: the line --------------------------------------------------------------------------- */

static int read_command(struct reading *reading)
{
    const struct word command = next_word(&reading->left);
    struct word left;

    if (!is(command, "-A") && !is(command, "--add") && !is(command, "-I") &&
        !is(command, "--create"))
        return refuse(reading, command, "is no command that creates a flow: -A or -I");
    left = reading->left;
    if (is(next_word(&left), "conntrack"))
        reading->left = left;
    return 0;
}

static int set_state(struct reading *reading)
{
    struct nlct_flow *flow = reading->flow;
    const uint8_t proto = flow->orig.proto;
    const char *name;
    uint8_t state;

    if (proto == IPPROTO_TCP && is_name(reading->state, "LISTEN"))
        reading->state = (struct word){"SYN_SENT2", sizeof("SYN_SENT2") - 1};
    for (state = 0; (name = text_state(proto, state)); state++)
        if (is_name(reading->state, name))
            break;
    if (!name)
        return refuse(reading, reading->state, "is no state of this protocol");
    if (proto == IPPROTO_TCP) {
        flow->present |= bit(NLCT_FLOW_TCP_STATE);
        flow->tcp_state = state;
    } else if (proto == IPPROTO_SCTP) {
        flow->present |= bit(NLCT_FLOW_SCTP_STATE);
        flow->sctp_state = state;
    } else {
        flow->present |= bit(NLCT_FLOW_DCCP_STATE);
        flow->dccp_state = state;
    }
    return 0;
}

static int set_role(struct reading *reading)
{
    uint8_t role;

    for (role = 0; role < COUNT(roles); role++)
        if (is_name(reading->role, roles[role]))
            break;
    if (role == COUNT(roles))
        return refuse(reading, reading->role, "must be client or server");
    reading->flow->present |= bit(NLCT_FLOW_DCCP_ROLE);
    reading->flow->dccp_role = role;
    return 0;
}

/* Fills what the line did not say of the reply. Without a word of it the core reverses it. */
static void complete_reply(struct nlct_flow *flow)
{
    const struct nlct_tuple given = flow->reply;

    if (!given.present)
        return;
    flow_reverse(flow, &flow->reply);
    if (has(given.present, NLCT_TUPLE_SRC))
        memcpy(flow->reply.src, given.src, sizeof(given.src));
    if (has(given.present, NLCT_TUPLE_DST))
        memcpy(flow->reply.dst, given.dst, sizeof(given.dst));
    if (has(given.present, NLCT_TUPLE_SPORT))
        flow->reply.sport = given.sport;
    if (has(given.present, NLCT_TUPLE_DPORT))
        flow->reply.dport = given.dport;
    if (has(given.present, NLCT_TUPLE_ZONE))
        flow->reply.zone = given.zone;
    flow->reply.present |= given.present;
    flow->present |= bit(NLCT_FLOW_REPLY);
}

static int complete(struct reading *reading, struct word line)
{
    const uint64_t needed = bit(NLCT_TUPLE_SRC) | bit(NLCT_TUPLE_DST) | bit(NLCT_TUPLE_PROTO);
    struct nlct_flow *flow = reading->flow;
    const struct protocol *protocol = find_protocol(flow->orig.proto);
    int rc = 0;

    if ((flow->orig.present & needed) != needed || !has(flow->present, NLCT_FLOW_TIMEOUT))
        return refuse(reading, line, "lacks one of -s, -d, -p and -t");
    if (reading->options & ~(protocol ? protocol->options : 0U))
        return refuse(reading, line, "has options of another protocol than that of -p");
    flow->present |= bit(NLCT_FLOW_ORIG) | bit(NLCT_FLOW_ZONE);
    flow->orig.family = flow->family;
    if (reading->state.at)
        rc = set_state(reading);
    if (rc == 0 && reading->role.at)
        rc = set_role(reading);
    complete_reply(flow);
    return rc;
}

static int read_line(struct reading *reading, struct word line)
{
    int rc = read_command(reading);

    while (rc == 0) {
        const struct word name = next_word(&reading->left);

        if (!name.size)
            return complete(reading, line);
        rc = take_option(reading, name);
    }
    return rc;
}

int save_read(const char *line, size_t size, struct nlct_flow *flow, struct nlct_bad_line *bad)
{
    struct reading reading = {.left = {line, size}, .flow = flow};
    struct word left = {line, size};
    const struct word first = next_word(&left);

    if (!first.size || first.at[0] == '#')
        return 0;
    memset(flow, 0, sizeof(*flow));
    if (read_line(&reading, (struct word){first.at, size - (size_t)(first.at - line)}) == 0)
        return 1;
    *bad = (struct nlct_bad_line){
        .at = (size_t)(reading.bad.at - line), .size = reading.bad.size, .why = reading.why};
    return -EINVAL;
}
