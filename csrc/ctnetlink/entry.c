/* One flow: get, create and update it. */
#include "ctnetlink.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

struct finding {
    struct nlct_flow *flow;
    struct nlct_bytes *bytes;
};

static int take_flow(void *context, struct wire payload)
{
    const struct finding *finding = context;

    return flow_read(payload, finding->flow, finding->bytes);
}

int nlct_get(struct nlct_socket *sock, const struct nlct_flow *key, struct nlct_flow *found,
             struct nlct_bytes *bytes)
{
    struct finding finding = {found, bytes};
    uint8_t room[REQUEST_MAX];
    struct message request;

    message_begin(&request, room, sizeof(room),
                  message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET), NLM_F_REQUEST,
                  key->family);
    flow_put_key(&request, key, CTA_TUPLE_ORIG);
    return request_run(sock, room, message_end(&request),
                       message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW), take_flow, &finding);
}

int nlct_create(struct nlct_socket *sock, const struct nlct_flow *flow, const uint8_t *bytes)
{
    uint8_t room[REQUEST_MAX];

    if (has(flow->present, NLCT_FLOW_HELPER_INFO))
        return -EOPNOTSUPP;
    return request_run(sock, room, flow_create_request(flow, bytes, room, sizeof(room)), 0, NULL,
                       NULL);
}

int nlct_update(struct nlct_socket *sock, const struct nlct_flow *flow, const uint8_t *bytes)
{
    uint8_t room[REQUEST_MAX];
    struct message request;

    if (has(flow->present, NLCT_FLOW_HELPER) && !*flow->helper)
        return -EINVAL;
    if (!flow_is_in_range(flow))
        return -ERANGE;
    message_begin(&request, room, sizeof(room),
                  message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW), NLM_F_REQUEST,
                  flow->family);
    flow_put_update(&request, flow, bytes);
    return request_run(sock, room, message_end(&request), 0, NULL, NULL);
}
