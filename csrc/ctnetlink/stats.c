/* The counters of a namespace. */
#include "ctnetlink.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
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
