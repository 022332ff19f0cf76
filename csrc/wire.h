/*
 * Bounded walking over netlink messages and attributes.
 *
 * Every step checks that what it is about to show lies inside what is left. Whoever walks to the
 * end has seen every byte: leftovers are -EBADMSG.
 */
#ifndef NLCT_WIRE_H
#define NLCT_WIRE_H

#include <errno.h>
#include <linux/netlink.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* What is left to walk. */
struct wire {
    const uint8_t *at;
    size_t left;
};

/* One attribute. 'type' is without the nesting and byte order flags; 'whole' bytes at 'start' are
   the attribute with its header, without padding. */
struct attr {
    const uint8_t *start;
    const uint8_t *data;
    uint16_t whole;
    uint16_t size;
    uint16_t type;
};

/* Messages and attributes alike begin at multiples of four. */
static inline size_t wire_align(size_t size)
{
    return (size + 3) & ~(size_t)3;
}

static inline void wire_skip(struct wire *wire, size_t size)
{
    size_t padded = wire_align(size);

    /* The last of its row may come without padding. */
    if (padded > wire->left)
        padded = wire->left;
    wire->at += padded;
    wire->left -= padded;
}

/* Takes the next message. Returns 1, 0 at the end, or -EBADMSG. */
static inline int wire_message(struct wire *wire, struct nlmsghdr *header, struct wire *payload)
{
    if (wire->left == 0)
        return 0;
    if (wire->left < sizeof(*header))
        return -EBADMSG;
    memcpy(header, wire->at, sizeof(*header));
    if (header->nlmsg_len < sizeof(*header) || header->nlmsg_len > wire->left)
        return -EBADMSG;
    payload->at = wire->at + sizeof(*header);
    payload->left = header->nlmsg_len - sizeof(*header);
    wire_skip(wire, header->nlmsg_len);
    return 1;
}

/* Takes the next attribute. Returns 1, 0 at the end, or -EBADMSG. */
static inline int wire_attr(struct wire *wire, struct attr *attr)
{
    struct nlattr header;

    if (wire->left == 0)
        return 0;
    if (wire->left < sizeof(header))
        return -EBADMSG;
    memcpy(&header, wire->at, sizeof(header));
    if (header.nla_len < sizeof(header) || header.nla_len > wire->left)
        return -EBADMSG;
    attr->start = wire->at;
    attr->data = wire->at + sizeof(header);
    attr->whole = header.nla_len;
    attr->size = (uint16_t)(header.nla_len - sizeof(header));
    attr->type = header.nla_type & (uint16_t)NLA_TYPE_MASK;
    wire_skip(wire, header.nla_len);
    return 1;
}

/* The attributes inside 'attr'. */
static inline struct wire wire_nest(const struct attr *attr)
{
    return (struct wire){attr->data, attr->size};
}

static inline uint16_t wire_be16(const uint8_t *data)
{
    return (uint16_t)(data[0] << 8 | data[1]);
}

static inline uint32_t wire_be32(const uint8_t *data)
{
    return (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | data[3];
}

#endif
