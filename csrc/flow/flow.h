/*
 * One flow: the table of its attributes, and its forms. Of netlink it needs only messages. The
 * other rooms may see this much of it, in reading order: bits, bytes, a hash with a key, the fields
 * of a flow, decoding, building, translation, matching, text; and an expectation.
 */
#ifndef NLCT_FLOW_H
#define NLCT_FLOW_H

#include "../netlink/netlink.h"

#include <endian.h>

/* How many elements an array has. */
#define COUNT(array_) (sizeof(array_) / sizeof((array_)[0]))

/* Bits ---------------------------------------------------------------------------------------- */

/* The bit of a field in 'present'. */
static inline uint64_t bit(unsigned field)
{
    return UINT64_C(1) << field;
}

static inline bool has(uint64_t present, unsigned field)
{
    return present >> field & 1;
}

/* Takes the lowest of one or more bits away. Returns its number. */
static inline unsigned next_bit(uint64_t *bits)
{
    const unsigned found = (unsigned)__builtin_ctzll(*bits);

    *bits &= *bits - 1;
    return found;
}

/* Numbers of 1, 2, 4 or 8 bytes, wherever they lie --------------------------------------------- */

static inline uint64_t number_read(const void *at, size_t size)
{
    uint64_t eight;
    uint32_t four;
    uint16_t two;

    switch (size) {
    case 8:
        memcpy(&eight, at, sizeof(eight));
        return eight;
    case 4:
        memcpy(&four, at, sizeof(four));
        return four;
    case 2:
        memcpy(&two, at, sizeof(two));
        return two;
    default:
        return *(const uint8_t *)at;
    }
}

static inline void number_write(void *at, uint64_t number, size_t size)
{
    const uint32_t four = (uint32_t)number;
    const uint16_t two = (uint16_t)number;

    switch (size) {
    case 8:
        memcpy(at, &number, sizeof(number));
        break;
    case 4:
        memcpy(at, &four, sizeof(four));
        break;
    case 2:
        memcpy(at, &two, sizeof(two));
        break;
    default:
        *(uint8_t *)at = (uint8_t)number;
    }
}

/* From network order to the host's, or back. */
static inline uint64_t number_turn(uint64_t number, size_t size)
{
    return htobe16(1) == 1 ? number : __builtin_bswap64(number) >> (64 - 8 * size);
}

/* bytes.c ------------------------------------------------------------------------------------- */

/* Adds 'size' bytes. Returns 0 or -ENOMEM. */
int bytes_add(struct nlct_bytes *bytes, const void *data, size_t size);

/* Adds the bytes of a span of 'from', and makes the span point to them. Returns 0 or -ENOMEM. */
int bytes_bring(struct nlct_bytes *bytes, const uint8_t *from, struct nlct_span *span);

/* hash.c: SipHash-1-3, a hash with a key ------------------------------------------------------ */

/* Others make the flows: without a key they could choose addresses that share one slot. */
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

/* attributes.c: the fields of a flow ---------------------------------------------------------- */

/* Where a field lies in a flow, and the bits that say that it is present. */
struct field {
    struct nlct_field public;
    size_t present; /* offset of the 'present' of the tuple or flow it belongs to */
    uint8_t bit;    /* in there */
    uint8_t part;   /* bit in the flow's own 'present': the tuple, or the field again */
    uint8_t attr;   /* the type of the attribute that it is in; 0 if it is in none */
};

enum { FLOW_FIELDS_MAX = 96 };

/* The field with this number, NULL past the last. */
const struct field *flow_field(unsigned number);

/* How many there are. */
unsigned flow_fields(void);

/* Does it hold a value? */
bool flow_has(const struct nlct_flow *flow, const struct field *field);

/* Where its value is. */
static inline const void *flow_value(const struct nlct_flow *flow, const struct field *field)
{
    return (const uint8_t *)flow + field->public.offset;
}

/* Of a field that is a number. */
static inline uint64_t flow_number(const struct nlct_flow *flow, const struct field *field)
{
    return number_read(flow_value(flow, field), field->public.size);
}

/* decode.c: message -> flow ------------------------------------------------------------------- */

enum { VIEW_ATTRS = 32 };

/* A flow as it came: where its attributes are, and which are decoded so far. */
struct view {
    struct wire payload;
    uint32_t present; /* a bit an attribute type */
    uint32_t decoded; /* likewise; 'flow' is unspecified while it is 0 */
    uint32_t unknown; /* likewise: attributes that hold something unknown */
    uint8_t family;
    uint8_t event; /* an enum nlct_event, 0 in a dump */
    struct attr attrs[VIEW_ATTRS];
    struct nlct_flow flow;
};

/* Indexes the payload of a flow message, which counts as no event. Returns 0 or -EBADMSG. */
int view_parse(struct view *view, struct wire payload);

/* A top-level attribute, NULL when it is absent. */
const struct attr *view_attr(const struct view *view, unsigned type);

/* The zone's id, in whichever direction it applies, or -EBADMSG. */
int view_zone(const struct view *view);

/* Decodes the one attribute that 'field' is in. Returns 0, or -EBADMSG, again at each later call;
   then do not believe anything of that attribute. */
int view_decode(struct view *view, const struct field *field);

/* Decodes everything into 'view->flow', once; appends its spans to 'bytes'. Returns 0, -ENOMEM or
   -EBADMSG. */
int flow_decode(struct view *view, struct nlct_bytes *bytes);

/* The same with the payload of a message, into '*flow'. */
int flow_read(struct wire payload, struct nlct_flow *flow, struct nlct_bytes *bytes);

/* build.c: flow -> message -------------------------------------------------------------------- */

/* Puts a tuple as an attribute of 'type'. */
void flow_put_tuple(struct message *message, uint16_t type, const struct nlct_tuple *tuple);

/* Puts what names one flow: its zone and one of its tuples, CTA_TUPLE_ORIG or CTA_TUPLE_REPLY. */
void flow_put_key(struct message *message, const struct nlct_flow *flow, uint16_t type);

/* Fills '*reply' with the reverse of the original tuple, without the zone of that direction. */
void flow_reverse(const struct nlct_flow *flow, struct nlct_tuple *reply);

/* Puts what changes a flow: its key and all of its settable fields. */
void flow_put_update(struct message *message, const struct nlct_flow *flow, const uint8_t *bytes);

/* Do tuples of this protocol have ports, or keys in their place? */
bool tuple_has_ports(uint8_t proto);

/* Does a flow of this protocol with a master crash kernels? When a GRE flow ends, many take the
   data of its master's helper for that of PPTP's, even if there is no helper. A request names the
   master only by its tuple, so nlct cannot be sure which helper it has. */
bool master_crashes(uint8_t proto);

/* Are the window scales and the state of SCTP within what every kernel takes? */
bool flow_is_in_range(const struct nlct_flow *flow);

/* nlct_flow_build() for a request that is sent. Also returns -EINVAL for what the kernel would
   silently drop; and for what crashes kernels, -ERANGE for a value out of range and -EOPNOTSUPP for
   a master of GRE. It leaves data of a helper out: kernels before 6.0 give them to the helper
   before the flow has one, and later ones ignore them. */
int flow_create_request(const struct nlct_flow *flow, const uint8_t *bytes, void *buffer,
                        size_t capacity);

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

/* filter.c ------------------------------------------------------------------------------------ */

/* Does the flow match? Returns 1, 0, or -EBADMSG. */
int filter_match(const struct nlct_filter *filter, struct view *view);

/* Does it ask for nothing but what is in these attributes (a bit a type), and the family? */
bool filter_asks_only(const struct nlct_filter *filter, uint32_t attrs);

/* text.c -------------------------------------------------------------------------------------- */

/* Writes an address of AF_INET, or else of AF_INET6, at 'at', as inet_ntop() does but without a
   null byte. Returns its end; up to three bytes behind that are overwritten. */
char *text_address(char *at, const uint8_t *address, uint8_t family);

/* The name of a state of TCP, SCTP or DCCP; NULL if it has none. */
const char *text_state(uint8_t proto, unsigned state);

/* Each writes at 'at' and returns the end: the ports of a tuple, or what its protocol has instead,
   with a space behind each; what an event begins with. */
char *text_keys(char *at, const struct nlct_tuple *tuple);
char *text_event(char *at, uint8_t event);

/* save.c -------------------------------------------------------------------------------------- */

/* Reads one line of `conntrack -o save`, without its end, as nlct_save_read() does. Returns 1, 0 if
   there is no flow in it, or -EINVAL with '*bad' filled but for 'line' and with 'at' counted from
   the line's beginning. */
int save_read(const char *line, size_t size, struct nlct_flow *flow, struct nlct_bad_line *bad);

/* value.c ------------------------------------------------------------------------------------- */

/* Writes the value of a field that the flow has at 'at', as JSON or as one word. 'words' are those
   of struct nlct_item. Returns its end. It takes up to value_room() bytes, and value_spans() more
   for all fields together. */
char *value_put(char *at, const struct nlct_flow *flow, const uint8_t *bytes,
                const struct field *field, const struct nlct_word *words, bool json);
size_t value_room(const struct field *field, const struct nlct_word *words);
size_t value_spans(const struct nlct_flow *flow);

/* expect.c: an expectation and its forms ------------------------------------------------------ */

/* Decodes the payload of a message. Returns 0 or -EBADMSG. */
int expect_read(struct wire payload, struct nlct_expect *expect);

/* Puts the fields of '*expect' that are in 'wanted', a bit each, and present. */
void expect_put(struct message *message, const struct nlct_expect *expect, uint64_t wanted);

#endif
