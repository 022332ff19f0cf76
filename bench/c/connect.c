/*
 * New flows, as fast as they go.
 *
 *     tcp N    so many connections over loopback, one after another: connect, accept, reset
 */
#include "loopback.h"

static void run(const char *line)
{
    unsigned count;

    if (sscanf(line, "tcp %u", &count) != 1)
        die(line);
    while (count--)
        tcp();
}

int main(void)
{
    listen_on_loopback(SOCK_STREAM);
    return serve(run);
}
