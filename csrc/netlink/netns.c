/*
 * Reaching into other network namespaces without leaving one's own.
 *
 * A short-lived child does the work. It shares our memory and our descriptors, and we wait until it
 * is done (as with vfork): it enters or makes the namespace, opens what is wanted, and ends. The
 * calling thread never moves, no fork handler runs, nothing is copied, no signal is sent.
 *
 * A system call that returns 0 may have done nothing (a seccomp policy can make it so), and a child
 * may be killed at any point. So the child checks where it is before it opens anything, and only
 * what it has reported counts as a result.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "netlink.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <linux/sockios.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SIOCGSKNS
#define SIOCGSKNS 0x894C
#endif

enum { STACK = 1 << 17 };

/* Which namespace is which --------------------------------------------------------------------- */

static bool is_same(const struct nlct_netns *a, const struct nlct_netns *b)
{
    return a->fd.device == b->fd.device && a->fd.inode == b->fd.inode;
}

/* Notes which network namespace it is; -EINVAL if it is none. */
static int identify_netns(struct nlct_netns *netns)
{
    const int type = ioctl(netns->fd.fd, NS_GET_NSTYPE);
    int rc;

    if (type < 0 && errno != ENOTTY)
        return -errno;
    if (type != CLONE_NEWNET)
        return -EINVAL;
    rc = fd_identify(&netns->fd);
    return rc == 0 && !netns->fd.inode ? -EINVAL : rc;
}

/* Identifies a namespace whose descriptor is open, or closes that. */
static int keep(struct nlct_netns *netns)
{
    const int rc = identify_netns(netns);

    if (rc < 0)
        fd_drop(&netns->fd);
    return rc;
}

static int namespace_of(int sock, struct nlct_fd *fd)
{
    return fd_own(fd, ioctl(sock, SIOCGSKNS));
}

/* The namespace of the calling thread, from a socket; from its file if the kernel tells that only
   to the privileged, or if there is no socket to be had. Closes 'sock' again. */
static int open_here(struct nlct_fd *sock, struct nlct_fd *fd)
{
    int rc = fd_own(sock, socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));

    if (rc == 0)
        rc = namespace_of(sock->fd, fd);
    fd_drop(sock);
    return rc == 0 ? 0 : fd_own(fd, open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
}

static int find_here(struct nlct_fd *sock, struct nlct_netns *netns)
{
    const int rc = open_here(sock, &netns->fd);

    netns->here = true;
    return rc < 0 ? rc : keep(netns);
}

int nlct_netns_here(struct nlct_netns *netns)
{
    struct nlct_fd sock = {.fd = -1};

    return find_here(&sock, netns);
}

int nlct_netns_at(struct nlct_netns *netns, int fd)
{
    const int rc = fd_own(&netns->fd, fcntl(fd, F_DUPFD_CLOEXEC, 0));

    return rc < 0 ? rc : keep(netns);
}

int nlct_netns_path(struct nlct_netns *netns, const char *path)
{
    /* Without O_NONBLOCK a FIFO would make us wait for its writer. */
    const int rc = fd_own(&netns->fd, open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC));

    return rc < 0 ? rc : keep(netns);
}

void nlct_netns_close(struct nlct_netns *netns)
{
    nlct_fd_close(&netns->fd);
}

/* Closes 'found' and checks that it was the namespace meant. */
static int expect(int rc, struct nlct_netns *found, const struct nlct_netns *meant)
{
    fd_drop(&found->fd);
    return rc == 0 && !is_same(found, meant) ? -EXDEV : rc;
}

/* Checks that the calling thread is in 'netns'. Closes 'sock' and 'found' again. */
static int prove_here(const struct nlct_netns *netns, struct nlct_fd *sock,
                      struct nlct_netns *found)
{
    return expect(find_here(sock, found), found, netns);
}

int netns_prove(const struct nlct_netns *netns, int sock)
{
    struct nlct_netns found = {.fd.fd = -1};
    int rc = namespace_of(sock, &found.fd);

    if (rc == 0)
        rc = keep(&found);
    return expect(rc, &found, netns);
}

/* The child ------------------------------------------------------------------------------------ */

struct errand {
    int (*run)(struct errand *errand);
    const struct nlct_netns *netns; /* to enter; NULL to stay */
    const char *path;
    int flags;
    int domain;
    int type;
    int protocol;
    struct nlct_fd *fd; /* what is wanted */
    /* Open on the way: a child that is killed leaves these, since it shares our descriptors. */
    struct nlct_fd owner; /* of the namespace */
    struct nlct_fd sock;
    struct nlct_netns found;
    bool done;
    int result;
};

static int enter(struct errand *errand)
{
    const int netns = errand->netns->fd.fd;
    int rc;

    if (setns(netns, CLONE_NEWNET) == 0)
        return prove_here(errand->netns, &errand->sock, &errand->found);
    if (errno != EPERM)
        return -errno;
    /* The creator of a user namespace may enter it, and then the namespaces it owns. */
    if (fd_own(&errand->owner, ioctl(netns, NS_GET_USERNS)) < 0)
        return -EPERM;
    rc =
        setns(errand->owner.fd, CLONE_NEWUSER) == 0 && setns(netns, CLONE_NEWNET) == 0 ? 0 : -EPERM;
    fd_drop(&errand->owner);
    return rc < 0 ? rc : prove_here(errand->netns, &errand->sock, &errand->found);
}

static int child(void *argument)
{
    struct errand *errand = argument;

    errand->result = errand->netns ? enter(errand) : 0;
    if (errand->result == 0)
        errand->result = errand->run(errand);
    errand->done = true;
    return 0;
}

/* Returns what the child reported or, if it reported nothing, what ended it. */
static int verdict(struct errand *errand, int status)
{
    if (errand->done)
        return errand->result;
    fd_drop(&errand->owner);
    fd_drop(&errand->sock);
    fd_drop(&errand->found.fd);
    fd_drop(errand->fd);
    return WIFSIGNALED(status) ? -(NLCT_KILLED + WTERMSIG(status)) : -ECHILD;
}

static int send_child(struct errand *errand)
{
    sigset_t all;
    sigset_t before;
    uint8_t *stack;
    int status = 0;
    int rc;
    pid_t pid;

    errand->owner.fd = errand->sock.fd = errand->found.fd.fd = -1;
    stack =
        mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED)
        return -errno;
    /* No handler may run in the child, which shares our memory. */
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    pid = clone(child, stack + STACK, CLONE_VM | CLONE_VFORK | CLONE_FILES, errand);
    rc = pid < 0 ? -errno : 0;
    while (pid > 0 && waitpid(pid, &status, (int)__WCLONE) < 0 && errno == EINTR)
        ;
    sigprocmask(SIG_SETMASK, &before, NULL);
    munmap(stack, STACK);
    return rc < 0 ? rc : verdict(errand, status);
}

static int run_new(struct errand *errand)
{
    if (unshare(CLONE_NEWNET) < 0) {
        if (errno != EPERM)
            return -errno;
        /* ENOSPC: user namespaces are switched off, by a limit of 0. */
        if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
            return errno == ENOSPC ? -EPERM : -errno;
    }
    return open_here(&errand->sock, errand->fd);
}

static int run_socket(struct errand *errand)
{
    return fd_own(errand->fd,
                  socket(errand->domain, errand->type | SOCK_CLOEXEC, errand->protocol));
}

static int run_file(struct errand *errand)
{
    return fd_own(errand->fd, open(errand->path, errand->flags | O_CLOEXEC));
}

/* Runs the errand in the namespace: here, or by a child. Identifies what it opened. */
static int run_in(const struct nlct_netns *netns, struct errand *errand)
{
    int rc;

    if (netns->here) {
        errand->sock.fd = errand->found.fd.fd = -1;
        rc = prove_here(netns, &errand->sock, &errand->found);
        if (rc == 0)
            rc = errand->run(errand);
    } else {
        errand->netns = netns;
        rc = send_child(errand);
    }
    if (rc == 0)
        rc = fd_identify(errand->fd);
    if (rc < 0)
        fd_drop(errand->fd);
    return rc;
}

int nlct_netns_new(struct nlct_netns *netns)
{
    struct nlct_netns here = {.fd.fd = -1};
    struct errand errand = {.run = run_new, .fd = &netns->fd};
    int rc = nlct_netns_here(&here);

    if (rc == 0)
        rc = send_child(&errand);
    if (rc == 0)
        rc = keep(netns);
    /* Held until now: once closed, its identity could become another namespace's. */
    fd_drop(&here.fd);
    if (rc == 0 && is_same(netns, &here)) {
        fd_drop(&netns->fd);
        rc = -EPERM;
    }
    return rc;
}

int nlct_netns_socket(const struct nlct_netns *netns, int domain, int type, int protocol,
                      struct nlct_fd *fd)
{
    struct errand errand = {
        .run = run_socket, .domain = domain, .type = type, .protocol = protocol, .fd = fd};

    return run_in(netns, &errand);
}

int nlct_netns_file(const struct nlct_netns *netns, const char *path, int flags, struct nlct_fd *fd)
{
    struct errand errand = {.run = run_file, .path = path, .flags = flags, .fd = fd};

    return run_in(netns, &errand);
}
