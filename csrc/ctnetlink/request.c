/* Single requests: get, create and change one flow, read the counters. */
#include "ctnetlink.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <sys/socket.h>

static const uint16_t flow_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW;
static const uint16_t stats_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET_STATS;

struct finding {
    struct nlct_flow *flow;
    struct nlct_bytes *bytes;
};

static int take_flow(void *context, struct wire payload)
{
    struct finding *finding = context;
    struct view view;
    int rc = view_parse(&view, payload);

    if (rc == 0)
        rc = flow_decode(&view, finding->bytes);
    if (rc == 0)
        *finding->flow = view.flow;
    return rc;
}

int nlct_get(struct nlct_socket *sock, const struct nlct_flow *key, struct nlct_flow *found,
             struct nlct_bytes *bytes)
{
    struct finding finding = {found, bytes};
    uint8_t room[REQUEST_MAX];
    struct message request;

    message_begin(&request, room, sizeof(room), NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET,
                  NLM_F_REQUEST, key->family);
    flow_put_key(&request, key, CTA_TUPLE_ORIG);
    return socket_transact(sock, &request, flow_type, take_flow, &finding);
}

int nlct_create(struct nlct_socket *sock, const struct nlct_flow *flow, const uint8_t *bytes)
{
    uint8_t room[REQUEST_MAX];
    struct message request = {.buffer = room, .capacity = sizeof(room)};
    int size;

    if (!flow_fits(flow))
        return -EINVAL;
    size = nlct_flow_build(flow, bytes, room, sizeof(room));
    if (size < 0)
        return size;
    request.size = (size_t)size;
    return socket_transact(sock, &request, 0, NULL, NULL);
}

int nlct_update(struct nlct_socket *sock, const struct nlct_flow *flow, const uint8_t *bytes)
{
    uint8_t room[REQUEST_MAX];
    struct message request;

    message_begin(&request, room, sizeof(room), flow_type, NLM_F_REQUEST, flow->family);
    flow_put_update(&request, flow, bytes);
    return socket_transact(sock, &request, 0, NULL, NULL);
}

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
    struct counters counters = {entries, limit};
    uint8_t room[REQUEST_MAX];
    struct message request;

    message_begin(&request, room, sizeof(room), stats_type, NLM_F_REQUEST, AF_UNSPEC);
    return socket_transact(sock, &request, stats_type, take_counters, &counters);
}
