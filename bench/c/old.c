/*
 * Makes a program believe that the kernel is old, when it is loaded before it (LD_PRELOAD): it says
 * that it is Linux 6.1, and takes the zone out of requests to dump, so that the whole table comes.
 *
 *     cc -shared -fPIC -o old.so old.c -ldl
 */
#include <dlfcn.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/utsname.h>

static void *next(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

int uname(struct utsname *names)
{
    int (*real)(struct utsname *);

    *(void **)&real = next("uname");
    if (real(names) < 0)
        return -1;
    strcpy(names->release, "6.1.0");
    return 0;
}

/* The kernel passes over attributes of type 0. */
static void forget_zone(uint8_t *message, size_t size)
{
    size_t at = sizeof(struct nlmsghdr) + sizeof(struct nfgenmsg);
    struct nlmsghdr header;
    struct nlattr attribute;

    if (size < at)
        return;
    memcpy(&header, message, sizeof(header));
    if (header.nlmsg_type != (NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET) ||
        !(header.nlmsg_flags & NLM_F_DUMP))
        return;
    while (at + sizeof(attribute) <= size) {
        memcpy(&attribute, message + at, sizeof(attribute));
        if (attribute.nla_len < sizeof(attribute))
            return;
        if (attribute.nla_type == CTA_ZONE)
            memset(message + at + 2, 0, 2);
        at += (attribute.nla_len + (size_t)3) & ~(size_t)3;
    }
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
    ssize_t (*real)(int, const void *, size_t, int);
    uint8_t copy[256];

    *(void **)&real = next("send");
    if (size > sizeof(copy))
        return real(fd, data, size, flags);
    memcpy(copy, data, size);
    forget_zone(copy, size);
    return real(fd, copy, size, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    ssize_t (*real)(int, const struct msghdr *, int);

    *(void **)&real = next("sendmsg");
    for (size_t at = 0; at < message->msg_iovlen; at++)
        forget_zone(message->msg_iov[at].iov_base, message->msg_iov[at].iov_len);
    return real(fd, message, flags);
}
