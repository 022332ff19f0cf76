/*
 * nlct: Linux connection tracking over netlink.
 *
 * The public C contract, in reading order: flows, descriptors and namespaces, sockets, single
 * requests, expectations, filters, dumps and the sinks they feed, tables, zeroing, deletes and
 * flushes, events, loading, updates, mirrors, Arrow's arrays. The Python binding is cut from
 * between the two markers below, so only plain declarations stand there.
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

/* Absent is not zero: bit n of 'present' says that field n holds a value. */
enum nlct_tuple_field {
    NLCT_TUPLE_SRC,
    NLCT_TUPLE_DST,
    NLCT_TUPLE_PROTO,
    NLCT_TUPLE_SPORT,
    NLCT_TUPLE_DPORT,
    NLCT_TUPLE_ICMP_ID,
    NLCT_TUPLE_ICMP_TYPE,
    NLCT_TUPLE_ICMP_CODE,
    NLCT_TUPLE_ZONE,
};

/* One direction of a flow. Addresses are in network order, IPv4 in the first four bytes; every
   number is in host order. For GRE the ports are its keys. 'zone' is set only if the zone applies
   to this direction alone. 'family' is AF_INET or AF_INET6. Absent members are zero. */
struct nlct_tuple {
    uint64_t present;
    uint8_t src[16];
    uint8_t dst[16];
    uint16_t sport;
    uint16_t dport;
    uint16_t icmp_id;
    uint16_t zone;
    uint8_t icmp_type;
    uint8_t icmp_code;
    uint8_t proto;
    uint8_t family;
};

enum nlct_flow_field {
    NLCT_FLOW_ORIG,
    NLCT_FLOW_REPLY,
    NLCT_FLOW_MASTER,
    NLCT_FLOW_ZONE,
    NLCT_FLOW_STATUS,
    NLCT_FLOW_TIMEOUT,
    NLCT_FLOW_MARK,
    NLCT_FLOW_ID,
    NLCT_FLOW_USE,
    NLCT_FLOW_TCP_STATE,
    NLCT_FLOW_TCP_WSCALE_ORIG,
    NLCT_FLOW_TCP_WSCALE_REPLY,
    NLCT_FLOW_TCP_FLAGS_ORIG,
    NLCT_FLOW_TCP_FLAGS_REPLY,
    NLCT_FLOW_SCTP_STATE,
    NLCT_FLOW_SCTP_VTAG_ORIG,
    NLCT_FLOW_SCTP_VTAG_REPLY,
    NLCT_FLOW_DCCP_STATE,
    NLCT_FLOW_DCCP_ROLE,
    NLCT_FLOW_DCCP_HANDSHAKE_SEQ,
    NLCT_FLOW_PACKETS_ORIG,
    NLCT_FLOW_BYTES_ORIG,
    NLCT_FLOW_PACKETS_REPLY,
    NLCT_FLOW_BYTES_REPLY,
    NLCT_FLOW_TIMESTAMP_START,
    NLCT_FLOW_TIMESTAMP_STOP,
    NLCT_FLOW_TIMESTAMP_EVENT,
    NLCT_FLOW_LABELS,
    NLCT_FLOW_HELPER,
    NLCT_FLOW_HELPER_INFO,
    NLCT_FLOW_SEQADJ_ORIG_POS,
    NLCT_FLOW_SEQADJ_ORIG_BEFORE,
    NLCT_FLOW_SEQADJ_ORIG_AFTER,
    NLCT_FLOW_SEQADJ_REPLY_POS,
    NLCT_FLOW_SEQADJ_REPLY_BEFORE,
    NLCT_FLOW_SEQADJ_REPLY_AFTER,
    NLCT_FLOW_SECCTX,
    NLCT_FLOW_SYNPROXY_ISN,
    NLCT_FLOW_SYNPROXY_ITS,
    NLCT_FLOW_SYNPROXY_TSOFF,
    NLCT_FLOW_EVENT,
    NLCT_FLOW_UNKNOWN,
};

/* What happened to a flow that an event tells of. */
enum nlct_event { NLCT_EVENT_NEW = 1, NLCT_EVENT_UPDATE, NLCT_EVENT_DESTROY };

/* A part of the bytes that go with a flow or a table. */
struct nlct_span {
    uint32_t at;
    uint32_t size;
};

/* A buffer that grows with malloc(). All zero is empty. */
struct nlct_bytes {
    uint8_t *data;
    size_t size;
    size_t capacity;
};

void nlct_bytes_free(struct nlct_bytes *bytes);

/* The TCP flags that a request sets or clears: window scaling, selective acknowledgements, liberal
   tracking. In the others the kernel remembers what it saw: a flow that is given them may take
   every RST for invalid. */
enum { NLCT_TCP_FLAGS = 0x0b };

/* The highest window scale and state of SCTP that a request sends: beyond these, many kernels shift
   by more bits than there are, or read beyond their tables. */
enum { NLCT_WSCALE_MAX = 14, NLCT_SCTP_STATE_MAX = 8 };

/* One conntrack entry. 'zone' is the zone's id in whichever direction it applies, 0 by default;
   'timeout' is in seconds; timestamps are in nanoseconds since 1970. Bit n % 64 of labels[n / 64]
   is label n. 'event' is an enum nlct_event. 'helper' ends with a null byte. 'unknown' holds the
   attributes that this version does not know, with header and padding. */
struct nlct_flow {
    uint64_t present;
    uint64_t packets_orig;
    uint64_t bytes_orig;
    uint64_t packets_reply;
    uint64_t bytes_reply;
    uint64_t timestamp_start;
    uint64_t timestamp_stop;
    uint64_t timestamp_event;
    uint64_t dccp_handshake_seq;
    uint64_t labels[2];
    struct nlct_span helper_info;
    struct nlct_span secctx;
    struct nlct_span unknown;
    uint32_t status;
    uint32_t timeout;
    uint32_t mark;
    uint32_t id;
    uint32_t use;
    uint32_t sctp_vtag_orig;
    uint32_t sctp_vtag_reply;
    uint32_t seqadj_orig_pos;
    uint32_t seqadj_orig_before;
    uint32_t seqadj_orig_after;
    uint32_t seqadj_reply_pos;
    uint32_t seqadj_reply_before;
    uint32_t seqadj_reply_after;
    uint32_t synproxy_isn;
    uint32_t synproxy_its;
    uint32_t synproxy_tsoff;
    uint16_t zone;
    uint8_t family;
    uint8_t tcp_state;
    uint8_t tcp_wscale_orig;
    uint8_t tcp_wscale_reply;
    uint8_t tcp_flags_orig;
    uint8_t tcp_flags_reply;
    uint8_t sctp_state;
    uint8_t dccp_state;
    uint8_t dccp_role;
    uint8_t event;
    char helper[16];
    struct nlct_tuple orig;
    struct nlct_tuple reply;
    struct nlct_tuple master;
};

/* Fills '*flow' from one netlink message of 'size' bytes; appends its spans to 'bytes'. Unknown
   attributes are kept as they are. Returns 0, -ENOMEM, or -EBADMSG with '*flow' unspecified. */
int nlct_flow_parse(const void *message, size_t size, struct nlct_flow *flow,
                    struct nlct_bytes *bytes);

/* Writes the request that would create '*flow' into 'buffer'; a missing reply tuple becomes the
   reverse of the original. If 'status' says that the flow is translated (NAT), the request holds
   the reverse and the translation. 'bytes' holds the spans, NULL if there are none. Returns the
   size, -EMSGSIZE if it does not fit, or -EINVAL if '*flow' has no original tuple, no known family,
   or NAT without a reply that has both addresses. */
int nlct_flow_build(const struct nlct_flow *flow, const uint8_t *bytes, void *buffer,
                    size_t capacity);

/* Writes the flow into 'buffer' as `conntrack -L` does, or `conntrack -E` if it has an event, one
   line with its end. Returns the size, or -EMSGSIZE if there is no room for NLCT_TEXT_MAX and the
   security context. */
int nlct_flow_text(const struct nlct_flow *flow, const uint8_t *bytes, char *buffer,
                   size_t capacity);

/* Writes the flow as `conntrack -L -o save` does, one line with its end, for `conntrack -R`. Three
   things differ from its line. A mark other than 0 is added. EXPECTED is left out: -R cannot say
   the master, without which the kernel refuses it. A line that -R could not read is a comment: a
   flow without a timeout, or with a state that it has no word for. Returns the size, or -EMSGSIZE
   without room for NLCT_TEXT_MAX. */
int nlct_flow_save(const struct nlct_flow *flow, char *buffer, size_t capacity);

enum { NLCT_TEXT_MAX = 1024 };

/* The fields of a flow by number, from 0: columns, filters and counts name them so. The fields of a
   tuple are called "src" in the original direction, "reply_src" and "master_src" in the others. */
enum nlct_kind {
    NLCT_NUMBER,  /* unsigned, of 1, 2, 4 or 8 bytes */
    NLCT_ADDRESS, /* 16 bytes */
    NLCT_LABELS,  /* 16 bytes: two numbers of 8 */
    NLCT_TEXT,    /* 16 bytes, ended by a null byte */
    NLCT_SPAN,    /* struct nlct_span */
};

struct nlct_field {
    const char *name;
    size_t size; /* of one value in bytes */
    enum nlct_kind kind;
    size_t offset; /* in struct nlct_flow */
    bool settable; /* an update may change it */
};

/* Returns 0, or -ENOENT past the last. */
int nlct_field_get(unsigned number, struct nlct_field *field);

/* Descriptors --------------------------------------------------------------------------------- */

/* A function that opens a descriptor or makes an object puts it where the caller owns it already
   (-1 or NULL before), so that an interrupt cannot lose it. 'device' and 'inode' say what was
   opened: a program may close our descriptor, as daemons do at their start, and reuse its
   number. */
struct nlct_fd {
    int fd;
    uint64_t device;
    uint64_t inode;
};

/* Is the number still that of what was opened? */
bool nlct_fd_is(const struct nlct_fd *fd);

/* Takes the descriptor away and closes it, so that a second call finds nothing to close. If the
   number is something else's by now, or that cannot be told, it stays open. */
void nlct_fd_close(struct nlct_fd *fd);

/* Hands the descriptor over to the caller; -1 if there is none. */
int nlct_fd_take(struct nlct_fd *fd);

/* Network namespaces -------------------------------------------------------------------------- */

/* A namespace, held by a descriptor. While it is held, no other namespace has its inode of nsfs.
   'here': it is the calling thread's own and need not be entered; a thread that has moved since
   gets -EXDEV. */
struct nlct_netns {
    struct nlct_fd fd;
    bool here;
};

/* The functions below return 0, -errno, or -(NLCT_KILLED + n) if signal n ended the child that does
   the work in another namespace. -EXDEV: the namespace reached is not the one meant. The calling
   thread never leaves its namespace. */
enum { NLCT_KILLED = 4096 };

/* The calling thread's own namespace. */
int nlct_netns_here(struct nlct_netns *netns);

/* The namespace of a descriptor, which stays the caller's, or of a path; -EINVAL if it is none. */
int nlct_netns_at(struct nlct_netns *netns, int fd);
int nlct_netns_path(struct nlct_netns *netns, const char *path);

/* Makes an empty namespace that lives as long as the descriptor; without privilege it comes with a
   user namespace of its own. -EPERM if none may be made, also if the kernel reports success and
   made none. */
int nlct_netns_new(struct nlct_netns *netns);
void nlct_netns_close(struct nlct_netns *netns);

/* socket(2) inside 'netns', close-on-exec. */
int nlct_netns_socket(const struct nlct_netns *netns, int domain, int type, int protocol,
                      struct nlct_fd *fd);

/* open(2) inside 'netns', close-on-exec: there /proc/sys/net is that namespace's. */
int nlct_netns_file(const struct nlct_netns *netns, const char *path, int flags,
                    struct nlct_fd *fd);

/* Sockets ------------------------------------------------------------------------------------- */

struct nlct_socket;

/* Opens a netlink socket for conntrack inside 'netns', and checks that the socket is there. */
int nlct_socket_open(struct nlct_socket **sock, const struct nlct_netns *netns);
void nlct_socket_close(struct nlct_socket **sock);

/* Its netlink port, which events name as who made the kernel act. */
uint32_t nlct_socket_port(const struct nlct_socket *sock);

/* Is its number still that of the socket? If not, it is something else's. */
bool nlct_socket_is(const struct nlct_socket *sock);

/* The kernel's extended-ack text for the latest refusal; "" if it gave none. */
const char *nlct_socket_text(const struct nlct_socket *sock);

/* Single requests ----------------------------------------------------------------------------- */

/* Finds the flow with the tuple 'key->orig', in the zone 'key->zone' or that of the tuple; appends
   its spans to 'bytes'. */
int nlct_get(struct nlct_socket *sock, const struct nlct_flow *key, struct nlct_flow *found,
             struct nlct_bytes *bytes);

/* Creates '*flow', see nlct_flow_build(); -EEXIST if it is there, -EINVAL for what the kernel would
   silently drop: a timeout of 0, and values of another protocol; and for what crashes many
   kernels: -ERANGE beyond NLCT_WSCALE_MAX and NLCT_SCTP_STATE_MAX, -EOPNOTSUPP for a GRE flow with
   a master and for data of a helper, which nlct_update() can set. */
int nlct_create(struct nlct_socket *sock, const struct nlct_flow *flow, const uint8_t *bytes);

/* Changes the flow with the tuple and zone of '*flow': sets the other settable fields that '*flow'
   has. Of the status the kernel sets bits and clears none. Returns -ERANGE as nlct_create() does,
   and -EINVAL for a helper without a name: kernels take a helper away under its packets. */
int nlct_update(struct nlct_socket *sock, const struct nlct_flow *flow, const uint8_t *bytes);

/* Deletes the flow with the tuple, zone and id of '*flow'; -EINVAL without an id. If the original
   tuple leads to another flow, whose reply it is, the reply of this one is tried. */
int nlct_delete(struct nlct_socket *sock, const struct nlct_flow *flow);

/* The kernel's own counter of entries in the namespace, and its limit. */
int nlct_stats(struct nlct_socket *sock, uint32_t *entries, uint32_t *limit);

/* One counter of one processor, by the number of its attribute. */
struct nlct_counter {
    uint16_t cpu;
    uint16_t attribute;
    uint64_t value;
};

/* Appends to 'bytes' a struct nlct_counter for each number that the kernel sends of each processor,
   those of flows or of expectations. What is no number, by its size, is skipped. Returns 0 or
   -errno; then what was appended is incomplete. */
int nlct_stats_cpu(struct nlct_socket *sock, bool expectations, struct nlct_bytes *bytes);

/* Expectations -------------------------------------------------------------------------------- */

enum nlct_expect_field {
    NLCT_EXPECT_MASTER,
    NLCT_EXPECT_TUPLE,
    NLCT_EXPECT_MASK,
    NLCT_EXPECT_TIMEOUT,
    NLCT_EXPECT_ID,
    NLCT_EXPECT_HELPER,
    NLCT_EXPECT_ZONE,
    NLCT_EXPECT_FLAGS,
    NLCT_EXPECT_CLASS,
    NLCT_EXPECT_NAT_DIRECTION,
    NLCT_EXPECT_NAT,
    NLCT_EXPECT_FUNCTION,
};

/* A flow that a helper expects: one with 'tuple', of which only the bits in 'mask' count. 'master'
   is the original tuple of the flow that it comes from. It will be translated (NAT) to the source
   of 'nat': the original direction if 'nat_direction' is 0, the reply if 1. 'timeout' is in
   seconds. The kernel does not tell the zone, which is the master's. 'event' is an enum nlct_event.
   'helper' and 'function', the kernel's name of what is done when the flow comes, end with a null
   byte. Absent members are zero. */
struct nlct_expect {
    uint64_t present;
    struct nlct_tuple master;
    struct nlct_tuple tuple;
    struct nlct_tuple mask;
    struct nlct_tuple nat;
    uint32_t nat_direction;
    uint32_t timeout;
    uint32_t id;
    uint32_t flags;
    uint32_t expect_class;
    uint16_t zone;
    uint8_t family;
    uint8_t event;
    char helper[16];
    char function[32];
};

/* Fills '*expect' from one netlink message of 'size' bytes, skipping attributes that this version
   does not know. Returns 0, or -EBADMSG with '*expect' unspecified. */
int nlct_expect_parse(const void *message, size_t size, struct nlct_expect *expect);

/* Writes the expectation into 'buffer' as `conntrack -L expect` does, or `conntrack -E expect` if
   it has an event, one line with its end. Returns the size, or -EMSGSIZE if there is no room for
   NLCT_TEXT_MAX. */
int nlct_expect_text(const struct nlct_expect *expect, char *buffer, size_t capacity);

/* Appends all expectations to 'bytes', as an array of struct nlct_expect. Where one goes meanwhile
   others may come twice. Returns 0, -EINTR if the kernel said that the dump is inconsistent, or
   -EFBIG if there are more than NLCT_EXPECT_MOST. */
int nlct_expect_dump(struct nlct_socket *sock, struct nlct_bytes *bytes);

enum { NLCT_EXPECT_MOST = 1 << 18 };

/* Finds the first expectation that a flow with the tuple and zone of '*key' would fulfil. */
int nlct_expect_get(struct nlct_socket *sock, const struct nlct_expect *key,
                    struct nlct_expect *found);

/* Creates '*expect', which has a master, a tuple and a mask; -EEXIST if another one takes the same
   tuple, -EOPNOTSUPP for GRE, see nlct_create(), -EINVAL for a direction above 1 and for a function
   without NAT. The caller sees to it that a helper is the master's. */
int nlct_expect_create(struct nlct_socket *sock, const struct nlct_expect *expect);

/* Deletes the expectation with the tuple, zone and id of '*expect'; -EINVAL if it lacks the id, or
   if the tuple lacks an address, the protocol or its ports. */
int nlct_expect_delete(struct nlct_socket *sock, const struct nlct_expect *expect);

/* Deletes all expectations, of every zone. */
int nlct_expect_flush_all(struct nlct_socket *sock);

/* Filters ------------------------------------------------------------------------------------- */

/* Is the number in one of these ranges, both ends included? */
struct nlct_range {
    uint64_t low;
    uint64_t high;
};

/* Is it 'value' in the bits of 'mask'? The second word is for labels. */
struct nlct_mask {
    uint64_t value[2];
    uint64_t mask[2];
};

/* Do its first 'length' bits agree? 'family' is that of an address, 0 for text (128 bits). */
struct nlct_prefix {
    uint8_t bytes[16];
    uint8_t family;
    uint8_t length;
};

enum nlct_test_kind { NLCT_TEST_RANGES, NLCT_TEST_MASKS, NLCT_TEST_PREFIXES };

/* Where a test leads to, if not to another test. */
enum { NLCT_MATCH = -1, NLCT_DROP = -2 };

/* Tests one field: does its value agree with any of 'count' values? An absent value does not. 'yes'
   and 'no' are the number of a later test, NLCT_MATCH or NLCT_DROP. */
struct nlct_test {
    unsigned field;
    enum nlct_test_kind kind;
    int yes;
    int no;
    size_t count;
    const void *values; /* struct nlct_range, nlct_mask or nlct_prefix */
};

struct nlct_filter;

/* Compiles a filter. It begins with the first test; without tests it matches everything. Returns 0,
   -ENOMEM, or -EINVAL for a test that makes no sense. */
int nlct_filter_new(struct nlct_filter **filter, const struct nlct_test *tests, size_t count);
void nlct_filter_free(struct nlct_filter **filter);

/* Does a flow in memory match, as it would in a dump? What is absent matches nothing, the zone
   too. */
bool nlct_filter_match(const struct nlct_filter *filter, const struct nlct_flow *flow);

/* How to ask the kernel for one zone. Kernels before 6.8 ignore CTA_ZONE; kernels that do not know
   the explicit filter (CTA_FILTER_ZONE beside it) refuse it. */
enum nlct_zone_request {
    NLCT_ZONE_UNASKED,
    NLCT_ZONE_PLAIN,
    NLCT_ZONE_EXPLICIT,
};

/* Lets the kernel leave out of a dump, or drop from an event stream, the flows that differ in any
   of this. It only saves time: kernels ignore in a dump what they do not know. Of the original
   tuple they filter dumps by IPv4 addresses, protocol, and the ports of TCP and UDP; ports need the
   protocol. Of a stream they drop events by addresses, protocol and ports. */
struct nlct_kernel_filter {
    enum nlct_zone_request zone_request;
    uint16_t zone;
    uint8_t family; /* 0: any */
    uint32_t mark;
    uint32_t mark_mask;   /* 0: any */
    uint32_t status;      /* not 0 */
    uint32_t status_mask; /* 0: any */
    struct nlct_tuple orig;
};

/* Dumps --------------------------------------------------------------------------------------- */

/* A sink takes each flow that matched. The kinds of sink are declared below. */
struct nlct_sink;
void nlct_sink_free(struct nlct_sink **sink);

/* What a dump has seen so far. */
struct nlct_progress {
    uint64_t scanned; /* flows that the kernel sent */
    uint64_t matched; /* of these, flows that the filter let through */
    bool resized;     /* the hash table changed its size: flows may be missing or repeated */
    bool interrupted; /* the kernel said that the dump is inconsistent (NLM_F_DUMP_INTR) */
};

struct nlct_dump;

/* Asks for the table. 'kernel_filter' changes what the kernel sends, never what matches; NULL asks
   for all. 'buckets' is a descriptor of the sysctl nf_conntrack_buckets, watched for a resize, or
   -1. 'filter' and 'sock' must outlive the dump; a thread may receive on 'sock' until the dump has
   ended or is freed. */
int nlct_dump_start(struct nlct_dump **dump, struct nlct_socket *sock,
                    const struct nlct_filter *filter,
                    const struct nlct_kernel_filter *kernel_filter, int buckets);

/* The kernel's lists of flows that are not in the table: those that wait to be destroyed, and those
   whose first packet is under way. */
enum nlct_unlisted { NLCT_DYING = 1, NLCT_UNCONFIRMED };

/* Asks for one of them instead, otherwise as nlct_dump_start(). */
int nlct_dump_start_unlisted(struct nlct_dump **dump, struct nlct_socket *sock,
                             const struct nlct_filter *filter, enum nlct_unlisted list);

/* Goes on with the dump, for about 'milliseconds' or until the sink is full. 'sink' may be NULL.
   Returns 1 if there is more, 0 at the end of the table, when the sink has finished as well, or
   -errno, again at each later call. After a dump that has not ended, close its socket. */
int nlct_dump_next(struct nlct_dump *dump, struct nlct_sink *sink, int milliseconds);

/* Makes the caller receive all by itself, in a dump that takes its time. Before the first step. */
void nlct_dump_alone(struct nlct_dump *dump);

void nlct_dump_progress(const struct nlct_dump *dump, struct nlct_progress *progress);
void nlct_dump_free(struct nlct_dump **dump);

/* Making a sink returns 0 or -ENOMEM. */

/* Sink: decodes each flow into 'rows' and 'bytes', which must outlive it. */
int nlct_rows_new(struct nlct_sink **sink, struct nlct_flow *rows, size_t capacity,
                  struct nlct_bytes *bytes);

/* The number of rows filled since the last call; the sink then starts again at the first. */
size_t nlct_rows_take(struct nlct_sink *sink);

/* The same number, and nothing starts again. */
size_t nlct_rows_count(const struct nlct_sink *sink);

enum nlct_form {
    NLCT_FORM_LIST, /* nlct_flow_text() */
    NLCT_FORM_SAVE, /* nlct_flow_save() */
};

/* Sink: writes each flow as a line of text into 'buffer', which must outlive it and hold
   NLCT_TEXT_MAX and more. */
int nlct_text_new(struct nlct_sink **sink, enum nlct_form form, char *buffer, size_t capacity);

/* The bytes written since the last call; the sink then starts again at the first. */
size_t nlct_text_take(struct nlct_sink *sink);

/* A word that is shown for a number. */
struct nlct_word {
    char text[24];
    size_t size;
};

/* One value of a line. 'name' comes before the value; 'absent' takes the place of both where the
   flow has no value, and "" leaves the item out. 'words', if any, are shown for numbers: 256 of
   them for a field of one byte; for one of four bytes 32, each for a bit, and the value is a list.
   'inner' items follow that are inside of this one, none of which has any itself: it is the tuple
   that 'field' is in, and only JSON has it. */
struct nlct_item {
    unsigned field;
    unsigned inner;
    const char *name;
    const char *absent;
    const struct nlct_word *words;
};

/* Sink: writes each flow as a line of values into 'buffer': a JSON object in ASCII, or words with
   tabs between. 'items', what they point to and 'buffer' must outlive the sink. -EINVAL for items
   that make no sense. */
int nlct_values_new(struct nlct_sink **sink, const struct nlct_item *items, size_t count, bool json,
                    char *buffer, size_t capacity);

/* Writes one more flow. Returns 0, 1 if the sink is full, -ENOMEM, or -EMSGSIZE if the buffer is
   too small for this flow alone. */
int nlct_values_add(struct nlct_sink *sink, const struct nlct_flow *flow, const uint8_t *bytes);

/* Bytes that a line wants room for; six for each byte of the flow's spans come on top. */
size_t nlct_values_room(const struct nlct_sink *sink);

/* The bytes written since the last call; the sink then starts again at the first. */
size_t nlct_values_take(struct nlct_sink *sink);

/* What flows are grouped by: a field; of an address only its first bits, the others being 0. */
struct nlct_group {
    unsigned field;
    uint8_t ipv4; /* of an IPv4 address so many bits, 0 to 32 */
    uint8_t ipv6; /* of an IPv6 address, 0 to 128 */
};

enum { NLCT_GROUPS = 3, NLCT_SUMS = 4 };

/* Sink: counts flows by up to NLCT_GROUPS fields, and adds up to NLCT_SUMS fields of each group.
   -EINVAL for more, for a prefix that is longer than its address, for groups of spans, and for sums
   of what is no number. */
int nlct_counts_new(struct nlct_sink **sink, const struct nlct_group *groups, size_t ngroups,
                    const unsigned *sums, size_t nsums);

/* How many flows have these values. */
struct nlct_count {
    uint64_t count;
    uint8_t values[3][16]; /* as they are in struct nlct_flow */
    uint8_t present[3];    /* 0 where the value is absent */
    uint8_t family;        /* of the addresses among them */
};

/* A sum of 128 bits, which flows cannot overflow. */
struct nlct_sum {
    uint64_t low;
    uint64_t high;
    uint64_t count; /* of the flows that have the field */
};

/* The counts so far, 'count' of them; valid until the sink is used again. */
const struct nlct_count *nlct_counts_get(const struct nlct_sink *sink, size_t *count);

/* The sums of each count, in the same order, 'nsums' a count; valid as long. */
const struct nlct_sum *nlct_counts_sums(const struct nlct_sink *sink);

/* Tables -------------------------------------------------------------------------------------- */

/* One field of many flows. */
struct nlct_column {
    unsigned field;
    void *values;   /* one a row; zero if absent */
    uint8_t *valid; /* one a row, zero if the value is absent; NULL if none is */
};

/* Sink: keeps flows as columns, up to 'limit' flows. 'wanted' has a byte for each field, zero for a
   field that is not kept. */
int nlct_columns_new(struct nlct_sink **sink, const uint8_t *wanted, size_t limit);

/* Keeps one more flow. Returns 0, 1 if the sink is full, or -ENOMEM. */
int nlct_columns_add(struct nlct_sink *sink, const struct nlct_flow *flow, const uint8_t *bytes);

/* The number of flows kept. */
size_t nlct_columns_count(const struct nlct_sink *sink);

/* Hands over what was kept, and starts anew. 'columns' has room for every field; a field that no
   flow had gets NULL for 'values'. Free them by nlct_columns_free(), 'bytes' by nlct_bytes_free().
   Returns the number of rows. */
size_t nlct_columns_take(struct nlct_sink *sink, struct nlct_column *columns,
                         struct nlct_bytes *bytes);

/* Frees the arrays of one column, or of as many as there are fields. */
void nlct_column_free(struct nlct_column *column);
void nlct_columns_free(struct nlct_column *columns);

/* Moves the arrays of a column to another owner. */
void nlct_column_move(struct nlct_column *to, struct nlct_column *from);

/* Fills '*flow' from one row, in zone 0 unless a column says otherwise. Its spans lie in the
   table's bytes, 'bytes_size' of them; a span that leads out of these is absent. */
void nlct_columns_row(const struct nlct_column *columns, size_t ncolumns, size_t bytes_size,
                      size_t row, struct nlct_flow *flow);

/* What is wrong with a line of a text: the line's number, from 0; where in the text the word lies
   that is wrong; and why, a constant. */
struct nlct_bad_line {
    size_t line;
    size_t at;
    size_t size;
    const char *why;
};

/* Adds the flow of each line of `conntrack -o save` to a sink of columns. Lines begin with -A or
   -I; empty lines and comments (#) are skipped. The options are those that conntrack(8) has for
   them, but for --label-add and --secmark, and EXPECTED is skipped. The reply is the reverse of the
   original tuple in what a line does not say of it; -n and -g say that the flow is translated.
   Returns 0, -ENOMEM, or -EINVAL with '*bad' filled; the lines before that one are added. */
int nlct_save_read(struct nlct_sink *columns, const char *text, size_t size,
                   struct nlct_bad_line *bad);

/* Zeroing ------------------------------------------------------------------------------------- */

/* What became of flows whose counters were to be zeroed. */
struct nlct_zeroing {
    size_t next;            /* the first of the flows given that is not settled */
    uint64_t zeroed;        /* they went to the sink */
    uint64_t already_gone;  /* no such flow any more */
    uint64_t replaced;      /* of 'zeroed': another flow came in between with the same tuple */
    uint64_t refused[4096]; /* by errno */
    uint64_t lost;          /* perhaps zeroed, and nobody was told what they were */
};

/* Sets the counters of the flows from 'zeroing->next' on to zero, and feeds the sink with each as
   it was, in one step of the kernel's: no packet is lost or counted twice. That is asked for by
   name, each flow having been looked up by its id first: a dump that zeroes, as the kernel offers
   it, would zero what its filter does not understand, and loses the counters of a flow at the end
   of a datagram. The sink must have room for all. Works for some milliseconds, and keeps '*zeroing'
   true at every return. Returns 1 if there are more, 0 at the end, or -errno if the socket or the
   sink failed. */
int nlct_zero(struct nlct_socket *sock, const struct nlct_flow *flows, size_t count,
              struct nlct_sink *sink, int milliseconds, struct nlct_zeroing *zeroing);

/* Deletes and flushes ------------------------------------------------------------------------- */

/* 0 is none of them: a target that was not filled in wants nothing. */
enum nlct_wants {
    NLCT_WANTS_ZONE = 1, /* the flows of 'zone' */
    NLCT_WANTS_FILTER,   /* what 'filter' matches */
    NLCT_WANTS_ALL,      /* every flow that the dump's own filter lets through */
};

/* One of the targets that share a dump. */
struct nlct_target {
    enum nlct_wants wants;
    uint16_t zone;
    const struct nlct_filter *filter;
};

/* What came of a target. */
struct nlct_outcome {
    uint64_t matched;
    uint64_t deleted;
};

/* Sink: deletes each flow that any of the targets wants, and counts it for each of these. A request
   names a flow by its tuple, its zone and its id; requests go in batches over 'sock', which no dump
   may be using. A flow that is not found by its original tuple is tried by its reply, since its
   original tuple may be another flow's reply. The dump's own filter must let through what the
   targets want. 'sock' and the filters must outlive the sink. A flow whose attributes a filter
   cannot decode counts as refused with EBADMSG, for that target alone; if a target wants a zone, a
   malformed zone ends the dump with -EBADMSG. Returns 0, -ENOMEM, or -EINVAL for a target that
   does not say what it wants, for a filter target without a filter, and if two targets want one
   zone. */
int nlct_deletes_new(struct nlct_sink **sink, struct nlct_socket *sock,
                     const struct nlct_target *targets, size_t count);

/* What came of each target; valid as long as the sink. */
const struct nlct_outcome *nlct_deletes_get(const struct nlct_sink *sink);

/* How many requests of each target were refused with one errno, which goes to '*error'; valid until
   the sink is used again. 'which' numbers the errnos from 0; NULL past the last. Requests without
   an answer, which the kernel's rules for a batch exclude, count as ENOBUFS. */
const uint64_t *nlct_deletes_refused(const struct nlct_sink *sink, size_t which, int *error);

/* Deletes these flows and no others, in batches, each by its original tuple, its zone and its id,
   or else by its reply, as the sink does. 'results' gets 0 or -errno for each: -ENOENT if there is
   no such flow any more, -EINVAL without an id or a tuple that can name a flow. Returns 0, -ENOMEM,
   or -errno if the socket failed; then 'results' is unspecified. */
int nlct_delete_flows(struct nlct_socket *sock, const struct nlct_flow *flows, size_t count,
                      int *results);

/* The kernel's own flush of one zone, asked for in one of the two ways. DANGER: kernels that do not
   know the filter answer NLCT_ZONE_PLAIN by emptying the whole table; use a way only on a kernel
   that has been seen to honour it. */
int nlct_flush_zone(struct nlct_socket *sock, uint16_t zone, enum nlct_zone_request how);

/* The kernel's own flush of everything. */
int nlct_flush_all(struct nlct_socket *sock);

/* Events -------------------------------------------------------------------------------------- */

struct nlct_events;

/* Of a stream without events: it only says that somebody listens, so that the kernel makes events.
 */
enum { NLCT_LISTENS = 1 << 0 };

/* Listens to events of the kinds in 'kinds', bit n for the enum nlct_event n or NLCT_LISTENS,
   inside 'netns'. 'buffer' is how many bytes may be queued; without privilege the system's limit
   applies. The kernel drops what 'kernel_filter' excludes, as far as it can tell; NULL excludes
   nothing. That only saves time: 'filter' decides what matches, and must outlive the stream. */
int nlct_events_open(struct nlct_events **events, const struct nlct_netns *netns, unsigned kinds,
                     const struct nlct_filter *filter,
                     const struct nlct_kernel_filter *kernel_filter, size_t buffer);
void nlct_events_close(struct nlct_events **events);

/* The descriptor, readable when events are queued; it stays the stream's. */
int nlct_events_fd(const struct nlct_events *events);

/* How many bytes may be queued. Returns 0 or -errno. */
int nlct_events_buffer(const struct nlct_events *events, size_t *buffer);

/* Makes it more or less. Returns 0 or -errno. */
int nlct_events_resize(struct nlct_events *events, size_t buffer);

/* Drops the events of flows that the socket with this netlink port deletes, and counts them as
   neither received nor lost. Returns 0 or -errno. */
int nlct_events_mute(struct nlct_events *events, uint32_t port);

/* Feeds the sink with what is queued, never waiting, for some milliseconds at most. 'sink' may be
   NULL. Returns 1 if there may be more, 0 when the queue was seen empty or when there is a loss to
   tell, or -errno; -EBADMSG, -EMSGSIZE: an event was malformed or too large, and the next call goes
   on behind it; -ENOMEM: the next call goes on with the same; -ENOBUFS: the kernel says nothing
   else; -EBADF: the program has closed our descriptor. */
int nlct_events_take(struct nlct_events *events, struct nlct_sink *sink);

/* A stream of events of expectations. All else about it is as of one of flows, but that it has no
   filter. No kernel makes NLCT_EVENT_UPDATE of them. Each of the two kinds of streams has its own
   way to take events; the other one is -EINVAL. */
int nlct_expect_events_open(struct nlct_events **events, const struct nlct_netns *netns,
                            unsigned kinds, size_t buffer);

/* Fills 'rows' from '*count' on, and adds to that, as nlct_events_take() feeds a sink. */
int nlct_expect_events_take(struct nlct_events *events, struct nlct_expect *rows, size_t capacity,
                            size_t *count);

/* What a stream has seen so far. */
struct nlct_events_progress {
    uint64_t received; /* events that the kernel sent */
    uint64_t matched;  /* of these, events that the filter let through */
};

void nlct_events_progress(const struct nlct_events *events, struct nlct_events_progress *progress);

/* Were events lost, before the latest of those that were taken or between it and the next? It is
   not known before the queue has run empty since. '*count' is how many the socket dropped, 0 if the
   kernel does not say or could not even make them. The answer stays until nlct_events_told(). */
bool nlct_events_lost(const struct nlct_events *events, uint64_t *count);
void nlct_events_told(struct nlct_events *events);

/* Waits until what other processors were doing when it was called has ended, such as a packet that
   began its way before somebody listened: some ten milliseconds. */
void nlct_grace_period(void);

/* Waits for a descriptor to be readable. Returns 0, -EAGAIN after 'milliseconds', or -errno. */
int nlct_readable(int fd, int milliseconds);

/* Loading ------------------------------------------------------------------------------------- */

/* What became of requests sent in batches. Those without an answer count as ENOBUFS. */
struct nlct_tally {
    uint64_t done;
    uint64_t refused[4096]; /* by errno */
};

/* Creates the flows of rows 'first' to 'last' (excluded), fewer than 2**32, in batches over 'sock',
   see nlct_flow_build(): either those without a master or 'children', which must come after their
   masters. A row that nlct_create() would not send counts as refused with its errno; but data of a
   helper are left out. 'created', NULL or a byte for each row from 0 on, becomes 1 for each flow
   that was created. */
int nlct_load(struct nlct_socket *sock, const struct nlct_column *columns, size_t ncolumns,
              const uint8_t *bytes, size_t bytes_size, size_t first, size_t last, bool children,
              struct nlct_tally *tally, uint8_t *created);

/* Updates ------------------------------------------------------------------------------------- */

/* What to change in many flows: those of status (bits to set), timeout (not 0), mark, helper and
   labels that 'to' has; the rest of it does not matter. In mark and labels the bits of the mask
   become those of the value. */
struct nlct_change {
    struct nlct_flow to;
    uint64_t labels_mask[2];
    uint32_t mark_mask;
};

/* What came of it. Each flow is done, refused (ENOENT: it was gone) or unchanged. A flow without a
   mark or a timeout cannot get one; what else is to change in it is changed. */
struct nlct_updated {
    struct nlct_tally tally;
    uint64_t unchanged; /* nothing was to change, so nothing was sent */
    uint64_t no_mark;
    uint64_t no_timeout;
};

/* Sink: changes each flow, in batches over 'sock', which no dump may be using. A request names a
   flow by its tuple and its zone: the kernel ignores the id, so a flow that was born again since is
   changed. None creates a flow. A flow whose zone applies to one direction is looked up first, so
   that no other flow with its tuple is changed. Of a mask only the bits in it may be in the value,
   and one must be. All four must outlive the sink. Returns 0, -ENOMEM, or -EINVAL for a change that
   is none. */
int nlct_updates_new(struct nlct_sink **sink, struct nlct_socket *sock,
                     const struct nlct_change *change, struct nlct_updated *updated);

/* Mirrors ------------------------------------------------------------------------------------- */

/* What a listener remembers of the flows of one table: of each what names it and never changes,
   which is its tuples, its zone, its id and its family. Two flows are the same if their original
   tuple, their zone with its direction, and their id are: several ids to a tuple may live side by
   side. A function that takes a flow looks at nothing else, and returns -EINVAL if a tuple, an
   address or the id is missing. */
struct nlct_mirror;

/* It has a list of flows for each zone; with 'addresses' also one for each address in each of its
   roles. Returns 0, -ENOMEM, or -errno if no random key can be had. */
int nlct_mirror_new(struct nlct_mirror **mirror, bool addresses);

/* Sinks and walks of the mirror must be freed before. */
void nlct_mirror_free(struct nlct_mirror **mirror);

/* Sink: feeds the mirror with events, and with the rows of dumps. NEW and a row insert a flow that
   is not there. They replace one only if it is the same but for its reply: that has ended, and
   nobody told. DESTROY removes that very flow. UPDATE is ignored. An event or row that does not
   name a flow, as above, is -EBADMSG. After any error, -ENOMEM too, the mirror is no longer in
   step. */
int nlct_feed_new(struct nlct_sink **sink, struct nlct_mirror *mirror);

/* Inserts a flow that was seen in the table. Returns 1, 0 if it is there already or its end was
   announced during this round, or -ENOMEM. */
int nlct_mirror_add(struct nlct_mirror *mirror, const struct nlct_flow *flow);

/* Removes a flow whose delete the kernel has acknowledged. Returns 1, 0 if it is not there, or
   -ENOMEM (see rounds: the flow is removed nevertheless). */
int nlct_mirror_remove(struct nlct_mirror *mirror, const struct nlct_flow *flow);

/* Is this flow there, with this reply? Returns 1, 0, or -EINVAL. */
int nlct_mirror_has(const struct nlct_mirror *mirror, const struct nlct_flow *flow);

/* What has happened since the mirror was made. */
struct nlct_mirror_counters {
    uint64_t inserted;
    uint64_t repeated;  /* NEW events of flows that were there */
    uint64_t destroyed; /* removed by DESTROY */
    uint64_t strangers; /* DESTROY events of flows that were not there */
    uint64_t deleted;   /* removed by an acknowledged delete */
    uint64_t outdated;  /* rows of flows whose end was announced before */
    uint64_t ghosts;    /* removed at the end of a round, which did not see them */
};

void nlct_mirror_counters(const struct nlct_mirror *mirror, struct nlct_mirror_counters *counters);

/* Bytes of memory that the mirror holds; it keeps what it once needed. */
size_t nlct_mirror_bytes(const struct nlct_mirror *mirror);

/* A round compares the mirror with one dump of the whole table. What was there before the round
   began, and was neither seen nor announced during it, is a ghost.

   NLCT_ROUND_FEED: the rows go to nlct_feed_new(). During it DESTROY and an acknowledged delete
   leave a tombstone, so that a row that was read before does not bring the flow back; NEW does.
   NLCT_ROUND_AUDIT: the rows go to nlct_audit_new(), and the dump may take its time. */
enum nlct_round { NLCT_ROUND_FEED = 1, NLCT_ROUND_AUDIT };

/* Begins a round. One that has not ended is given up. */
void nlct_mirror_round_begin(struct nlct_mirror *mirror, enum nlct_round round);

/* Ends a round whose dump was complete and undisturbed, and removes ghosts: looks at up to 'limit'
   places of the mirror. Returns 1 if there is more to look at, 0 at the end, or -EINVAL if no round
   has begun. Between the calls everything is allowed; what comes then is no ghost. */
int nlct_mirror_round_end(struct nlct_mirror *mirror, size_t limit);

/* Gives a round up: removes nothing. */
void nlct_mirror_round_drop(struct nlct_mirror *mirror);

/* Sink: copies what the mirror keeps of a flow into 'rows', which must outlive it. Meanwhile others
   may use the mirror: a dump takes long where the table is large and few of its flows are ours. */
int nlct_audit_new(struct nlct_sink **sink, struct nlct_mirror *mirror, struct nlct_flow *rows,
                   size_t capacity);

/* Sees the flows that came since the last time for the round, and leaves in 'rows' those that the
   mirror does not know; inserts none. Returns how many; before the sink takes the next flow they
   must be used. */
size_t nlct_audit_take(struct nlct_sink *sink);

/* The lists of a mirror. 0 is none of them. */
enum nlct_list_kind {
    NLCT_LIST_ALL = 1, /* every flow */
    NLCT_LIST_ZONE,    /* in this zone, whichever direction it applies to */
    NLCT_LIST_SRC,     /* with this address as ... */
    NLCT_LIST_DST,
    NLCT_LIST_REPLY_SRC,
    NLCT_LIST_REPLY_DST,
};

struct nlct_list {
    enum nlct_list_kind kind;
    uint16_t zone;
    uint8_t family; /* of the address */
    uint8_t address[16];
};

/* How many flows are in the list; -EINVAL for a list that the mirror does not have. */
int64_t nlct_mirror_count(const struct nlct_mirror *mirror, const struct nlct_list *list);

/* The lists of one kind that are not empty, each with its count and its zone or address in
   'values[0]': fills 'counts' from '*at' on, which is 0 at first, and moves it. Returns how many,
   0 at the end; -EINVAL for NLCT_LIST_ALL and lists that the mirror does not have. */
int nlct_mirror_lists(const struct nlct_mirror *mirror, enum nlct_list_kind kind, uint32_t *at,
                      struct nlct_count *counts, size_t capacity);

/* A walk over one list. Between its steps flows may come and go; it meets none that came later,
   but for NLCT_LIST_ALL, where it may. Any number of walks go on at once. */
struct nlct_walk;

/* Returns 0, -ENOMEM, or -EINVAL for a list that the mirror does not have. */
int nlct_walk_new(struct nlct_walk **walk, struct nlct_mirror *mirror,
                  const struct nlct_list *list);
void nlct_walk_free(struct nlct_walk **walk);

/* Looks at up to 'capacity' flows, and fills 'rows' with those that 'filter' matches; NULL matches
   all. A row has what the mirror keeps of a flow, as nlct_flow_parse() gives it. '*count' is the
   number of rows. Returns 1 if there are more flows to look at, 0 at the end, or -EINVAL for a
   filter that asks for what a mirror does not keep. */
int nlct_walk_rows(struct nlct_walk *walk, const struct nlct_filter *filter, struct nlct_flow *rows,
                   size_t capacity, size_t *count);

/* Deletes over 'sock', which no dump may be using, the flows that the walk meets and 'filter'
   matches, NULL for all; see nlct_delete_flows(). Adds each result to '*tally', zero at first. What
   the kernel acknowledged leaves the mirror; what it refused or does not find (ENOENT) stays. Works
   for about 'milliseconds'. Returns 1 if there are more, 0 at the end, -EINVAL as above, -ENOMEM,
   or -errno if the socket failed: then some flows of the walk have no result. */
int nlct_walk_delete(struct nlct_walk *walk, struct nlct_socket *sock,
                     const struct nlct_filter *filter, int milliseconds, struct nlct_tally *tally);

/* Arrow --------------------------------------------------------------------------------------- */

/* Columns in the layout of Apache Arrow's arrays. 'values' and 'valid' are a column's: 'values' at
   any address, 'valid' NULL if nothing is absent. 'offsets' tells where each row's value begins in
   'data', and at last where the last value ends: one more than there are rows. An absent value is
   empty. Offsets of 32 bits suffice for NLCT_ARROW_ROWS. */
enum { NLCT_ARROW_ROWS = 1 << 20 };

/* Packs 'valid' into bits, the first row in the lowest. Returns how many are absent. */
size_t nlct_arrow_bits(const uint8_t *valid, size_t rows, uint8_t *bits);

/* Bytes of an address as text, and what 'data' must have beyond the last. */
enum { NLCT_ARROW_IPV4 = 15, NLCT_ARROW_IPV6 = 39, NLCT_ARROW_MORE = 32 };

/* Writes addresses as text, as inet_ntop() does. Every family but AF_INET counts as AF_INET6.
   'data' has NLCT_ARROW_IPV4 or NLCT_ARROW_IPV6 bytes for each row and NLCT_ARROW_MORE. */
void nlct_arrow_addresses(const uint8_t *values, const uint8_t *valid, const uint8_t *families,
                          size_t rows, int32_t *offsets, char *data);

/* Writes the word of each value; there are 256 'words'. 'data' has room for what is written and for
   NLCT_ARROW_MORE. */
void nlct_arrow_words(const uint8_t *values, const uint8_t *valid, size_t rows,
                      const struct nlct_word *words, int32_t *offsets, char *data);

/* Writes texts of up to 16 bytes (NLCT_TEXT). 'data' has 16 bytes for each row. */
void nlct_arrow_texts(const char *values, const uint8_t *valid, size_t rows, int32_t *offsets,
                      char *data);

/* Writes the numbers of each row's labels, in order. With NULL for 'data' it writes only the
   offsets. */
void nlct_arrow_labels(const uint8_t *values, const uint8_t *valid, size_t rows, int32_t *offsets,
                       uint8_t *data);

/* Writes the bytes of each struct nlct_span. With NULL for 'data' it writes only the offsets.
   Returns 0, or -EINVAL if a span leads out of the bytes. */
int nlct_arrow_spans(const uint8_t *values, const uint8_t *valid, size_t rows, const uint8_t *bytes,
                     size_t bytes_size, int64_t *offsets, uint8_t *data);

/* binding: end */

#endif
