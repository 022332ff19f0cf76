/*
 * A fuzz target for everything that reads what the kernel sent.
 *
 * The first four bytes say what is asked (see struct wish); then come datagrams, each after two
 * bytes with its size. They answer a dump or a single request, and what is left of them answers
 * the deletes. Whatever comes, a delete that is sent names one flow, and one that was shown.
 */
#include "fake.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { COUNT, ROWS, ZONES, DELETES, SILENT_DELETES, GET, STATS, PARSE, SINKS };

struct wish {
    uint8_t sink;
    uint8_t filter; /* bit 0: family; bit 1: zone; bit 2: every zone but that; bit 3: ask for it */
    uint8_t zone[2];
};

#define ASSERT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition))                                                                          \
            __builtin_trap();                                                                      \
    } while (0)

/* An independent look at what is sent ---------------------------------------------------------- */

static uint16_t two_bytes(const uint8_t *at)
{
    uint16_t value;

    memcpy(&value, at, sizeof(value));
    return value;
}

/* Is there a non-empty attribute of this type in the nest? */
static bool nest_has(const uint8_t *nest, size_t size, uint16_t type)
{
    bool found = false;
    size_t at = 4;

    while (at + 4 <= size) {
        size_t length = two_bytes(nest + at);

        ASSERT(length >= 4 && length <= size - at);
        if ((two_bytes(nest + at + 2) & 0x3fff) == type && length > 4)
            found = true;
        at += (length + 3) & ~(size_t)3;
    }
    ASSERT(at >= size);
    return found;
}

static void check_delete(const uint8_t *request, size_t size, const uint8_t *shown,
                         size_t shown_size)
{
    unsigned seen[CTA_ID + CTA_ZONE] = {0};
    size_t at = 20;

    ASSERT(size >= 20 && size <= REQUEST_MAX);
    ASSERT(two_bytes(request + 4) == (NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE));
    ASSERT((two_bytes(request + 6) & ~NLM_F_ACK) == NLM_F_REQUEST);
    ASSERT(request[16] == AF_INET || request[16] == AF_INET6);
    while (at < size) {
        uint16_t length = two_bytes(request + at);
        uint16_t type = two_bytes(request + at + 2) & 0x3fff;

        ASSERT(length >= 4 && length <= size - at);
        ASSERT(type == CTA_TUPLE_ORIG || type == CTA_ID || type == CTA_ZONE);
        ASSERT(!seen[type]++);
        ASSERT(type != CTA_ID || length == 8);
        ASSERT(type != CTA_ZONE || length == 6);
        ASSERT(memmem(shown, shown_size, request + at, length));
        if (type == CTA_TUPLE_ORIG) {
            ASSERT(nest_has(request + at, length, CTA_TUPLE_IP));
            ASSERT(nest_has(request + at, length, CTA_TUPLE_PROTO));
        }
        at += ((size_t)length + 3) & ~(size_t)3;
    }
    ASSERT(seen[CTA_TUPLE_ORIG] && seen[CTA_ID]);
}

static void check_deletes(size_t from, const uint8_t *shown, size_t shown_size)
{
    size_t at = from;

    while (at < fake_sent.size) {
        uint32_t length;

        ASSERT(fake_sent.size - at >= 20);
        memcpy(&length, fake_sent.bytes + at, sizeof(length));
        ASSERT(length <= fake_sent.size - at);
        check_delete(fake_sent.bytes + at, length, shown, shown_size);
        at += (length + 3) & ~3U;
    }
}

/* What is asked -------------------------------------------------------------------------------- */

static void queue_datagrams(const uint8_t *data, size_t size)
{
    while (size > 2) {
        size_t length = two_bytes(data);

        data += 2;
        size -= 2;
        if (length > size)
            length = size;
        fake_queue(data, length, 0, 0);
        data += length;
        size -= length;
    }
}

static void wish_filter(const struct wish *wish, struct nlct_filter *filter)
{
    unsigned zone = (unsigned)(wish->zone[0] << 8 | wish->zone[1]);

    memset(filter, 0, sizeof(*filter));
    if (wish->filter & 1) {
        filter->present |= NLCT_FILTER_FAMILY;
        filter->family = AF_INET;
    }
    if (!(wish->filter & 2))
        return;
    filter->present |= NLCT_FILTER_ZONE;
    memset(filter->zones, wish->filter & 4 ? 0xff : 0, sizeof(filter->zones));
    filter->zones[zone / 8] ^= (uint8_t)(1U << zone % 8);
}

/* A flow that parses can be built, and what is built parses to the same. */
/* ICMP fields are written for the ICMP protocols alone. */
static bool is_writable(const struct nlct_tuple *tuple)
{
    const uint32_t icmp = NLCT_TUPLE_ICMP_ID | NLCT_TUPLE_ICMP_TYPE | NLCT_TUPLE_ICMP_CODE;

    return !(tuple->present & icmp) ||
           (tuple->present & NLCT_TUPLE_PROTO &&
            (tuple->proto == IPPROTO_ICMP || tuple->proto == IPPROTO_ICMPV6));
}

static void parse(size_t capacity, const uint8_t *data, size_t size)
{
    uint8_t *room;
    struct nlct_flow again;
    struct nlct_flow flow;
    int needed;

    if (nlct_flow_parse(data, size, &flow) < 0)
        return;
    if (!(flow.present & NLCT_FLOW_ORIG) || (flow.family != AF_INET && flow.family != AF_INET6))
        return;
    room = malloc(REQUEST_MAX);
    ASSERT(room);
    needed = nlct_flow_build(&flow, room, REQUEST_MAX);
    ASSERT(needed > 0);
    ASSERT(nlct_flow_parse(room, (size_t)needed, &again) == 0);
    if (is_writable(&flow.orig))
        ASSERT(memcmp(&again.orig, &flow.orig, sizeof(flow.orig)) == 0);
    ASSERT(!(flow.present & NLCT_FLOW_ZONE) || again.zone == flow.zone);
    free(room);

    /* In a room that is too small, every byte of which ASan guards. */
    size = capacity % (size_t)needed;
    room = malloc(size + 1);
    ASSERT(room);
    ASSERT(nlct_flow_build(&flow, room + 1, size) == -EMSGSIZE);
    free(room);
}

static void single_request(uint8_t kind, const uint8_t *data, size_t size)
{
    const struct nlct_flow key = {.family = AF_INET};
    struct nlct_socket *sock = fake_open();
    struct nlct_flow found;
    uint32_t entries;
    uint32_t limit;
    int rc;

    fake_reset();
    queue_datagrams(data, size);
    rc = kind == GET ? nlct_get(sock, &key, &found) : nlct_stats(sock, &entries, &limit);
    ASSERT(rc <= 0);
    ASSERT(memchr(nlct_socket_text(sock), 0, sizeof(sock->text)));
    fake_close(sock);
}

static struct nlct_sink *sink_of(uint8_t kind, struct nlct_flow *rows, uint64_t *counts,
                                 struct nlct_socket *sock, struct nlct_tally *tally)
{
    switch (kind) {
    case ROWS:
        return nlct_rows_new(rows, 3);
    case ZONES:
        return nlct_zones_new(counts);
    case DELETES:
    case SILENT_DELETES:
        return nlct_deleter_new(sock, tally);
    default:
        return NULL;
    }
}

static void pass(const struct wish *wish, const uint8_t *data, size_t size)
{
    static struct nlct_filter filter;
    static struct nlct_tally tally;
    static uint64_t counts[65536];
    struct nlct_socket *dumping = fake_open();
    struct nlct_socket *deleting = fake_open();
    uint8_t kind = wish->sink % SINKS;
    struct nlct_progress progress;
    struct nlct_flow rows[3];
    struct nlct_sink *sink;
    struct nlct_dump *dump;
    size_t asked;
    size_t taken;
    int rc;

    wish_filter(wish, &filter);
    fake_reset();
    ASSERT(nlct_dump_start(&dump, dumping, &filter, wish->filter & 8, -1) == 0);
    asked = fake_sent.size;
    queue_datagrams(data, size);
    if (kind == DELETES)
        fake_answer(fake_acknowledge);
    sink = sink_of(kind, rows, counts, deleting, &tally);
    /* "More" with no row taken says that the datagrams are used up. */
    do {
        rc = nlct_dump_next(dump, sink, 1000);
        taken = kind == ROWS ? nlct_rows_take(sink) : 0;
        ASSERT(taken <= 3);
    } while (rc > 0 && taken);
    nlct_dump_progress(dump, &progress);
    ASSERT(progress.matched <= progress.scanned);
    check_deletes(asked, data, size);
    nlct_sink_free(sink);
    nlct_dump_free(dump);
    fake_close(dumping);
    fake_close(deleting);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wish wish;
    uint8_t kind;

    if (size < sizeof(wish))
        return 0;
    memcpy(&wish, data, sizeof(wish));
    data += sizeof(wish);
    size -= sizeof(wish);
    kind = wish.sink % SINKS;
    if (kind == PARSE)
        parse(wish.zone[1], data, size);
    else if (kind == GET || kind == STATS)
        single_request(kind, data, size);
    else
        pass(&wish, data, size);
    return 0;
}
