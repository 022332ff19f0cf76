/*
 * Expectations: dump, get, create and delete them.
 *
 * As of flows, a delete that names none is to the kernel a flush of everything, and returns
 * success: without a tuple it takes all there are in every zone, or all of a helper. So a delete is
 * read back, byte by byte, before it is sent: it must name one expectation by its tuple, its zone
 * and its id.
 */
#include "ctnetlink.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <sys/socket.h>

static uint16_t type_of(uint8_t operation)
{
    return message_type(NFNL_SUBSYS_CTNETLINK_EXP, operation);
}

static void begin(struct message *message, uint8_t *room, uint8_t operation, uint16_t flags,
                  uint8_t family)
{
    message_begin(message, room, REQUEST_MAX, type_of(operation), NLM_F_REQUEST | flags, family);
}

/* What finds an expectation. Kernels without zones refuse the attribute; without it every kernel
   takes zone 0. */
static uint64_t key_of(const struct nlct_expect *expect)
{
    return bit(NLCT_EXPECT_TUPLE) | (expect->zone ? bit(NLCT_EXPECT_ZONE) : 0);
}

/* Dump ---------------------------------------------------------------------------------------- */

static int take_one_more(void *context, struct wire payload)
{
    struct nlct_bytes *bytes = context;
    struct nlct_expect expect;
    int rc;

    if (bytes->size / sizeof(expect) >= NLCT_EXPECT_MOST)
        return -EFBIG;
    rc = expect_read(payload, &expect);
    return rc < 0 ? rc : bytes_add(bytes, &expect, sizeof(expect));
}

int nlct_expect_dump(struct nlct_socket *sock, struct nlct_bytes *bytes)
{
    uint8_t room[REQUEST_MAX];
    struct message request;

    begin(&request, room, IPCTNL_MSG_EXP_GET, NLM_F_DUMP, AF_UNSPEC);
    return request_run(sock, room, message_end(&request), type_of(IPCTNL_MSG_EXP_NEW),
                       take_one_more, bytes);
}

/* One ----------------------------------------------------------------------------------------- */

static int take_one(void *context, struct wire payload)
{
    return expect_read(payload, context);
}

int nlct_expect_get(struct nlct_socket *sock, const struct nlct_expect *key,
                    struct nlct_expect *found)
{
    uint8_t room[REQUEST_MAX];
    struct message request;

    begin(&request, room, IPCTNL_MSG_EXP_GET, 0, key->family);
    expect_put(&request, key, key_of(key));
    return request_run(sock, room, message_end(&request), type_of(IPCTNL_MSG_EXP_NEW), take_one,
                       found);
}

int nlct_expect_create(struct nlct_socket *sock, const struct nlct_expect *expect)
{
    const uint64_t given = bit(NLCT_EXPECT_ID) | bit(NLCT_EXPECT_ZONE);
    uint8_t room[REQUEST_MAX];
    struct message request;

    if (master_crashes(expect->tuple.proto))
        return -EOPNOTSUPP;
    if (has(expect->present, NLCT_EXPECT_NAT_DIRECTION) && expect->nat_direction > 1)
        return -EINVAL;
    if (has(expect->present, NLCT_EXPECT_FUNCTION) && !has(expect->present, NLCT_EXPECT_NAT))
        return -EINVAL;
    begin(&request, room, IPCTNL_MSG_EXP_NEW, NLM_F_CREATE | NLM_F_EXCL, expect->family);
    expect_put(&request, expect, ~given | key_of(expect));
    return request_run(sock, room, message_end(&request), 0, NULL, NULL);
}

/* Delete -------------------------------------------------------------------------------------- */

static bool is_whole(const struct nlct_tuple *tuple)
{
    const uint64_t ports = bit(NLCT_TUPLE_SPORT) | bit(NLCT_TUPLE_DPORT);
    uint64_t wanted = bit(NLCT_TUPLE_SRC) | bit(NLCT_TUPLE_DST) | bit(NLCT_TUPLE_PROTO);

    if (tuple_has_ports(tuple->proto))
        wanted |= ports;
    return (tuple->present & wanted) == wanted;
}

/* True if the request is exactly one delete of 'meant' and can hit nothing else. */
static bool names_only(const void *request, size_t size, const struct nlct_expect *meant)
{
    struct wire wire = {request, size};
    struct nlct_expect named;
    struct nlmsghdr header;
    struct wire payload;
    struct view view;

    if (wire_message(&wire, &header, &payload) != 1 || wire.left)
        return false;
    if (header.nlmsg_type != type_of(IPCTNL_MSG_EXP_DELETE) || header.nlmsg_flags != NLM_F_REQUEST)
        return false;
    if (view_parse(&view, payload) < 0 || view.unknown || expect_read(payload, &named) < 0)
        return false;
    /* No other attribute: a helper's name would be a filter. */
    if (named.present != (key_of(meant) | bit(NLCT_EXPECT_ID)))
        return false;
    return named.family == meant->family && named.zone == meant->zone && named.id == meant->id &&
           is_whole(&named.tuple) && memcmp(&named.tuple, &meant->tuple, sizeof(named.tuple)) == 0;
}

int nlct_expect_delete(struct nlct_socket *sock, const struct nlct_expect *expect)
{
    const uint64_t wanted = bit(NLCT_EXPECT_TUPLE) | bit(NLCT_EXPECT_ID);
    uint8_t room[REQUEST_MAX];
    struct message request;
    int rc;

    if ((expect->present & wanted) != wanted || !is_whole(&expect->tuple))
        return -EINVAL;
    if (expect->family != AF_INET && expect->family != AF_INET6)
        return -EINVAL;
    begin(&request, room, IPCTNL_MSG_EXP_DELETE, 0, expect->family);
    expect_put(&request, expect, key_of(expect) | bit(NLCT_EXPECT_ID));
    rc = message_end(&request);
    if (rc < 0)
        return rc;
    if (!names_only(room, (size_t)rc, expect))
        return -EBADMSG;
    return request_run(sock, room, rc, 0, NULL, NULL);
}

int nlct_expect_flush_all(struct nlct_socket *sock)
{
    uint8_t room[REQUEST_MAX];
    struct message request;

    begin(&request, room, IPCTNL_MSG_EXP_DELETE, 0, AF_UNSPEC);
    return request_run(sock, room, message_end(&request), 0, NULL, NULL);
}
