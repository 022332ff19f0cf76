/* Descriptors that know what was opened. */
#include "netlink.h"

#include <sys/stat.h>
#include <unistd.h>

int fd_own(struct nlct_fd *fd, int opened)
{
    if (opened < 0)
        return -errno;
    *fd = (struct nlct_fd){.fd = opened};
    return 0;
}

int fd_identify(struct nlct_fd *fd)
{
    struct stat status = {0};

    if (fstat(fd->fd, &status) < 0)
        return -errno;
    fd->device = status.st_dev;
    fd->inode = status.st_ino;
    return 0;
}

void fd_drop(struct nlct_fd *fd)
{
    const int taken = nlct_fd_take(fd);

    if (taken >= 0)
        close(taken);
}

bool nlct_fd_is(const struct nlct_fd *fd)
{
    struct nlct_fd found = {.fd = fd->fd};

    return fd_identify(&found) == 0 && found.device == fd->device && found.inode == fd->inode;
}

int nlct_fd_take(struct nlct_fd *fd)
{
    return __atomic_exchange_n(&fd->fd, -1, __ATOMIC_ACQ_REL);
}

void nlct_fd_close(struct nlct_fd *fd)
{
    const struct nlct_fd taken = {nlct_fd_take(fd), fd->device, fd->inode};

    if (taken.fd >= 0 && nlct_fd_is(&taken))
        close(taken.fd);
}
