/* A dump of the table: start, next, end. The receive loop that feeds a sink. */
#include "ctnetlink.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Datagrams received without a thread: a small table ends before a thread has begun. */
enum { ALONE = 4 };

struct nlct_dump {
    struct nlct_socket *sock;
    struct readahead *readahead; /* NULL while the caller itself receives */
    unsigned datagrams;
    bool alone; /* never a thread */
    const struct nlct_filter *filter;
    struct nlct_progress progress;
    struct wire wire; /* what is left of the latest datagram */
    int error;        /* what ended it; it stays, since nothing makes up for what is missing */
    int buckets;
    char size_before[24]; /* of the hash table, as the file says */
};

/* What a step of the dump came to. */
enum step { MORE, FULL, END };

int64_t now_milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The kernel does not report a resize, which makes a dump lose or repeat entries. */
static int read_size(int buckets, char *size, size_t capacity)
{
    ssize_t got;

    do
        got = pread(buckets, size, capacity - 1, 0);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return -errno;
    size[got] = '\0';
    return 0;
}

static int watch_size(struct nlct_dump *dump)
{
    char size[sizeof(dump->size_before)];
    int rc;

    if (dump->buckets < 0 || dump->progress.resized)
        return 0;
    rc = read_size(dump->buckets, size, sizeof(size));
    dump->progress.resized = rc == 0 && strcmp(size, dump->size_before) != 0;
    return rc;
}

/* Sends a dump's request, and makes the dump. 'operation' is what is asked for. */
static int start(struct nlct_dump **dump, struct nlct_dump wanted, uint8_t operation,
                 const struct nlct_kernel_filter *kernel_filter)
{
    struct nlct_dump *new = malloc(sizeof(*new));
    uint8_t room[REQUEST_MAX];
    struct message request;
    int rc = 0;

    if (!new)
        return -ENOMEM;
    *new = wanted;
    if (new->buckets >= 0)
        rc = read_size(new->buckets, new->size_before, sizeof(new->size_before));
    message_begin(&request, room, sizeof(room), message_type(NFNL_SUBSYS_CTNETLINK, operation),
                  NLM_F_REQUEST | NLM_F_DUMP, kernel_filter ? kernel_filter->family : AF_UNSPEC);
    if (kernel_filter)
        kernel_filter_put(&request, kernel_filter);
    if (rc == 0)
        rc = message_end(&request);
    if (rc >= 0) {
        message_stamp(room, 0, ++new->sock->sequence);
        rc = socket_send(new->sock, room, request.size);
    }
    if (rc < 0) {
        free(new);
        return rc;
    }
    *dump = new;
    return 0;
}

int nlct_dump_start(struct nlct_dump **dump, struct nlct_socket *sock,
                    const struct nlct_filter *filter,
                    const struct nlct_kernel_filter *kernel_filter, int buckets)
{
    const struct nlct_dump wanted = {.sock = sock, .filter = filter, .buckets = buckets};

    return start(dump, wanted, IPCTNL_MSG_CT_GET, kernel_filter);
}

int nlct_dump_start_unlisted(struct nlct_dump **dump, struct nlct_socket *sock,
                             const struct nlct_filter *filter, enum nlct_unlisted list)
{
    const struct nlct_dump wanted = {.sock = sock, .filter = filter, .buckets = -1};
    const uint8_t operation =
        list == NLCT_DYING ? IPCTNL_MSG_CT_GET_DYING : IPCTNL_MSG_CT_GET_UNCONFIRMED;

    return start(dump, wanted, operation, NULL);
}

/* Takes one flow message. Returns MORE, FULL, or -errno. */
static int take_flow(struct nlct_dump *dump, struct nlct_sink *sink, struct wire payload)
{
    struct view view;
    int rc = view_parse(&view, payload);

    if (rc == 0)
        rc = filter_match(dump->filter, &view);
    if (rc > 0 && sink) {
        rc = sink->take(sink, &view);
        if (rc > 0)
            return FULL;
        dump->progress.matched += rc == 0;
    } else {
        dump->progress.matched += rc > 0;
    }
    if (rc < 0)
        return rc;
    dump->progress.scanned++;
    return MORE;
}

/* Takes one message of the answer. Returns a step, or -errno. */
static int take_message(struct nlct_dump *dump, struct nlct_sink *sink,
                        const struct nlmsghdr *header, struct wire payload)
{
    int rc;

    if (!socket_answers(dump->sock, header, dump->sock->sequence))
        return MORE;
    if (header->nlmsg_flags & NLM_F_DUMP_INTR)
        dump->progress.interrupted = true;
    if (header->nlmsg_type == message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW))
        return take_flow(dump, sink, payload);
    switch (header->nlmsg_type) {
    case NLMSG_DONE:
        rc = socket_verdict(dump->sock, header, payload);
        return rc < 0 ? rc : END;
    case NLMSG_ERROR:
        /* Without an error it acknowledges something that we never asked. */
        rc = socket_verdict(dump->sock, header, payload);
        return rc < 0 ? rc : -EBADMSG;
    case NLMSG_NOOP:
        return MORE;
    default:
        return -EBADMSG;
    }
}

/* Takes what is left of the latest datagram. Returns a step, or -errno. */
static int take_datagram(struct nlct_dump *dump, struct nlct_sink *sink)
{
    struct nlmsghdr header;
    struct wire payload;
    int rc;

    for (;;) {
        struct wire before = dump->wire;

        rc = wire_message(&dump->wire, &header, &payload);
        if (rc <= 0)
            return rc ? rc : MORE;
        rc = take_message(dump, sink, &header, payload);
        if (rc == FULL)
            dump->wire = before;
        if (rc != MORE)
            return rc;
    }
}

static void stop_readahead(struct nlct_dump *dump)
{
    readahead_stop(dump->readahead);
    dump->readahead = NULL;
}

/* Receives the next datagram. Returns 0, -EAGAIN when there is none by 'deadline', or -errno. */
static int receive(struct nlct_dump *dump, int64_t deadline)
{
    int rc = socket_receive(dump->sock);

    if (rc == -EAGAIN) {
        int64_t left = deadline - now_milliseconds();

        rc = socket_wait(dump->sock, left > 0 ? (int)left : 0);
        if (rc == 0)
            rc = socket_receive(dump->sock);
    }
    if (rc < 0)
        return rc;
    dump->wire = (struct wire){dump->sock->buffer, (size_t)rc};
    return 0;
}

/* Gets the next datagram. Returns 0, -EAGAIN or -EINTR when there is none yet, or -errno. */
static int refill(struct nlct_dump *dump, int64_t deadline)
{
    int rc = -EAGAIN;

    if (++dump->datagrams == ALONE && !dump->alone)
        dump->readahead = readahead_start(dump->sock);
    if (dump->readahead)
        rc = readahead_next(dump->readahead, &dump->wire, deadline);
    /* Up to the end of a dump the kernel has at least one datagram ready. Without one there is
       nothing to receive ahead. */
    if (rc == -EAGAIN) {
        stop_readahead(dump);
        rc = receive(dump, deadline);
    }
    return rc == 0 ? watch_size(dump) : rc;
}

/* Receives and takes until 'deadline'. Returns a step, or -errno. */
static int go_on(struct nlct_dump *dump, struct nlct_sink *sink, int64_t deadline)
{
    int rc;

    while ((rc = take_datagram(dump, sink)) == MORE && now_milliseconds() < deadline) {
        rc = refill(dump, deadline);
        if (rc == -EAGAIN || rc == -EINTR)
            return MORE;
        if (rc < 0)
            return rc;
    }
    return rc;
}

int nlct_dump_next(struct nlct_dump *dump, struct nlct_sink *sink, int milliseconds)
{
    int rc = dump->error;

    if (rc == 0)
        rc = go_on(dump, sink, now_milliseconds() + milliseconds);
    if (rc == MORE || rc == FULL)
        return 1;
    /* From now on the socket is for the next request. */
    stop_readahead(dump);
    if (rc == END) {
        rc = sink && sink->finish ? sink->finish(sink) : 0;
        /* The last deletes were sent since: during a resize the kernel may not find a flow. */
        if (rc == 0)
            rc = watch_size(dump);
    }
    dump->error = rc;
    return rc;
}

void nlct_dump_alone(struct nlct_dump *dump)
{
    dump->alone = true;
}

void nlct_dump_progress(const struct nlct_dump *dump, struct nlct_progress *progress)
{
    *progress = dump->progress;
}

void nlct_dump_free(struct nlct_dump **dump)
{
    struct nlct_dump *taken = __atomic_exchange_n(dump, NULL, __ATOMIC_ACQ_REL);

    if (taken)
        stop_readahead(taken);
    free(taken);
}
