/*
 * The floor: what the kernel itself costs, in the barest C loops there can be.
 *
 * Reads commands from standard input, one a line, and answers each with the seconds it took:
 *
 *     dump            receive the whole table, look at nothing
 *     dump ZONE       the same, asking the kernel for one zone
 *     flush ZONE      the kernel's own flush of one zone (mind what kernels before 6.8 do)
 *     create N ZONES  create N UDP flows in zones 1 to ZONES in turn, 256 a send
 *
 *     cc -O2 -o floor floor.c && ./floor [/path/of/a/network/namespace]
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 256, BUFFER = 65536 };

static uint8_t buffer[BUFFER];
static uint32_t sequence;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int open_socket(void)
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

static uint8_t *put(uint8_t *at, uint16_t type, const void *data, size_t size)
{
    struct nlattr header = {(uint16_t)(sizeof(header) + size), type};

    memcpy(at, &header, sizeof(header));
    memcpy(at + sizeof(header), data, size);
    return at + sizeof(header) + ((size + 3) & ~(size_t)3);
}

static uint8_t *nest(uint8_t *begin, uint8_t *end, uint16_t type)
{
    struct nlattr header = {(uint16_t)(end - begin), type | NLA_F_NESTED};

    memcpy(begin, &header, sizeof(header));
    return end;
}

static uint8_t *begin(uint8_t *at, uint8_t family)
{
    struct nfgenmsg general = {.nfgen_family = family};

    memset(at, 0, BUFFER / BATCH);
    memcpy(at + sizeof(struct nlmsghdr), &general, sizeof(general));
    return at + sizeof(struct nlmsghdr) + sizeof(general);
}

static void finish(uint8_t *message, const uint8_t *end, uint16_t type, uint16_t flags)
{
    struct nlmsghdr header = {
        .nlmsg_len = (uint32_t)(end - message),
        .nlmsg_type = (uint16_t)(NFNL_SUBSYS_CTNETLINK << 8 | type),
        .nlmsg_flags = NLM_F_REQUEST | flags,
        .nlmsg_seq = ++sequence,
    };

    memcpy(message, &header, sizeof(header));
}

static void send_all(int fd, size_t size)
{
    if (send(fd, buffer, size, 0) != (ssize_t)size)
        die("send");
}

/* Receives until a message of 'type' ends the answer. */
static void drain(int fd, uint16_t type)
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

static void request_zone(int fd, int zone, uint16_t type, uint16_t flags)
{
    uint8_t *at = begin(buffer, AF_UNSPEC);
    uint16_t be = htons((uint16_t)zone);

    if (zone >= 0)
        at = put(at, CTA_ZONE, &be, sizeof(be));
    finish(buffer, at, type, flags);
    send_all(fd, (size_t)(at - buffer));
}

static void dump(int zone)
{
    int fd = open_socket();

    request_zone(fd, zone, IPCTNL_MSG_CT_GET, NLM_F_DUMP);
    drain(fd, NLMSG_DONE);
    close(fd);
}

static void flush(int zone)
{
    int fd = open_socket();

    request_zone(fd, zone, IPCTNL_MSG_CT_DELETE, NLM_F_ACK);
    drain(fd, NLMSG_ERROR);
    close(fd);
}

static uint8_t *put_tuple(uint8_t *at, uint16_t type, const uint32_t address[2],
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

static uint8_t *put_flow(uint8_t *message, uint32_t number, uint16_t zone, bool last)
{
    const uint32_t there[2] = {htonl(0x0a000000 + number), htonl(0xc0000201)};
    const uint32_t back[2] = {there[1], there[0]};
    const uint16_t out[2] = {htons(1024), htons(53)};
    const uint16_t in[2] = {out[1], out[0]};
    uint32_t timeout = htonl(86400);
    uint16_t be = htons(zone);
    uint8_t *at = begin(message, AF_INET);

    at = put_tuple(at, CTA_TUPLE_ORIG, there, out);
    at = put_tuple(at, CTA_TUPLE_REPLY, back, in);
    at = put(at, CTA_ZONE, &be, sizeof(be));
    at = put(at, CTA_TIMEOUT, &timeout, sizeof(timeout));
    finish(message, at, IPCTNL_MSG_CT_NEW,
           (uint16_t)(NLM_F_CREATE | NLM_F_EXCL | (last ? NLM_F_ACK : 0)));
    return at;
}

static void create(uint32_t flows, uint32_t zones)
{
    int fd = open_socket();
    uint32_t done = 0;

    while (done < flows) {
        uint32_t end = done + BATCH < flows ? done + BATCH : flows;
        uint8_t *at = buffer;

        for (; done < end; done++)
            at = put_flow(at, done, (uint16_t)(1 + done % zones), done + 1 == end);
        send_all(fd, (size_t)(at - buffer));
        drain(fd, NLMSG_ERROR);
    }
    close(fd);
}

static void run(const char *line)
{
    unsigned flows;
    unsigned zones;
    int zone = -1;
    double started = now();

    if (sscanf(line, "create %u %u", &flows, &zones) == 2)
        create(flows, zones);
    else if (sscanf(line, "flush %d", &zone) == 1)
        flush(zone);
    else if (sscanf(line, "dump %d", &zone) == 1 || strcmp(line, "dump\n") == 0)
        dump(zone);
    else
        die(line);
    printf("%.9f\n", now() - started);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    char line[80];

    if (argc > 1) {
        int netns = open(argv[1], O_RDONLY | O_CLOEXEC);

        if (netns < 0 || setns(netns, CLONE_NEWNET) < 0)
            die(argv[1]);
    }
    while (fgets(line, sizeof(line), stdin))
        run(line);
    return 0;
}
