/*
 * The floor: what the kernel itself costs, in the barest C loops there can be.
 *
 *     dump            receive the whole table, look at nothing
 *     zone_dump ZONE  the same, asking the kernel for one zone
 *     flush_zone ZONE the kernel's own flush of one zone (mind what kernels before 6.8 do)
 *     create N ZONES  create N UDP flows in zones 1 to ZONES in turn, 256 a send
 *     keep ZONE       keep what names each flow of a zone: its tuple, its zone and its id
 *     delete_kept     delete these flows, 256 a send
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

static void keep_flow(const uint8_t *at, const uint8_t *end)
{
    struct name name = {0};
    struct nlattr header;

    for (; at < end; at += (header.nla_len + 3U) & ~3U) {
        memcpy(&header, at, sizeof(header));
        switch (header.nla_type & NLA_TYPE_MASK) {
        case CTA_TUPLE_ORIG:
        case CTA_ZONE:
        case CTA_ID:
            memcpy(name.bytes + name.size, at, header.nla_len);
            name.size += (header.nla_len + 3U) & ~3U;
        }
    }
    if (nnames % BATCH == 0)
        names = realloc(names, (nnames + BATCH) * sizeof(*names));
    if (!names)
        die("realloc");
    names[nnames++] = name;
}

static void keep(int zone)
{
    const size_t headers = sizeof(struct nlmsghdr) + sizeof(struct nfgenmsg);
    int fd = open_socket();
    bool done = false;

    nnames = 0;
    request_zone(fd, zone, IPCTNL_MSG_CT_GET, NLM_F_DUMP);
    while (!done) {
        ssize_t size = recv(fd, buffer, sizeof(buffer), 0);
        struct nlmsghdr header;
        ssize_t at;

        if (size <= 0)
            die("recv");
        for (at = 0; at < size && !done; at += header.nlmsg_len) {
            memcpy(&header, buffer + at, sizeof(header));
            done = header.nlmsg_type == NLMSG_DONE;
            if (!done)
                keep_flow(buffer + at + headers, buffer + at + header.nlmsg_len);
        }
    }
    close(fd);
}

static void delete_kept(void)
{
    int fd = open_socket();
    size_t done = 0;

    while (done < nnames) {
        size_t end = done + BATCH < nnames ? done + BATCH : nnames;
        uint8_t *at = buffer;

        for (; done < end; done++) {
            uint8_t *message = at;

            at = begin(message, AF_INET);
            memcpy(at, names[done].bytes, names[done].size);
            at += names[done].size;
            finish(message, at, IPCTNL_MSG_CT_DELETE, done + 1 == end ? NLM_F_ACK : 0);
        }
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
    else if (sscanf(line, "keep %d", &zone) == 1)
        keep(zone);
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
