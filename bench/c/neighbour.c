/*
 * A neighbour: small things done every millisecond while somebody else flushes, and how long each
 * of them took.
 *
 *     get FLOWS ZONES  look up one of the flows that nlct.fill makes
 *     udp              a new flow over loopback: a datagram from a new port, and its answer
 *     tcp              a new connection over loopback: connect, accept, reset
 *
 * It goes on until the next line comes, then prints all times, in microseconds, in one line. Each
 * counts from the moment it was due, so one that is held up delays those behind it, as it would a
 * queue of callers.
 */
#include <poll.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "loopback.h"
#include "message.h"

#define INTERVAL 1e-3
enum { MOST = 1 << 20 };

static float times[MOST];
static int netlink;

static void get(uint32_t number, uint32_t flows, uint32_t zones)
{
    uint32_t flow = number * 7919 % flows;
    uint16_t be = htons((uint16_t)(1 + flow % zones));
    uint8_t *at = put(put_original(begin(buffer, AF_INET), flow), CTA_ZONE, &be, sizeof(be));

    finish(buffer, at, IPCTNL_MSG_CT_GET, 0);
    send_all(netlink, (size_t)(at - buffer));
    if (recv(netlink, buffer, sizeof(buffer), 0) < 0)
        die("recv");
}

static bool line_is_there(void)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};

    return poll(&input, 1, 0) > 0;
}

static void wait_until(double due)
{
    double left = due - now();

    if (left > 0)
        usleep((useconds_t)(1e6 * left));
}

int main(void)
{
    unsigned flows = 0;
    unsigned zones = 0;
    char line[80];

    netlink = open_socket();
    setvbuf(stdin, NULL, _IONBF, 0);
    prctl(PR_SET_TIMERSLACK, 1UL);
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin)) {
        bool looks = sscanf(line, "get %u %u", &flows, &zones) == 2;
        bool connects = strcmp(line, "tcp\n") == 0;
        double due = now();
        uint32_t done = 0;

        if (!looks)
            listen_on_loopback(connects ? SOCK_STREAM : SOCK_DGRAM);
        for (; done < MOST && !line_is_there(); due += INTERVAL) {
            wait_until(due);
            if (looks)
                get(done, flows, zones);
            else if (connects)
                tcp();
            else
                udp();
            times[done++] = (float)(1e6 * (now() - due));
        }
        if (!fgets(line, sizeof(line), stdin))
            return 0;
        for (uint32_t at = 0; at < done; at++)
            printf("%.1f ", (double)times[at]);
        puts("");
        fflush(stdout);
        if (!looks)
            close(server);
    }
    return 0;
}
