/* What is known of each attribute of a flow: the tables for decode.c and build.c, and these two. */
#ifndef NLCT_ATTRIBUTES_H
#define NLCT_ATTRIBUTES_H

#include "flow.h"

/* UNKNOWN attributes are kept as they are, PADDING is not. */
enum kind { UNKNOWN, PADDING, NUMBER, FLAGS, ADDRESS, LABELS, TEXT, SPAN, NEST, TUPLE, NAT };

/* What to do with an attribute of one type. */
struct rule {
    uint8_t kind;
    uint8_t family; /* the only family it belongs to; 0 for any */
    uint16_t size;
    uint16_t offset; /* in the struct of its table */
    uint8_t bit;     /* in the 'present' that opens that struct */
    uint8_t proto;   /* written only for this protocol of the tuple; 0 for any */
    const struct table *nest;
};

struct table {
    const struct rule *rules;
    unsigned count;
};

/* Of the attributes of a flow message, and of those inside a tuple. */
extern const struct table flow_table;
extern const struct table tuple_table;

/* Decodes attributes into 'base', the struct of the table; 'view' is the message that they are in.
   Sets '*unknown' where one is not in the table. Returns 0 or -EBADMSG. */
int table_decode(const struct table *table, struct wire wire, struct view *view, void *base,
                 bool *unknown);

/* Puts the fields of 'base' that are in the table, in 'wanted' and present. 'bytes' holds the
   spans. */
void table_put(struct message *message, const struct table *table, uint8_t family, const void *base,
               uint64_t wanted, const uint8_t *bytes);

/* The fields of a flow that a request may set, a bit each. */
extern const uint64_t flow_settable;

/* Has the flow no value that belongs to another protocol than 'protocol'? A zero does not count. */
bool flow_suits(const struct nlct_flow *flow, uint8_t protocol);

#endif
