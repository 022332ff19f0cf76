/* Conversations with the table of one namespace. */
#ifndef NLCT_CTNETLINK_H
#define NLCT_CTNETLINK_H

#include "../sinks/sinks.h"

/* dump.c -------------------------------------------------------------------------------------- */

/* The time by CLOCK_MONOTONIC, for deadlines. */
int64_t now_milliseconds(void);

/* request.c ----------------------------------------------------------------------------------- */

/* Takes the payload of a message. Returns 0, or -errno, which ends the request. */
typedef int request_take(void *context, struct wire payload);

/* Sends a request of any subsystem, and hands each message of 'type' that answers it to 'take',
   which may be NULL. 'size' is what message_end() returned; -errno is returned as it is. Returns
   the kernel's verdict, -EBADMSG for success without such a message, -EINTR if a dump was
   inconsistent, or -ETIMEDOUT. For single answers and small dumps: it returns only at their end. */
int request_run(struct nlct_socket *sock, void *request, int size, uint16_t type,
                request_take *take, void *context);

/* delete.c ------------------------------------------------------------------------------------ */

/* Starts a DELETE. DANGER: sent as it is, it flushes everything. */
void delete_begin(struct message *message, void *buffer, size_t capacity, uint8_t family);

/* Reads a request back. Returns true if its 'size' bytes are exactly one plain DELETE; 'view' then
   shows what it names. */
bool delete_read(const void *request, size_t size, struct view *view);

/* Does a request name a flow by this tuple, CTA_TUPLE_ORIG or CTA_TUPLE_REPLY? It has a family,
   addresses, a protocol, and no malformed zone. */
bool view_names(const struct view *view, uint16_t type);

/* Deletes flows by name, in batches: each by its original tuple, its zone and its id, and if that
   finds nothing, by its reply. Each request is read back before it is sent. */
struct deleter;

/* 'settle' gets the result of each flow, once, in any order, while later ones are added or at the
   end: 0, -ENOENT if there is no such flow any more (or it has another id or zone), -EINVAL for a
   flow that cannot be named, or what the kernel said; -ENOBUFS if its answer was lost. NULL if
   there is no memory. */
struct deleter *deleter_new(struct nlct_socket *sock, batch_settle *settle, void *context);

/* Adds a flow, of which only the family, the tuples, the zone and the id matter; 'owner' is for
   'settle'. Returns 0, or -errno if the socket failed; what is not settled then never is. */
int deleter_add(struct deleter *deleter, const struct nlct_flow *flow, uint32_t owner);

/* Settles every flow that was added. Returns 0, or -errno as deleter_add() does. */
int deleter_finish(struct deleter *deleter);

/* May be given NULL. */
void deleter_free(struct deleter *deleter);

/* kernel_filter.c: what the kernel is asked to leave out -------------------------------------- */

/* Puts what makes the kernel filter by 'zone'. */
void kernel_filter_put_zone(struct message *message, uint16_t zone, enum nlct_zone_request request);

/* Is this what kernel_filter_put_zone() puts, and nothing more? */
bool kernel_filter_is_zone(const struct view *view, uint16_t zone, enum nlct_zone_request request);

/* Puts all of 'kernel_filter' but the family, which is in the header. */
void kernel_filter_put(struct message *message, const struct nlct_kernel_filter *kernel_filter);

/* event_filter.c: what the kernel is asked to drop of an event stream -------------------------- */

enum { EVENT_FILTER_MAX = 256 };

/* Writes the program that drops what cannot match 'wanted', and the deletes by the socket with the
   netlink port 'muted'; 0 mutes none. Returns how many instructions, 0 if nothing is to be dropped.
 */
size_t event_filter_build(struct sock_filter code[EVENT_FILTER_MAX],
                          const struct nlct_kernel_filter *wanted, uint32_t muted);

#endif
