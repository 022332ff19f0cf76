/*
 * A fuzz target for event streams (csrc/ctnetlink/events.c, csrc/netlink/listener.c).
 *
 * The first byte says how much the sink holds; each that follows is something to receive: an event,
 * perhaps with a byte changed, bytes of the input, one of somebody else, an error, drops. Whatever
 * comes, the stream comes to an end, each event that is well-formed is fed once and in order, and
 * every drop is counted.
 */
#include "fuzz.h"
#include "make.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <sys/socket.h>

enum { MOST = 300, ROWS = 8 };

enum kind { GOOD, CHANGED, BYTES, FOREIGN, TRUNCATED, OVERRUN, INTERRUPTED, FAILURE, DROPS, KINDS };

static struct packet packet;
static uint32_t good; /* how many well-formed events were queued */
static uint64_t dropped;
static bool harmed; /* so that others may be malformed, or look as if they were good */

static void put(uint32_t id)
{
    packet_begin(&packet, NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW, NLM_F_CREATE, 0, 0);
    packet_general(&packet, AF_INET);
    packet_tuple(&packet, CTA_TUPLE_ORIG, "10.0.0.1", "192.0.2.1", IPPROTO_UDP, 1024, 53);
    packet_be32(&packet, CTA_ID, id);
    packet_end(&packet);
}

static void queue_events(struct input *input, bool change)
{
    unsigned count = 1 + input_byte(input) % 4U;

    packet.size = 0;
    while (count--)
        put(change ? UINT32_MAX : ++good);
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
        put(0);
        fake_queue(packet.bytes, packet.size, FAKE_PORT, 0);
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

/* Looks at what was fed: the good ones in turn. Returns the number of the last. */
static uint32_t look(const struct nlct_flow *rows, size_t count, uint32_t last)
{
    size_t i;

    for (i = 0; i < count; i++) {
        ASSERT(rows[i].event >= NLCT_EVENT_NEW && rows[i].event <= NLCT_EVENT_DESTROY);
        if (!harmed)
            ASSERT(rows[i].id == last + 1);
        if (rows[i].id == last + 1)
            last++;
    }
    return last;
}

static void drain(struct nlct_events *events, struct nlct_sink *sink, const struct nlct_flow *rows)
{
    struct nlct_events_progress progress;
    uint64_t matched = 0;
    uint64_t lost = 0;
    uint32_t last = 0;
    unsigned quiet = 0;
    unsigned calls;

    /* Nothing is queued where it says so twice: once it may only tell of a loss. */
    for (calls = 0; quiet < 2; calls++) {
        uint64_t count;
        size_t taken;
        const int rc = nlct_events_take(events, sink);

        ASSERT(calls < 100 * MOST);
        ASSERT(rc <= 1);
        taken = nlct_rows_take(sink);
        last = look(rows, taken, last);
        matched += taken;
        if (nlct_events_lost(events, &count))
            nlct_events_told(events);
        lost += count;
        quiet = rc == 0 && !taken ? quiet + 1 : 0;
    }
    nlct_events_progress(events, &progress);
    ASSERT(progress.matched == matched && progress.received >= matched);
    ASSERT(lost == dropped);
    /* Bytes of the input may hold ids of ours, and a changed length may hide nobody else's. */
    ASSERT(last == good || (harmed && last >= good));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct nlct_flow rows[ROWS];
    struct input input = {data, size};
    const size_t room = 1 + input_byte(&input) % ROWS;
    struct nlct_bytes bytes = {0};
    struct nlct_filter *everything;
    struct nlct_events *events;
    struct nlct_sink *sink;
    unsigned queued;

    fake_reset();
    good = 0;
    dropped = 0;
    harmed = false;
    for (queued = 0; input.left && queued < MOST; queued++)
        queue_one(&input);
    ASSERT(nlct_filter_new(&everything, NULL, 0) == 0);
    ASSERT(nlct_events_open(&events, NULL, 1U << NLCT_EVENT_NEW, everything, NULL, 4096) == 0);
    sink = make_rows(rows, room, &bytes);
    ASSERT(sink);
    drain(events, sink, rows);
    nlct_sink_free(&sink);
    nlct_events_close(&events);
    nlct_filter_free(&everything);
    nlct_bytes_free(&bytes);
    return 0;
}
