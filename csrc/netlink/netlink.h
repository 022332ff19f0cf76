/*
 * Netlink. It knows nothing of conntrack and of the other rooms. They may see this much of it, in
 * reading order: reading messages, building them, descriptors and namespaces, sockets, receiving
 * ahead, listening, batches.
 */
#ifndef NLCT_NETLINK_H
#define NLCT_NETLINK_H

#include "../nlct.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Reading, bounded ---------------------------------------------------------------------------- */

/* What is left to read. Every step checks that what it returns lies inside. A reader that gets to
   the end has seen every byte, since leftovers are -EBADMSG. */
struct wire {
    const uint8_t *at;
    size_t left;
};

/* One attribute. 'type' is without the nesting and byte order flags; 'whole' bytes at 'start' are
   the attribute with its header, without padding. */
struct attr {
    const uint8_t *start;
    const uint8_t *data;
    uint16_t whole;
    uint16_t size;
    uint16_t type;
};

/* Messages and attributes alike begin at multiples of four. */
static inline size_t wire_align(size_t size)
{
    return (size + 3) & ~(size_t)3;
}

/* Skips 'size' bytes and their padding. */
static inline void wire_skip(struct wire *wire, size_t size)
{
    size_t padded = wire_align(size);

    /* The last one may come without padding. */
    if (padded > wire->left)
        padded = wire->left;
    wire->at += padded;
    wire->left -= padded;
}

/* Takes the next message. Returns 1, 0 at the end, or -EBADMSG. */
static inline int wire_message(struct wire *wire, struct nlmsghdr *header, struct wire *payload)
{
    if (wire->left == 0)
        return 0;
    if (wire->left < sizeof(*header))
        return -EBADMSG;
    memcpy(header, wire->at, sizeof(*header));
    if (header->nlmsg_len < sizeof(*header) || header->nlmsg_len > wire->left)
        return -EBADMSG;
    payload->at = wire->at + sizeof(*header);
    payload->left = header->nlmsg_len - sizeof(*header);
    wire_skip(wire, header->nlmsg_len);
    return 1;
}

/* Takes the next attribute. Returns 1, 0 at the end, or -EBADMSG. */
static inline int wire_attr(struct wire *wire, struct attr *attr)
{
    struct nlattr header;

    if (wire->left == 0)
        return 0;
    if (wire->left < sizeof(header))
        return -EBADMSG;
    memcpy(&header, wire->at, sizeof(header));
    if (header.nla_len < sizeof(header) || header.nla_len > wire->left)
        return -EBADMSG;
    attr->start = wire->at;
    attr->data = wire->at + sizeof(header);
    attr->whole = header.nla_len;
    attr->size = (uint16_t)(header.nla_len - sizeof(header));
    attr->type = header.nla_type & (uint16_t)NLA_TYPE_MASK;
    wire_skip(wire, header.nla_len);
    return 1;
}

/* The attributes inside 'attr'. */
static inline struct wire wire_nest(const struct attr *attr)
{
    return (struct wire){attr->data, attr->size};
}

/* Numbers in network order. */
static inline uint16_t wire_be16(const uint8_t *data)
{
    return (uint16_t)(data[0] << 8 | data[1]);
}

static inline uint32_t wire_be32(const uint8_t *data)
{
    return (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | data[3];
}

/* message.c: building ------------------------------------------------------------------------- */

/* A request being written. Once a put does not fit, 'error' is -EMSGSIZE and later puts do
   nothing. */
struct message {
    uint8_t *buffer;
    size_t capacity;
    size_t size;
    int error;
};

/* No request is larger. */
enum { REQUEST_MAX = 1024 };

/* The type of messages about an operation of one of nfnetlink's subsystems. */
static inline uint16_t message_type(uint8_t subsystem, uint8_t operation)
{
    return (uint16_t)(subsystem << 8 | operation);
}

/* Starts a request of 'type' and 'flags', followed by the nfgenmsg header with 'family'. */
void message_begin(struct message *message, void *buffer, size_t capacity, uint16_t type,
                   uint16_t flags, uint8_t family);

/* Puts an attribute of 'type' with 'size' bytes. */
void message_put(struct message *message, uint16_t type, const void *data, size_t size);

/* Puts an attribute as it came, with its header. */
void message_copy(struct message *message, const struct attr *attr);

/* Puts the lower 'size' bytes of a number, in network order. */
void message_put_number(struct message *message, uint16_t type, uint64_t number, size_t size);

/* Opens a nest. Returns where it begins, for the functions below. */
size_t message_nest_begin(struct message *message, uint16_t type);
void message_nest_end(struct message *message, size_t nest);

/* The same, but takes an empty nest back. */
void message_nest_end_full(struct message *message, size_t nest);

/* Completes the header. Returns the size, or -EMSGSIZE. */
int message_end(struct message *message);

/* Sets what only the sender knows: more flags, and the number of the request. */
void message_stamp(void *message, uint16_t more_flags, uint32_t sequence);

/* fd.c ---------------------------------------------------------------------------------------- */

/* Puts what a call opened into '*fd'; less than 0 is its failure. Returns 0 or -errno. */
int fd_own(struct nlct_fd *fd, int opened);

/* Notes device and inode of what was opened. Returns 0 or -errno. */
int fd_identify(struct nlct_fd *fd);

/* Closes what was opened a moment ago, without nlct_fd_close()'s check. */
void fd_drop(struct nlct_fd *fd);

/* netns.c ------------------------------------------------------------------------------------- */

/* Asks a socket whether it is in this namespace. Returns 0, -EXDEV, or -errno. */
int netns_prove(const struct nlct_netns *netns, int sock);

/* socket.c ------------------------------------------------------------------------------------ */

/* The kernel fills at most 32 KiB of a datagram of a dump, however large the buffer. */
enum { SOCKET_BUFFER = 65536 };

struct nlct_socket {
    struct nlct_fd fd;
    uint32_t port;
    uint32_t sequence; /* of the latest request */
    size_t room;       /* bytes that the kernel queues for us before it drops replies */
    char text[256];
    uint8_t buffer[SOCKET_BUFFER]; /* the latest datagram */
};

/* Sends 'size' bytes to the kernel, and forgets the text of earlier answers. Returns 0, -errno. */
int socket_send(struct nlct_socket *sock, const void *data, size_t size);

/* Receives one datagram from the kernel into 'buffer'. Returns its size, -EAGAIN if nothing is
   queued, or -errno; -ENOBUFS: replies were lost. */
int socket_receive(struct nlct_socket *sock);

/* The same into another buffer of SOCKET_BUFFER bytes. */
int socket_receive_to(struct nlct_socket *sock, uint8_t *buffer);

/* Waits for a datagram. Returns 0, -EAGAIN after 'milliseconds', or -EINTR. */
int socket_wait(struct nlct_socket *sock, int milliseconds);

/* Does this message answer a request of ours, one numbered 'first' to the latest? */
bool socket_answers(const struct nlct_socket *sock, const struct nlmsghdr *header, uint32_t first);

/* Reads an NLMSG_ERROR or NLMSG_DONE and keeps its text. Returns the error in it (0 or -errno),
   or -EBADMSG. */
int socket_verdict(struct nlct_socket *sock, const struct nlmsghdr *header, struct wire payload);

/* readahead.c: receiving ahead, in a thread --------------------------------------------------- */

struct readahead;

/* Starts to receive. The socket is the thread's until the thread has been stopped or has ended.
   NULL if there is no second processor, or no thread can be had. */
struct readahead *readahead_start(struct nlct_socket *sock);

/* Gets the next datagram, valid until the next call. Returns 0, -EINTR if there is none by
   'deadline' (CLOCK_MONOTONIC, milliseconds), or the error of socket_receive(), with which the
   thread has ended. */
int readahead_next(struct readahead *readahead, struct wire *wire, int64_t deadline);

/* Stops the thread and waits for its end. May be given NULL. */
void readahead_stop(struct readahead *readahead);

/* listener.c: multicast groups, many datagrams a system call ----------------------------------- */

struct listener;

/* Opens a socket inside 'netns' that queues up to 'buffer' bytes, or what the system's limit allows
   where we lack the privilege for more. */
int listener_open(struct listener **listener, const struct nlct_netns *netns, size_t buffer);
void listener_close(struct listener **listener);
int listener_fd(const struct listener *listener);

/* Is its number still that of the socket? */
bool listener_is(const struct listener *listener);

/* Makes it queue more or fewer bytes, as listener_open() does. Returns 0 or -errno. */
int listener_resize(struct listener *listener, size_t buffer);

/* How many bytes it queues. Returns 0 or -errno. */
int listener_buffer(const struct listener *listener, size_t *buffer);

/* Lets the kernel drop what a program of classic BPF returns 0 for. Returns 0 or -errno. */
int listener_filter(struct listener *listener, const struct sock_filter *code, size_t count);

/* Joins a multicast group. Returns 0 or -errno. */
int listener_join(struct listener *listener, unsigned group);

/* Gets the next datagram, valid until the next call. Returns 1, 0 if there is none just now, or
   -errno; after -EMSGSIZE, one too large, the next one follows. */
int listener_next(struct listener *listener, struct wire *datagram);

/* Did the kernel drop datagrams that were sent before listener_next() returned 0? '*count' is how
   many, 0 if the kernel does not say. The answer stays until listener_told(). */
bool listener_lost(const struct listener *listener, uint64_t *count);
void listener_told(struct listener *listener);

/* batch.c: many requests in one send, and every refusal counted ------------------------------- */

enum { BATCH_BYTES = 32768, BATCH_REQUESTS = 256 };

struct batch_request {
    uint32_t owner;
    uint16_t at; /* where it begins */
    bool settled;
};

/* Reads a finished request back. Returns whether it may be sent. */
typedef bool batch_admits(const void *request, size_t size);

/* Gets the result of the request of 'owner': 0 or -errno. */
typedef void batch_settle(void *context, uint32_t owner, int result);

struct batch {
    struct nlct_socket *sock;
    batch_admits *admits;
    batch_settle *settle;
    void *context;
    unsigned limit; /* requests whose refusals surely fit the receive buffer */
    unsigned count;
    size_t size;
    struct batch_request requests[BATCH_REQUESTS];
    uint8_t bytes[BATCH_BYTES];
};

/* Starts without a request. NULL for 'admits' admits all; 'context' is for 'settle'. */
void batch_init(struct batch *batch, struct nlct_socket *sock, batch_admits *admits,
                batch_settle *settle, void *context);

/* Room for one request of up to REQUEST_MAX bytes. */
void *batch_room(struct batch *batch);

/* Adds the request that was written there for 'owner'; 'size' is its size, or -errno, which counts
   as a refusal. Sends if the batch is full. Returns 0, or -errno if the socket failed. */
int batch_add(struct batch *batch, int size, uint32_t owner);

/* Sends what is left and settles every request. Returns 0, or -errno if the socket failed. */
int batch_send(struct batch *batch);

#endif
