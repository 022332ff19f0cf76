/* Many requests in one send, and every refusal counted. */
#include "netlink.h"

/* A refusal takes 750 to 900 bytes of the receive buffer, whatever its length. */
enum { REFUSAL_ROOM = 1024 };

void batch_init(struct batch *batch, struct nlct_socket *sock, batch_admits *admits,
                batch_settle *settle, void *context)
{
    size_t limit = sock->room / REFUSAL_ROOM;

    *batch = (struct batch){.sock = sock, .admits = admits, .settle = settle, .context = context};
    if (limit > BATCH_REQUESTS)
        limit = BATCH_REQUESTS;
    batch->limit = limit ? (unsigned)limit : 1;
}

void *batch_room(struct batch *batch)
{
    return batch->bytes + batch->size;
}

int batch_add(struct batch *batch, int size, uint32_t owner)
{
    void *request = batch_room(batch);

    if (size >= 0 && batch->admits && !batch->admits(request, (size_t)size))
        size = -EBADMSG;
    if (size < 0) {
        batch->settle(batch->context, owner, size);
        return 0;
    }
    batch->requests[batch->count++] =
        (struct batch_request){.owner = owner, .at = (uint16_t)batch->size};
    batch->size += wire_align((size_t)size);
    if (batch->count == batch->limit || batch->size + REQUEST_MAX > sizeof(batch->bytes))
        return batch_send(batch);
    return 0;
}

/* What the answers to one batch said. */
struct answers {
    uint32_t first;
    unsigned count;
    bool last;   /* the last request was answered: with it, all were */
    bool lost;   /* the kernel had no room for some answers */
    bool denied; /* no privilege: the kernel stopped at the first request */
};

/* The first answer to a request counts. */
static void settle(struct batch *batch, uint32_t number, int result)
{
    struct batch_request *request = &batch->requests[number];

    if (!request->settled)
        batch->settle(batch->context, request->owner, result);
    request->settled = true;
}

static int read_answers(struct batch *batch, size_t size, struct answers *answers)
{
    struct wire wire = {batch->sock->buffer, size};
    struct nlmsghdr header;
    struct wire payload;
    int rc;

    while ((rc = wire_message(&wire, &header, &payload)) > 0) {
        if (header.nlmsg_type != NLMSG_ERROR ||
            !socket_answers(batch->sock, &header, answers->first))
            continue;
        rc = socket_verdict(batch->sock, &header, payload);
        if (rc == -EPERM)
            answers->denied = true;
        if (rc < 0)
            settle(batch, header.nlmsg_seq - answers->first, rc);
        if (header.nlmsg_seq == batch->sock->sequence)
            answers->last = true;
    }
    return rc;
}

/* When send(2) returns, the kernel has worked on the whole batch, and every answer is queued: there
   is nothing to wait for. It reports lost answers only once. */
static int collect(struct batch *batch, struct answers *answers)
{
    int rc = 0;

    while (!answers->last) {
        rc = socket_receive(batch->sock);
        if (rc == -ENOBUFS && !answers->lost) {
            answers->lost = true;
            continue;
        }
        if (rc < 0)
            return rc == -EAGAIN ? 0 : rc;
        rc = read_answers(batch, (size_t)rc, answers);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Numbers the requests, only now: others may have used the socket since the first was added. The
   last one is to be acknowledged. */
static void stamp(struct batch *batch)
{
    unsigned i;

    for (i = 0; i < batch->count; i++)
        message_stamp(batch->bytes + batch->requests[i].at, i + 1 < batch->count ? 0 : NLM_F_ACK,
                      ++batch->sock->sequence);
}

int batch_send(struct batch *batch)
{
    struct answers answers = {.first = batch->sock->sequence + 1, .count = batch->count};
    size_t size = batch->size;
    unsigned i;
    int rc;

    if (!batch->count)
        return 0;
    stamp(batch);
    batch->count = 0;
    batch->size = 0;
    rc = socket_send(batch->sock, batch->bytes, size);
    if (rc == 0)
        rc = collect(batch, &answers);
    if (answers.denied)
        return -EPERM;
    for (i = 0; i < answers.count; i++)
        settle(batch, i, rc == 0 && answers.last && !answers.lost ? 0 : -ENOBUFS);
    return rc;
}
