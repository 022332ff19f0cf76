/* Conversations with the table of one namespace. */
#ifndef NLCT_CTNETLINK_H
#define NLCT_CTNETLINK_H

#include "../sinks/sinks.h"

/* delete.c ------------------------------------------------------------------------------------ */

/* Reads a request back. Returns true if all of 'size' bytes are one plain DELETE; then 'view' shows
   what it names. */
bool delete_read(const void *request, size_t size, struct view *view);

/* kernel_filter.c: what the kernel is asked to leave out -------------------------------------- */

/* Puts what makes the kernel filter by 'zone'. */
void kernel_filter_put_zone(struct message *message, uint16_t zone, enum nlct_zone_request request);

/* Is this what kernel_filter_put_zone() puts, and nothing more? */
bool kernel_filter_is_zone(const struct view *view, uint16_t zone, enum nlct_zone_request request);

/* Puts all of 'kernel_filter' but the family, which is the header's. */
void kernel_filter_put(struct message *message, const struct nlct_kernel_filter *kernel_filter);

#endif
