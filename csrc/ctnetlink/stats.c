/* The counters of a namespace, and of each processor. */
#include "ctnetlink.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <sys/socket.h>

struct counters {
    uint32_t *entries;
    uint32_t *limit;
};

static int take_counters(void *context, struct wire payload)
{
    const unsigned wanted = 1U << CTA_STATS_GLOBAL_ENTRIES | 1U << CTA_STATS_GLOBAL_MAX_ENTRIES;
    struct counters *counters = context;
    struct view view;
    int rc = view_parse(&view, payload);

    if (rc < 0)
        return rc;
    if ((view.present & wanted) != wanted ||
        view.attrs[CTA_STATS_GLOBAL_ENTRIES].size != sizeof(uint32_t) ||
        view.attrs[CTA_STATS_GLOBAL_MAX_ENTRIES].size != sizeof(uint32_t))
        return -EBADMSG;
    *counters->entries = wire_be32(view.attrs[CTA_STATS_GLOBAL_ENTRIES].data);
    *counters->limit = wire_be32(view.attrs[CTA_STATS_GLOBAL_MAX_ENTRIES].data);
    return 0;
}

int nlct_stats(struct nlct_socket *sock, uint32_t *entries, uint32_t *limit)
{
    const uint16_t type = message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET_STATS);
    struct counters counters = {entries, limit};
    uint8_t room[REQUEST_MAX];
    struct message request;

    message_begin(&request, room, sizeof(room), type, NLM_F_REQUEST, AF_UNSPEC);
    return request_run(sock, room, message_end(&request), type, take_counters, &counters);
}

/* Of one processor, whose number is in the header. */
static int take_cpu(void *context, struct wire payload)
{
    struct nlct_counter counter = {0};
    struct nfgenmsg header;
    struct attr attr;
    int rc;

    if (payload.left < sizeof(header))
        return -EBADMSG;
    memcpy(&header, payload.at, sizeof(header));
    counter.cpu = ntohs(header.res_id);
    wire_skip(&payload, sizeof(header));
    while ((rc = wire_attr(&payload, &attr)) > 0) {
        counter.attribute = attr.type;
        if (attr.size == 4)
            counter.value = wire_be32(attr.data);
        else if (attr.size == 8)
            counter.value = (uint64_t)wire_be32(attr.data) << 32 | wire_be32(attr.data + 4);
        else
            continue;
        rc = bytes_add(context, &counter, sizeof(counter));
        if (rc < 0)
            return rc;
    }
    return rc;
}

static int ask_cpus(struct nlct_socket *sock, uint16_t type, uint16_t answer,
                    struct nlct_bytes *bytes)
{
    uint8_t room[REQUEST_MAX];
    struct message request;

    message_begin(&request, room, sizeof(room), type, NLM_F_REQUEST | NLM_F_DUMP, AF_UNSPEC);
    return request_run(sock, room, message_end(&request), answer, take_cpu, bytes);
}

int nlct_stats_cpu(struct nlct_socket *sock, bool expectations, struct nlct_bytes *bytes)
{
    const uint16_t flows = message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET_STATS_CPU);
    const uint16_t ours = message_type(NFNL_SUBSYS_CTNETLINK_EXP, IPCTNL_MSG_EXP_GET_STATS_CPU);
    /* Kernels so far answer in the name of the wrong subsystem. */
    const uint16_t theirs = message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_EXP_GET_STATS_CPU);
    const size_t before = bytes->size;
    int rc;

    if (!expectations)
        return ask_cpus(sock, flows, flows, bytes);
    rc = ask_cpus(sock, ours, theirs, bytes);
    return rc == 0 && bytes->size == before ? ask_cpus(sock, ours, ours, bytes) : rc;
}
