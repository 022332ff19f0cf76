/*
 * nlct: Linux connection tracking over netlink.
 *
 * The public C contract, in reading order: flows, namespaces, sockets, single requests, filters,
 * passes over the table and the sinks they feed, deletes and flushes, loading. The Python binding
 * is cut from between the two markers below, so what stands there is plain declarations.
 *
 * Functions that can fail return 0, a count, or a negative errno. Nothing prints, nothing is
 * global. An object belongs to one thread at a time.
 */
#ifndef NLCT_H
#define NLCT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* binding: begin */

/* Flows --------------------------------------------------------------------------------------- */

/* Which fields of a tuple hold a value: absent is not zero. */
enum nlct_tuple_field {
    NLCT_TUPLE_SRC = 0x1,
    NLCT_TUPLE_DST = 0x2,
    NLCT_TUPLE_PROTO = 0x4,
    NLCT_TUPLE_SPORT = 0x8,
    NLCT_TUPLE_DPORT = 0x10,
    NLCT_TUPLE_ICMP_ID = 0x20,
    NLCT_TUPLE_ICMP_TYPE = 0x40,
    NLCT_TUPLE_ICMP_CODE = 0x80,
    NLCT_TUPLE_ZONE = 0x100,
};

/* One direction of a flow. Addresses are in network order, IPv4 in the first four bytes; every
   number is in host order. 'zone' is set only where the zone applies to this direction alone. */
struct nlct_tuple {
    uint32_t present;
    uint8_t src[16];
    uint8_t dst[16];
    uint16_t sport;
    uint16_t dport;
    uint16_t icmp_id;
    uint16_t zone;
    uint8_t icmp_type;
    uint8_t icmp_code;
    uint8_t proto;
};

enum nlct_flow_field {
    NLCT_FLOW_ORIG = 0x1,
    NLCT_FLOW_REPLY = 0x2,
    NLCT_FLOW_ZONE = 0x4,
    NLCT_FLOW_STATUS = 0x8,
    NLCT_FLOW_TIMEOUT = 0x10,
    NLCT_FLOW_MARK = 0x20,
    NLCT_FLOW_ID = 0x40,
    NLCT_FLOW_USE = 0x80,
};

/* One conntrack entry. 'family' is AF_INET or AF_INET6; 'timeout' is in seconds. */
struct nlct_flow {
    uint32_t present;
    uint32_t status;
    uint32_t timeout;
    uint32_t mark;
    uint32_t id;
    uint32_t use;
    uint16_t zone;
    uint8_t family;
    struct nlct_tuple orig;
    struct nlct_tuple reply;
};

/* Fills '*flow' from one netlink message of 'size' bytes. Unknown attributes are skipped.
   Returns 0, or -EBADMSG with '*flow' unspecified. */
int nlct_flow_parse(const void *message, size_t size, struct nlct_flow *flow);

/* Writes the request that would create '*flow' into 'buffer'; a missing reply tuple becomes the
   reverse of the original. Returns its size, -EMSGSIZE when it does not fit, or -EINVAL when
   '*flow' has no original tuple or no known family. */
int nlct_flow_build(const struct nlct_flow *flow, void *buffer, size_t capacity);

/* Network namespaces -------------------------------------------------------------------------- */

/* Is this a descriptor of a network namespace? */
bool nlct_netns_is(int fd);

/* In the rest 'netns' is such a descriptor, or -1 for the caller's own namespace, and the calling
   thread never leaves its namespace. Each returns a close-on-exec descriptor or -errno. */

/* Makes an empty namespace that lives as long as the descriptor; without privilege it comes with
   a user namespace of its own. */
int nlct_netns_new(void);

/* socket(2) inside 'netns'. */
int nlct_netns_socket(int netns, int domain, int type, int protocol);

/* open(2) inside 'netns': what lies under /proc/sys/net is that namespace's. */
int nlct_netns_file(int netns, const char *path, int flags);

/* Sockets ------------------------------------------------------------------------------------- */

struct nlct_socket;

/* Opens a netlink socket for conntrack inside 'netns'. */
int nlct_socket_open(struct nlct_socket **sock, int netns);
void nlct_socket_close(struct nlct_socket *sock);

/* The kernel's extended-ack text for the latest refusal; "" when it gave none. */
const char *nlct_socket_text(const struct nlct_socket *sock);

/* Single requests ----------------------------------------------------------------------------- */

/* Finds the flow with the tuple 'key->orig', in the zone 'key->zone' or of that tuple. */
int nlct_get(struct nlct_socket *sock, const struct nlct_flow *key, struct nlct_flow *found);

/* Creates '*flow'; -EEXIST when it is there. */
int nlct_create(struct nlct_socket *sock, const struct nlct_flow *flow);

/* The kernel's own counter of entries in the namespace, and its limit. */
int nlct_stats(struct nlct_socket *sock, uint32_t *entries, uint32_t *limit);

/* Filters ------------------------------------------------------------------------------------- */

enum nlct_filter_field {
    NLCT_FILTER_FAMILY = 0x1,
    NLCT_FILTER_ZONE = 0x2,
};

/* Fields that are not present match everything; those present are ANDed. */
struct nlct_filter {
    uint32_t present;
    uint8_t family;      /* AF_INET or AF_INET6 */
    uint8_t zones[8192]; /* a bit a zone: zone z is bit z % 8 of byte z / 8 */
};

/* How to ask the kernel for one zone. Kernels before 6.8 ignore CTA_ZONE; kernels that do not know
   the explicit filter (CTA_FILTER_ZONE beside it) refuse it. */
enum nlct_zone_request {
    NLCT_ZONE_UNASKED,
    NLCT_ZONE_PLAIN,
    NLCT_ZONE_EXPLICIT,
};

/* Passes -------------------------------------------------------------------------------------- */

/* A sink takes each flow that matched. The kinds of sink are declared below. */
struct nlct_sink;
void nlct_sink_free(struct nlct_sink *sink);

/* What a pass has seen so far. */
struct nlct_progress {
    uint64_t scanned; /* flows that the kernel sent */
    uint64_t matched; /* of these, flows that the filter let through */
    bool resized;     /* the hash table changed its size: flows may be missing or repeated */
    bool interrupted; /* the kernel said that the dump is inconsistent (NLM_F_DUMP_INTR) */
};

struct nlct_dump;

/* Asks for the table. Unless 'ask' is NLCT_ZONE_UNASKED the family and a single zone are also sent
   to the kernel, which changes what it sends, never what matches. 'buckets' is a descriptor of the
   sysctl nf_conntrack_buckets, watched for a resize, or -1. 'filter' must outlive the dump. */
int nlct_dump_start(struct nlct_dump **dump, struct nlct_socket *sock,
                    const struct nlct_filter *filter, enum nlct_zone_request ask, int buckets);

/* Takes the pass further, for about 'milliseconds' or until the sink is full. 'sink' may be NULL.
   Returns 1 when there is more, 0 at the end of the table (with everything in the sink done), or
   -errno. A dump that has not ended leaves its socket useless. */
int nlct_dump_next(struct nlct_dump *dump, struct nlct_sink *sink, int milliseconds);

void nlct_dump_progress(const struct nlct_dump *dump, struct nlct_progress *progress);
void nlct_dump_free(struct nlct_dump *dump);

/* Sink: decodes each flow into 'rows', which must outlive it. NULL when out of memory. */
struct nlct_sink *nlct_rows_new(struct nlct_flow *rows, size_t capacity);

/* The number of rows filled since the last call; the sink then starts again at the first. */
size_t nlct_rows_take(struct nlct_sink *sink);

/* Sink: counts flows by zone into 'counts', 65536 of them, which must outlive it. */
struct nlct_sink *nlct_zones_new(uint64_t *counts);

/* Deletes and flushes ------------------------------------------------------------------------- */

/* What became of requests sent in batches. Those without an answer, which the kernel's rules for
   a batch exclude, would count as refused with ENOBUFS. */
struct nlct_tally {
    uint64_t done;
    uint64_t refused[4096]; /* by errno */
};

/* Sink: deletes each flow, named by its tuple, its zone and its id, in batches over 'sock', which
   no pass may be using. 'sock' and 'tally' must outlive it. */
struct nlct_sink *nlct_deleter_new(struct nlct_socket *sock, struct nlct_tally *tally);

/* The kernel's own flush of one zone, asked for in one of the two ways. DANGER: kernels that do not
   know the filter answer NLCT_ZONE_PLAIN by emptying the whole table; call it only where this
   kernel has been seen to honour it, asked in this way. */
int nlct_flush_zone(struct nlct_socket *sock, uint16_t zone, enum nlct_zone_request ask);

/* The kernel's own flush of everything. */
int nlct_flush_all(struct nlct_socket *sock);

/* Loading ------------------------------------------------------------------------------------- */

/* One field of a table: what 'values' holds for each row, and where in a flow it goes. */
struct nlct_field {
    const char *name;
    size_t size; /* of one value in bytes: 16 is an address, the rest are unsigned integers */
};

/* The fields by number, from 0. Returns 0, or -ENOENT past the last. */
int nlct_field_get(unsigned number, struct nlct_field *field);

struct nlct_column {
    unsigned field;
    const void *values;   /* one a row */
    const uint8_t *valid; /* one a row, zero where the value is absent; NULL when none is */
};

/* Creates the flows in rows 'first' to 'last' (excluded), in batches over 'sock', as
   nlct_flow_build() says. A row that cannot be built counts as refused with its errno. */
int nlct_load(struct nlct_socket *sock, const struct nlct_column *columns, size_t ncolumns,
              size_t first, size_t last, struct nlct_tally *tally);

/* binding: end */

#endif
