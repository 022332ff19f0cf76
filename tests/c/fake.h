/*
 * A kernel that plays a script, for what no real one can be made to do.
 *
 * Programs are linked with --wrap, so that sendto(2), recvmsg(2), recvmmsg(2), poll(2) and the
 * socket options of the descriptor FAKE_FD come here; every other descriptor goes to the real
 * kernel. So does getrandom(2), but for what the script says, and so go calloc(3) and realloc(3) to
 * the library. A socket that is opened inside of no namespace is FAKE_FD.
 */
#ifndef FAKE_H
#define FAKE_H

#include "ctnetlink/ctnetlink.h"

enum { FAKE_FD = 1 << 29, FAKE_PORT = 4711 };

/* What has been sent since the last fake_reset(), one send after another. */
struct fake_sent {
    uint8_t bytes[1 << 18];
    size_t size;
    unsigned sends;
};

extern struct fake_sent fake_sent;

/* Forgets all that was sent or queued. From then on nothing is answered. */
void fake_reset(void);

/* A socket to this kernel. */
struct nlct_socket *fake_open(void);
void fake_close(struct nlct_socket *sock);

/* What the next calls of recvmsg(2) give: a datagram, from the sender with the port id 'from' and
   with these msg_flags, or an errno. Each is one of those of recvmmsg(2), which an errno ends. */
void fake_queue(const void *data, size_t size, uint32_t from, int flags);
void fake_queue_error(int error);

/* At this point of the queue the socket has dropped so many datagrams more. */
void fake_queue_drops(uint32_t drops);

/* Each look at SO_MEMINFO fails with it, 0 for none. What it says is queued is what there is. */
void fake_fail_meminfo(int error);

/* What was done to the socket, a letter for each: f(ilter), g(roup joined). */
extern char fake_options[64];

/* Has anybody received since then who did not call fake_reset()? */
bool fake_received_by_another_thread(void);

/* What the next call of sendto(2) or poll(2) fails with. */
void fake_fail_send(int error);
void fake_fail_poll(int error);

/* What the next call of getrandom(2) fails with; 0 has it return 0 and do nothing, as a policy may.
 */
void fake_fail_random(int error);

/* After that many calls of calloc(3) and realloc(3) that succeed, those that follow fail; -1 lets
   all succeed. */
void fake_fail_memory(int after);

/* Called with the bytes of each send, to queue answers. */
void fake_answer(void (*answer)(const uint8_t *data, size_t size));

/* Answers each request of a send with what 'answer' says of it: 0 acknowledges it, an errno refuses
   it, FAKE_SILENT says nothing. */
enum { FAKE_SILENT = -1 };
void fake_answer_each(const uint8_t *data, size_t size, int (*answer)(const struct nlmsghdr *));

/* An answer that acknowledges each request that asks for it. */
void fake_acknowledge(const uint8_t *data, size_t size);

/* Messages, built without the help of the core. */
struct packet {
    uint8_t bytes[1 << 17];
    size_t size;
    size_t message; /* where the last one begins */
};

/* The header of the last message. */
struct nlmsghdr *packet_header(struct packet *packet);

void packet_begin(struct packet *packet, uint16_t type, uint16_t flags, uint32_t sequence,
                  uint32_t port);
void packet_bytes(struct packet *packet, const void *data, size_t size);
void packet_attr(struct packet *packet, uint16_t type, const void *data, size_t size);
size_t packet_nest(struct packet *packet, uint16_t type);
void packet_end_nest(struct packet *packet, size_t nest);

/* Sets the length of the last message; to be called when it is complete. */
void packet_end(struct packet *packet);

void packet_be16(struct packet *packet, uint16_t type, uint16_t value);
void packet_be32(struct packet *packet, uint16_t type, uint32_t value);
void packet_be64(struct packet *packet, uint16_t type, uint64_t value);

/* The header that every netfilter message has. */
void packet_general(struct packet *packet, uint8_t family);

/* Begins a flow message in an empty packet. */
void packet_begin_flow(struct packet *packet, uint8_t family);

/* The addresses of a tuple as text, of one family. */
void packet_addresses(struct packet *packet, const char *src, const char *dst);
void packet_ports(struct packet *packet, uint8_t proto, uint16_t sport, uint16_t dport);
void packet_tuple(struct packet *packet, uint16_t type, const char *src, const char *dst,
                  uint8_t proto, uint16_t sport, uint16_t dport);

/* Ends the message, and indexes it. Returns what view_parse() says. */
int packet_view(struct packet *packet, struct view *view);

/* The core's number of a field; ends the program when there is none. */
unsigned field_number(const char *name);

/* An NLMSG_ERROR that answers the request numbered 'sequence'. */
void packet_verdict(struct packet *packet, uint32_t sequence, int error);

#endif
