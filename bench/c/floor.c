/*
 * The floor: what the kernel itself costs, in the barest C loops there can be.
 *
 *     dump            receive the whole table, look at nothing
 *     zone_dump ZONE  the same, asking the kernel for one zone
 *     flush_zone ZONE the kernel's own flush of one zone (mind what kernels before 6.8 do)
 *     create N ZONES  create N UDP flows in zones 1 to ZONES in turn, 256 a send
 *     keep ZONE COUNT keep what names each flow of so many zones: its tuple, its zone and its id
 *     delete_kept     delete these flows, 256 a send
 *     update MARK     receive the whole table, and set the mark of each flow, 256 a send
 *     flush_by_name ZONE
 *                     receive the whole table, and delete each flow of a zone by tuple, zone and
 *                     id, one request each: how Open vSwitch flushes a zone on an old kernel
 */
#include <stdbool.h>
#include <unistd.h>

#include "message.h"

static void request_zone(int fd, int zone, uint16_t type, uint16_t flags)
{
    uint8_t *at = begin(buffer, AF_UNSPEC);
    uint16_t be = htons((uint16_t)zone);

    if (zone >= 0)
        at = put(at, CTA_ZONE, &be, sizeof(be));
    finish(buffer, at, type, flags);
    send_all(fd, (size_t)(at - buffer));
}

static void dump(int zone)
{
    int fd = open_socket();

    request_zone(fd, zone, IPCTNL_MSG_CT_GET, NLM_F_DUMP);
    drain(fd, NLMSG_DONE);
    close(fd);
}

static void flush_zone(int zone)
{
    int fd = open_socket();

    request_zone(fd, zone, IPCTNL_MSG_CT_DELETE, NLM_F_ACK);
    drain(fd, NLMSG_ERROR);
    close(fd);
}

static uint8_t *put_flow(uint8_t *message, uint32_t number, uint16_t zone, bool last)
{
    const uint32_t back[2] = {htonl(0xc0000201), htonl(0x0a000000 + number)};
    const uint16_t port[2] = {htons(53), htons(1024)};
    uint32_t timeout = htonl(86400);
    uint16_t be = htons(zone);
    uint8_t *at = begin(message, AF_INET);

    at = put_original(at, number);
    at = put_tuple(at, CTA_TUPLE_REPLY, back, port);
    at = put(at, CTA_ZONE, &be, sizeof(be));
    at = put(at, CTA_TIMEOUT, &timeout, sizeof(timeout));
    finish(message, at, IPCTNL_MSG_CT_NEW,
           (uint16_t)(NLM_F_CREATE | NLM_F_EXCL | (last ? NLM_F_ACK : 0)));
    return at;
}

static void create(uint32_t flows, uint32_t zones)
{
    int fd = open_socket();
    uint32_t done = 0;

    while (done < flows) {
        uint32_t end = done + BATCH < flows ? done + BATCH : flows;
        uint8_t *at = buffer;

        for (; done < end; done++)
            at = put_flow(at, done, (uint16_t)(1 + done % zones), done + 1 == end);
        send_all(fd, (size_t)(at - buffer));
        drain(fd, NLMSG_ERROR);
    }
    close(fd);
}

/* What names each flow that is kept, as the kernel sent it. */
struct name {
    size_t size;
    uint8_t bytes[100];
};

static struct name *names;
static size_t nnames;

/* Copies what names a flow. Returns its zone. */
static int name_flow(struct name *name, const uint8_t *at, const uint8_t *end)
{
    struct nlattr header;
    uint16_t zone = 0;

    name->size = 0;
    for (; at < end; at += (header.nla_len + 3U) & ~3U) {
        memcpy(&header, at, sizeof(header));
        switch (header.nla_type & NLA_TYPE_MASK) {
        case CTA_ZONE:
            memcpy(&zone, at + sizeof(header), sizeof(zone));
            /* fall through */
        case CTA_TUPLE_ORIG:
        case CTA_ID:
            memcpy(name->bytes + name->size, at, header.nla_len);
            name->size += (header.nla_len + 3U) & ~3U;
        }
    }
    return ntohs(zone);
}

static void keep_flow(const struct name *name)
{
    if (nnames % BATCH == 0)
        names = realloc(names, (nnames + BATCH) * sizeof(*names));
    if (!names)
        die("realloc");
    names[nnames++] = *name;
}

static uint8_t *put_delete(uint8_t *message, const struct name *name, bool last)
{
    uint8_t *at = begin(message, AF_INET);

    memcpy(at, name->bytes, name->size);
    at += name->size;
    finish(message, at, IPCTNL_MSG_CT_DELETE, last ? NLM_F_ACK : 0);
    return at;
}

/* Does something with each flow that the kernel sends, and its zone. */
typedef void each_flow(const struct name *name, int zone);

static void dump_names(int wanted, each_flow *each)
{
    const size_t headers = sizeof(struct nlmsghdr) + sizeof(struct nfgenmsg);
    static uint8_t received[BUFFER];
    int fd = open_socket();
    bool done = false;

    request_zone(fd, wanted, IPCTNL_MSG_CT_GET, NLM_F_DUMP);
    while (!done) {
        ssize_t size = recv(fd, received, sizeof(received), 0);
        struct nlmsghdr header;
        ssize_t at;

        if (size <= 0)
            die("recv");
        for (at = 0; at < size && !done; at += header.nlmsg_len) {
            struct name name;

            memcpy(&header, received + at, sizeof(header));
            done = header.nlmsg_type == NLMSG_DONE;
            if (!done)
                each(&name,
                     name_flow(&name, received + at + headers, received + at + header.nlmsg_len));
        }
    }
    close(fd);
}

static void keep_one(const struct name *name, int zone)
{
    (void)zone;
    keep_flow(name);
}

static void keep(int first, int count)
{
    int zone;

    nnames = 0;
    for (zone = first; zone < first + count; zone++)
        dump_names(zone, keep_one);
}

static int deleting;
static int flushed;

static void delete_one(const struct name *name, int zone)
{
    if (zone != flushed)
        return;
    send_all(deleting, (size_t)(put_delete(buffer, name, true) - buffer));
    drain(deleting, NLMSG_ERROR);
}

static void flush_by_name(int zone)
{
    deleting = open_socket();
    flushed = zone;
    dump_names(-1, delete_one);
    close(deleting);
}

/* The requests of the batch under way: what is received meanwhile has a buffer of its own. */
static uint8_t *updating_at;
static unsigned updating_count;
static uint32_t updating_mark;

static void send_updates(void)
{
    if (updating_count) {
        send_all(deleting, (size_t)(updating_at - buffer));
        drain(deleting, NLMSG_ERROR);
    }
    updating_at = buffer;
    updating_count = 0;
}

static void update_one(const struct name *name, int zone)
{
    uint8_t *message = updating_at;
    uint8_t *at = begin(message, AF_INET);
    uint32_t mark = htonl(updating_mark);

    (void)zone;
    memcpy(at, name->bytes, name->size);
    at = put(at + name->size, CTA_MARK, &mark, sizeof(mark));
    updating_count++;
    finish(message, at, IPCTNL_MSG_CT_NEW, updating_count == BATCH ? NLM_F_ACK : 0);
    updating_at = at;
    if (updating_count == BATCH)
        send_updates();
}

/* The last batch needs no answer: when send() returns, the kernel has worked on it. */
static void update(uint32_t mark)
{
    deleting = open_socket();
    updating_mark = mark;
    updating_at = buffer;
    updating_count = 0;
    dump_names(-1, update_one);
    if (updating_count)
        send_all(deleting, (size_t)(updating_at - buffer));
    close(deleting);
}

static void delete_kept(void)
{
    int fd = open_socket();
    size_t done = 0;

    while (done < nnames) {
        size_t end = done + BATCH < nnames ? done + BATCH : nnames;
        uint8_t *at = buffer;

        for (; done < end; done++)
            at = put_delete(at, &names[done], done + 1 == end);
        send_all(fd, (size_t)(at - buffer));
        drain(fd, NLMSG_ERROR);
    }
    close(fd);
}

static void run(const char *line)
{
    unsigned flows;
    unsigned zones;
    int zone;

    if (sscanf(line, "create %u %u", &flows, &zones) == 2)
        create(flows, zones);
    else if (sscanf(line, "flush_zone %d", &zone) == 1 && zone >= 0)
        flush_zone(zone);
    else if (sscanf(line, "zone_dump %d", &zone) == 1)
        dump(zone);
    else if (sscanf(line, "keep %d %u", &zone, &zones) == 2)
        keep(zone, (int)zones);
    else if (sscanf(line, "update %u", &flows) == 1)
        update(flows);
    else if (sscanf(line, "flush_by_name %d", &zone) == 1)
        flush_by_name(zone);
    else if (strcmp(line, "delete_kept\n") == 0)
        delete_kept();
    else if (strcmp(line, "dump\n") == 0)
        dump(-1);
    else
        die(line);
}

int main(void)
{
    return serve(run);
}
