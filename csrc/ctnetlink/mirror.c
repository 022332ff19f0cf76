/* Deleting what a walk over a mirror meets. */
#include "ctnetlink.h"

enum { ROWS_AT_ONCE = 64 };

struct removal {
    struct nlct_walk *walk;
    struct nlct_tally *tally;
    struct deleter *deleter; /* NULL until there is something to delete */
    int error;               /* of the mirror */
};

/* The result of the flow at that place. What the kernel does not find may be there nevertheless: it
   has expired, and the kernel will announce its end. */
static void settle(void *context, uint32_t place, int result)
{
    struct removal *removal = context;
    int rc;

    if (result < 0) {
        removal->tally->refused[-result]++;
        return;
    }
    removal->tally->done++;
    rc = walk_deleted(removal->walk, place);
    if (rc < 0)
        removal->error = rc;
}

/* Looks at some flows, and adds those that match. Returns 1 if there are more, 0, or -errno. */
static int step(struct removal *removal, struct nlct_socket *sock, const struct nlct_filter *filter)
{
    struct nlct_flow rows[ROWS_AT_ONCE];
    uint32_t places[ROWS_AT_ONCE];
    size_t count;
    size_t i;
    const int more = walk_rows(removal->walk, filter, rows, places, ROWS_AT_ONCE, &count);
    int rc = 0;

    if (more < 0)
        return more;
    if (count && !removal->deleter)
        removal->deleter = deleter_new(sock, settle, removal);
    if (count && !removal->deleter)
        return -ENOMEM;
    for (i = 0; i < count && rc == 0; i++)
        rc = deleter_add(removal->deleter, &rows[i], places[i]);
    return rc < 0 ? rc : more;
}

int nlct_walk_delete(struct nlct_walk *walk, struct nlct_socket *sock,
                     const struct nlct_filter *filter, int milliseconds, struct nlct_tally *tally)
{
    const int64_t deadline = now_milliseconds() + milliseconds;
    struct removal removal = {.walk = walk, .tally = tally};
    int more;
    int rc = 0;

    do
        more = step(&removal, sock, filter);
    while (more > 0 && removal.error == 0 && now_milliseconds() < deadline);
    if (more >= 0 && removal.deleter)
        rc = deleter_finish(removal.deleter);
    deleter_free(removal.deleter);
    if (rc == 0)
        rc = removal.error;
    return rc < 0 ? rc : more;
}
