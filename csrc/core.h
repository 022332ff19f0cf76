/*
 * What the files of the core share, from the bottom up: message, socket, batch know nothing of
 * conntrack; decode, build and filter know only attributes; sinks know only flows.
 */
#ifndef NLCT_CORE_H
#define NLCT_CORE_H

#include "nlct.h"
#include "wire.h"

struct field;

/* message.c: building ------------------------------------------------------------------------- */

/* A request being written. Once a put does not fit, 'error' stays -EMSGSIZE and puts do nothing. */
struct message {
    uint8_t *buffer;
    size_t capacity;
    size_t size;
    int error;
};

/* Starts a request of 'type' and 'flags', followed by the nfgenmsg header with 'family'. */
void message_begin(struct message *message, void *buffer, size_t capacity, uint16_t type,
                   uint16_t flags, uint8_t family);
void message_put(struct message *message, uint16_t type, const void *data, size_t size);
void message_copy(struct message *message, const struct attr *attr);
void message_put_be16(struct message *message, uint16_t type, uint16_t value);
void message_put_be32(struct message *message, uint16_t type, uint32_t value);

/* Opens a nest; nest_end() takes what this returned. */
size_t message_nest_begin(struct message *message, uint16_t type);
void message_nest_end(struct message *message, size_t nest);

/* Takes back a nest in which nothing was put. */
bool message_nest_is_empty(const struct message *message, size_t nest);
void message_nest_drop(struct message *message, size_t nest);

/* Completes the header. Returns the size, or -EMSGSIZE. */
int message_end(struct message *message);

/* Sets what the sender alone knows. */
void message_stamp(void *message, uint16_t more_flags, uint32_t sequence);

/* netns.c ------------------------------------------------------------------------------------- */

/* Asks a socket whether it is in this namespace. Returns 0, -EXDEV, or -errno. */
int netns_prove(const struct nlct_netns *netns, int sock);

/* socket.c ------------------------------------------------------------------------------------ */

/* The kernel fills up to 32 KiB a datagram of a dump, whatever the buffer beyond that. */
enum { SOCKET_BUFFER = 65536 };

struct nlct_socket {
    int fd;
    struct nlct_fd held; /* the same, and which socket it is */
    uint32_t port;
    uint32_t sequence; /* of the latest request */
    size_t room;       /* what the kernel will queue for us before it drops replies, in bytes */
    char text[256];
    uint8_t buffer[SOCKET_BUFFER]; /* the latest datagram */
};

int socket_send(struct nlct_socket *sock, const void *data, size_t size);

/* Receives one datagram from the kernel into 'buffer'. Returns its size, -EAGAIN when nothing is
   queued, or -errno; -ENOBUFS says that replies were lost. */
int socket_receive(struct nlct_socket *sock);

/* The same into another buffer of SOCKET_BUFFER bytes. */
int socket_receive_to(struct nlct_socket *sock, uint8_t *buffer);

/* Waits for a datagram. Returns 0, -EAGAIN after 'milliseconds', or -EINTR. */
int socket_wait(struct nlct_socket *sock, int milliseconds);

/* Does this message answer a request of ours, one numbered 'first' to the latest? */
bool socket_answers(const struct nlct_socket *sock, const struct nlmsghdr *header, uint32_t first);

/* Reads an NLMSG_ERROR or NLMSG_DONE and keeps its text. Returns the error in it (0 or -errno),
   or -EBADMSG. */
int socket_verdict(struct nlct_socket *sock, const struct nlmsghdr *header, struct wire payload);

/* Sends one request and hands the message of type 'answer' to 'take' (may be NULL), up to the
   kernel's verdict, which is returned; -EBADMSG when it is success without that message. */
int socket_transact(struct nlct_socket *sock, struct message *request, uint16_t answer,
                    int (*take)(void *context, struct wire payload), void *context);

/* ahead.c: receiving ahead, in a thread ------------------------------------------------------- */

struct ahead;

/* Starts to receive. The socket is the thread's until it has been stopped, or has ended. NULL
   where there is no second processor for it, or no thread. */
struct ahead *ahead_start(struct nlct_socket *sock);

/* Gets the next datagram, valid until the next call. Returns 0, -EINTR when there is none by
   'deadline' (CLOCK_MONOTONIC, milliseconds), or what socket_receive() returned, after which the
   thread has ended. */
int ahead_next(struct ahead *ahead, struct wire *wire, int64_t deadline);

/* Waits for the thread, which ends after what it is receiving. May be given NULL. */
void ahead_stop(struct ahead *ahead);

/* batch.c: many requests in one send, and every refusal counted ------------------------------- */

enum { BATCH_BYTES = 32768, BATCH_REQUESTS = 256, REQUEST_MAX = 1024 };

struct batch_request {
    uint32_t owner;
    bool settled;
};

struct batch {
    struct nlct_socket *sock;
    /* Looks at a finished request once more before it may be sent. */
    bool (*admits)(const void *request, size_t size);
    /* Is told what became of each request: 0 or -errno. */
    void (*settle)(void *context, uint32_t owner, int result);
    void *context;
    unsigned limit; /* requests whose refusals are sure to fit the receive buffer */
    unsigned count;
    size_t size;
    size_t latest; /* where the last request begins */
    struct batch_request requests[BATCH_REQUESTS];
    uint8_t bytes[BATCH_BYTES];
};

void batch_init(struct batch *batch, struct nlct_socket *sock,
                bool (*admits)(const void *request, size_t size),
                void (*settle)(void *context, uint32_t owner, int result), void *context);

/* A 'settle' that counts in a struct nlct_tally, whoever the owner is. */
void batch_tally(void *tally, uint32_t owner, int result);

/* Room for one request of up to REQUEST_MAX bytes. */
void *batch_room(struct batch *batch);

/* Takes what was written there for 'owner'; 'size' is a size or -errno, which counts as a refusal.
   Sends when full. Returns 0 or -errno when the socket failed. */
int batch_add(struct batch *batch, int size, uint32_t owner);

/* Sends what is left and accounts for every request. */
int batch_send(struct batch *batch);

/* heap.c -------------------------------------------------------------------------------------- */

/* Adds 'size' bytes. Returns 0 or -ENOMEM. */
int heap_add(struct nlct_heap *heap, const void *data, size_t size);

/* text.c -------------------------------------------------------------------------------------- */

/* Writes an address of AF_INET, or else of AF_INET6, at 'at', as inet_ntop() does but without a
   null byte. Returns where it ends; up to three bytes behind that are written to. */
char *text_address(char *at, const uint8_t *address, uint8_t family);

/* Bits and bytes ------------------------------------------------------------------------------ */

static inline uint64_t bit(unsigned field)
{
    return UINT64_C(1) << field;
}

static inline bool has(uint64_t present, unsigned field)
{
    return present >> field & 1;
}

/* Counts through the bits that are set. */
static inline unsigned next_bit(uint64_t *bits)
{
    const unsigned found = (unsigned)__builtin_ctzll(*bits);

    *bits &= *bits - 1;
    return found;
}

/* hash.c: SipHash-1-3, a hash with a key ------------------------------------------------------ */

/* Flows are what others make: without a key they could choose addresses that share one slot. */
struct hash_key {
    uint64_t words[2];
};

/* Draws a key for one table. Returns 0 or -errno. */
int hash_key_new(struct hash_key *key);

static inline uint64_t hash_rotate(uint64_t word, unsigned by)
{
    return word << by | word >> (64 - by);
}

static inline void hash_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = hash_rotate(v[1], 13) ^ v[0];
    v[3] = hash_rotate(v[3], 16) ^ v[2];
    v[0] = hash_rotate(v[0], 32) + v[3];
    v[2] += v[1];
    v[3] = hash_rotate(v[3], 21) ^ v[0];
    v[1] = hash_rotate(v[1], 17) ^ v[2];
    v[2] = hash_rotate(v[2], 32);
}

static inline void hash_take(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    hash_round(v);
    v[0] ^= word;
}

/* Hashes 'count' words and then the 'left' bytes, less than 8, at the lower end of 'last'. */
static inline uint64_t hash_words(const struct hash_key *key, const uint64_t *words, size_t count,
                                  uint64_t last, size_t left)
{
    uint64_t v[4] = {
        key->words[0] ^ UINT64_C(0x736f6d6570736575),
        key->words[1] ^ UINT64_C(0x646f72616e646f6d),
        key->words[0] ^ UINT64_C(0x6c7967656e657261),
        key->words[1] ^ UINT64_C(0x7465646279746573),
    };
    size_t i;

    for (i = 0; i < count; i++)
        hash_take(v, words[i]);
    hash_take(v, last | (uint64_t)(count * 8 + left) << 56);
    v[2] ^= 0xff;
    hash_round(v);
    hash_round(v);
    hash_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* decode.c: message -> flow ------------------------------------------------------------------- */

enum { VIEW_ATTRS = 32 };

/* A flow as it came: where its attributes are, and what of them has been decoded so far. */
struct view {
    struct wire payload;
    uint32_t present; /* a bit an attribute type */
    uint32_t decoded; /* likewise; 'flow' is unspecified while it is 0 */
    uint32_t unknown; /* likewise: attributes in which something is not known */
    uint8_t family;
    struct attr attrs[VIEW_ATTRS];
    struct nlct_flow flow;
};

/* Indexes the payload of a flow message. Returns 0 or -EBADMSG. */
int view_parse(struct view *view, struct wire payload);
const struct attr *view_attr(const struct view *view, unsigned type);

/* The zone's id, in whichever direction it applies, or -EBADMSG. */
int view_zone(const struct view *view);

/* Decodes the one attribute that 'field' is in. Returns 0, or -EBADMSG, then and each time again,
   and nothing of that attribute may be believed. */
int view_decode(struct view *view, const struct field *field);

/* Decodes everything into 'view->flow', once; its spans go to the end of 'heap'. Returns 0, -ENOMEM
   or -EBADMSG. */
int flow_decode(struct view *view, struct nlct_heap *heap);

/* build.c: flow -> message -------------------------------------------------------------------- */

void flow_put_tuple(struct message *message, uint16_t type, const struct nlct_tuple *tuple);

/* Puts what names one flow: its zone and one of its tuples, CTA_TUPLE_ORIG or CTA_TUPLE_REPLY. */
void flow_put_key(struct message *message, const struct nlct_flow *flow, uint16_t type);

/* Puts what changes a flow: its key and all that the kernel lets one change. */
void flow_put_update(struct message *message, const struct nlct_flow *flow, const uint8_t *heap);

/* Is there nothing in a new flow that the kernel would drop in silence: a timeout of 0, with which
   it drops the flow itself, and what belongs to another protocol? */
bool flow_fits(const struct nlct_flow *flow);

/* nat.c: where a reply is not the reverse of the original tuple ------------------------------- */

enum { TO_ADDRESS, TO_PORT };

/* What a request wants a flow translated to. */
struct translation {
    uint64_t present;
    uint8_t address[16];
    uint16_t port;
};

/* Puts what translates a flow to 'reply'; 'type' is CTA_NAT_SRC or CTA_NAT_DST. */
void nat_put(struct message *message, uint16_t type, struct nlct_tuple reply);

/* The reverse of nat_put(). Returns false where 'reply' lacks what 'to' changes. */
bool nat_apply(struct nlct_tuple *reply, uint16_t type, struct translation to);

/* fields.c ------------------------------------------------------------------------------------ */

/* Where a field lies in a flow, and the bits that say it is there. */
struct field {
    struct nlct_field public;
    size_t present; /* offset of the 'present' of the tuple or flow it belongs to */
    uint8_t bit;    /* in there */
    uint8_t part;   /* bit in the flow's own 'present': the tuple, or the field again */
    uint8_t attr;   /* the type of the attribute that it is in; 0 for the family */
};

enum { FLOW_FIELDS_MAX = 96 };

/* NULL past the last. */
const struct field *flow_field(unsigned number);
unsigned flow_fields(void);

bool flow_has(const struct nlct_flow *flow, const struct field *field);
static inline const void *flow_value(const struct nlct_flow *flow, const struct field *field)
{
    return (const uint8_t *)flow + field->public.offset;
}

/* Of a field that is a number. */
static inline uint64_t flow_number(const struct nlct_flow *flow, const struct field *field)
{
    const void *value = flow_value(flow, field);
    uint64_t eight;
    uint32_t four;
    uint16_t two;

    switch (field->public.size) {
    case 8:
        memcpy(&eight, value, sizeof(eight));
        return eight;
    case 4:
        memcpy(&four, value, sizeof(four));
        return four;
    case 2:
        memcpy(&two, value, sizeof(two));
        return two;
    default:
        return *(const uint8_t *)value;
    }
}

/* filter.c ------------------------------------------------------------------------------------ */

/* Returns 1, 0, or -EBADMSG. */
int filter_match(const struct nlct_filter *filter, struct view *view);

/* flush.c: naming one flow to the kernel ------------------------------------------------------ */

enum { SPARE_BYTES = 256 };

/* Batches of deletes, of which none could hit more than one flow. A tuple may be the original one
   of a flow and the reply of another, and then leads to one of them alone; the id keeps the wrong
   one from harm. So what is not found by its original tuple is tried by its reply. */
struct deletes {
    struct batch batch;
    struct batch second;
    void (*settle)(void *context, uint32_t owner, int result);
    void *context;
    struct spare {
        uint32_t owner;
        bool wanted;
        int size; /* of the request by the reply tuple; 0 where there is none */
        uint8_t bytes[SPARE_BYTES];
    } spares[BATCH_REQUESTS]; /* by place in the batch */
};

void deletes_init(struct deletes *deletes, struct nlct_socket *sock,
                  void (*settle)(void *context, uint32_t owner, int result), void *context);

/* Adds the delete of one flow, by its tuple, its zone and its id, as batch_add() does. */
int deletes_add(struct deletes *deletes, const struct view *view, uint32_t owner);

/* Sends what is left and accounts for every request. */
int deletes_send(struct deletes *deletes);

/* ask.c: what the kernel is asked to leave out ------------------------------------------------ */

/* Puts what makes the kernel filter by 'zone'. */
void ask_put_zone(struct message *message, uint16_t zone, enum nlct_zone_request request);

/* Is this what ask_put_zone() puts, and nothing more? */
bool ask_is_zone(const struct view *view, uint16_t zone, enum nlct_zone_request request);

/* Puts all of 'ask' but the family, which is the header's. */
void ask_put(struct message *message, const struct nlct_ask *ask);

/* Sinks --------------------------------------------------------------------------------------- */

struct nlct_sink {
    /* Takes a flow. Returns 0, 1 when it is full and wants this flow again, or -errno. */
    int (*take)(struct nlct_sink *sink, struct view *view);
    /* The table has ended. May be NULL. */
    int (*finish)(struct nlct_sink *sink);
    /* Lets go of more than the sink itself. May be NULL. */
    void (*free)(struct nlct_sink *sink);
};

#endif
