/*
 * Setting counters to zero, flow by flow: a batch of requests that look flows up, and one that
 * reads and zeroes those that are themselves. The kernel does not compare an id where it reads, so
 * the first batch does; what comes in between is told by the second.
 */
#include "ctnetlink.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

/* An answer takes no more of the receive buffer, however the kernel allocates it. */
enum { AT_ONCE = 64, REQUEST_ROOM = 256, ANSWER_ROOM = 4096 };

/* What is known of a flow: 'found' waits to be zeroed. */
enum state { UNKNOWN, FOUND, SETTLED };

struct entry {
    const struct nlct_flow *flow;
    uint16_t by; /* the tuple that names it */
    enum state state;
    int result; /* of the latest request: 0, -errno, or 1 if there was no answer */
};

struct batch_of_flows {
    struct nlct_socket *sock;
    struct nlct_sink *sink;
    struct nlct_zeroing *zeroing;
    struct entry entries[AT_ONCE];
    unsigned count;
    /* The requests under way. */
    bool zeroes;
    unsigned asked[AT_ONCE]; /* the entry of each */
    unsigned requests;
    uint32_t first; /* number */
};

/* Requests ------------------------------------------------------------------------------------ */

static int put_request(const struct entry *entry, bool zeroes, uint8_t *room, uint32_t sequence)
{
    const uint8_t operation = zeroes ? IPCTNL_MSG_CT_GET_CTRZERO : IPCTNL_MSG_CT_GET;
    struct message request;
    int size;

    message_begin(&request, room, REQUEST_ROOM, message_type(NFNL_SUBSYS_CTNETLINK, operation),
                  NLM_F_REQUEST, entry->flow->family);
    flow_put_key(&request, entry->flow, entry->by);
    size = message_end(&request);
    if (size > 0)
        message_stamp(room, 0, sequence);
    return size;
}

/* Is it the very flow? */
static bool is_flow(const struct view *view, const struct nlct_flow *flow)
{
    const struct attr *id = view_attr(view, CTA_ID);

    return id && id->size == 4 && has(flow->present, NLCT_FLOW_ID) &&
           wire_be32(id->data) == flow->id;
}

static int take_found(struct batch_of_flows *batch, struct entry *entry, struct wire payload)
{
    struct nlct_zeroing *zeroing = batch->zeroing;
    struct view view;
    int rc = view_parse(&view, payload);

    if (rc < 0)
        return rc;
    entry->result = is_flow(&view, entry->flow) ? 0 : -ENOENT;
    if (!batch->zeroes)
        return 0;
    entry->state = SETTLED;
    rc = batch->sink->take(batch->sink, &view);
    zeroing->zeroed += rc == 0;
    zeroing->replaced += rc == 0 && entry->result != 0;
    /* The sink failed, or was full. */
    zeroing->lost += rc != 0;
    return rc;
}

/* Takes the answers in a datagram. Returns how many, or -errno. */
static int take_datagram(struct batch_of_flows *batch, size_t size)
{
    struct wire wire = {batch->sock->buffer, size};
    struct nlmsghdr header;
    struct wire payload;
    int answers = 0;
    int rc;

    while ((rc = wire_message(&wire, &header, &payload)) > 0) {
        struct entry *entry;

        if (!socket_answers(batch->sock, &header, batch->first))
            continue;
        entry = &batch->entries[batch->asked[header.nlmsg_seq - batch->first]];
        if (header.nlmsg_type == NLMSG_ERROR) {
            rc = socket_verdict(batch->sock, &header, payload);
            /* Without the right to ask, the kernel stops at the first request. */
            if (rc == -EPERM || rc == -EBADMSG)
                return rc;
            entry->result = rc ? rc : -EBADMSG;
        } else if (header.nlmsg_type == message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW)) {
            rc = take_found(batch, entry, payload);
            if (rc < 0)
                return rc;
        } else {
            return -EBADMSG;
        }
        answers++;
    }
    return rc < 0 ? rc : answers;
}

/* When send(2) returns, the kernel has worked on all requests, and every answer is queued. */
static int collect(struct batch_of_flows *batch)
{
    unsigned answers = 0;
    bool lost = false;

    while (answers < batch->requests) {
        int rc = socket_receive(batch->sock);

        if (rc == -ENOBUFS && !lost) {
            lost = true;
            continue;
        }
        if (rc == -EAGAIN)
            return 0;
        if (rc >= 0)
            rc = take_datagram(batch, (size_t)rc);
        if (rc < 0)
            return rc;
        answers += (unsigned)rc;
    }
    return 0;
}

/* Sends a request for each flow in a state. Returns 0, or -errno if the socket or sink failed. */
static int ask(struct batch_of_flows *batch, enum state state)
{
    uint8_t room[AT_ONCE * REQUEST_ROOM];
    size_t size = 0;
    unsigned i;
    int rc;

    batch->zeroes = state == FOUND;
    batch->requests = 0;
    batch->first = batch->sock->sequence + 1;
    for (i = 0; i < batch->count; i++) {
        struct entry *entry = &batch->entries[i];

        if (entry->state != state)
            continue;
        rc = put_request(entry, batch->zeroes, room + size, batch->sock->sequence + 1);
        entry->result = rc < 0 ? rc : 1;
        if (rc < 0)
            continue;
        batch->sock->sequence++;
        batch->asked[batch->requests++] = i;
        size += wire_align((size_t)rc);
    }
    if (!batch->requests)
        return 0;
    rc = socket_send(batch->sock, room, size);
    return rc < 0 ? rc : collect(batch);
}

/* Verdicts ------------------------------------------------------------------------------------ */

/* After a look-up. */
static void judge(struct batch_of_flows *batch, struct entry *entry)
{
    const bool has_reply = has(entry->flow->present, NLCT_FLOW_REPLY);

    if (entry->result == 0) {
        entry->state = FOUND;
    } else if (entry->result == -ENOENT && entry->by == CTA_TUPLE_ORIG && has_reply) {
        /* Its original tuple may be another flow's reply. */
        entry->by = CTA_TUPLE_REPLY;
    } else {
        entry->state = SETTLED;
        if (entry->result == -ENOENT)
            batch->zeroing->already_gone++;
        else
            batch->zeroing->refused[entry->result < 0 ? -entry->result : ENOBUFS]++;
    }
}

/* After the zeroing. */
static void judge_zeroed(struct batch_of_flows *batch, struct entry *entry)
{
    if (entry->state == SETTLED)
        return;
    entry->state = SETTLED;
    if (entry->result == -ENOENT)
        batch->zeroing->already_gone++;
    else if (entry->result < 0)
        batch->zeroing->refused[-entry->result]++;
    else
        batch->zeroing->lost++;
}

/* Looks up, looks up again by the replies, and zeroes. Every flow is settled, but after a failure.
 */
static int run(struct batch_of_flows *batch)
{
    unsigned i;
    int rc = 0;
    int turn;

    for (turn = 0; turn < 2 && rc == 0; turn++) {
        rc = ask(batch, UNKNOWN);
        for (i = 0; i < batch->count && rc == 0; i++)
            if (batch->entries[i].state == UNKNOWN)
                judge(batch, &batch->entries[i]);
    }
    if (rc < 0)
        return rc;
    rc = ask(batch, FOUND);
    for (i = 0; i < batch->count; i++)
        judge_zeroed(batch, &batch->entries[i]);
    return rc;
}

int nlct_zero(struct nlct_socket *sock, const struct nlct_flow *flows, size_t count,
              struct nlct_sink *sink, int milliseconds, struct nlct_zeroing *zeroing)
{
    const int64_t deadline = now_milliseconds() + milliseconds;
    const size_t room = sock->room / ANSWER_ROOM;
    size_t most = room < 1 ? 1 : room;
    int rc = 0;

    if (most > AT_ONCE)
        most = AT_ONCE;
    while (rc == 0 && zeroing->next < count && now_milliseconds() < deadline) {
        struct batch_of_flows batch = {.sock = sock, .sink = sink, .zeroing = zeroing};

        while (batch.count < most && zeroing->next + batch.count < count) {
            batch.entries[batch.count] =
                (struct entry){.flow = &flows[zeroing->next + batch.count], .by = CTA_TUPLE_ORIG};
            batch.count++;
        }
        rc = run(&batch);
        /* Those that were only looked up are as they were. */
        if (rc == 0 || batch.zeroes)
            zeroing->next += batch.count;
    }
    return rc < 0 ? rc : zeroing->next < count;
}
