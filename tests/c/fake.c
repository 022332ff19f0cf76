#include "fake.h"

#include <arpa/inet.h>
#include <endian.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/sock_diag.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>

ssize_t __real_getrandom(void *data, size_t size, unsigned flags);
ssize_t __wrap_getrandom(void *data, size_t size, unsigned flags);
ssize_t __real_sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to,
                      socklen_t to_size);
ssize_t __wrap_sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to,
                      socklen_t to_size);
ssize_t __real_recvmsg(int fd, struct msghdr *message, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags);
int __wrap_recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags,
                    struct timespec *timeout);
int __real_getsockopt(int fd, int level, int option, void *value, socklen_t *size);
int __wrap_getsockopt(int fd, int level, int option, void *value, socklen_t *size);
int __real_setsockopt(int fd, int level, int option, const void *value, socklen_t size);
int __wrap_setsockopt(int fd, int level, int option, const void *value, socklen_t size);
int __real_nlct_socket_open(struct nlct_socket **sock, const struct nlct_netns *netns);
int __wrap_nlct_socket_open(struct nlct_socket **sock, const struct nlct_netns *netns);
bool __real_nlct_socket_is(const struct nlct_socket *sock);
bool __wrap_nlct_socket_is(const struct nlct_socket *sock);
int __real_poll(struct pollfd *wanted, nfds_t count, int milliseconds);
int __wrap_poll(struct pollfd *wanted, nfds_t count, int milliseconds);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__wrap_realloc(void *memory, size_t size);

/* One thing that recvmsg(2) gives. */
struct event {
    size_t at;
    size_t size;
    uint32_t from;
    int flags;
    int error;
    uint32_t drops; /* if not 0, it is only that */
};

struct fake_sent fake_sent;
char fake_options[64];

static struct {
    uint8_t bytes[1 << 20];
    size_t size;
    struct event events[4096];
    unsigned first;
    unsigned last;
} queue;

static void (*answer_with)(const uint8_t *data, size_t size);
static int send_error;
static int poll_error;
static int random_error = -1;
static int meminfo_error;
static uint32_t dropped;
static atomic_int memory_left = -1;
static pthread_t resetter;
static atomic_bool by_another;

void fake_reset(void)
{
    fake_sent.size = 0;
    fake_sent.sends = 0;
    queue.size = 0;
    queue.first = 0;
    queue.last = 0;
    answer_with = NULL;
    send_error = 0;
    poll_error = 0;
    random_error = -1;
    meminfo_error = 0;
    dropped = 0;
    memset(fake_options, 0, sizeof(fake_options));
    memory_left = -1;
    resetter = pthread_self();
    by_another = false;
}

bool fake_received_by_another_thread(void)
{
    return by_another;
}

struct nlct_socket *fake_open(void)
{
    struct nlct_socket *sock = calloc(1, sizeof(*sock));

    if (!sock)
        abort();
    sock->fd.fd = FAKE_FD;
    sock->port = FAKE_PORT;
    sock->room = 1 << 20;
    return sock;
}

void fake_close(struct nlct_socket *sock)
{
    nlct_socket_close(&sock);
}

static struct event *queue_event(void)
{
    if (queue.last == sizeof(queue.events) / sizeof(queue.events[0]))
        abort();
    queue.events[queue.last] = (struct event){.at = queue.size};
    return &queue.events[queue.last++];
}

void fake_queue(const void *data, size_t size, uint32_t from, int flags)
{
    struct event *event = queue_event();

    if (size > sizeof(queue.bytes) - queue.size)
        abort();
    memcpy(queue.bytes + queue.size, data, size);
    queue.size += size;
    event->size = size;
    event->from = from;
    event->flags = flags;
}

void fake_queue_error(int error)
{
    queue_event()->error = error;
}

void fake_queue_drops(uint32_t drops)
{
    queue_event()->drops = drops;
}

void fake_fail_meminfo(int error)
{
    meminfo_error = error;
}

void fake_fail_send(int error)
{
    send_error = error;
}

void fake_fail_poll(int error)
{
    poll_error = error;
}

void fake_fail_random(int error)
{
    random_error = error;
}

void fake_fail_memory(int after)
{
    memory_left = after;
}

void fake_answer(void (*answer)(const uint8_t *data, size_t size))
{
    answer_with = answer;
}

void fake_answer_each(const uint8_t *data, size_t size, int (*answer)(const struct nlmsghdr *))
{
    static struct packet packet;
    struct nlmsghdr header;
    size_t at;

    for (at = 0; at < size; at += (header.nlmsg_len + 3) & ~3U) {
        int error;

        memcpy(&header, data + at, sizeof(header));
        error = answer(&header);
        if (error == FAKE_SILENT)
            continue;
        packet.size = 0;
        packet_verdict(&packet, header.nlmsg_seq, error);
        fake_queue(packet.bytes, packet.size, 0, 0);
    }
}

static int acknowledge(const struct nlmsghdr *header)
{
    return header->nlmsg_flags & NLM_F_ACK ? 0 : FAKE_SILENT;
}

void fake_acknowledge(const uint8_t *data, size_t size)
{
    fake_answer_each(data, size, acknowledge);
}

/* The system calls ---------------------------------------------------------------------------- */

static int fail(int error)
{
    errno = error;
    return -1;
}

ssize_t __wrap_sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to,
                      socklen_t to_size)
{
    int error = send_error;

    if (fd != FAKE_FD)
        return __real_sendto(fd, data, size, flags, to, to_size);
    send_error = 0;
    if (error)
        return fail(error);
    if (size > sizeof(fake_sent.bytes) - fake_sent.size)
        abort();
    memcpy(fake_sent.bytes + fake_sent.size, data, size);
    fake_sent.size += size;
    fake_sent.sends++;
    if (answer_with)
        answer_with(data, size);
    return (ssize_t)size;
}

ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags)
{
    struct sockaddr_nl from = {.nl_family = AF_NETLINK};
    struct event *event;
    size_t size;

    if (fd != FAKE_FD)
        return __real_recvmsg(fd, message, flags);
    if (!pthread_equal(pthread_self(), resetter))
        by_another = true;
    while (queue.first != queue.last && queue.events[queue.first].drops)
        dropped += queue.events[queue.first++].drops;
    if (queue.first == queue.last)
        return fail(EAGAIN);
    event = &queue.events[queue.first++];
    if (event->error)
        return fail(event->error);
    size = event->size;
    if (size > message->msg_iov->iov_len)
        size = message->msg_iov->iov_len;
    memcpy(message->msg_iov->iov_base, queue.bytes + event->at, size);
    from.nl_pid = event->from;
    memcpy(message->msg_name, &from, sizeof(from));
    message->msg_namelen = sizeof(from);
    message->msg_flags = event->flags;
    return (ssize_t)size;
}

int __wrap_recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags,
                    struct timespec *timeout)
{
    unsigned i;

    if (fd != FAKE_FD || timeout)
        abort();
    for (i = 0; i < count; i++) {
        const ssize_t size = __wrap_recvmsg(fd, &messages[i].msg_hdr, flags);

        if (size < 0 && i == 0)
            return -1;
        if (size < 0) {
            /* The next call tells it. */
            queue.first -= errno != EAGAIN;
            break;
        }
        messages[i].msg_len = (unsigned)size;
    }
    return (int)i;
}

int __wrap_getsockopt(int fd, int level, int option, void *value, socklen_t *size)
{
    uint32_t numbers[SK_MEMINFO_VARS] = {0};
    unsigned i;

    if (fd != FAKE_FD)
        return __real_getsockopt(fd, level, option, value, size);
    if (*size != sizeof(numbers))
        abort();
    if (meminfo_error)
        return fail(meminfo_error);
    for (i = queue.first; i < queue.last; i++)
        if (!queue.events[i].error && !queue.events[i].drops)
            numbers[SK_MEMINFO_RMEM_ALLOC] += 512;
    numbers[SK_MEMINFO_DROPS] = dropped;
    memcpy(value, numbers, sizeof(numbers));
    return 0;
}

int __wrap_setsockopt(int fd, int level, int option, const void *value, socklen_t size)
{
    if (fd != FAKE_FD)
        return __real_setsockopt(fd, level, option, value, size);
    if (level == SOL_SOCKET && option == SO_ATTACH_FILTER)
        strcat(fake_options, "f");
    if (level == SOL_NETLINK && option == NETLINK_ADD_MEMBERSHIP)
        strcat(fake_options, "g");
    return 0;
}

int __wrap_nlct_socket_open(struct nlct_socket **sock, const struct nlct_netns *netns)
{
    if (netns)
        return __real_nlct_socket_open(sock, netns);
    *sock = fake_open();
    return 0;
}

bool __wrap_nlct_socket_is(const struct nlct_socket *sock)
{
    return sock->fd.fd == FAKE_FD || __real_nlct_socket_is(sock);
}

/* There is never anything to wait for: what is queued is there, and nothing else will come. */
int __wrap_poll(struct pollfd *wanted, nfds_t count, int milliseconds)
{
    int error = poll_error;

    if (wanted->fd != FAKE_FD)
        return __real_poll(wanted, count, milliseconds);
    poll_error = 0;
    if (error)
        return fail(error);
    return queue.first == queue.last ? 0 : 1;
}

ssize_t __wrap_getrandom(void *data, size_t size, unsigned flags)
{
    const int error = random_error;

    random_error = -1;
    if (error < 0)
        return __real_getrandom(data, size, flags);
    return error ? fail(error) : 0;
}

static bool may_have_memory(void)
{
    return memory_left < 0 || (memory_left > 0 && memory_left-- > 0);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return may_have_memory() ? __real_calloc(count, size) : NULL;
}

void *__wrap_realloc(void *memory, size_t size)
{
    return may_have_memory() ? __real_realloc(memory, size) : NULL;
}

/* Messages ------------------------------------------------------------------------------------ */

static void pad(struct packet *packet)
{
    static const uint8_t zeros[3];

    packet_bytes(packet, zeros, -packet->size % 4);
}

void packet_bytes(struct packet *packet, const void *data, size_t size)
{
    if (size > sizeof(packet->bytes) - packet->size)
        abort();
    if (size)
        memcpy(packet->bytes + packet->size, data, size);
    packet->size += size;
}

struct nlmsghdr *packet_header(struct packet *packet)
{
    return (struct nlmsghdr *)(void *)(packet->bytes + packet->message);
}

void packet_begin(struct packet *packet, uint16_t type, uint16_t flags, uint32_t sequence,
                  uint32_t port)
{
    struct nlmsghdr header = {
        .nlmsg_type = type, .nlmsg_flags = flags, .nlmsg_seq = sequence, .nlmsg_pid = port};

    packet->message = packet->size;
    packet_bytes(packet, &header, sizeof(header));
}

void packet_attr(struct packet *packet, uint16_t type, const void *data, size_t size)
{
    uint16_t header[2] = {(uint16_t)(size + 4), type};

    packet_bytes(packet, header, sizeof(header));
    packet_bytes(packet, data, size);
    pad(packet);
}

size_t packet_nest(struct packet *packet, uint16_t type)
{
    size_t nest = packet->size;

    packet_attr(packet, type | NLA_F_NESTED, NULL, 0);
    return nest;
}

void packet_end_nest(struct packet *packet, size_t nest)
{
    uint16_t size = (uint16_t)(packet->size - nest);

    memcpy(packet->bytes + nest, &size, sizeof(size));
}

void packet_end(struct packet *packet)
{
    uint32_t size = (uint32_t)(packet->size - packet->message);

    memcpy(packet->bytes + packet->message, &size, sizeof(size));
}

void packet_be16(struct packet *packet, uint16_t type, uint16_t value)
{
    const uint16_t be = htobe16(value);

    packet_attr(packet, type, &be, sizeof(be));
}

void packet_be32(struct packet *packet, uint16_t type, uint32_t value)
{
    const uint32_t be = htobe32(value);

    packet_attr(packet, type, &be, sizeof(be));
}

void packet_be64(struct packet *packet, uint16_t type, uint64_t value)
{
    const uint64_t be = htobe64(value);

    packet_attr(packet, type, &be, sizeof(be));
}

void packet_general(struct packet *packet, uint8_t family)
{
    const struct nfgenmsg general = {.nfgen_family = family};

    packet_bytes(packet, &general, sizeof(general));
}

void packet_begin_flow(struct packet *packet, uint8_t family)
{
    packet->size = 0;
    packet_begin(packet, NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW, NLM_F_MULTI, 1, FAKE_PORT);
    packet_general(packet, family);
}

void packet_addresses(struct packet *packet, const char *src, const char *dst)
{
    const int family = strchr(src, ':') ? AF_INET6 : AF_INET;
    const size_t size = family == AF_INET6 ? 16 : 4;
    const size_t nest = packet_nest(packet, CTA_TUPLE_IP);
    uint8_t address[16];

    if (inet_pton(family, src, address) != 1)
        abort();
    packet_attr(packet, family == AF_INET6 ? CTA_IP_V6_SRC : CTA_IP_V4_SRC, address, size);
    if (inet_pton(family, dst, address) != 1)
        abort();
    packet_attr(packet, family == AF_INET6 ? CTA_IP_V6_DST : CTA_IP_V4_DST, address, size);
    packet_end_nest(packet, nest);
}

void packet_ports(struct packet *packet, uint8_t proto, uint16_t sport, uint16_t dport)
{
    const size_t nest = packet_nest(packet, CTA_TUPLE_PROTO);

    packet_attr(packet, CTA_PROTO_NUM, &proto, sizeof(proto));
    packet_be16(packet, CTA_PROTO_SRC_PORT, sport);
    packet_be16(packet, CTA_PROTO_DST_PORT, dport);
    packet_end_nest(packet, nest);
}

void packet_tuple(struct packet *packet, uint16_t type, const char *src, const char *dst,
                  uint8_t proto, uint16_t sport, uint16_t dport)
{
    const size_t tuple = packet_nest(packet, type);

    packet_addresses(packet, src, dst);
    packet_ports(packet, proto, sport, dport);
    packet_end_nest(packet, tuple);
}

int packet_view(struct packet *packet, struct view *view)
{
    const size_t headers = sizeof(struct nlmsghdr);

    packet_end(packet);
    return view_parse(view, (struct wire){packet->bytes + headers, packet->size - headers});
}

unsigned field_number(const char *name)
{
    struct nlct_field field;
    unsigned number;

    for (number = 0; nlct_field_get(number, &field) == 0; number++)
        if (strcmp(field.name, name) == 0)
            return number;
    abort();
}

void packet_verdict(struct packet *packet, uint32_t sequence, int error)
{
    struct nlmsghdr request = {.nlmsg_len = sizeof(request), .nlmsg_seq = sequence};
    int32_t code = -error;

    packet_begin(packet, NLMSG_ERROR, NLM_F_CAPPED, sequence, FAKE_PORT);
    packet_bytes(packet, &code, sizeof(code));
    packet_bytes(packet, &request, sizeof(request));
    packet_end(packet);
}
