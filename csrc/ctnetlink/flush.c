/* The kernel's own flushes, of a zone or of everything. */
#include "ctnetlink.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <sys/socket.h>

static const uint16_t delete_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE;

int nlct_flush_zone(struct nlct_socket *sock, uint16_t zone, enum nlct_zone_request how)
{
    uint8_t room[REQUEST_MAX];
    struct message request;
    struct view view;
    int rc;

    if (how != NLCT_ZONE_PLAIN && how != NLCT_ZONE_EXPLICIT)
        return -EINVAL;
    message_begin(&request, room, sizeof(room), delete_type, NLM_F_REQUEST, AF_UNSPEC);
    kernel_filter_put_zone(&request, zone, how);
    rc = message_end(&request);
    if (rc < 0)
        return rc;
    if (!delete_read(room, (size_t)rc, &view) || !kernel_filter_is_zone(&view, zone, how))
        return -EBADMSG;
    return socket_transact(sock, &request, 0, NULL, NULL);
}

int nlct_flush_all(struct nlct_socket *sock)
{
    uint8_t room[REQUEST_MAX];
    struct message request;

    message_begin(&request, room, sizeof(room), delete_type, NLM_F_REQUEST, AF_UNSPEC);
    return socket_transact(sock, &request, 0, NULL, NULL);
}
