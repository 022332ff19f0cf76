/*
 * Reaching into other network namespaces without leaving one's own.
 *
 * The work is done by a short-lived child that shares our memory and our descriptors and holds us
 * until it is done (as vfork does): it enters or makes the namespace, opens what is wanted, and is
 * gone. The calling thread never moves, no fork handler runs, nothing is copied, no signal is sent.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "core.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STACK = 1 << 17 };

struct errand {
    int (*run)(const struct errand *errand);
    int netns;
    const char *path;
    int flags;
    int domain;
    int type;
    int protocol;
    int result;
};

static int enter(int netns)
{
    int owner;
    int rc;

    if (setns(netns, CLONE_NEWNET) == 0)
        return 0;
    if (errno != EPERM)
        return -errno;
    /* Whoever made a user namespace may enter it, and so what it owns. */
    owner = ioctl(netns, NS_GET_USERNS);
    if (owner < 0)
        return -EPERM;
    rc = setns(owner, CLONE_NEWUSER) == 0 && setns(netns, CLONE_NEWNET) == 0 ? 0 : -EPERM;
    close(owner);
    return rc;
}

static int child(void *argument)
{
    struct errand *errand = argument;

    errand->result = errand->netns >= 0 ? enter(errand->netns) : 0;
    if (errand->result == 0)
        errand->result = errand->run(errand);
    return 0;
}

static int send_child(struct errand *errand)
{
    sigset_t all;
    sigset_t before;
    uint8_t *stack;
    pid_t pid;

    stack =
        mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED)
        return -errno;
    /* A handler must not run in the child, which has our memory. */
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    errand->result = -ECHILD;
    pid = clone(child, stack + STACK, CLONE_VM | CLONE_VFORK | CLONE_FILES, errand);
    if (pid < 0)
        errand->result = -errno;
    while (pid > 0 && waitpid(pid, NULL, (int)__WCLONE) < 0 && errno == EINTR)
        ;
    sigprocmask(SIG_SETMASK, &before, NULL);
    munmap(stack, STACK);
    return errand->result;
}

static int run_new(const struct errand *errand)
{
    int fd;

    (void)errand;
    if (unshare(CLONE_NEWNET) < 0) {
        if (errno != EPERM)
            return -errno;
        /* ENOSPC: user namespaces are switched off, by a limit of 0. */
        if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
            return errno == ENOSPC ? -EPERM : -errno;
    }
    fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int run_socket(const struct errand *errand)
{
    int fd = socket(errand->domain, errand->type | SOCK_CLOEXEC, errand->protocol);

    return fd < 0 ? -errno : fd;
}

static int run_file(const struct errand *errand)
{
    int fd = open(errand->path, errand->flags | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

bool nlct_netns_is(int fd)
{
    return ioctl(fd, NS_GET_NSTYPE) == CLONE_NEWNET;
}

int nlct_netns_new(void)
{
    struct errand errand = {.run = run_new, .netns = -1};

    return send_child(&errand);
}

int nlct_netns_socket(int netns, int domain, int type, int protocol)
{
    struct errand errand = {
        .run = run_socket, .netns = netns, .domain = domain, .type = type, .protocol = protocol};

    return netns < 0 ? run_socket(&errand) : send_child(&errand);
}

int nlct_netns_file(int netns, const char *path, int flags)
{
    struct errand errand = {.run = run_file, .netns = netns, .path = path, .flags = flags};

    return netns < 0 ? run_file(&errand) : send_child(&errand);
}
