/* The kernel's own flush, of a zone or of everything. */
#include "ctnetlink.h"

#include <sys/socket.h>

int nlct_flush_zone(struct nlct_socket *sock, uint16_t zone, enum nlct_zone_request how)
{
    uint8_t room[REQUEST_MAX];
    struct message request;
    struct view view;
    int rc;

    if (how != NLCT_ZONE_PLAIN && how != NLCT_ZONE_EXPLICIT)
        return -EINVAL;
    delete_begin(&request, room, sizeof(room), AF_UNSPEC);
    kernel_filter_put_zone(&request, zone, how);
    rc = message_end(&request);
    if (rc < 0)
        return rc;
    if (!delete_read(room, (size_t)rc, &view) || !kernel_filter_is_zone(&view, zone, how))
        return -EBADMSG;
    return request_run(sock, room, rc, 0, NULL, NULL);
}

int nlct_flush_all(struct nlct_socket *sock)
{
    uint8_t room[REQUEST_MAX];
    struct message request;

    delete_begin(&request, room, sizeof(room), AF_UNSPEC);
    return request_run(sock, room, message_end(&request), 0, NULL, NULL);
}
