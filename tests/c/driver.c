/*
 * The core against the real kernel: every function of it, in a network namespace of its own.
 *
 *   driver           reaches into another namespace as well
 *   driver --stay    does not, for valgrind
 */
#include "driver.h"
#include "check.h"
#include "make.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FLOWS = 1000, ZONES = 10 };

static const char buckets_path[] = "/proc/sys/net/netfilter/nf_conntrack_buckets";
static struct nlct_filter *everything;

/* A UDP flow that no other number has. */
static struct nlct_flow flow_of(unsigned number)
{
    struct nlct_flow flow = {
        .present = BIT(NLCT_FLOW_ORIG) | BIT(NLCT_FLOW_ZONE) | BIT(NLCT_FLOW_TIMEOUT),
        .timeout = 600,
        .zone = (uint16_t)(number % ZONES),
        .family = AF_INET,
        .orig = {.present = BIT(NLCT_TUPLE_SRC) | BIT(NLCT_TUPLE_DST) | BIT(NLCT_TUPLE_PROTO) |
                            BIT(NLCT_TUPLE_SPORT) | BIT(NLCT_TUPLE_DPORT),
                 .family = AF_INET,
                 .src = {10, 0, (uint8_t)(number >> 8), (uint8_t)number},
                 .dst = {192, 0, 2, 1},
                 .proto = IPPROTO_UDP,
                 .sport = 1024,
                 .dport = 53},
    };

    return flow;
}

static unsigned field_number(const char *name)
{
    struct nlct_field field = {0};
    unsigned number = 0;

    while (nlct_field_get(number, &field) == 0 && strcmp(field.name, name) != 0)
        number++;
    CHECK_IS(strcmp(field.name, name), 0);
    return number;
}

static void load(struct nlct_socket *sock)
{
    static uint8_t family[FLOWS];
    static uint8_t proto[FLOWS];
    static uint8_t src[FLOWS][16];
    static uint8_t dst[FLOWS][16];
    static uint16_t zone[FLOWS];
    static uint16_t sport[FLOWS];
    static uint16_t dport[FLOWS];
    static uint32_t timeout[FLOWS];
    static uint8_t valid[FLOWS];
    const struct nlct_column columns[] = {
        {field_number("family"), family, NULL}, {field_number("proto"), proto, NULL},
        {field_number("src"), src, NULL},       {field_number("dst"), dst, valid},
        {field_number("zone"), zone, NULL},     {field_number("sport"), sport, NULL},
        {field_number("dport"), dport, NULL},   {field_number("timeout"), timeout, NULL},
    };
    const size_t ncolumns = sizeof(columns) / sizeof(columns[0]);
    const struct nlct_column unknown = {9999, family, NULL};
    struct nlct_tally *tally = calloc(1, sizeof(*tally));
    unsigned number;

    CHECK(tally);
    for (number = 0; number < FLOWS; number++) {
        struct nlct_flow flow = flow_of(number);

        family[number] = flow.family;
        proto[number] = flow.orig.proto;
        memcpy(src[number], flow.orig.src, sizeof(src[number]));
        memcpy(dst[number], flow.orig.dst, sizeof(dst[number]));
        zone[number] = flow.zone;
        sport[number] = flow.orig.sport;
        dport[number] = flow.orig.dport;
        timeout[number] = flow.timeout;
        valid[number] = 1;
    }
    /* A flow without a destination is refused by the kernel, one without a family by the core. */
    valid[FLOWS - 1] = 0;
    family[FLOWS - 2] = AF_UNSPEC;
    CHECK_IS(nlct_load(sock, &unknown, 1, NULL, 0, 0, 1, false, tally, NULL), -EINVAL);
    CHECK_IS(nlct_load(sock, columns, ncolumns, NULL, 0, 0, FLOWS, false, tally, NULL), 0);
    CHECK_IS(tally->done, FLOWS - 2);
    CHECK_IS(tally->refused[EINVAL], 2);
    CHECK_IS(nlct_load(sock, columns, ncolumns, NULL, 0, 0, FLOWS - 2, false, tally, NULL), 0);
    CHECK_IS(tally->refused[EEXIST], FLOWS - 2);
    free(tally);
    for (number = FLOWS - 2; number < FLOWS; number++) {
        struct nlct_flow flow = flow_of(number);

        CHECK_IS(nlct_create(sock, &flow, NULL), 0);
        CHECK_IS(nlct_create(sock, &flow, NULL), -EEXIST);
    }
}

static void look_at_one(struct nlct_socket *sock)
{
    struct nlct_flow key = flow_of(25);
    struct nlct_bytes bytes = {0};
    struct nlct_flow found;
    uint32_t entries = 0;
    uint32_t limit = 0;

    CHECK_IS(nlct_get(sock, &key, &found, &bytes), 0);
    CHECK_IS(found.zone, 5);
    CHECK_BYTES(&found.orig, &key.orig, sizeof(key.orig));
    key.zone = 6;
    CHECK_IS(nlct_get(sock, &key, &found, &bytes), -ENOENT);
    key.family = AF_UNSPEC;
    CHECK_IS(nlct_get(sock, &key, &found, &bytes), -EOPNOTSUPP);
    CHECK_IS(nlct_create(sock, &key, NULL), -EINVAL);
    CHECK_IS(nlct_stats(sock, &entries, &limit), 0);
    CHECK_IS(entries, FLOWS);
    CHECK(limit > 0);
    nlct_bytes_free(&bytes);
}

/* Changes a flow, deletes it, and puts it back. */
static void change_one(struct nlct_socket *sock)
{
    const struct nlct_flow before = flow_of(25);
    struct nlct_flow flow = before;
    struct nlct_bytes bytes = {0};
    struct nlct_flow found;

    flow.present |= BIT(NLCT_FLOW_MARK);
    flow.mark = 0xdeadbeef;
    flow.timeout = 1200;
    CHECK_IS(nlct_update(sock, &flow, NULL), 0);
    CHECK_IS(nlct_get(sock, &flow, &found, &bytes), 0);
    CHECK_IS(found.mark, 0xdeadbeef);
    CHECK(found.timeout > 600);
    CHECK_IS(nlct_delete(sock, &flow), -EINVAL);
    found.id++;
    CHECK_IS(nlct_delete(sock, &found), -ENOENT);
    found.id--;
    CHECK_IS(nlct_delete(sock, &found), 0);
    CHECK_IS(nlct_delete(sock, &found), -ENOENT);
    CHECK_IS(nlct_update(sock, &flow, NULL), -ENOENT);
    CHECK_IS(nlct_create(sock, &before, NULL), 0);
    nlct_bytes_free(&bytes);
}

/* Looks at what a dump has seen. Another program may resize the hash table, which all namespaces
   share; then flows are missing or repeated, and nothing can be proven. */
static struct nlct_progress seen_by(const struct nlct_dump *dump)
{
    struct nlct_progress progress;

    nlct_dump_progress(dump, &progress);
    if (progress.resized || progress.interrupted) {
        fputs("MISSING: a hash table that nobody resizes meanwhile\n", stderr);
        exit(EXIT_MISSING);
    }
    CHECK(progress.matched <= progress.scanned);
    return progress;
}

/* -1 where there is no such file. */
static struct nlct_fd open_buckets(const struct nlct_netns *netns)
{
    struct nlct_fd buckets = {.fd = -1};
    const int rc = nlct_netns_file(netns, buckets_path, O_RDONLY, &buckets);

    CHECK(rc == 0 || rc == -ENOENT);
    return buckets;
}

/* Dumps the table to the end. Returns the number of matches. */
static uint64_t run_dump(const struct nlct_netns *netns, const struct nlct_filter *filter,
                         const struct nlct_kernel_filter *kernel_filter, struct nlct_sink *sink)
{
    struct nlct_progress progress;
    struct nlct_socket *sock;
    struct nlct_dump *dump;
    struct nlct_fd buckets = open_buckets(netns);
    int more = 1;

    CHECK_IS(nlct_socket_open(&sock, netns), 0);
    CHECK_IS(nlct_dump_start(&dump, sock, filter, kernel_filter, buckets.fd), 0);
    while (more) {
        more = nlct_dump_next(dump, sink, 20);
        CHECK(more >= 0);
    }
    progress = seen_by(dump);
    nlct_dump_free(&dump);
    nlct_socket_close(&sock);
    nlct_fd_close(&buckets);
    return progress.matched;
}

static void look_at_all(const struct nlct_netns *netns)
{
    static struct nlct_flow rows[64];
    struct nlct_bytes bytes = {0};
    struct nlct_sink *sink = make_rows(rows, 64, &bytes);
    struct nlct_fd buckets = open_buckets(netns);
    struct nlct_socket *sock;
    struct nlct_dump *dump;
    size_t seen = 0;
    int more = 1;

    CHECK(sink);
    CHECK_IS(nlct_socket_open(&sock, netns), 0);
    CHECK_IS(nlct_dump_start(&dump, sock, everything, NULL, buckets.fd), 0);
    while (more) {
        more = nlct_dump_next(dump, sink, 1000);
        CHECK(more >= 0);
        seen += nlct_rows_take(sink);
    }
    CHECK_IS(seen_by(dump).scanned, FLOWS);
    CHECK_IS(seen, FLOWS);
    nlct_dump_free(&dump);
    nlct_fd_close(&buckets);
    nlct_sink_free(&sink);

    /* A dump left half-way. */
    sink = make_rows(rows, 1, &bytes);
    CHECK_IS(nlct_dump_start(&dump, sock, everything, NULL, -1), 0);
    CHECK_IS(nlct_dump_next(dump, sink, 1000), 1);
    CHECK_IS(nlct_rows_take(sink), 1);
    nlct_dump_free(&dump);
    nlct_sink_free(&sink);
    nlct_socket_close(&sock);
    nlct_bytes_free(&bytes);
}

static void count_by_zone(const struct nlct_netns *netns)
{
    const unsigned zone = field_number("zone");
    struct nlct_sink *sink = make_counts(&zone, 1);
    const struct nlct_count *counts;
    size_t count;
    size_t i;

    CHECK(sink);
    CHECK_IS(run_dump(netns, everything, NULL, sink), FLOWS);
    counts = nlct_counts_get(sink, &count);
    CHECK_IS(count, ZONES);
    for (i = 0; i < count; i++)
        CHECK_IS(counts[i].count, FLOWS / ZONES);
    nlct_sink_free(&sink);
}

static void write_lines(const struct nlct_netns *netns)
{
    static char buffer[FLOWS * NLCT_TEXT_MAX];
    struct nlct_sink *sink = make_text(buffer, sizeof(buffer));
    size_t lines = 0;
    size_t size;
    size_t i;

    CHECK(sink);
    CHECK_IS(run_dump(netns, everything, NULL, sink), FLOWS);
    size = nlct_text_take(sink);
    for (i = 0; i < size; i++)
        lines += buffer[i] == '\n';
    CHECK_IS(lines, FLOWS);
    CHECK_IS(buffer[size - 1], '\n');
    nlct_sink_free(&sink);
}

/* Takes the table as columns, empties it, and loads it again. */
static void save_and_restore(const struct nlct_netns *netns, struct nlct_socket *sock)
{
    static uint8_t wanted[256];
    static struct nlct_column columns[256];
    struct nlct_tally *tally = calloc(1, sizeof(*tally));
    struct nlct_bytes bytes;
    struct nlct_sink *sink;
    size_t ncolumns = 0;
    size_t rows;
    size_t i;

    memset(wanted, 1, sizeof(wanted));
    sink = make_columns(wanted, FLOWS + 1);
    CHECK(sink && tally);
    CHECK_IS(run_dump(netns, everything, NULL, sink), FLOWS);
    CHECK_IS(nlct_columns_count(sink), FLOWS);
    rows = nlct_columns_take(sink, columns, &bytes);
    CHECK_IS(rows, FLOWS);
    for (i = 0; i < sizeof(columns) / sizeof(columns[0]); i++)
        if (columns[i].values)
            columns[ncolumns++] = columns[i];
    CHECK_IS(nlct_flush_all(sock), 0);
    CHECK_IS(nlct_load(sock, columns, ncolumns, bytes.data, bytes.size, 0, rows, true, tally, NULL),
             0);
    CHECK_IS(tally->done, 0);
    CHECK_IS(
        nlct_load(sock, columns, ncolumns, bytes.data, bytes.size, 0, rows, false, tally, NULL), 0);
    CHECK_IS(tally->done, FLOWS);
    for (i = 0; i < ncolumns; i++) {
        nlct_column_free(&columns[i]);
    }
    nlct_bytes_free(&bytes);
    nlct_sink_free(&sink);
    free(tally);
}

static struct nlct_filter *filter_of(uint16_t zone)
{
    const struct nlct_range zones = {zone, zone};
    const struct nlct_range family = {AF_INET, AF_INET};
    const struct nlct_test tests[] = {
        {field_number("zone"), NLCT_TEST_RANGES, 1, NLCT_DROP, 1, &zones},
        {field_number("family"), NLCT_TEST_RANGES, NLCT_MATCH, NLCT_DROP, 1, &family},
    };
    struct nlct_filter *filter;

    CHECK_IS(nlct_filter_new(&filter, tests, 2), 0);
    return filter;
}

static void delete_zone(const struct nlct_netns *netns, struct nlct_socket *sock, uint16_t zone)
{
    const struct nlct_kernel_filter kernel_filter = {
        .zone_request = NLCT_ZONE_PLAIN, .zone = zone, .family = AF_INET};
    struct nlct_filter *filter = filter_of(zone);
    struct nlct_sink *sink = make_deletes(sock);
    uint64_t left = run_dump(netns, everything, NULL, NULL);

    CHECK(sink);
    CHECK_IS(run_dump(netns, filter, &kernel_filter, sink), FLOWS / ZONES);
    CHECK_IS(nlct_deletes_get(sink)->deleted, FLOWS / ZONES);
    CHECK_IS(run_dump(netns, filter, NULL, NULL), 0);
    CHECK_IS(run_dump(netns, everything, NULL, NULL), left - FLOWS / ZONES);
    nlct_sink_free(&sink);
    nlct_filter_free(&filter);
}

static int64_t mirrored(const struct nlct_mirror *mirror, uint16_t zone)
{
    return nlct_mirror_count(mirror, &(struct nlct_list){.kind = NLCT_LIST_ZONE, .zone = zone});
}

/* A mirror learns the flows of a dump and is told of one that is new; it deletes a zone. */
static void delete_mirrored(const struct nlct_netns *netns, struct nlct_socket *sock, uint16_t zone)
{
    const struct nlct_list list = {.kind = NLCT_LIST_ZONE, .zone = zone};
    const unsigned kinds = 1U << NLCT_EVENT_NEW | 1U << NLCT_EVENT_DESTROY;
    const uint64_t left = run_dump(netns, everything, NULL, NULL);
    struct nlct_filter *filter = filter_of(zone);
    struct nlct_events *events = NULL;
    struct nlct_mirror *mirror = NULL;
    struct nlct_walk *walk = NULL;
    struct nlct_sink *sink = NULL;
    struct nlct_flow flow = flow_of(FLOWS + zone);
    struct nlct_tally *tally = calloc(1, sizeof(*tally));

    CHECK(tally);
    CHECK_IS(nlct_mirror_new(&mirror, true), 0);
    CHECK_IS(nlct_feed_new(&sink, mirror), 0);
    CHECK_IS(nlct_events_open(&events, netns, kinds, everything, NULL, 1 << 20), 0);
    nlct_mirror_round_begin(mirror, NLCT_ROUND_FEED);
    CHECK_IS(nlct_create(sock, &flow, NULL), 0);
    CHECK_IS(run_dump(netns, everything, NULL, sink), left + 1);
    CHECK_IS(nlct_events_take(events, sink), 0);
    CHECK_IS(nlct_mirror_round_end(mirror, SIZE_MAX), 0);
    CHECK_IS(mirrored(mirror, zone), FLOWS / ZONES + 1);
    CHECK_IS(nlct_walk_new(&walk, mirror, &list), 0);
    CHECK_IS(nlct_walk_delete(walk, sock, NULL, 10000, tally), 0);
    CHECK_IS(tally->done, FLOWS / ZONES + 1);
    CHECK_IS(mirrored(mirror, zone), 0);
    CHECK_IS(run_dump(netns, filter, NULL, NULL), 0);
    CHECK_IS(run_dump(netns, everything, NULL, NULL), left - FLOWS / ZONES);
    CHECK_IS(nlct_events_take(events, sink), 0);
    CHECK_IS(nlct_create(sock, &flow, NULL), 0);
    CHECK_IS(nlct_events_take(events, sink), 0);
    CHECK_IS(mirrored(mirror, zone), 1);
    flow.present &= ~BIT(NLCT_FLOW_TIMEOUT);
    CHECK_IS(nlct_get(sock, &flow, &flow, &(struct nlct_bytes){NULL, 0, 0}), 0);
    CHECK_IS(nlct_mirror_has(mirror, &flow), 1);
    CHECK_IS(nlct_delete(sock, &flow), 0);
    CHECK_IS(nlct_events_take(events, sink), 0);
    CHECK_IS(mirrored(mirror, zone), 0);
    free(tally);
    nlct_walk_free(&walk);
    nlct_events_close(&events);
    nlct_sink_free(&sink);
    nlct_mirror_free(&mirror);
    nlct_filter_free(&filter);
}

static void work_in(const struct nlct_netns *netns)
{
    struct nlct_socket *sock;
    uint32_t entries;
    uint32_t limit;

    CHECK_IS(nlct_socket_open(&sock, netns), 0);
    CHECK_IS(nlct_stats(sock, &entries, &limit), 0);
    CHECK_IS(entries, 0);
    load(sock);
    look_at_one(sock);
    change_one(sock);
    look_at_all(netns);
    count_by_zone(netns);
    write_lines(netns);
    save_and_restore(netns, sock);
    delete_zone(netns, sock, 0);
    delete_zone(netns, sock, 7);
    delete_mirrored(netns, sock, 5);
    /* Old kernels flush everything here, which in this namespace harms nobody. */
    CHECK_IS(nlct_flush_zone(sock, 8, NLCT_ZONE_PLAIN), 0);
    CHECK(run_dump(netns, everything, NULL, NULL) <= FLOWS - 4 * FLOWS / ZONES);
    CHECK_IS(nlct_flush_all(sock), 0);
    CHECK_IS(run_dump(netns, everything, NULL, NULL), 0);
    a_mirror_agrees_with_the_table(netns, 1);
    a_mirror_agrees_with_the_table(netns, 2);
    nlct_socket_close(&sock);
    nlct_socket_close(&sock);
}

static void reach_into_another(const struct nlct_netns *here)
{
    struct nlct_netns netns = {.fd.fd = -1};
    struct nlct_netns wrong;
    struct nlct_socket *sock = NULL;
    struct nlct_fd fd = {.fd = -1};

    CHECK_IS(nlct_netns_new(&netns), 0);
    CHECK(netns.fd.inode != here->fd.inode);
    work_in(&netns);
    CHECK_IS(nlct_netns_socket(&netns, AF_INET, SOCK_DGRAM, 0, &fd), 0);
    nlct_fd_close(&fd);
    CHECK_IS(nlct_netns_file(&netns, "/proc/net/dev", O_RDONLY, &fd), 0);
    nlct_fd_close(&fd);
    CHECK_IS(nlct_netns_file(&netns, "/nonexistent", O_RDONLY, &fd), -ENOENT);
    CHECK_IS(nlct_netns_socket(&netns, -1, SOCK_DGRAM, 0, &fd), -EAFNOSUPPORT);
    wrong = netns;
    wrong.fd.fd = 9999;
    CHECK_IS(nlct_netns_socket(&wrong, AF_INET, SOCK_DGRAM, 0, &fd), -EBADF);
    /* A descriptor that leads elsewhere by now. */
    wrong.fd.fd = here->fd.fd;
    CHECK_IS(nlct_netns_socket(&wrong, AF_INET, SOCK_DGRAM, 0, &fd), -EXDEV);
    CHECK_IS(nlct_socket_open(&sock, &wrong), -EXDEV);
    wrong.here = true;
    CHECK_IS(nlct_socket_open(&sock, &wrong), -EXDEV);
    CHECK(!sock);
    CHECK_IS(fd.fd, -1);
    nlct_netns_close(&netns);
    nlct_netns_close(&netns);
}

int main(int count, char **arguments)
{
    bool stay = count > 1 && strcmp(arguments[1], "--stay") == 0;
    struct nlct_netns here = {.fd.fd = -1};

    if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0) {
        perror("MISSING: a network namespace");
        return EXIT_MISSING;
    }
    CHECK_IS(nlct_netns_here(&here), 0);
    CHECK_IS(nlct_filter_new(&everything, NULL, 0), 0);
    work_in(&here);
    if (!stay)
        reach_into_another(&here);
    nlct_filter_free(&everything);
    nlct_netns_close(&here);
    return 0;
}
