/* The barest way to write requests to ctnetlink, and to wait for what answers them. */
#ifndef BENCH_MESSAGE_H
#define BENCH_MESSAGE_H

#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "program.h"

/* Messages in a send; room for them, and for what the kernel sends at once. */
enum { BATCH = 256, BUFFER = 65536 };

static uint8_t buffer[BUFFER];
static uint32_t sequence;

static inline int open_socket(void)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK};
    int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
    int room = 1 << 20;

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        die("socket");
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
    return fd;
}

static inline uint8_t *put(uint8_t *at, uint16_t type, const void *data, size_t size)
{
    struct nlattr header = {(uint16_t)(sizeof(header) + size), type};

    memcpy(at, &header, sizeof(header));
    memcpy(at + sizeof(header), data, size);
    return at + sizeof(header) + ((size + 3) & ~(size_t)3);
}

static inline uint8_t *nest(uint8_t *begin, uint8_t *end, uint16_t type)
{
    struct nlattr header = {(uint16_t)(end - begin), type | NLA_F_NESTED};

    memcpy(begin, &header, sizeof(header));
    return end;
}

static inline uint8_t *begin(uint8_t *at, uint8_t family)
{
    struct nfgenmsg general = {.nfgen_family = family};

    memset(at, 0, BUFFER / BATCH);
    memcpy(at + sizeof(struct nlmsghdr), &general, sizeof(general));
    return at + sizeof(struct nlmsghdr) + sizeof(general);
}

static inline void finish(uint8_t *message, const uint8_t *end, uint16_t type, uint16_t flags)
{
    struct nlmsghdr header = {
        .nlmsg_len = (uint32_t)(end - message),
        .nlmsg_type = (uint16_t)(NFNL_SUBSYS_CTNETLINK << 8 | type),
        .nlmsg_flags = NLM_F_REQUEST | flags,
        .nlmsg_seq = ++sequence,
    };

    memcpy(message, &header, sizeof(header));
}

static inline void send_all(int fd, size_t size)
{
    if (send(fd, buffer, size, 0) != (ssize_t)size)
        die("send");
}

/* Receives until a message of 'type' ends the answer. */
static inline void drain(int fd, uint16_t type)
{
    struct nlmsghdr header;
    ssize_t size;

    do {
        size = recv(fd, buffer, sizeof(buffer), 0);
        if (size < (ssize_t)sizeof(header))
            die("recv");
        memcpy(&header, buffer, sizeof(header));
        /* A DONE may share its datagram with flows, as the last of them: 20 bytes. */
        if (header.nlmsg_type != type && size >= 20)
            memcpy(&header, buffer + size - 20, sizeof(header));
    } while (header.nlmsg_type != type);
}

static inline uint8_t *put_tuple(uint8_t *at, uint16_t type, const uint32_t address[2],
                                 const uint16_t port[2])
{
    uint8_t udp = IPPROTO_UDP;
    uint8_t *ip = at + sizeof(struct nlattr);
    uint8_t *proto = ip + sizeof(struct nlattr);
    uint8_t *end;

    proto = put(proto, CTA_IP_V4_SRC, &address[0], 4);
    proto = nest(ip, put(proto, CTA_IP_V4_DST, &address[1], 4), CTA_TUPLE_IP);
    end = put(proto + sizeof(struct nlattr), CTA_PROTO_NUM, &udp, 1);
    end = put(end, CTA_PROTO_SRC_PORT, &port[0], 2);
    end = nest(proto, put(end, CTA_PROTO_DST_PORT, &port[1], 2), CTA_TUPLE_PROTO);
    return nest(at, end, type);
}

/* The original tuple of flow 'number', as nlct.fill makes it. */
static inline uint8_t *put_original(uint8_t *at, uint32_t number)
{
    const uint32_t address[2] = {htonl(0x0a000000 + number), htonl(0xc0000201)};
    const uint16_t port[2] = {htons(1024), htons(53)};

    return put_tuple(at, CTA_TUPLE_ORIG, address, port);
}

#endif
