/* Deleting what a walk over a mirror meets. */
#include "ctnetlink.h"

int nlct_walk_delete(struct nlct_walk *walk, struct nlct_socket *sock,
                     const struct nlct_filter *filter, int milliseconds, struct nlct_tally *tally)
{
    (void)walk, (void)sock, (void)filter, (void)milliseconds, (void)tally;
    return -ENOSYS;
}
