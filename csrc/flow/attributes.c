/*
 * What is known of each attribute of a flow: its type, the field that holds its value, the kind of
 * that value, and whether a request may set it. Each attribute is one row of the lists below. The
 * rules for decode.c and build.c, the public fields and the mask of settable fields all come from
 * these.
 */
#include "attributes.h"

#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>

/* Newer than the oldest headers that this must build with. */
enum { SYNPROXY = 24, TIMESTAMP_EVENT = 27 };
enum { SYNPROXY_ISN = 1, SYNPROXY_ITS, SYNPROXY_TSOFF };

/* The lists ----------------------------------------------------------------------------------- */

/* What is FIXED the kernel counts, measures or assigns by itself. */
enum { FIXED, SETTABLE };

/* clang-format off */

/* A list takes the names of macros, which turn its rows into what is needed.

   In nests: ROW(in, type, name, NAME, kind, settable). The attribute 'type', somewhere in the
   top-level attribute 'in', holds the member 'name' of struct nlct_flow, whose bit is
   NLCT_FLOW_NAME. */
#define TCP(ROW, in)                                                                               \
    ROW(in, CTA_PROTOINFO_TCP_STATE, tcp_state, TCP_STATE, NUMBER, SETTABLE)                       \
    ROW(in, CTA_PROTOINFO_TCP_WSCALE_ORIGINAL, tcp_wscale_orig, TCP_WSCALE_ORIG, NUMBER, SETTABLE) \
    ROW(in, CTA_PROTOINFO_TCP_WSCALE_REPLY, tcp_wscale_reply, TCP_WSCALE_REPLY, NUMBER, SETTABLE)  \
    ROW(in, CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, tcp_flags_orig, TCP_FLAGS_ORIG, FLAGS, SETTABLE)     \
    ROW(in, CTA_PROTOINFO_TCP_FLAGS_REPLY, tcp_flags_reply, TCP_FLAGS_REPLY, FLAGS, SETTABLE)
#define SCTP(ROW, in)                                                                              \
    ROW(in, CTA_PROTOINFO_SCTP_STATE, sctp_state, SCTP_STATE, NUMBER, SETTABLE)                    \
    ROW(in, CTA_PROTOINFO_SCTP_VTAG_ORIGINAL, sctp_vtag_orig, SCTP_VTAG_ORIG, NUMBER, SETTABLE)    \
    ROW(in, CTA_PROTOINFO_SCTP_VTAG_REPLY, sctp_vtag_reply, SCTP_VTAG_REPLY, NUMBER, SETTABLE)
#define DCCP(ROW, in)                                                                              \
    ROW(in, CTA_PROTOINFO_DCCP_STATE, dccp_state, DCCP_STATE, NUMBER, SETTABLE)                    \
    ROW(in, CTA_PROTOINFO_DCCP_ROLE, dccp_role, DCCP_ROLE, NUMBER, SETTABLE)                       \
    ROW(in, CTA_PROTOINFO_DCCP_HANDSHAKE_SEQ, dccp_handshake_seq, DCCP_HANDSHAKE_SEQ, NUMBER,      \
        SETTABLE)
#define PROTOINFO(ROW, in) TCP(ROW, in) SCTP(ROW, in) DCCP(ROW, in)
#define COUNTERS_ORIG(ROW, in)                                                                     \
    ROW(in, CTA_COUNTERS_PACKETS, packets_orig, PACKETS_ORIG, NUMBER, FIXED)                       \
    ROW(in, CTA_COUNTERS_BYTES, bytes_orig, BYTES_ORIG, NUMBER, FIXED)
#define COUNTERS_REPLY(ROW, in)                                                                    \
    ROW(in, CTA_COUNTERS_PACKETS, packets_reply, PACKETS_REPLY, NUMBER, FIXED)                     \
    ROW(in, CTA_COUNTERS_BYTES, bytes_reply, BYTES_REPLY, NUMBER, FIXED)
#define TIMESTAMP(ROW, in)                                                                         \
    ROW(in, CTA_TIMESTAMP_START, timestamp_start, TIMESTAMP_START, NUMBER, FIXED)                  \
    ROW(in, CTA_TIMESTAMP_STOP, timestamp_stop, TIMESTAMP_STOP, NUMBER, FIXED)
#define HELP(ROW, in)                                                                              \
    ROW(in, CTA_HELP_NAME, helper, HELPER, TEXT, SETTABLE)                                         \
    ROW(in, CTA_HELP_INFO, helper_info, HELPER_INFO, SPAN, SETTABLE)
#define SEQADJ_ORIG(ROW, in)                                                                       \
    ROW(in, CTA_SEQADJ_CORRECTION_POS, seqadj_orig_pos, SEQADJ_ORIG_POS, NUMBER, SETTABLE)         \
    ROW(in, CTA_SEQADJ_OFFSET_BEFORE, seqadj_orig_before, SEQADJ_ORIG_BEFORE, NUMBER, SETTABLE)    \
    ROW(in, CTA_SEQADJ_OFFSET_AFTER, seqadj_orig_after, SEQADJ_ORIG_AFTER, NUMBER, SETTABLE)
#define SEQADJ_REPLY(ROW, in)                                                                      \
    ROW(in, CTA_SEQADJ_CORRECTION_POS, seqadj_reply_pos, SEQADJ_REPLY_POS, NUMBER, SETTABLE)       \
    ROW(in, CTA_SEQADJ_OFFSET_BEFORE, seqadj_reply_before, SEQADJ_REPLY_BEFORE, NUMBER, SETTABLE)  \
    ROW(in, CTA_SEQADJ_OFFSET_AFTER, seqadj_reply_after, SEQADJ_REPLY_AFTER, NUMBER, SETTABLE)
#define SECCTX(ROW, in)                                                                            \
    ROW(in, CTA_SECCTX_NAME, secctx, SECCTX, SPAN, FIXED)
#define SYNPROXY_ROWS(ROW, in)                                                                     \
    ROW(in, SYNPROXY_ISN, synproxy_isn, SYNPROXY_ISN, NUMBER, SETTABLE)                            \
    ROW(in, SYNPROXY_ITS, synproxy_its, SYNPROXY_ITS, NUMBER, SETTABLE)                            \
    ROW(in, SYNPROXY_TSOFF, synproxy_tsoff, SYNPROXY_TSOFF, NUMBER, SETTABLE)

/* The top level, in the order of the public fields: VALUE(type, name, NAME, kind, settable),
   KEY(type, name, NAME) for a tuple, and IN(type, table, LIST) for a nest. */
#define FLOW(VALUE, KEY, IN)                                                                       \
    VALUE(CTA_ZONE, zone, ZONE, NUMBER, FIXED)                                                     \
    KEY(CTA_TUPLE_ORIG, orig, ORIG)                                                                \
    KEY(CTA_TUPLE_REPLY, reply, REPLY)                                                             \
    VALUE(CTA_STATUS, status, STATUS, NUMBER, SETTABLE)                                            \
    VALUE(CTA_TIMEOUT, timeout, TIMEOUT, NUMBER, SETTABLE)                                         \
    VALUE(CTA_MARK, mark, MARK, NUMBER, SETTABLE)                                                  \
    VALUE(CTA_ID, id, ID, NUMBER, FIXED)                                                           \
    VALUE(CTA_USE, use, USE, NUMBER, FIXED)                                                        \
    IN(CTA_PROTOINFO, protoinfo, PROTOINFO)                                                        \
    IN(CTA_COUNTERS_ORIG, counters_orig, COUNTERS_ORIG)                                            \
    IN(CTA_COUNTERS_REPLY, counters_reply, COUNTERS_REPLY)                                         \
    IN(CTA_TIMESTAMP, timestamp, TIMESTAMP)                                                        \
    VALUE(TIMESTAMP_EVENT, timestamp_event, TIMESTAMP_EVENT, NUMBER, FIXED)                        \
    VALUE(CTA_LABELS, labels, LABELS, LABELS, SETTABLE)                                            \
    IN(CTA_HELP, help, HELP)                                                                       \
    IN(CTA_SEQ_ADJ_ORIG, seqadj_orig, SEQADJ_ORIG)                                                 \
    IN(CTA_SEQ_ADJ_REPLY, seqadj_reply, SEQADJ_REPLY)                                              \
    IN(CTA_SECCTX, secctx, SECCTX)                                                                 \
    IN(SYNPROXY, synproxy, SYNPROXY_ROWS)

/* What names a flow, in a tuple. The family decides which attribute an address is in, the protocol
   which of the two sets of ICMP is used: ADDRESS(name, NAME, ...), and ICMP(name, NAME, suffix of
   the type, ...). */
#define TUPLE_ROWS(ADDRESS, ROW, ICMP, ...)                                                        \
    ADDRESS(src, SRC, __VA_ARGS__)                                                                 \
    ADDRESS(dst, DST, __VA_ARGS__)                                                                 \
    ROW(CTA_PROTO_NUM, proto, PROTO, __VA_ARGS__)                                                  \
    ROW(CTA_PROTO_SRC_PORT, sport, SPORT, __VA_ARGS__)                                             \
    ROW(CTA_PROTO_DST_PORT, dport, DPORT, __VA_ARGS__)                                             \
    ICMP(icmp_id, ICMP_ID, ID, __VA_ARGS__)                                                        \
    ICMP(icmp_type, ICMP_TYPE, TYPE, __VA_ARGS__)                                                  \
    ICMP(icmp_code, ICMP_CODE, CODE, __VA_ARGS__)

/* Rules by type, for decode.c and build.c ----------------------------------------------------- */

_Static_assert(offsetof(struct nlct_tuple, present) == 0, "'present' opens a tuple");
_Static_assert(offsetof(struct nlct_flow, present) == 0, "'present' opens a flow");
_Static_assert(offsetof(struct translation, present) == 0, "'present' opens a translation");

#define SIZE(struct_, member_) sizeof(((struct struct_ *)0)->member_)
#define IN_TUPLE(kind_, name_, NAME_)                                                              \
    .kind = kind_, .size = SIZE(nlct_tuple, name_), .offset = offsetof(struct nlct_tuple, name_),  \
    .bit = NLCT_TUPLE_##NAME_
#define IN_FLOW(kind_, name_, NAME_)                                                               \
    .kind = kind_, .size = SIZE(nlct_flow, name_), .offset = offsetof(struct nlct_flow, name_),    \
    .bit = NLCT_FLOW_##NAME_

/* decode() keeps a bit a type. */
#define RULES(name_, ...)                                                                          \
    static const struct rule name_##_rules[] = {__VA_ARGS__};                                      \
    _Static_assert(sizeof(name_##_rules) <= VIEW_ATTRS * sizeof(struct rule), "a bit a type")
#define TABLE(name_) {name_##_rules, sizeof(name_##_rules) / sizeof(struct rule)}
#define NEST_OF(name_, ...)                                                                        \
    RULES(name_, __VA_ARGS__);                                                                     \
    static const struct table name_ = TABLE(name_)

/* For rows that are not wanted. */
#define NONE(...)

#define PADDING_RULE(type_) [type_] = {.kind = PADDING},
#define NEST_RULE(type_, table_) [type_] = {.kind = NEST, .nest = &(table_)},
#define LIST_RULE(type_, table_, LIST_) NEST_RULE(type_, table_)
#define NAT_RULE(type_) [type_] = {.kind = NAT, .nest = &nat},

#define ADDRESS_RULES(name_, NAME_, ...)                                                           \
    [CTA_IP_V6_##NAME_] = {IN_TUPLE(ADDRESS, name_, NAME_), .family = AF_INET6},                   \
    [CTA_IP_V4_##NAME_] = {.kind = ADDRESS, .family = AF_INET, .size = 4,                          \
                           .offset = offsetof(struct nlct_tuple, name_),                           \
                           .bit = NLCT_TUPLE_##NAME_},
#define KEY_RULE(type_, name_, NAME_, ...) [type_] = {IN_TUPLE(NUMBER, name_, NAME_)},
#define ICMP_RULES(name_, NAME_, SUFFIX_, ...)                                                     \
    [CTA_PROTO_ICMP_##SUFFIX_] = {IN_TUPLE(NUMBER, name_, NAME_), .proto = IPPROTO_ICMP},          \
    [CTA_PROTO_ICMPV6_##SUFFIX_] = {IN_TUPLE(NUMBER, name_, NAME_), .proto = IPPROTO_ICMPV6},

NEST_OF(ip, TUPLE_ROWS(ADDRESS_RULES, NONE, NONE, ));
NEST_OF(proto, TUPLE_ROWS(NONE, KEY_RULE, ICMP_RULES, ));
RULES(tuple,
    NEST_RULE(CTA_TUPLE_IP, ip)
    NEST_RULE(CTA_TUPLE_PROTO, proto)
    KEY_RULE(CTA_TUPLE_ZONE, zone, ZONE, ));
const struct table tuple_table = TABLE(tuple);

/* What a request wants a flow translated to; this is no field of a flow. */
#define NAT_ADDRESS(type_, family_, size_)                                                         \
    [type_] = {.kind = ADDRESS, .family = family_, .size = size_,                                  \
               .offset = offsetof(struct translation, address), .bit = TO_ADDRESS},
NEST_OF(nat_proto,
    [CTA_PROTONAT_PORT_MIN] = {.kind = NUMBER, .size = 2,
                               .offset = offsetof(struct translation, port), .bit = TO_PORT});
NEST_OF(nat,
    NAT_ADDRESS(CTA_NAT_V4_MINIP, AF_INET, 4)
    NAT_ADDRESS(CTA_NAT_V6_MINIP, AF_INET6, 16)
    NEST_RULE(CTA_NAT_PROTO, nat_proto));

#define RULE(in_, type_, name_, NAME_, kind_, settable_) [type_] = {IN_FLOW(kind_, name_, NAME_)},
#define VALUE_RULE(...) RULE(0, __VA_ARGS__)
#define TUPLE_RULE(type_, name_, NAME_)                                                            \
    [type_] = {IN_FLOW(TUPLE, name_, NAME_), .nest = &tuple_table},

NEST_OF(tcp, TCP(RULE, 0));
NEST_OF(sctp, SCTP(RULE, 0));
NEST_OF(dccp, DCCP(RULE, 0) PADDING_RULE(CTA_PROTOINFO_DCCP_PAD));
NEST_OF(protoinfo,
    NEST_RULE(CTA_PROTOINFO_TCP, tcp)
    NEST_RULE(CTA_PROTOINFO_SCTP, sctp)
    NEST_RULE(CTA_PROTOINFO_DCCP, dccp));
NEST_OF(counters_orig, COUNTERS_ORIG(RULE, 0) PADDING_RULE(CTA_COUNTERS_PAD));
NEST_OF(counters_reply, COUNTERS_REPLY(RULE, 0) PADDING_RULE(CTA_COUNTERS_PAD));
NEST_OF(timestamp, TIMESTAMP(RULE, 0) PADDING_RULE(CTA_TIMESTAMP_PAD));
NEST_OF(help, HELP(RULE, 0));
NEST_OF(seqadj_orig, SEQADJ_ORIG(RULE, 0));
NEST_OF(seqadj_reply, SEQADJ_REPLY(RULE, 0));
NEST_OF(secctx, SECCTX(RULE, 0));
NEST_OF(synproxy, SYNPROXY_ROWS(RULE, 0));
RULES(flow,
    FLOW(VALUE_RULE, TUPLE_RULE, LIST_RULE)
    TUPLE_RULE(CTA_TUPLE_MASTER, master, MASTER)
    NAT_RULE(CTA_NAT_SRC)
    NAT_RULE(CTA_NAT_DST));
const struct table flow_table = TABLE(flow);

/* Settable fields ------------------------------------------------------------------------------ */

#define BIT(in_, type_, name_, NAME_, kind_, settable_)                                            \
    | (uint64_t)(settable_) << NLCT_FLOW_##NAME_
#define VALUE_BIT(...) BIT(0, __VA_ARGS__)
#define LIST_BITS(type_, table_, LIST_) LIST_(BIT, type_)

const uint64_t flow_settable = 0 FLOW(VALUE_BIT, NONE, LIST_BITS);

/* What belongs to one protocol ----------------------------------------------------------------- */

#define OR_VALUE(in_, type_, name_, ...) || flow->name_

bool flow_suits(const struct nlct_flow *flow, uint8_t protocol)
{
    return (protocol == IPPROTO_TCP || !(false TCP(OR_VALUE, 0))) &&
           (protocol == IPPROTO_SCTP || !(false SCTP(OR_VALUE, 0))) &&
           (protocol == IPPROTO_DCCP || !(false DCCP(OR_VALUE, 0)));
}

/* Public fields -------------------------------------------------------------------------------- */

/* The public name of each kind. */
#define PUBLIC_NUMBER NLCT_NUMBER
#define PUBLIC_FLAGS NLCT_NUMBER
#define PUBLIC_ADDRESS NLCT_ADDRESS
#define PUBLIC_LABELS NLCT_LABELS
#define PUBLIC_TEXT NLCT_TEXT
#define PUBLIC_SPAN NLCT_SPAN

#define FIELD(in_, type_, name_, NAME_, kind_, settable_)                                          \
    {{#name_, SIZE(nlct_flow, name_), PUBLIC_##kind_, offsetof(struct nlct_flow, name_),           \
      settable_},                                                                                  \
     .bit = NLCT_FLOW_##NAME_, .part = NLCT_FLOW_##NAME_, .attr = in_},
#define VALUE_FIELD(type_, ...) FIELD(type_, type_, __VA_ARGS__)
#define LIST_FIELDS(type_, table_, LIST_) LIST_(FIELD, type_)

#define TUPLE_FIELD(prefix_, kind_, name_, NAME_, tuple_, TUPLE_)                                  \
    {{prefix_ #name_, SIZE(nlct_tuple, name_), PUBLIC_##kind_,                                     \
      offsetof(struct nlct_flow, tuple_) + offsetof(struct nlct_tuple, name_), FIXED},             \
     .present = offsetof(struct nlct_flow, tuple_), .bit = NLCT_TUPLE_##NAME_,                     \
     .part = NLCT_FLOW_##TUPLE_, .attr = CTA_TUPLE_##TUPLE_},
#define ADDRESS_FIELD(name_, NAME_, prefix_, ...)                                                  \
    TUPLE_FIELD(prefix_, ADDRESS, name_, NAME_, __VA_ARGS__)
#define KEY_FIELD(type_, name_, NAME_, prefix_, ...)                                               \
    TUPLE_FIELD(prefix_, NUMBER, name_, NAME_, __VA_ARGS__)
#define ICMP_FIELD(name_, NAME_, SUFFIX_, prefix_, ...)                                            \
    TUPLE_FIELD(prefix_, NUMBER, name_, NAME_, __VA_ARGS__)
#define PREFIX_ORIG ""
#define PREFIX_REPLY "reply_"
#define PREFIX_MASTER "master_"
#define TUPLE_FIELDS(type_, name_, NAME_)                                                          \
    TUPLE_ROWS(ADDRESS_FIELD, KEY_FIELD, ICMP_FIELD, PREFIX_##NAME_, name_, NAME_)

static const struct field fields[] = {
    FIELD(0, 0, family, ORIG, NUMBER, FIXED)
    FLOW(VALUE_FIELD, TUPLE_FIELDS, LIST_FIELDS)
    FIELD(0, 0, event, EVENT, NUMBER, FIXED)
    FIELD(0, 0, unknown, UNKNOWN, SPAN, FIXED)
    TUPLE_FIELD("orig_", NUMBER, zone, ZONE, orig, ORIG)
    TUPLE_FIELD("reply_", NUMBER, zone, ZONE, reply, REPLY)
    TUPLE_FIELDS(CTA_TUPLE_MASTER, master, MASTER)
    TUPLE_FIELD("master_", NUMBER, zone, ZONE, master, MASTER)
};

/* clang-format on */

_Static_assert(COUNT(fields) <= FLOW_FIELDS_MAX, "room for every field");

unsigned flow_fields(void)
{
    return COUNT(fields);
}

const struct field *flow_field(unsigned number)
{
    return number < flow_fields() ? &fields[number] : NULL;
}

/* It is in the header of every message. */
static bool is_family(const struct field *field)
{
    return field->public.offset == offsetof(struct nlct_flow, family);
}

bool flow_has(const struct nlct_flow *flow, const struct field *field)
{
    uint64_t present;

    if (is_family(field))
        return true;
    if (!has(flow->present, field->part))
        return false;
    memcpy(&present, (const uint8_t *)flow + field->present, sizeof(present));
    return has(present, field->bit);
}

int nlct_field_get(unsigned number, struct nlct_field *field)
{
    const struct field *found = flow_field(number);

    if (!found)
        return -ENOENT;
    *field = found->public;
    return 0;
}
