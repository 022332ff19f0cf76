/* Conversations with the table of one namespace. */
#ifndef NLCT_CTNETLINK_H
#define NLCT_CTNETLINK_H

#include "../sinks/sinks.h"

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

/* kernel_filter.c: what the kernel is asked to leave out
 * ------------------------------------------------ */

/* Puts what makes the kernel filter by 'zone'. */
void kernel_filter_put_zone(struct message *message, uint16_t zone, enum nlct_zone_request request);

/* Is this what kernel_filter_put_zone() puts, and nothing more? */
bool kernel_filter_is_zone(const struct view *view, uint16_t zone, enum nlct_zone_request request);

/* Puts all of 'kernel_filter' but the family, which is the header's. */
void kernel_filter_put(struct message *message, const struct nlct_kernel_filter *kernel_filter);

#endif
