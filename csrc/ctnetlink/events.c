/*
 * Events: subscribe, receive, and hand over. Those of flows are matched and feed a sink, as a dump
 * does; those of expectations go into rows.
 */
#include "ctnetlink.h"

#include <linux/membarrier.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Datagrams a call: some ten milliseconds of work. */
enum { MANY = 8192 };

/* What a packet needs at most, but for one that is held in a queue. */
enum { GRACE_MILLISECONDS = 100 };

/* The subsystems: whose events they are. Their operations have the same numbers. */
enum { FLOWS = NFNL_SUBSYS_CTNETLINK, EXPECTATIONS = NFNL_SUBSYS_CTNETLINK_EXP };

_Static_assert((int)IPCTNL_MSG_CT_NEW == (int)IPCTNL_MSG_EXP_NEW, "the same");
_Static_assert((int)IPCTNL_MSG_CT_DELETE == (int)IPCTNL_MSG_EXP_DELETE, "the same");

struct nlct_events {
    struct listener *listener;
    uint8_t subsystem;
    const struct nlct_filter *filter;
    struct nlct_kernel_filter kernel_filter; /* all zero excludes nothing */
    uint32_t muted;                          /* the port whose deletes are no news, 0 for none */
    struct nlct_events_progress progress;
    struct wire wire; /* what is left of the latest datagram */
};

enum { KINDS = NLCT_EVENT_DESTROY + 1 };

/* No kernel makes updates of expectations, so it costs nothing to be in their group. */
static const unsigned flow_groups[KINDS] = {
    [0] = NFNLGRP_CONNTRACK_EXP_UPDATE,
    [NLCT_EVENT_NEW] = NFNLGRP_CONNTRACK_NEW,
    [NLCT_EVENT_UPDATE] = NFNLGRP_CONNTRACK_UPDATE,
    [NLCT_EVENT_DESTROY] = NFNLGRP_CONNTRACK_DESTROY,
};
static const unsigned expect_groups[KINDS] = {
    [0] = NFNLGRP_CONNTRACK_EXP_UPDATE,
    [NLCT_EVENT_NEW] = NFNLGRP_CONNTRACK_EXP_NEW,
    [NLCT_EVENT_UPDATE] = NFNLGRP_CONNTRACK_EXP_UPDATE,
    [NLCT_EVENT_DESTROY] = NFNLGRP_CONNTRACK_EXP_DESTROY,
};

/* Opening ------------------------------------------------------------------------------------- */

static int attach(struct nlct_events *events)
{
    struct sock_filter code[EVENT_FILTER_MAX];
    const size_t count = event_filter_build(code, &events->kernel_filter, events->muted);

    return count ? listener_filter(events->listener, code, count) : 0;
}

static int subscribe(struct nlct_events *events, unsigned kinds)
{
    const unsigned *groups = events->subsystem == FLOWS ? flow_groups : expect_groups;
    unsigned kind;
    int rc = 0;

    for (kind = 0; kind < KINDS && rc == 0; kind++)
        if (kinds & 1U << kind)
            rc = listener_join(events->listener, groups[kind]);
    return rc;
}

/* Opens a stream of what 'wanted' says. */
static int open_stream(struct nlct_events **events, const struct nlct_events *wanted,
                       const struct nlct_netns *netns, unsigned kinds, size_t buffer)
{
    struct nlct_events *new = calloc(1, sizeof(*new));
    int rc;

    if (!new)
        return -ENOMEM;
    *new = *wanted;
    *events = new;
    rc = listener_open(&new->listener, netns, buffer);
    /* The filter comes first: what is queued has passed it. */
    if (rc == 0)
        rc = attach(new);
    if (rc == 0)
        rc = subscribe(new, kinds);
    if (rc < 0)
        nlct_events_close(events);
    return rc;
}

int nlct_events_open(struct nlct_events **events, const struct nlct_netns *netns, unsigned kinds,
                     const struct nlct_filter *filter,
                     const struct nlct_kernel_filter *kernel_filter, size_t buffer)
{
    struct nlct_events wanted = {.subsystem = FLOWS, .filter = filter};

    if (kernel_filter)
        wanted.kernel_filter = *kernel_filter;
    return open_stream(events, &wanted, netns, kinds, buffer);
}

int nlct_expect_events_open(struct nlct_events **events, const struct nlct_netns *netns,
                            unsigned kinds, size_t buffer)
{
    const struct nlct_events wanted = {.subsystem = EXPECTATIONS};

    return open_stream(events, &wanted, netns, kinds, buffer);
}

void nlct_events_close(struct nlct_events **events)
{
    struct nlct_events *taken = __atomic_exchange_n(events, NULL, __ATOMIC_ACQ_REL);

    if (taken)
        listener_close(&taken->listener);
    free(taken);
}

int nlct_events_fd(const struct nlct_events *events)
{
    return listener_fd(events->listener);
}

int nlct_events_buffer(const struct nlct_events *events, size_t *buffer)
{
    return listener_buffer(events->listener, buffer);
}

int nlct_events_resize(struct nlct_events *events, size_t buffer)
{
    return listener_resize(events->listener, buffer);
}

int nlct_events_mute(struct nlct_events *events, uint32_t port)
{
    events->muted = port;
    return attach(events);
}

/* Taking -------------------------------------------------------------------------------------- */

/* Takes one event. Returns 1 if it was wanted, 0 if not, FULL if there is no room for it, or
   -errno. */
typedef int take_event(struct nlct_events *events, void *into, uint8_t event, struct wire payload);

enum { FULL = 2 };

/* The kind of event that a message tells of, 0 for none, as what another subsystem says. */
static uint8_t event_of(const struct nlct_events *events, const struct nlmsghdr *header)
{
    if (header->nlmsg_type == message_type(events->subsystem, IPCTNL_MSG_CT_DELETE))
        return NLCT_EVENT_DESTROY;
    if (header->nlmsg_type != message_type(events->subsystem, IPCTNL_MSG_CT_NEW))
        return 0;
    return header->nlmsg_flags & NLM_F_CREATE ? NLCT_EVENT_NEW : NLCT_EVENT_UPDATE;
}

/* Matches a flow, and feeds a sink with it; NULL takes everything. */
static int take_flow(struct nlct_events *events, void *into, uint8_t event, struct wire payload)
{
    struct nlct_sink *sink = into;
    struct view view;
    int rc = view_parse(&view, payload);

    view.event = event;
    if (rc == 0)
        rc = filter_match(events->filter, &view);
    if (rc <= 0 || !sink)
        return rc;
    rc = sink->take(sink, &view);
    return rc > 0 ? FULL : rc == 0 ? 1 : rc;
}

struct expect_rows {
    struct nlct_expect *rows;
    size_t capacity;
    size_t count;
};

static int take_expect(struct nlct_events *events, void *into, uint8_t event, struct wire payload)
{
    struct expect_rows *rows = into;
    int rc;

    (void)events;
    if (rows->count == rows->capacity)
        return FULL;
    rc = expect_read(payload, &rows->rows[rows->count]);
    if (rc < 0)
        return rc;
    rows->rows[rows->count++].event = event;
    return 1;
}

/* Takes one message. Returns 0, 1 if there is no room for it, or -errno; after 1 and -ENOMEM it is
   to be taken again. */
static int take_message(struct nlct_events *events, take_event *take, void *into,
                        const struct nlmsghdr *header, struct wire payload)
{
    const uint8_t event = event_of(events, header);
    int rc;

    if (!event)
        return 0;
    /* Where the kernel could not be asked, or not yet. */
    if (event == NLCT_EVENT_DESTROY && events->muted && header->nlmsg_pid == events->muted)
        return 0;
    rc = take(events, into, event, payload);
    if (rc == FULL)
        return 1;
    if (rc == -ENOMEM)
        return rc;
    events->progress.received++;
    events->progress.matched += rc > 0;
    return rc < 0 ? rc : 0;
}

/* Takes what is left of the latest datagram. Returns 0, 1 if there is no room for it, or -errno. */
static int take_datagram(struct nlct_events *events, take_event *take, void *into)
{
    struct nlmsghdr header;
    struct wire payload;
    int rc;

    for (;;) {
        const struct wire before = events->wire;

        rc = wire_message(&events->wire, &header, &payload);
        if (rc < 0)
            events->wire.left = 0;
        if (rc <= 0)
            return rc;
        rc = take_message(events, take, into, &header, payload);
        if (rc > 0 || rc == -ENOMEM)
            events->wire = before;
        if (rc)
            return rc;
    }
}

static int take_queued(struct nlct_events *events, take_event *take, void *into)
{
    unsigned many;
    int rc;

    if (!listener_is(events->listener))
        return -EBADF;
    for (many = 0; many < MANY; many++) {
        rc = take_datagram(events, take, into);
        if (rc)
            return rc;
        rc = listener_next(events->listener, &events->wire);
        if (rc <= 0)
            return rc;
    }
    return 1;
}

int nlct_events_take(struct nlct_events *events, struct nlct_sink *sink)
{
    return events->subsystem == FLOWS ? take_queued(events, take_flow, sink) : -EINVAL;
}

int nlct_expect_events_take(struct nlct_events *events, struct nlct_expect *rows, size_t capacity,
                            size_t *count)
{
    struct expect_rows into = {rows, capacity, *count};
    int rc;

    if (events->subsystem != EXPECTATIONS)
        return -EINVAL;
    rc = take_queued(events, take_expect, &into);
    *count = into.count;
    return rc;
}

void nlct_events_progress(const struct nlct_events *events, struct nlct_events_progress *progress)
{
    *progress = events->progress;
}

bool nlct_events_lost(const struct nlct_events *events, uint64_t *count)
{
    return listener_lost(events->listener, count);
}

void nlct_events_told(struct nlct_events *events)
{
    listener_told(events->listener);
}

void nlct_grace_period(void)
{
    /* Not where processors run without a clock tick. */
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) < 0)
        (void)poll(NULL, 0, GRACE_MILLISECONDS);
}

int nlct_readable(int fd, int milliseconds)
{
    struct pollfd wanted = {.fd = fd, .events = POLLIN};
    const int ready = poll(&wanted, 1, milliseconds);

    if (ready < 0)
        return -errno;
    return ready ? 0 : -EAGAIN;
}
