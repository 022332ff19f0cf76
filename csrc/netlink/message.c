/* Building: header, attribute, nest. Capacity is checked at every put. */
#include "netlink.h"

#include <endian.h>
#include <linux/netfilter/nfnetlink.h>

/* Room for 'size' more bytes and their padding, zeroed; NULL when there is none. */
static uint8_t *grow(struct message *message, size_t size)
{
    size_t padded = wire_align(size);
    uint8_t *room;

    if (message->error)
        return NULL;
    if (padded > message->capacity - message->size) {
        message->error = -EMSGSIZE;
        return NULL;
    }
    room = message->buffer + message->size;
    memset(room, 0, padded);
    message->size += padded;
    return room;
}

void message_begin(struct message *message, void *buffer, size_t capacity, uint16_t type,
                   uint16_t flags, uint8_t family)
{
    struct nlmsghdr header = {.nlmsg_type = type, .nlmsg_flags = flags};
    struct nfgenmsg general = {.nfgen_family = family, .version = NFNETLINK_V0};
    uint8_t *room;

    *message = (struct message){.buffer = buffer, .capacity = capacity};
    room = grow(message, sizeof(header) + sizeof(general));
    if (!room)
        return;
    memcpy(room, &header, sizeof(header));
    memcpy(room + sizeof(header), &general, sizeof(general));
}

void message_put(struct message *message, uint16_t type, const void *data, size_t size)
{
    struct nlattr header = {.nla_type = type};
    uint8_t *room;

    if (size > UINT16_MAX - sizeof(header)) {
        message->error = -EMSGSIZE;
        return;
    }
    room = grow(message, sizeof(header) + size);
    if (!room)
        return;
    header.nla_len = (uint16_t)(sizeof(header) + size);
    memcpy(room, &header, sizeof(header));
    if (size)
        memcpy(room + sizeof(header), data, size);
}

void message_copy(struct message *message, const struct attr *attr)
{
    uint8_t *room = grow(message, attr->whole);

    if (room)
        memcpy(room, attr->start, attr->whole);
}

void message_put_number(struct message *message, uint16_t type, uint64_t number, size_t size)
{
    const uint64_t be = htobe64(number);

    message_put(message, type, (const uint8_t *)&be + sizeof(be) - size, size);
}

size_t message_nest_begin(struct message *message, uint16_t type)
{
    size_t nest = message->size;

    message_put(message, type | NLA_F_NESTED, NULL, 0);
    return nest;
}

void message_nest_end(struct message *message, size_t nest)
{
    uint16_t size = (uint16_t)(message->size - nest);

    if (message->error)
        return;
    if (message->size - nest > UINT16_MAX) {
        message->error = -EMSGSIZE;
        return;
    }
    memcpy(message->buffer + nest + offsetof(struct nlattr, nla_len), &size, sizeof(size));
}

void message_nest_end_full(struct message *message, size_t nest)
{
    if (!message->error && message->size == nest + sizeof(struct nlattr))
        message->size = nest;
    else
        message_nest_end(message, nest);
}

int message_end(struct message *message)
{
    uint32_t size = (uint32_t)message->size;

    if (message->error)
        return message->error;
    memcpy(message->buffer + offsetof(struct nlmsghdr, nlmsg_len), &size, sizeof(size));
    return (int)size;
}

void message_stamp(void *message, uint16_t more_flags, uint32_t sequence)
{
    struct nlmsghdr header;

    memcpy(&header, message, sizeof(header));
    header.nlmsg_flags |= more_flags;
    header.nlmsg_seq = sequence;
    memcpy(message, &header, sizeof(header));
}
