/* Many requests in one send, and every refusal counted. */
#include "core.h"

/* A refusal takes 750 to 900 bytes of the receive buffer, whatever its length. */
enum { REFUSAL_ROOM = 1024 };

void batch_init(struct batch *batch, struct nlct_socket *sock, struct nlct_tally *tally,
                bool (*admits)(const void *request, size_t size))
{
    size_t limit = sock->room / REFUSAL_ROOM;

    *batch = (struct batch){.sock = sock, .tally = tally, .admits = admits};
    if (limit > BATCH_REQUESTS)
        limit = BATCH_REQUESTS;
    batch->limit = limit ? (unsigned)limit : 1;
}

void *batch_room(struct batch *batch)
{
    return batch->bytes + batch->size;
}

static void refuse(struct nlct_tally *tally, int error, uint64_t count)
{
    tally->refused[-error] += count;
}

int batch_add(struct batch *batch, int size)
{
    void *request = batch_room(batch);

    if (size >= 0 && !batch->admits(request, (size_t)size))
        size = -EBADMSG;
    if (size < 0) {
        refuse(batch->tally, size, 1);
        return 0;
    }
    message_stamp(request, 0, ++batch->sock->sequence);
    batch->latest = batch->size;
    batch->size += wire_align((size_t)size);
    batch->count++;
    if (batch->count == batch->limit || batch->size + REQUEST_MAX > sizeof(batch->bytes))
        return batch_send(batch);
    return 0;
}

/* What the answers to one batch said. */
struct answers {
    uint32_t first;
    unsigned count;
    unsigned refused;
    bool last;   /* the last request was answered: with it, all were */
    bool lost;   /* the kernel had no room for some answers */
    bool denied; /* no privilege: the kernel stops at the first request */
};

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
        if (rc < 0 && answers->refused < answers->count) {
            refuse(batch->tally, rc, 1);
            answers->refused++;
        }
        if (header.nlmsg_seq == batch->sock->sequence)
            answers->last = true;
    }
    return rc;
}

/* By the time send(2) returns the kernel has worked on the whole batch, so every answer is queued:
   there is nothing to wait for. */
static int collect(struct batch *batch, struct answers *answers)
{
    int rc = 0;

    while (!answers->last) {
        rc = socket_receive(batch->sock);
        if (rc == -ENOBUFS) {
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

int batch_send(struct batch *batch)
{
    struct answers answers = {
        .first = batch->sock->sequence - batch->count + 1,
        .count = batch->count,
    };
    size_t size = batch->size;
    int rc;

    if (!batch->count)
        return 0;
    batch->count = 0;
    batch->size = 0;
    message_stamp(batch->bytes + batch->latest, NLM_F_ACK, batch->sock->sequence);
    rc = socket_send(batch->sock, batch->bytes, size);
    if (rc == 0)
        rc = collect(batch, &answers);
    if (answers.denied)
        return -EPERM;
    if (rc == 0 && answers.last && !answers.lost)
        batch->tally->done += answers.count - answers.refused;
    else
        refuse(batch->tally, -ENOBUFS, answers.count - answers.refused);
    return rc;
}
