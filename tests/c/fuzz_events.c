/*
 * A fuzz target for event streams (csrc/ctnetlink/events.c, csrc/netlink/listener.c).
 *
 * The first byte says whose events are listened to, and for how many at a time there is room; each
 * that follows is something to receive: an event, perhaps with a byte changed, bytes of the input,
 * one of somebody else or of the other kind of stream, an error, drops. Whatever
 * comes, the stream comes to an end, each event that is well-formed is fed once and in order, and
 * every drop is counted.
 */
#include "fuzz.h"
#include "make.h"

#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <sys/socket.h>

enum { MOST = 300, ROWS = 8 };

enum kind {
    GOOD,
    CHANGED,
    BYTES,
    FOREIGN,
    TRUNCATED,
    OVERRUN,
    INTERRUPTED,
    FAILURE,
    DROPS,
    OTHERS,
    KINDS
};

/* Of the first byte. */
enum { OF_EXPECTATIONS = 0x80 };

static struct packet packet;
static bool of_expectations;
static uint32_t good; /* how many well-formed events were queued */
static uint64_t dropped;
static bool harmed; /* so that others may be malformed, or look as if they were good */

/* Adds an event of a flow or of an expectation. */
static void put(bool expectation, uint32_t id)
{
    const uint16_t type = expectation ? NFNL_SUBSYS_CTNETLINK_EXP << 8 | IPCTNL_MSG_EXP_NEW
                                      : NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW;

    packet_begin(&packet, type, NLM_F_CREATE, 0, 0);
    packet_general(&packet, AF_INET);
    packet_tuple(&packet, expectation ? CTA_EXPECT_TUPLE : CTA_TUPLE_ORIG, "10.0.0.1", "192.0.2.1",
                 IPPROTO_UDP, 1024, 53);
    packet_be32(&packet, expectation ? CTA_EXPECT_ID : CTA_ID, id);
    packet_end(&packet);
}

static void queue_events(struct input *input, bool change)
{
    unsigned count = 1 + input_byte(input) % 4U;

    packet.size = 0;
    while (count--)
        put(of_expectations, change ? UINT32_MAX : ++good);
    if (change) {
        const unsigned at = input_byte(input);

        packet.bytes[at % packet.size] = input_byte(input);
        harmed = true;
    }
    fake_queue(packet.bytes, packet.size, 0, 0);
}

static void queue_one(struct input *input)
{
    struct wire part;
    unsigned drops;

    switch (input_byte(input) % KINDS) {
    case GOOD:
        queue_events(input, false);
        break;
    case CHANGED:
        queue_events(input, true);
        break;
    case BYTES:
        part = input_part(input);
        /* More does not come in one datagram. */
        fake_queue(part.at, part.left > 4096 ? 4096 : part.left, 0, 0);
        harmed = true;
        break;
    case FOREIGN:
        packet.size = 0;
        put(of_expectations, 0);
        fake_queue(packet.bytes, packet.size, FAKE_PORT, 0);
        break;
    case OTHERS:
        packet.size = 0;
        put(!of_expectations, 0);
        fake_queue(packet.bytes, packet.size, 0, 0);
        break;
    case TRUNCATED:
        fake_queue("", 0, 0, MSG_TRUNC);
        break;
    case OVERRUN:
        fake_queue_error(ENOBUFS);
        break;
    case INTERRUPTED:
        fake_queue_error(EINTR);
        break;
    case FAILURE:
        fake_queue_error(ENOMEM);
        break;
    case DROPS:
        drops = input_byte(input);
        if (drops)
            fake_queue_drops(drops);
        dropped += drops;
        break;
    default:
        break;
    }
}

/* A stream, and where its events go: flows into a sink, expectations into rows. */
struct listening {
    struct nlct_events *events;
    size_t room;
    struct nlct_filter *everything;
    struct nlct_sink *sink;
    struct nlct_bytes bytes;
    struct nlct_flow flows[ROWS];
    struct nlct_expect expectations[ROWS];
    uint32_t last; /* of the good ones */
};

static void begin(struct listening *on)
{
    const unsigned kinds = 1U << NLCT_EVENT_NEW;

    if (of_expectations) {
        ASSERT(nlct_expect_events_open(&on->events, NULL, kinds, 4096) == 0);
        return;
    }
    ASSERT(nlct_filter_new(&on->everything, NULL, 0) == 0);
    ASSERT(nlct_events_open(&on->events, NULL, kinds, on->everything, NULL, 4096) == 0);
    on->sink = make_rows(on->flows, on->room, &on->bytes);
    ASSERT(on->sink);
}

static void end(struct listening *on)
{
    nlct_sink_free(&on->sink);
    nlct_events_close(&on->events);
    nlct_filter_free(&on->everything);
    nlct_bytes_free(&on->bytes);
}

/* Looks at an event: the good ones come in turn. */
static void look(struct listening *on, uint8_t event, uint32_t id)
{
    ASSERT(event >= NLCT_EVENT_NEW && event <= NLCT_EVENT_DESTROY);
    if (!harmed)
        ASSERT(id == on->last + 1);
    if (id == on->last + 1)
        on->last++;
}

static void look_at_text(const struct nlct_expect *expectation)
{
    char line[NLCT_TEXT_MAX];
    const int size = nlct_expect_text(expectation, line, sizeof(line));

    ASSERT(size > 0 && line[size - 1] == '\n');
}

/* Takes what there is room for, and looks at it. Returns what the core said. */
static int take(struct listening *on, size_t *taken)
{
    size_t i;
    int rc;

    *taken = 0;
    if (of_expectations) {
        rc = nlct_expect_events_take(on->events, on->expectations, on->room, taken);
        ASSERT(*taken <= on->room);
        for (i = 0; i < *taken; i++) {
            look(on, on->expectations[i].event, on->expectations[i].id);
            look_at_text(&on->expectations[i]);
        }
        return rc;
    }
    rc = nlct_events_take(on->events, on->sink);
    *taken = nlct_rows_take(on->sink);
    for (i = 0; i < *taken; i++)
        look(on, on->flows[i].event, on->flows[i].id);
    return rc;
}

static void drain(struct listening *on)
{
    struct nlct_events_progress progress;
    uint64_t matched = 0;
    uint64_t lost = 0;
    unsigned quiet = 0;
    unsigned calls;

    /* Nothing is queued where it says so twice: once it may only tell of a loss. */
    for (calls = 0; quiet < 2; calls++) {
        uint64_t count;
        size_t taken;
        const int rc = take(on, &taken);

        ASSERT(calls < 100 * MOST);
        ASSERT(rc <= 1 && rc != -EINVAL);
        matched += taken;
        if (nlct_events_lost(on->events, &count))
            nlct_events_told(on->events);
        lost += count;
        quiet = rc == 0 && !taken ? quiet + 1 : 0;
    }
    nlct_events_progress(on->events, &progress);
    ASSERT(progress.matched == matched && progress.received >= matched);
    ASSERT(lost == dropped);
    /* Bytes of the input may hold ids of ours, and a changed length may hide nobody else's. */
    ASSERT(on->last == good || (harmed && on->last >= good));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    const uint8_t first = input_byte(&input);
    struct listening on = {.room = 1 + first % ROWS};
    unsigned queued;

    fake_reset();
    of_expectations = first & OF_EXPECTATIONS;
    good = 0;
    dropped = 0;
    harmed = false;
    for (queued = 0; input.left && queued < MOST; queued++)
        queue_one(&input);
    begin(&on);
    drain(&on);
    end(&on);
    return 0;
}
