/*
 * Listening to multicast groups: many datagrams a system call, and what the kernel dropped.
 *
 * The kernel says ENOBUFS once. From then on it drops everything until the queue has run empty,
 * without another error; so a loss is told only after that. What was received before it is told was
 * sent before, and who looks at the table after it misses nothing. The socket's own count of drops
 * is the last word: an error may have been told for another reason, and a drop without an error.
 */
#include "netlink.h"

#include <linux/sock_diag.h>
#include <stdlib.h>
#include <sys/socket.h>

/* Newer than the oldest headers that this must build with: Linux 4.12. */
#ifndef SO_MEMINFO
#define SO_MEMINFO 55
#endif

/* A datagram takes more than this of the receive buffer, whatever its size. */
enum { LEAST_ROOM = 512 };

/* Datagrams a system call, and the room for each: no event is larger. */
enum { AT_ONCE = 64, ROOM = 4096 };

/* Each event that the kernel has no memory for is an error of its own. */
enum { TRIES = 100 };

struct listener {
    struct nlct_socket *sock;
    unsigned count; /* of datagrams from the latest system call */
    unsigned next;  /* of these to be handed out */
    /* The kernel has dropped something: how much of the queue is older than that. */
    bool dropping;
    uint64_t older;
    /* What is to be told. */
    bool lost;
    uint64_t lost_count;
    uint32_t drops; /* of the socket, as far as they were noted */
    struct mmsghdr messages[AT_ONCE];
    struct iovec parts[AT_ONCE];
    struct sockaddr_nl from[AT_ONCE];
    uint8_t bytes[AT_ONCE][ROOM];
};

/* Reads one of the socket's numbers. Returns 0 or -errno. */
static int read_memory(const struct listener *listener, unsigned which, uint32_t *value)
{
    uint32_t numbers[SK_MEMINFO_VARS] = {0};
    socklen_t size = sizeof(numbers);

    if (getsockopt(listener->sock->fd.fd, SOL_SOCKET, SO_MEMINFO, numbers, &size) < 0)
        return -errno;
    *value = numbers[which];
    return 0;
}

int listener_resize(struct listener *listener, size_t buffer)
{
    const int fd = listener_fd(listener);
    const int wanted = buffer > INT32_MAX / 2 ? INT32_MAX / 2 : (int)buffer;

    if (!listener_is(listener))
        return -EBADF;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &wanted, sizeof(wanted)) == 0)
        return 0;
    return setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &wanted, sizeof(wanted)) < 0 ? -errno : 0;
}

static void lay_out(struct listener *listener)
{
    unsigned i;

    for (i = 0; i < AT_ONCE; i++) {
        listener->parts[i] = (struct iovec){listener->bytes[i], ROOM};
        listener->messages[i].msg_hdr = (struct msghdr){
            .msg_name = &listener->from[i], .msg_iov = &listener->parts[i], .msg_iovlen = 1};
    }
}

int listener_open(struct listener **listener, const struct nlct_netns *netns, size_t buffer)
{
    struct listener *new = calloc(1, sizeof(*new));
    int rc;

    if (!new)
        return -ENOMEM;
    lay_out(new);
    *listener = new;
    rc = nlct_socket_open(&new->sock, netns);
    if (rc == 0)
        rc = listener_resize(new, buffer);
    if (rc < 0)
        listener_close(listener);
    return rc;
}

void listener_close(struct listener **listener)
{
    struct listener *taken = __atomic_exchange_n(listener, NULL, __ATOMIC_ACQ_REL);

    if (taken)
        nlct_socket_close(&taken->sock);
    free(taken);
}

int listener_fd(const struct listener *listener)
{
    return listener->sock->fd.fd;
}

int listener_buffer(const struct listener *listener, size_t *buffer)
{
    socklen_t size = sizeof(int);
    int doubled = 0;

    if (!listener_is(listener))
        return -EBADF;
    if (getsockopt(listener_fd(listener), SOL_SOCKET, SO_RCVBUF, &doubled, &size) < 0)
        return -errno;
    *buffer = (size_t)doubled / 2;
    return 0;
}

int listener_filter(struct listener *listener, const struct sock_filter *code, size_t count)
{
    struct sock_fprog program = {.len = (unsigned short)count,
                                 .filter = (struct sock_filter *)code};

    if (!listener_is(listener))
        return -EBADF;
    if (setsockopt(listener_fd(listener), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) <
        0)
        return -errno;
    return 0;
}

int listener_join(struct listener *listener, unsigned group)
{
    int twice;

    /* The end of another listener may undo what the first time does. */
    for (twice = 0; twice < 2; twice++)
        if (setsockopt(listener_fd(listener), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group,
                       sizeof(group)) < 0)
            return -errno;
    return 0;
}

/* Notes what the socket has dropped since the last time. Kernels before 4.12 do not say how much.
 */
static void note_loss(struct listener *listener)
{
    uint32_t drops;
    uint32_t more;

    if (read_memory(listener, SK_MEMINFO_DROPS, &drops) < 0)
        drops = listener->drops;
    more = drops - listener->drops;
    if (listener->dropping || more)
        listener->lost = true;
    listener->lost_count += more;
    listener->drops = drops;
    listener->dropping = false;
}

/* The kernel has said that it drops: until the queue has run empty. */
static void begin_loss(struct listener *listener)
{
    uint32_t queued = 0;

    if (listener->dropping)
        return;
    listener->dropping = true;
    listener->older = read_memory(listener, SK_MEMINFO_RMEM_ALLOC, &queued) < 0
                          ? UINT64_MAX
                          : queued / LEAST_ROOM + 1;
}

/* Gets the next datagrams. Returns how many, or -errno. */
static int receive_once(struct listener *listener)
{
    int count;
    int i;

    for (i = 0; i < AT_ONCE; i++)
        listener->messages[i].msg_hdr.msg_namelen = sizeof(listener->from[i]);
    do
        count = recvmmsg(listener_fd(listener), listener->messages, AT_ONCE, MSG_DONTWAIT, NULL);
    while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}

/* The same, noting a loss. Returns how many, 0 if there are none, or -errno; -ENOBUFS: the kernel
   says nothing else. */
static int receive(struct listener *listener)
{
    unsigned tries;
    int rc = -ENOBUFS;

    for (tries = 0; rc == -ENOBUFS && tries < TRIES; tries++) {
        rc = receive_once(listener);
        if (rc == -ENOBUFS)
            begin_loss(listener);
    }
    return rc == -EAGAIN ? 0 : rc;
}

static int refill(struct listener *listener)
{
    int rc;

    /* Where more come all the time, the queue never seems to be empty. */
    if (listener->dropping && !listener->older) {
        note_loss(listener);
        return 0;
    }
    rc = receive(listener);
    if (rc == 0)
        note_loss(listener);
    if (rc <= 0)
        return rc;
    if (listener->dropping)
        listener->older -= listener->older < (unsigned)rc ? listener->older : (unsigned)rc;
    listener->next = 0;
    listener->count = (unsigned)rc;
    return rc;
}

int listener_next(struct listener *listener, struct wire *datagram)
{
    for (;;) {
        const struct mmsghdr *message;
        unsigned at;

        if (listener->next == listener->count) {
            const int rc = refill(listener);

            if (rc <= 0)
                return rc;
        }
        at = listener->next++;
        message = &listener->messages[at];
        /* Anybody may send; only the kernel counts. */
        if (listener->from[at].nl_pid != 0)
            continue;
        if (message->msg_hdr.msg_flags & MSG_TRUNC)
            return -EMSGSIZE;
        *datagram = (struct wire){listener->bytes[at], message->msg_len};
        return 1;
    }
}

bool listener_lost(const struct listener *listener, uint64_t *count)
{
    *count = listener->lost_count;
    return listener->lost;
}

void listener_told(struct listener *listener)
{
    listener->lost = false;
    listener->lost_count = 0;
}

bool listener_is(const struct listener *listener)
{
    return nlct_socket_is(listener->sock);
}
