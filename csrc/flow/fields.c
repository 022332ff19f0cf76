/* The fields of a flow: their names, where they lie, and what says that they are there. */
#include "attributes.h"

#include <linux/netfilter/nfnetlink_conntrack.h>

#define OF_FLOW(member_, kind_, bit_, attr_)                                                       \
    {                                                                                              \
        {#member_, sizeof(((struct nlct_flow *)0)->member_), kind_,                                \
         offsetof(struct nlct_flow, member_)},                                                     \
            0, bit_, bit_, attr_                                                                   \
    }
#define NUMBER_OF_FLOW(member_, bit_, attr_) OF_FLOW(member_, NLCT_NUMBER, bit_, attr_)
#define OF_TUPLE(name_, tuple_, member_, kind_, bit_, part_, attr_)                                \
    {                                                                                              \
        {name_, sizeof(((struct nlct_tuple *)0)->member_), kind_,                                  \
         offsetof(struct nlct_flow, tuple_) + offsetof(struct nlct_tuple, member_)},               \
            offsetof(struct nlct_flow, tuple_), bit_, part_, attr_                                 \
    }
#define OF_EACH_TUPLE(prefix, tuple_, part, attr)                                                  \
    OF_TUPLE(prefix "src", tuple_, src, NLCT_ADDRESS, NLCT_TUPLE_SRC, part, attr),                 \
        OF_TUPLE(prefix "dst", tuple_, dst, NLCT_ADDRESS, NLCT_TUPLE_DST, part, attr),             \
        OF_TUPLE(prefix "proto", tuple_, proto, NLCT_NUMBER, NLCT_TUPLE_PROTO, part, attr),        \
        OF_TUPLE(prefix "sport", tuple_, sport, NLCT_NUMBER, NLCT_TUPLE_SPORT, part, attr),        \
        OF_TUPLE(prefix "dport", tuple_, dport, NLCT_NUMBER, NLCT_TUPLE_DPORT, part, attr),        \
        OF_TUPLE(prefix "icmp_id", tuple_, icmp_id, NLCT_NUMBER, NLCT_TUPLE_ICMP_ID, part, attr),  \
        OF_TUPLE(prefix "icmp_type", tuple_, icmp_type, NLCT_NUMBER, NLCT_TUPLE_ICMP_TYPE, part,   \
                 attr),                                                                            \
        OF_TUPLE(prefix "icmp_code", tuple_, icmp_code, NLCT_NUMBER, NLCT_TUPLE_ICMP_CODE, part,   \
                 attr)

static const struct field fields[] = {
    NUMBER_OF_FLOW(family, NLCT_FLOW_ORIG, 0),
    NUMBER_OF_FLOW(zone, NLCT_FLOW_ZONE, CTA_ZONE),
    OF_EACH_TUPLE("", orig, NLCT_FLOW_ORIG, CTA_TUPLE_ORIG),
    OF_EACH_TUPLE("reply_", reply, NLCT_FLOW_REPLY, CTA_TUPLE_REPLY),
    NUMBER_OF_FLOW(status, NLCT_FLOW_STATUS, CTA_STATUS),
    NUMBER_OF_FLOW(timeout, NLCT_FLOW_TIMEOUT, CTA_TIMEOUT),
    NUMBER_OF_FLOW(mark, NLCT_FLOW_MARK, CTA_MARK),
    NUMBER_OF_FLOW(id, NLCT_FLOW_ID, CTA_ID),
    NUMBER_OF_FLOW(use, NLCT_FLOW_USE, CTA_USE),
    NUMBER_OF_FLOW(tcp_state, NLCT_FLOW_TCP_STATE, CTA_PROTOINFO),
    NUMBER_OF_FLOW(tcp_wscale_orig, NLCT_FLOW_TCP_WSCALE_ORIG, CTA_PROTOINFO),
    NUMBER_OF_FLOW(tcp_wscale_reply, NLCT_FLOW_TCP_WSCALE_REPLY, CTA_PROTOINFO),
    NUMBER_OF_FLOW(tcp_flags_orig, NLCT_FLOW_TCP_FLAGS_ORIG, CTA_PROTOINFO),
    NUMBER_OF_FLOW(tcp_flags_reply, NLCT_FLOW_TCP_FLAGS_REPLY, CTA_PROTOINFO),
    NUMBER_OF_FLOW(sctp_state, NLCT_FLOW_SCTP_STATE, CTA_PROTOINFO),
    NUMBER_OF_FLOW(sctp_vtag_orig, NLCT_FLOW_SCTP_VTAG_ORIG, CTA_PROTOINFO),
    NUMBER_OF_FLOW(sctp_vtag_reply, NLCT_FLOW_SCTP_VTAG_REPLY, CTA_PROTOINFO),
    NUMBER_OF_FLOW(dccp_state, NLCT_FLOW_DCCP_STATE, CTA_PROTOINFO),
    NUMBER_OF_FLOW(dccp_role, NLCT_FLOW_DCCP_ROLE, CTA_PROTOINFO),
    NUMBER_OF_FLOW(dccp_handshake_seq, NLCT_FLOW_DCCP_HANDSHAKE_SEQ, CTA_PROTOINFO),
    NUMBER_OF_FLOW(packets_orig, NLCT_FLOW_PACKETS_ORIG, CTA_COUNTERS_ORIG),
    NUMBER_OF_FLOW(bytes_orig, NLCT_FLOW_BYTES_ORIG, CTA_COUNTERS_ORIG),
    NUMBER_OF_FLOW(packets_reply, NLCT_FLOW_PACKETS_REPLY, CTA_COUNTERS_REPLY),
    NUMBER_OF_FLOW(bytes_reply, NLCT_FLOW_BYTES_REPLY, CTA_COUNTERS_REPLY),
    NUMBER_OF_FLOW(timestamp_start, NLCT_FLOW_TIMESTAMP_START, CTA_TIMESTAMP),
    NUMBER_OF_FLOW(timestamp_stop, NLCT_FLOW_TIMESTAMP_STOP, CTA_TIMESTAMP),
    NUMBER_OF_FLOW(timestamp_event, NLCT_FLOW_TIMESTAMP_EVENT, TIMESTAMP_EVENT),
    OF_FLOW(labels, NLCT_LABELS, NLCT_FLOW_LABELS, CTA_LABELS),
    OF_FLOW(helper, NLCT_TEXT, NLCT_FLOW_HELPER, CTA_HELP),
    OF_FLOW(helper_info, NLCT_SPAN, NLCT_FLOW_HELPER_INFO, CTA_HELP),
    NUMBER_OF_FLOW(seqadj_orig_pos, NLCT_FLOW_SEQADJ_ORIG_POS, CTA_SEQ_ADJ_ORIG),
    NUMBER_OF_FLOW(seqadj_orig_before, NLCT_FLOW_SEQADJ_ORIG_BEFORE, CTA_SEQ_ADJ_ORIG),
    NUMBER_OF_FLOW(seqadj_orig_after, NLCT_FLOW_SEQADJ_ORIG_AFTER, CTA_SEQ_ADJ_ORIG),
    NUMBER_OF_FLOW(seqadj_reply_pos, NLCT_FLOW_SEQADJ_REPLY_POS, CTA_SEQ_ADJ_REPLY),
    NUMBER_OF_FLOW(seqadj_reply_before, NLCT_FLOW_SEQADJ_REPLY_BEFORE, CTA_SEQ_ADJ_REPLY),
    NUMBER_OF_FLOW(seqadj_reply_after, NLCT_FLOW_SEQADJ_REPLY_AFTER, CTA_SEQ_ADJ_REPLY),
    OF_FLOW(secctx, NLCT_SPAN, NLCT_FLOW_SECCTX, CTA_SECCTX),
    NUMBER_OF_FLOW(synproxy_isn, NLCT_FLOW_SYNPROXY_ISN, SYNPROXY),
    NUMBER_OF_FLOW(synproxy_its, NLCT_FLOW_SYNPROXY_ITS, SYNPROXY),
    NUMBER_OF_FLOW(synproxy_tsoff, NLCT_FLOW_SYNPROXY_TSOFF, SYNPROXY),
    OF_FLOW(unknown, NLCT_SPAN, NLCT_FLOW_UNKNOWN, 0),
    OF_TUPLE("orig_zone", orig, zone, NLCT_NUMBER, NLCT_TUPLE_ZONE, NLCT_FLOW_ORIG, CTA_TUPLE_ORIG),
    OF_TUPLE("reply_zone", reply, zone, NLCT_NUMBER, NLCT_TUPLE_ZONE, NLCT_FLOW_REPLY,
             CTA_TUPLE_REPLY),
    OF_EACH_TUPLE("master_", master, NLCT_FLOW_MASTER, CTA_TUPLE_MASTER),
    OF_TUPLE("master_zone", master, zone, NLCT_NUMBER, NLCT_TUPLE_ZONE, NLCT_FLOW_MASTER,
             CTA_TUPLE_MASTER),
};

_Static_assert(sizeof(fields) / sizeof(fields[0]) <= FLOW_FIELDS_MAX, "room for every field");

unsigned flow_fields(void)
{
    return sizeof(fields) / sizeof(fields[0]);
}

const struct field *flow_field(unsigned number)
{
    return number < flow_fields() ? &fields[number] : NULL;
}

bool flow_has(const struct nlct_flow *flow, const struct field *field)
{
    uint64_t present;

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
