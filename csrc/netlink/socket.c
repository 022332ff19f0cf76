/* A netlink socket to the kernel: open, send, receive. Only the kernel may answer. */
#include "netlink.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

/* Large enough for the refusals of a whole batch; small enough for any machine. */
enum { WANTED_BUFFER = 1 << 20 };

static void size_buffer(int fd, int forced, int plain)
{
    int wanted = WANTED_BUFFER;

    if (setsockopt(fd, SOL_SOCKET, forced, &wanted, sizeof(wanted)) == 0)
        return;
    /* Without privilege the system's limit applies; 'room' tells the result. */
    (void)setsockopt(fd, SOL_SOCKET, plain, &wanted, sizeof(wanted));
}

static int prepare(struct nlct_socket *sock)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK};
    socklen_t size = sizeof(address);
    socklen_t room_size = sizeof(int);
    int room = 0;
    int on = 1;

    size_buffer(sock->fd.fd, SO_RCVBUFFORCE, SO_RCVBUF);
    size_buffer(sock->fd.fd, SO_SNDBUFFORCE, SO_SNDBUF);
    /* Kernels before 4.12 have no extended acks. */
    (void)setsockopt(sock->fd.fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
    (void)setsockopt(sock->fd.fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
    if (bind(sock->fd.fd, (struct sockaddr *)&address, size) < 0)
        return -errno;
    if (getsockname(sock->fd.fd, (struct sockaddr *)&address, &size) < 0)
        return -errno;
    if (getsockopt(sock->fd.fd, SOL_SOCKET, SO_RCVBUF, &room, &room_size) < 0)
        return -errno;
    sock->port = address.nl_pid;
    sock->room = (size_t)room;
    return 0;
}

static int open_in(struct nlct_socket *sock, const struct nlct_netns *netns)
{
    int rc = nlct_netns_socket(netns, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER, &sock->fd);

    /* The child was in the namespace; only the socket itself tells that it is there, too. */
    if (rc == 0)
        rc = netns_prove(netns, sock->fd.fd);
    return rc < 0 ? rc : prepare(sock);
}

int nlct_socket_open(struct nlct_socket **sock, const struct nlct_netns *netns)
{
    struct nlct_socket *new = calloc(1, sizeof(*new));
    int rc;

    if (!new)
        return -ENOMEM;
    new->fd.fd = -1;
    new->sequence = (uint32_t)time(NULL);
    *sock = new;
    rc = open_in(new, netns);
    if (rc < 0)
        nlct_socket_close(sock);
    return rc;
}

void nlct_socket_close(struct nlct_socket **sock)
{
    struct nlct_socket *taken = __atomic_exchange_n(sock, NULL, __ATOMIC_ACQ_REL);

    if (taken)
        nlct_fd_close(&taken->fd);
    free(taken);
}

uint32_t nlct_socket_port(const struct nlct_socket *sock)
{
    return sock->port;
}

bool nlct_socket_is(const struct nlct_socket *sock)
{
    return nlct_fd_is(&sock->fd);
}

const char *nlct_socket_text(const struct nlct_socket *sock)
{
    return sock->text;
}

int socket_send(struct nlct_socket *sock, const void *data, size_t size)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    ssize_t sent;

    sock->text[0] = '\0';
    do
        sent = sendto(sock->fd.fd, data, size, 0, (struct sockaddr *)&kernel, sizeof(kernel));
    while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return -errno;
    return (size_t)sent == size ? 0 : -EMSGSIZE;
}

int socket_receive(struct nlct_socket *sock)
{
    return socket_receive_to(sock, sock->buffer);
}

int socket_receive_to(struct nlct_socket *sock, uint8_t *buffer)
{
    struct sockaddr_nl from = {0};
    struct iovec part = {.iov_base = buffer, .iov_len = SOCKET_BUFFER};
    struct msghdr message = {
        .msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &part, .msg_iovlen = 1};
    ssize_t size;

    do
        size = recvmsg(sock->fd.fd, &message, MSG_DONTWAIT);
    while ((size < 0 && errno == EINTR) || (size >= 0 && from.nl_pid != 0));
    if (size < 0)
        return -errno;
    if (message.msg_flags & MSG_TRUNC)
        return -EMSGSIZE;
    /* Netlink has no empty datagrams: an empty one means that nothing was received. */
    if (size == 0)
        return -EBADMSG;
    return (int)size;
}

int socket_wait(struct nlct_socket *sock, int milliseconds)
{
    struct pollfd wanted = {.fd = sock->fd.fd, .events = POLLIN};
    int ready = poll(&wanted, 1, milliseconds);

    if (ready < 0)
        return -errno;
    return ready ? 0 : -EAGAIN;
}

bool socket_answers(const struct nlct_socket *sock, const struct nlmsghdr *header, uint32_t first)
{
    /* Unsigned distances: sequence numbers wrap. */
    return header->nlmsg_pid == sock->port && header->nlmsg_seq - first <= sock->sequence - first;
}

static void keep_text(struct nlct_socket *sock, struct wire attrs)
{
    struct attr attr;

    while (wire_attr(&attrs, &attr) > 0) {
        size_t size = attr.size;

        if (attr.type != NLMSGERR_ATTR_MSG)
            continue;
        if (size >= sizeof(sock->text))
            size = sizeof(sock->text) - 1;
        memcpy(sock->text, attr.data, size);
        sock->text[size] = '\0';
    }
}

int socket_verdict(struct nlct_socket *sock, const struct nlmsghdr *header, struct wire payload)
{
    struct nlmsghdr request;
    size_t echoed = 0;
    int32_t error = 0;

    /* A DONE may come without a payload. */
    if (header->nlmsg_type == NLMSG_DONE && payload.left == 0)
        return 0;
    if (payload.left < sizeof(error))
        return -EBADMSG;
    memcpy(&error, payload.at, sizeof(error));
    wire_skip(&payload, sizeof(error));
    if (header->nlmsg_type == NLMSG_ERROR) {
        if (payload.left < sizeof(request))
            return -EBADMSG;
        memcpy(&request, payload.at, sizeof(request));
        echoed = sizeof(request);
        if (!(header->nlmsg_flags & NLM_F_CAPPED))
            echoed = request.nlmsg_len;
        if (echoed < sizeof(request) || echoed > payload.left)
            return -EBADMSG;
    }
    wire_skip(&payload, echoed);
    if (header->nlmsg_flags & NLM_F_ACK_TLVS)
        keep_text(sock, payload);
    /* A DONE may carry a count, an error never does. */
    if (error < -4095 || (error > 0 && header->nlmsg_type == NLMSG_ERROR))
        return -EBADMSG;
    return error < 0 ? error : 0;
}
