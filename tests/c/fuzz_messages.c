/*
 * A fuzz target for everything that reads what the kernel sent.
 *
 * The first four bytes say what is asked (see struct wish); where they say so, a filter and what a
 * dump asks for come next. Then come datagrams, each after two bytes with its size. They answer a
 * dump or a single request, and what is left of them answers the deletes. Whatever comes, a delete
 * that is sent names one flow, and one that was shown; a dump asks for nothing that kernels get
 * wrong; and what a sink keeps lies inside what it hands over.
 */
#include "fuzz.h"
#include "make.h"

#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

enum {
    COUNT,
    ROWS,
    COUNTS,
    DELETES,
    SILENT_DELETES,
    GET,
    STATS,
    PARSE,
    COLUMNS,
    TEXT,
    VALUES,
    SINKS,
};

/* Bits of a wish: what the filter is about, and what the kernel is asked for. */
enum {
    FAMILY = 1 << 0,
    ZONE = 1 << 1,
    OTHER_ZONES = 1 << 2,
    ASK_ZONE = 1 << 3,
    PROGRAM = 1 << 4,       /* the filter comes in the input */
    KERNEL_FILTER = 1 << 5, /* so does the struct nlct_kernel_filter */
};

struct wish {
    uint8_t sink;
    uint8_t filter;
    uint8_t zone[2]; /* for counts: the two fields to group by; it adds up the first */
};

/* An independent look at what is sent ---------------------------------------------------------- */

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

/* A filter of what the input says, NULL where that makes no sense. */
static struct nlct_filter *next_filter(struct input *input)
{
    static struct program program;

    program_read(input, &program);
    return program_compile(&program);
}

static struct nlct_filter *wish_filter(const struct wish *wish)
{
    const uint64_t zone = (uint64_t)wish->zone[0] << 8 | wish->zone[1];
    const struct nlct_range zones = {zone, zone};
    const struct nlct_range ipv4 = {AF_INET, AF_INET};
    const bool other = wish->filter & OTHER_ZONES;
    const struct nlct_test tests[] = {
        {field_number("family"), NLCT_TEST_RANGES, 1, wish->filter & FAMILY ? NLCT_DROP : 1, 1,
         &ipv4},
        {field_number("zone"), NLCT_TEST_RANGES, other ? NLCT_DROP : NLCT_MATCH,
         other ? NLCT_MATCH : NLCT_DROP, 1, &zones},
    };
    struct nlct_test family = tests[0];
    struct nlct_filter *filter = NULL;
    int rc;

    family.yes = NLCT_MATCH;
    if (wish->filter & ZONE)
        rc = nlct_filter_new(&filter, tests, 2);
    else
        rc = nlct_filter_new(&filter, &family, wish->filter & FAMILY ? 1 : 0);
    ASSERT(rc == 0);
    return filter;
}

static void wish_kernel_filter(const struct wish *wish, struct input *input,
                               struct nlct_kernel_filter *kernel_filter)
{
    memset(kernel_filter, 0, sizeof(*kernel_filter));
    if (wish->filter & KERNEL_FILTER) {
        input_read(input, kernel_filter, sizeof(*kernel_filter));
    } else if (wish->filter & ASK_ZONE) {
        kernel_filter->zone_request = NLCT_ZONE_PLAIN;
        kernel_filter->zone = (uint16_t)(wish->zone[0] << 8 | wish->zone[1]);
    }
}

/* Kernels filter by IPv6 addresses the wrong way round, and refuse a tuple without a family. */
static void check_kernel_filter(const uint8_t *request, size_t size)
{
    enum { FILTER = 25, STATUS_MASK };
    unsigned seen[STATUS_MASK + 1] = {0};
    size_t at = 20;

    ASSERT(size >= 20 && size <= REQUEST_MAX);
    while (at < size) {
        size_t length = two_bytes(request + at);
        uint16_t type = two_bytes(request + at + 2) & 0x3fff;

        ASSERT(length >= 4 && length <= size - at && type <= STATUS_MASK);
        ASSERT(!seen[type]++);
        if (type == CTA_TUPLE_ORIG && nest_has(request + at, length, CTA_TUPLE_IP))
            ASSERT(nest_has(request + at + 4, two_bytes(request + at + 4), CTA_IP_V4_SRC) ||
                   nest_has(request + at + 4, two_bytes(request + at + 4), CTA_IP_V4_DST));
        at += (length + 3) & ~(size_t)3;
    }
    ASSERT(!seen[CTA_TUPLE_ORIG] || (seen[FILTER] && request[16]));
    ASSERT(!seen[FILTER] || seen[CTA_TUPLE_ORIG] || seen[CTA_ZONE]);
}

/* A flow that parses can be built, and what is built parses to the same ---------------------------
 */

/* The zone is written where it belongs, unless it is said twice. */
static bool has_one_zone(const struct nlct_flow *flow)
{
    const bool orig = has(flow->orig.present, NLCT_TUPLE_ZONE);
    const bool reply = has(flow->reply.present, NLCT_TUPLE_ZONE);

    return !(orig || reply) || flow->zone == (orig ? flow->orig.zone : flow->reply.zone);
}

/* NAT, and a reply that does not say to what? */
static bool lacks_translation(const struct nlct_flow *flow)
{
    const uint64_t addresses = bit(NLCT_TUPLE_SRC) | bit(NLCT_TUPLE_DST);

    return has(flow->present, NLCT_FLOW_STATUS) && flow->status & (IPS_SRC_NAT | IPS_DST_NAT) &&
           (!has(flow->present, NLCT_FLOW_REPLY) || (flow->reply.present & addresses) != addresses);
}

static void build(const struct nlct_flow *flow, const struct nlct_bytes *bytes, size_t capacity)
{
    struct nlct_bytes other = {0};
    struct nlct_flow again;
    uint8_t *room = malloc(REQUEST_MAX);
    size_t size;
    int needed;

    ASSERT(room);
    needed = nlct_flow_build(flow, bytes->data, room, REQUEST_MAX);
    if (needed == -EMSGSIZE && flow->helper_info.size > 100) {
        free(room);
        return;
    }
    if (needed == -EINVAL) {
        ASSERT(lacks_translation(flow));
        free(room);
        return;
    }
    ASSERT(needed > 0);
    ASSERT(nlct_flow_parse(room, (size_t)needed, &again, &other) == 0);
    check_spans(&again, other.size);
    check_same(flow, &again);
    if (has_one_zone(flow))
        ASSERT(again.zone == flow->zone);
    free(room);
    nlct_bytes_free(&other);

    /* In a room that is too small, every byte of which ASan guards. */
    size = capacity % (size_t)needed;
    room = malloc(size + 1);
    ASSERT(room);
    ASSERT(nlct_flow_build(flow, bytes->data, room + 1, size) == -EMSGSIZE);
    free(room);
}

static void check_text(const struct nlct_flow *flow, const struct nlct_bytes *bytes)
{
    size_t capacity = NLCT_TEXT_MAX + (size_t)flow->secctx.size;
    char *room = malloc(capacity);
    int size;

    ASSERT(room);
    size = nlct_flow_text(flow, bytes->data, room, capacity);
    ASSERT(size > 0 && (size_t)size <= capacity && room[size - 1] == '\n');
    ASSERT(nlct_flow_text(flow, bytes->data, room, capacity - 1) == -EMSGSIZE);
    free(room);
}

/* Whatever is parsed has a line, and a delete of it names one or is not sent. */
static void parse_expectation(const uint8_t *data, size_t size)
{
    struct nlct_expect expect;
    char line[NLCT_TEXT_MAX];
    struct nlct_socket *sock;
    int rc;

    if (nlct_expect_parse(data, size, &expect) < 0)
        return;
    rc = nlct_expect_text(&expect, line, sizeof(line));
    ASSERT(rc > 0 && line[rc - 1] == '\n');
    sock = fake_open();
    fake_reset();
    fake_answer(fake_acknowledge);
    rc = nlct_expect_delete(sock, &expect);
    ASSERT(rc == 0 || rc == -EINVAL || rc == -EBADMSG);
    ASSERT((rc == 0) == (fake_sent.size != 0));
    if (rc == 0) {
        size_t tuple;
        size_t id;

        ASSERT(find_attr(fake_sent.bytes, fake_sent.size, CTA_EXPECT_TUPLE, &tuple) && tuple > 4);
        ASSERT(find_attr(fake_sent.bytes, fake_sent.size, CTA_EXPECT_ID, &id) && id == 8);
        ASSERT(!find_attr(fake_sent.bytes, fake_sent.size, CTA_EXPECT_HELP_NAME, &id));
    }
    fake_close(sock);
}

static void parse(size_t capacity, const uint8_t *data, size_t size)
{
    struct nlct_bytes bytes = {0};
    struct nlct_flow flow;

    if (nlct_flow_parse(data, size, &flow, &bytes) == 0) {
        check_spans(&flow, bytes.size);
        check_text(&flow, &bytes);
        if (has(flow.present, NLCT_FLOW_ORIG) &&
            (flow.family == AF_INET || flow.family == AF_INET6))
            build(&flow, &bytes, capacity);
    }
    nlct_bytes_free(&bytes);
    parse_expectation(data, size);
}

/* Counters of processors, and flows that are zeroed, from the same answers. */
static void other_requests(const uint8_t *data, size_t size)
{
    const struct nlct_flow keys[2] = {{.family = AF_INET}, {.family = AF_INET6}};
    struct nlct_socket *sock = fake_open();
    struct nlct_zeroing zeroing = {0};
    struct nlct_bytes bytes = {0};
    struct nlct_flow rows[8];
    struct nlct_sink *sink;
    int rc;

    fake_reset();
    queue_datagrams(data, size);
    ASSERT(nlct_stats_cpu(sock, size & 1, &bytes) <= 0);
    ASSERT(bytes.size % sizeof(struct nlct_counter) == 0);
    bytes.size = 0;
    fake_close(sock);
    sock = fake_open();
    fake_reset();
    queue_datagrams(data, size);
    sink = make_rows(rows, 8, &bytes);
    rc = nlct_zero(sock, keys, 2, sink, 1000, &zeroing);
    ASSERT(rc <= 0 && zeroing.next <= 2);
    ASSERT(rc < 0 || zeroing.next == 2);
    nlct_sink_free(&sink);
    nlct_bytes_free(&bytes);
    fake_close(sock);
}

static void single_request(uint8_t kind, const uint8_t *data, size_t size)
{
    const struct nlct_flow key = {.family = AF_INET};
    struct nlct_socket *sock = fake_open();
    struct nlct_bytes bytes = {0};
    struct nlct_flow found;
    uint32_t entries;
    uint32_t limit;
    int rc;

    fake_reset();
    queue_datagrams(data, size);
    rc = kind == GET ? nlct_get(sock, &key, &found, &bytes) : nlct_stats(sock, &entries, &limit);
    ASSERT(rc <= 0);
    if (kind == GET && rc == 0)
        check_spans(&found, bytes.size);
    ASSERT(memchr(nlct_socket_text(sock), 0, sizeof(sock->text)));
    nlct_bytes_free(&bytes);
    fake_close(sock);
    if (kind == STATS)
        other_requests(data, size);
}

/* Sinks ---------------------------------------------------------------------------------------- */

enum { ROOM = 3, BUFFER = NLCT_TEXT_MAX + 200 };

enum { VALUES_BUFFER = 48 * 1024 };

/* A sink of every field there is, by one name: JSON with the tuples as objects, or words. */
static struct nlct_sink *make_all_values(const struct wish *wish, char *buffer)
{
    static struct nlct_word words[256];
    static struct nlct_item items[FLOW_FIELDS_MAX];
    const bool json = wish->zone[0] & 1;
    unsigned i;

    for (i = 0; i < 256; i++)
        words[i] = (struct nlct_word){"abcdefghijklmnopqrstuvwx", sizeof(words->text)};
    for (i = 0; i < flow_fields(); i++) {
        const struct nlct_field *field = &flow_field(i)->public;
        const bool worded = field->kind == NLCT_NUMBER && (field->size == 1 || field->size == 4);

        items[i] = (struct nlct_item){i, 0, json ? "\"a\": " : "", "",
                                      worded && wish->zone[0] & 4 ? words : NULL};
    }
    /* Its next field is in the same tuple. */
    items[field_number("src")].inner = json && wish->zone[0] & 2;
    return make_values(items, flow_fields(), json, buffer, VALUES_BUFFER);
}

/* A sink, and what it writes to. */
struct target {
    uint8_t kind;
    struct nlct_sink *sink;
    struct nlct_flow rows[ROOM];
    struct nlct_bytes bytes;
    char *buffer; /* every byte around which ASan guards */
    char *values; /* likewise */
    uint64_t taken;
};

/* By one to three fields, and addresses as many bits as the fields say; with sums where the first
   field is a number. */
static struct nlct_sink *wish_counts(const struct wish *wish)
{
    const unsigned sums[] = {wish->zone[0], field_number("bytes_orig")};
    const bool adds = wish->filter & ASK_ZONE;
    struct nlct_group groups[NLCT_GROUPS];
    struct nlct_sink *sink = NULL;
    size_t i;

    for (i = 0; i < NLCT_GROUPS; i++)
        groups[i] = (struct nlct_group){wish->zone[i % 2], wish->zone[1] % 33, wish->zone[1] % 129};
    i = wish->filter & FAMILY ? 1 : wish->filter & OTHER_ZONES ? 3 : 2;
    return nlct_counts_new(&sink, groups, i, sums, adds ? 2 : 0) < 0 ? NULL : sink;
}

static void target_begin(struct target *target, const struct wish *wish, struct nlct_socket *sock)
{
    static uint8_t wanted[FLOW_FIELDS_MAX];

    switch (target->kind) {
    case ROWS:
        target->sink = make_rows(target->rows, ROOM, &target->bytes);
        break;
    case COUNTS:
        target->sink = wish_counts(wish);
        break;
    case DELETES:
    case SILENT_DELETES:
        target->sink = make_deletes(sock);
        break;
    case COLUMNS:
        memset(wanted, 1, sizeof(wanted));
        wanted[wish->zone[1] % FLOW_FIELDS_MAX] = 0;
        target->sink = make_columns(wanted, wish->zone[0] % 16);
        break;
    case TEXT:
        target->sink = make_text(target->buffer, BUFFER);
        break;
    case VALUES:
        target->values = malloc(VALUES_BUFFER);
        ASSERT(target->values);
        target->sink = make_all_values(wish, target->values);
        ASSERT(target->sink);
        break;
    }
}

static uint64_t take_rows(struct target *target)
{
    size_t count = nlct_rows_take(target->sink);
    size_t i;

    ASSERT(count <= ROOM);
    for (i = 0; i < count; i++)
        check_spans(&target->rows[i], target->bytes.size);
    return count;
}

static uint64_t take_text(struct target *target)
{
    size_t size = nlct_text_take(target->sink);

    ASSERT(size <= BUFFER);
    ASSERT(!size || target->buffer[size - 1] == '\n');
    return size;
}

static uint64_t take_values(struct target *target)
{
    size_t size = nlct_values_take(target->sink);

    ASSERT(size <= VALUES_BUFFER);
    ASSERT(!size || target->values[size - 1] == '\n');
    return size;
}

/* Each row of the columns can be read, and kept once more. */
static uint64_t take_columns(struct target *target)
{
    static uint8_t wanted[FLOW_FIELDS_MAX];
    struct nlct_column columns[FLOW_FIELDS_MAX];
    struct nlct_sink *again;
    struct nlct_bytes bytes;
    struct nlct_flow flow;
    size_t ncolumns = 0;
    size_t rows = nlct_columns_take(target->sink, columns, &bytes);
    size_t i;

    memset(wanted, 1, sizeof(wanted));
    again = make_columns(wanted, SIZE_MAX);
    ASSERT(again);
    for (i = 0; i < flow_fields(); i++)
        if (columns[i].values)
            columns[ncolumns++] = columns[i];
    for (i = 0; i < rows; i++) {
        nlct_columns_row(columns, ncolumns, bytes.size, i, &flow);
        check_spans(&flow, bytes.size);
        ASSERT(nlct_columns_add(again, &flow, bytes.data) == 0);
    }
    ASSERT(nlct_columns_count(again) == rows);
    for (i = 0; i < ncolumns; i++) {
        nlct_column_free(&columns[i]);
    }
    nlct_bytes_free(&bytes);
    nlct_sink_free(&again);
    return rows;
}

/* How much the sink had; it has room again. */
static uint64_t target_take(struct target *target)
{
    switch (target->kind) {
    case ROWS:
        return take_rows(target);
    case TEXT:
        return take_text(target);
    case VALUES:
        return take_values(target);
    case COLUMNS:
        return take_columns(target);
    }
    return 0;
}

/* Every flow is counted once, and a sum is of no more flows than its count. */
static void check_counts(const struct nlct_sink *sink, uint64_t matched)
{
    size_t count;
    const struct nlct_count *counts = nlct_counts_get(sink, &count);
    const struct nlct_sum *sums = nlct_counts_sums(sink);
    uint64_t counted = 0;
    size_t i;

    for (i = 0; i < count; i++)
        counted += counts[i].count;
    ASSERT(counted == matched);
    for (i = 0; sums && i < 2 * count; i++) {
        ASSERT(sums[i].count <= counts[i / 2].count);
        ASSERT(sums[i].high < sums[i].count || !sums[i].count);
        ASSERT(sums[i].count || !(sums[i].low | sums[i].high));
    }
}

static void target_end(struct target *target, const struct nlct_progress *progress)
{
    if (target->kind == COUNTS && target->sink)
        check_counts(target->sink, progress->matched);
    if (target->kind == ROWS || target->kind == COLUMNS)
        ASSERT(target->taken == progress->matched);
    nlct_sink_free(&target->sink);
    nlct_bytes_free(&target->bytes);
}

static void run_dump(const struct wish *wish, struct input input)
{
    struct nlct_filter *filter = wish->filter & PROGRAM ? next_filter(&input) : wish_filter(wish);
    struct nlct_socket *dumping = fake_open();
    struct nlct_socket *deleting = fake_open();
    struct target target = {.kind = wish->sink % SINKS, .buffer = malloc(BUFFER)};
    struct nlct_progress progress;
    struct nlct_dump *dump;
    struct nlct_kernel_filter kernel_filter;
    uint64_t taken;
    size_t asked;
    int rc;

    if (!filter)
        ASSERT(nlct_filter_new(&filter, NULL, 0) == 0);
    wish_kernel_filter(wish, &input, &kernel_filter);
    fake_reset();
    ASSERT(nlct_dump_start(&dump, dumping, filter, &kernel_filter, -1) == 0);
    check_kernel_filter(fake_sent.bytes, fake_sent.size);
    asked = fake_sent.size;
    queue_datagrams(input.at, input.left);
    if (target.kind == DELETES)
        fake_answer(fake_acknowledge);
    target_begin(&target, wish, deleting);
    /* "More" with nothing taken says that the datagrams are used up. */
    do {
        rc = nlct_dump_next(dump, target.sink, 1000);
        taken = target_take(&target);
        target.taken += taken;
    } while (rc > 0 && taken);
    nlct_dump_progress(dump, &progress);
    ASSERT(progress.matched <= progress.scanned);
    check_deletes(asked, input.at, input.left);
    target_end(&target, &progress);
    free(target.buffer);
    free(target.values);
    nlct_dump_free(&dump);
    nlct_filter_free(&filter);
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
        run_dump(&wish, (struct input){data, size});
    return 0;
}
