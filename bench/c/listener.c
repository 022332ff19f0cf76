/*
 * The floor of listening: receive the events of new flows and of their ends, and look at nothing
 * but who sent them.
 *
 *     open       begin to listen
 *     receive N  receive so many events, which are queued already
 *     follow N   receive so many while they come, looking every few milliseconds, as a mirror does
 *     close      listen no more
 *
 * The answers are seconds of the processor's time.
 */
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "message.h"

enum { AT_ONCE = 64, ROOM = 4096, QUEUE = 1 << 29 };
#define LOOK 4e-3

static int listening;
static struct mmsghdr messages[AT_ONCE];
static struct iovec parts[AT_ONCE];
static struct sockaddr_nl senders[AT_ONCE];
static uint8_t bytes[AT_ONCE][ROOM];

static double processor_time(void)
{
    struct timespec time;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void lay_out(void)
{
    for (unsigned i = 0; i < AT_ONCE; i++) {
        parts[i] = (struct iovec){bytes[i], ROOM};
        messages[i].msg_hdr = (struct msghdr){.msg_name = &senders[i],
                                              .msg_namelen = sizeof(senders[i]),
                                              .msg_iov = &parts[i],
                                              .msg_iovlen = 1};
    }
}

static void begin_to_listen(void)
{
    const int groups[] = {NFNLGRP_CONNTRACK_NEW, NFNLGRP_CONNTRACK_DESTROY};
    const int room = QUEUE;

    listening = open_socket();
    setsockopt(listening, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
    for (unsigned i = 0; i < 2; i++)
        if (setsockopt(listening, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &groups[i],
                       sizeof(groups[i])) < 0)
            die("join");
}

/* Receives what is queued. Returns how many events. */
static long receive_queued(void)
{
    long received = 0;
    int count;

    while ((count = recvmmsg(listening, messages, AT_ONCE, MSG_DONTWAIT, NULL)) > 0)
        for (int i = 0; i < count; i++)
            received += senders[i].nl_pid == 0;
    if (errno != EAGAIN)
        die("recvmmsg");
    return received;
}

static void follow(long wanted)
{
    struct pollfd readable = {.fd = listening, .events = POLLIN};

    while (wanted > 0) {
        if (poll(&readable, 1, -1) < 0)
            die("poll");
        usleep((useconds_t)(1e6 * LOOK));
        wanted -= receive_queued();
    }
}

static void run(const char *line)
{
    long wanted;

    if (strcmp(line, "open\n") == 0)
        begin_to_listen();
    else if (strcmp(line, "close\n") == 0)
        close(listening);
    else if (sscanf(line, "follow %ld", &wanted) == 1)
        follow(wanted);
    else if (sscanf(line, "receive %ld", &wanted) != 1 || receive_queued() != wanted)
        die(line);
}

int main(void)
{
    char line[80];

    lay_out();
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin)) {
        const double started = processor_time();

        run(line);
        printf("%.9f\n", processor_time() - started);
        fflush(stdout);
    }
    return 0;
}
