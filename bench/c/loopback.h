/* Flows over loopback: a server, and clients that begin and end. */
#ifndef BENCH_LOOPBACK_H
#define BENCH_LOOPBACK_H

#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "program.h"

static int server;
static struct sockaddr_in server_address;

static inline int connect_to_server(int type)
{
    int fd = socket(AF_INET, type, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&server_address, sizeof(server_address)) < 0)
        die("connect");
    return fd;
}

static inline void udp(void)
{
    struct sockaddr_in peer;
    socklen_t size = sizeof(peer);
    int fd = connect_to_server(SOCK_DGRAM);
    char byte = 0;

    if (send(fd, &byte, 1, 0) < 0 ||
        recvfrom(server, &byte, 1, 0, (struct sockaddr *)&peer, &size) < 0 ||
        sendto(server, &byte, 1, 0, (struct sockaddr *)&peer, size) < 0 ||
        recv(fd, &byte, 1, 0) < 0)
        die("udp");
    close(fd);
}

static inline void tcp(void)
{
    const struct linger reset = {.l_onoff = 1};
    int fd = connect_to_server(SOCK_STREAM);
    int accepted = accept(server, NULL, NULL);

    if (accepted < 0)
        die("accept");
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    close(fd);
    close(accepted);
}

static inline void listen_on_loopback(int type)
{
    struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    socklen_t size = sizeof(server_address);

    server_address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    server = socket(AF_INET, type, 0);
    if (server < 0 || ioctl(server, SIOCSIFFLAGS, &loopback) < 0 ||
        bind(server, (struct sockaddr *)&server_address, size) < 0 ||
        getsockname(server, (struct sockaddr *)&server_address, &size) < 0 ||
        (type == SOCK_STREAM && listen(server, 16) < 0))
        die("server");
}

#endif
