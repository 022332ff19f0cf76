/*
 * Deleting: a sink that names each flow to the kernel, and the kernel's own flushes.
 *
 * To the kernel a delete that names no flow is a flush of everything, and so is nearly every
 * malformed one; it returns success. So each request that shall do less is read back, byte by byte,
 * before it leaves.
 */
#include "ctnetlink.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <stdlib.h>

static const uint16_t delete_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE;

struct deleter {
    struct nlct_sink sink;
    struct deletes deletes;
};

/* Reads a request back. True if all of 'size' bytes are one plain DELETE; then 'view' shows it. */
static bool is_delete(const void *request, size_t size, struct view *view)
{
    struct wire wire = {request, size};
    struct nlmsghdr header;
    struct wire payload;

    return wire_message(&wire, &header, &payload) == 1 && wire.left == 0 &&
           header.nlmsg_type == delete_type && header.nlmsg_flags == NLM_F_REQUEST &&
           view_parse(view, payload) == 0;
}

static bool has_one(struct wire wire, uint16_t type)
{
    struct attr attr;
    int found = 0;
    int rc;

    while ((rc = wire_attr(&wire, &attr)) > 0)
        if (attr.type == type && attr.size)
            found++;
    return found == 1 && rc == 0;
}

/* True if the request can hit one flow and nothing else: it names one tuple and an id, perhaps a
   zone, and nothing that would turn it into a filter. */
static bool names_one_flow(const void *request, size_t size)
{
    const uint32_t by_orig = 1U << CTA_TUPLE_ORIG | 1U << CTA_ID;
    const uint32_t by_reply = 1U << CTA_TUPLE_REPLY | 1U << CTA_ID;
    const struct attr *tuple;
    uint32_t named;
    struct view view;

    if (!is_delete(request, size, &view) || view.unknown)
        return false;
    named = view.present & ~(1U << CTA_ZONE);
    if (named != by_orig && named != by_reply)
        return false;
    if (view.family != AF_INET && view.family != AF_INET6)
        return false;
    if (view_attr(&view, CTA_ID)->size != 4)
        return false;
    if (view_attr(&view, CTA_ZONE) && view_attr(&view, CTA_ZONE)->size != 2)
        return false;
    tuple = view_attr(&view, named == by_orig ? CTA_TUPLE_ORIG : CTA_TUPLE_REPLY);
    return has_one(wire_nest(tuple), CTA_TUPLE_IP) && has_one(wire_nest(tuple), CTA_TUPLE_PROTO);
}

/* Echoes what names this flow just as the kernel sent it; the id guards against another flow
   that took over the tuple since. */
static int build_delete(const struct view *view, uint16_t type, void *room, size_t capacity)
{
    const struct attr *tuple = view_attr(view, type);
    const struct attr *zone = view_attr(view, CTA_ZONE);
    const struct attr *id = view_attr(view, CTA_ID);
    struct message message;

    if (!tuple || !id)
        return -EBADMSG;
    message_begin(&message, room, capacity, delete_type, NLM_F_REQUEST, view->family);
    message_copy(&message, tuple);
    if (zone)
        message_copy(&message, zone);
    message_copy(&message, id);
    return message_end(&message);
}

static void settle_first(void *context, uint32_t place, int result)
{
    struct deletes *deletes = context;
    struct spare *spare = &deletes->spares[place];

    spare->wanted = result == -ENOENT && spare->size > 0;
    if (!spare->wanted)
        deletes->settle(deletes->context, spare->owner, result);
}

void deletes_init(struct deletes *deletes, struct nlct_socket *sock,
                  void (*settle)(void *context, uint32_t owner, int result), void *context)
{
    deletes->settle = settle;
    deletes->context = context;
    batch_init(&deletes->batch, sock, names_one_flow, settle_first, deletes);
    batch_init(&deletes->second, sock, names_one_flow, settle, context);
}

/* Tries those again that the first batch of 'count' did not find. */
static int send_second(struct deletes *deletes, unsigned count)
{
    unsigned i;
    int rc = 0;

    for (i = 0; i < count && rc == 0; i++) {
        struct spare *spare = &deletes->spares[i];

        if (!spare->wanted)
            continue;
        spare->wanted = false;
        memcpy(batch_room(&deletes->second), spare->bytes, (size_t)spare->size);
        rc = batch_add(&deletes->second, spare->size, spare->owner);
    }
    return rc ? rc : batch_send(&deletes->second);
}

int deletes_add(struct deletes *deletes, const struct view *view, uint32_t owner)
{
    struct batch *batch = &deletes->batch;
    const unsigned place = batch->count;
    struct spare *spare = &deletes->spares[place];
    int rc;

    spare->owner = owner;
    spare->wanted = false;
    spare->size = build_delete(view, CTA_TUPLE_REPLY, spare->bytes, sizeof(spare->bytes));
    rc =
        batch_add(batch, build_delete(view, CTA_TUPLE_ORIG, batch_room(batch), REQUEST_MAX), place);
    if (rc == 0 && batch->count == 0)
        rc = send_second(deletes, place + 1);
    return rc;
}

int deletes_send(struct deletes *deletes)
{
    const unsigned count = deletes->batch.count;
    const int rc = batch_send(&deletes->batch);

    return rc ? rc : send_second(deletes, count);
}

static int take(struct nlct_sink *sink, struct view *view)
{
    return deletes_add(&((struct deleter *)sink)->deletes, view, 0);
}

static int finish(struct nlct_sink *sink)
{
    return deletes_send(&((struct deleter *)sink)->deletes);
}

int nlct_deleter_new(struct nlct_sink **sink, struct nlct_socket *sock, struct nlct_tally *tally)
{
    struct deleter *new = calloc(1, sizeof(*new));

    if (!new)
        return -ENOMEM;
    new->sink = (struct nlct_sink){.take = take, .finish = finish};
    deletes_init(&new->deletes, sock, batch_tally, tally);
    *sink = &new->sink;
    return 0;
}

static int delete_by(struct nlct_socket *sock, const struct nlct_flow *flow, uint16_t type)
{
    uint8_t room[REQUEST_MAX];
    struct message request;
    int rc;

    message_begin(&request, room, sizeof(room), delete_type, NLM_F_REQUEST, flow->family);
    flow_put_key(&request, flow, type);
    message_put_be32(&request, CTA_ID, flow->id);
    rc = message_end(&request);
    if (rc < 0)
        return rc;
    if (!names_one_flow(room, (size_t)rc))
        return -EINVAL;
    return socket_transact(sock, &request, 0, NULL, NULL);
}

int nlct_delete(struct nlct_socket *sock, const struct nlct_flow *flow)
{
    int rc;

    if (!has(flow->present, NLCT_FLOW_ID))
        return -EINVAL;
    rc = delete_by(sock, flow, CTA_TUPLE_ORIG);
    if (rc == -ENOENT && has(flow->present, NLCT_FLOW_REPLY))
        rc = delete_by(sock, flow, CTA_TUPLE_REPLY);
    return rc;
}

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
    if (!is_delete(room, (size_t)rc, &view) || !kernel_filter_is_zone(&view, zone, how))
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
