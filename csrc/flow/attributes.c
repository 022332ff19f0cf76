/* The tables of attributes: what is inside what, and where each value belongs. */
#include "attributes.h"

#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>

/* Newer than the headers that this must build with. */
enum { SYNPROXY_ISN = 1, SYNPROXY_ITS, SYNPROXY_TSOFF };

#define TABLE(rules_)                                                                              \
    {                                                                                              \
        rules_, sizeof(rules_) / sizeof((rules_)[0])                                               \
    }
#define IN_TUPLE(kind_, member, bit_)                                                              \
    .kind = kind_, .size = sizeof(((struct nlct_tuple *)0)->member),                               \
    .offset = offsetof(struct nlct_tuple, member), .bit = bit_
#define IN_FLOW(kind_, member, bit_)                                                               \
    {                                                                                              \
        .kind = kind_, .size = sizeof(((struct nlct_flow *)0)->member),                            \
        .offset = offsetof(struct nlct_flow, member), .bit = bit_                                  \
    }
#define NESTED(table_)                                                                             \
    {                                                                                              \
        .kind = NEST, .nest = &table_                                                              \
    }

_Static_assert(offsetof(struct nlct_tuple, present) == 0, "'present' opens a tuple");
_Static_assert(offsetof(struct nlct_flow, present) == 0, "'present' opens a flow");
_Static_assert(offsetof(struct translation, present) == 0, "'present' opens a translation");

/* Tuples */

static const struct rule ip_rules[] = {
    [CTA_IP_V4_SRC] = {BYTES, AF_INET, 4, offsetof(struct nlct_tuple, src), NLCT_TUPLE_SRC, 0,
                       NULL},
    [CTA_IP_V4_DST] = {BYTES, AF_INET, 4, offsetof(struct nlct_tuple, dst), NLCT_TUPLE_DST, 0,
                       NULL},
    [CTA_IP_V6_SRC] = {IN_TUPLE(BYTES, src, NLCT_TUPLE_SRC), .family = AF_INET6},
    [CTA_IP_V6_DST] = {IN_TUPLE(BYTES, dst, NLCT_TUPLE_DST), .family = AF_INET6},
};
static const struct table ip_table = TABLE(ip_rules);

/* Which of the two sets of ICMP is used follows from the protocol, not from the family. */
#define ICMP_RULES(prefix, proto_)                                                                 \
    [prefix##_ID] = {IN_TUPLE(NUMBER, icmp_id, NLCT_TUPLE_ICMP_ID), .proto = proto_},              \
    [prefix##_TYPE] = {IN_TUPLE(NUMBER, icmp_type, NLCT_TUPLE_ICMP_TYPE), .proto = proto_},        \
    [prefix##_CODE] = {IN_TUPLE(NUMBER, icmp_code, NLCT_TUPLE_ICMP_CODE), .proto = proto_}

static const struct rule proto_rules[] = {
    [CTA_PROTO_NUM] = {IN_TUPLE(NUMBER, proto, NLCT_TUPLE_PROTO)},
    [CTA_PROTO_SRC_PORT] = {IN_TUPLE(NUMBER, sport, NLCT_TUPLE_SPORT)},
    [CTA_PROTO_DST_PORT] = {IN_TUPLE(NUMBER, dport, NLCT_TUPLE_DPORT)},
    ICMP_RULES(CTA_PROTO_ICMP, IPPROTO_ICMP),
    ICMP_RULES(CTA_PROTO_ICMPV6, IPPROTO_ICMPV6),
};
static const struct table proto_table = TABLE(proto_rules);

static const struct rule tuple_rules[] = {
    [CTA_TUPLE_IP] = NESTED(ip_table),
    [CTA_TUPLE_PROTO] = NESTED(proto_table),
    [CTA_TUPLE_ZONE] = {IN_TUPLE(NUMBER, zone, NLCT_TUPLE_ZONE)},
};
const struct table tuple_table = TABLE(tuple_rules);

/* Translation (NAT) */

static const struct rule nat_proto_rules[] = {
    [CTA_PROTONAT_PORT_MIN] = {.kind = NUMBER,
                               .size = 2,
                               .offset = offsetof(struct translation, port),
                               .bit = TO_PORT},
};
static const struct table nat_proto_table = TABLE(nat_proto_rules);

#define NAT_ADDRESS_RULE(family_, size_)                                                           \
    {                                                                                              \
        .kind = BYTES, .family = family_, .size = size_,                                           \
        .offset = offsetof(struct translation, address), .bit = TO_ADDRESS                         \
    }
static const struct rule nat_rules[] = {
    [CTA_NAT_V4_MINIP] = NAT_ADDRESS_RULE(AF_INET, 4),
    [CTA_NAT_V6_MINIP] = NAT_ADDRESS_RULE(AF_INET6, 16),
    [CTA_NAT_PROTO] = NESTED(nat_proto_table),
};
static const struct table nat_table = TABLE(nat_rules);

/* The rest of a flow */

static const struct rule tcp_rules[] = {
    [CTA_PROTOINFO_TCP_STATE] = IN_FLOW(NUMBER, tcp_state, NLCT_FLOW_TCP_STATE),
    [CTA_PROTOINFO_TCP_WSCALE_ORIGINAL] =
        IN_FLOW(NUMBER, tcp_wscale_orig, NLCT_FLOW_TCP_WSCALE_ORIG),
    [CTA_PROTOINFO_TCP_WSCALE_REPLY] =
        IN_FLOW(NUMBER, tcp_wscale_reply, NLCT_FLOW_TCP_WSCALE_REPLY),
    [CTA_PROTOINFO_TCP_FLAGS_ORIGINAL] = IN_FLOW(FLAGS, tcp_flags_orig, NLCT_FLOW_TCP_FLAGS_ORIG),
    [CTA_PROTOINFO_TCP_FLAGS_REPLY] = IN_FLOW(FLAGS, tcp_flags_reply, NLCT_FLOW_TCP_FLAGS_REPLY),
};
static const struct table tcp_table = TABLE(tcp_rules);

static const struct rule sctp_rules[] = {
    [CTA_PROTOINFO_SCTP_STATE] = IN_FLOW(NUMBER, sctp_state, NLCT_FLOW_SCTP_STATE),
    [CTA_PROTOINFO_SCTP_VTAG_ORIGINAL] = IN_FLOW(NUMBER, sctp_vtag_orig, NLCT_FLOW_SCTP_VTAG_ORIG),
    [CTA_PROTOINFO_SCTP_VTAG_REPLY] = IN_FLOW(NUMBER, sctp_vtag_reply, NLCT_FLOW_SCTP_VTAG_REPLY),
};
static const struct table sctp_table = TABLE(sctp_rules);

static const struct rule dccp_rules[] = {
    [CTA_PROTOINFO_DCCP_STATE] = IN_FLOW(NUMBER, dccp_state, NLCT_FLOW_DCCP_STATE),
    [CTA_PROTOINFO_DCCP_ROLE] = IN_FLOW(NUMBER, dccp_role, NLCT_FLOW_DCCP_ROLE),
    [CTA_PROTOINFO_DCCP_HANDSHAKE_SEQ] =
        IN_FLOW(NUMBER, dccp_handshake_seq, NLCT_FLOW_DCCP_HANDSHAKE_SEQ),
    [CTA_PROTOINFO_DCCP_PAD] = {.kind = PADDING},
};
static const struct table dccp_table = TABLE(dccp_rules);

static const struct rule protoinfo_rules[] = {
    [CTA_PROTOINFO_TCP] = NESTED(tcp_table),
    [CTA_PROTOINFO_DCCP] = NESTED(dccp_table),
    [CTA_PROTOINFO_SCTP] = NESTED(sctp_table),
};
static const struct table protoinfo_table = TABLE(protoinfo_rules);

static const struct rule counters_orig_rules[] = {
    [CTA_COUNTERS_PACKETS] = IN_FLOW(NUMBER, packets_orig, NLCT_FLOW_PACKETS_ORIG),
    [CTA_COUNTERS_BYTES] = IN_FLOW(NUMBER, bytes_orig, NLCT_FLOW_BYTES_ORIG),
    [CTA_COUNTERS_PAD] = {.kind = PADDING},
};
static const struct table counters_orig_table = TABLE(counters_orig_rules);

static const struct rule counters_reply_rules[] = {
    [CTA_COUNTERS_PACKETS] = IN_FLOW(NUMBER, packets_reply, NLCT_FLOW_PACKETS_REPLY),
    [CTA_COUNTERS_BYTES] = IN_FLOW(NUMBER, bytes_reply, NLCT_FLOW_BYTES_REPLY),
    [CTA_COUNTERS_PAD] = {.kind = PADDING},
};
static const struct table counters_reply_table = TABLE(counters_reply_rules);

static const struct rule timestamp_rules[] = {
    [CTA_TIMESTAMP_START] = IN_FLOW(NUMBER, timestamp_start, NLCT_FLOW_TIMESTAMP_START),
    [CTA_TIMESTAMP_STOP] = IN_FLOW(NUMBER, timestamp_stop, NLCT_FLOW_TIMESTAMP_STOP),
    [CTA_TIMESTAMP_PAD] = {.kind = PADDING},
};
static const struct table timestamp_table = TABLE(timestamp_rules);

static const struct rule help_rules[] = {
    [CTA_HELP_NAME] = IN_FLOW(TEXT, helper, NLCT_FLOW_HELPER),
    [CTA_HELP_INFO] = IN_FLOW(SPAN, helper_info, NLCT_FLOW_HELPER_INFO),
};
static const struct table help_table = TABLE(help_rules);

#define SEQADJ_RULES(direction, DIRECTION)                                                         \
    [CTA_SEQADJ_CORRECTION_POS] =                                                                  \
        IN_FLOW(NUMBER, seqadj_##direction##_pos, NLCT_FLOW_SEQADJ_##DIRECTION##_POS),             \
    [CTA_SEQADJ_OFFSET_BEFORE] =                                                                   \
        IN_FLOW(NUMBER, seqadj_##direction##_before, NLCT_FLOW_SEQADJ_##DIRECTION##_BEFORE),       \
    [CTA_SEQADJ_OFFSET_AFTER] =                                                                    \
        IN_FLOW(NUMBER, seqadj_##direction##_after, NLCT_FLOW_SEQADJ_##DIRECTION##_AFTER)

static const struct rule seqadj_orig_rules[] = {SEQADJ_RULES(orig, ORIG)};
static const struct table seqadj_orig_table = TABLE(seqadj_orig_rules);
static const struct rule seqadj_reply_rules[] = {SEQADJ_RULES(reply, REPLY)};
static const struct table seqadj_reply_table = TABLE(seqadj_reply_rules);

static const struct rule secctx_rules[] = {
    [CTA_SECCTX_NAME] = IN_FLOW(SPAN, secctx, NLCT_FLOW_SECCTX),
};
static const struct table secctx_table = TABLE(secctx_rules);

static const struct rule synproxy_rules[] = {
    [SYNPROXY_ISN] = IN_FLOW(NUMBER, synproxy_isn, NLCT_FLOW_SYNPROXY_ISN),
    [SYNPROXY_ITS] = IN_FLOW(NUMBER, synproxy_its, NLCT_FLOW_SYNPROXY_ITS),
    [SYNPROXY_TSOFF] = IN_FLOW(NUMBER, synproxy_tsoff, NLCT_FLOW_SYNPROXY_TSOFF),
};
static const struct table synproxy_table = TABLE(synproxy_rules);

#define TUPLE_RULE(member, bit_)                                                                   \
    {                                                                                              \
        TUPLE, .offset = offsetof(struct nlct_flow, member), .bit = bit_, .nest = &tuple_table     \
    }

static const struct rule flow_rules[] = {
    [CTA_TUPLE_ORIG] = TUPLE_RULE(orig, NLCT_FLOW_ORIG),
    [CTA_TUPLE_REPLY] = TUPLE_RULE(reply, NLCT_FLOW_REPLY),
    [CTA_STATUS] = IN_FLOW(NUMBER, status, NLCT_FLOW_STATUS),
    [CTA_PROTOINFO] = NESTED(protoinfo_table),
    [CTA_HELP] = NESTED(help_table),
    [CTA_NAT_SRC] = {.kind = NAT, .nest = &nat_table},
    [CTA_TIMEOUT] = IN_FLOW(NUMBER, timeout, NLCT_FLOW_TIMEOUT),
    [CTA_MARK] = IN_FLOW(NUMBER, mark, NLCT_FLOW_MARK),
    [CTA_COUNTERS_ORIG] = NESTED(counters_orig_table),
    [CTA_COUNTERS_REPLY] = NESTED(counters_reply_table),
    [CTA_USE] = IN_FLOW(NUMBER, use, NLCT_FLOW_USE),
    [CTA_ID] = IN_FLOW(NUMBER, id, NLCT_FLOW_ID),
    [CTA_NAT_DST] = {.kind = NAT, .nest = &nat_table},
    [CTA_TUPLE_MASTER] = TUPLE_RULE(master, NLCT_FLOW_MASTER),
    [CTA_SEQ_ADJ_ORIG] = NESTED(seqadj_orig_table),
    [CTA_SEQ_ADJ_REPLY] = NESTED(seqadj_reply_table),
    [CTA_ZONE] = IN_FLOW(NUMBER, zone, NLCT_FLOW_ZONE),
    [CTA_SECCTX] = NESTED(secctx_table),
    [CTA_TIMESTAMP] = NESTED(timestamp_table),
    [CTA_LABELS] = IN_FLOW(BYTES, labels, NLCT_FLOW_LABELS),
    [SYNPROXY] = NESTED(synproxy_table),
    [TIMESTAMP_EVENT] = IN_FLOW(NUMBER, timestamp_event, NLCT_FLOW_TIMESTAMP_EVENT),
};
const struct table flow_table = TABLE(flow_rules);

/* decode() keeps a bit a type. */
#define FITS(rules_)                                                                               \
    _Static_assert(sizeof(rules_) / sizeof((rules_)[0]) <= VIEW_ATTRS, "a bit a type")
FITS(proto_rules);
FITS(flow_rules);
