/* Sink: deletes for many who share a walk, and keeps account of each. */
#include "ctnetlink.h"

#include <stdlib.h>

enum { ZONES = UINT16_MAX + 1 };

/* How many requests of each target were refused with one errno. */
struct refusals {
    struct refusals *next;
    int error;
    uint64_t counts[];
};

/* A target that has a filter. */
struct wish {
    const struct nlct_filter *filter;
    uint32_t target;
};

/* A flow that several want is deleted once: a request belongs to a row of targets, which ends with
   NOBODY. The rows of the requests in the batch lie in 'owners'; a request knows where its begins.
 */
struct shares {
    struct nlct_sink sink;
    struct deletes deletes;
    size_t count;
    struct nlct_outcome *shares;
    struct refusals *refusals;
    struct wish *wishes;
    size_t nwishes;
    uint32_t *by_zone; /* a target or NOBODY */
    uint32_t *owners;
    size_t nowners;
    size_t capacity;
    bool out_of_memory; /* something was not counted */
};

static const uint32_t NOBODY = UINT32_MAX;

static struct refusals *find_refusals(struct shares *shares, int error)
{
    struct refusals **at = &shares->refusals;

    while (*at && (*at)->error != error)
        at = &(*at)->next;
    if (!*at) {
        *at = calloc(1, sizeof(**at) + shares->count * sizeof((*at)->counts[0]));
        if (*at)
            (*at)->error = error;
    }
    return *at;
}

static void refuse(struct shares *shares, uint32_t target, int error)
{
    struct refusals *refusals = find_refusals(shares, error);

    if (refusals)
        refusals->counts[target]++;
    else
        shares->out_of_memory = true;
}

static void settle(void *context, uint32_t owner, int result)
{
    struct shares *shares = context;
    const uint32_t *target;

    for (target = shares->owners + owner; *target != NOBODY; target++) {
        if (result < 0)
            refuse(shares, *target, -result);
        else
            shares->shares[*target].done++;
    }
}

/* Adds to the latest row; there is room for a whole one. */
static void add_owner(struct shares *shares, uint32_t target)
{
    shares->owners[shares->nowners++] = target;
    shares->shares[target].matched++;
}

static int make_room(struct shares *shares)
{
    const size_t needed = shares->nowners + shares->count + 1;
    uint32_t *grown;

    if (needed <= shares->capacity)
        return 0;
    grown = realloc(shares->owners, needed * 2 * sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    shares->owners = grown;
    shares->capacity = needed * 2;
    return 0;
}

/* Adds a row with all who want this flow. Returns 0, or -EBADMSG when nobody can tell. */
static int add_owners(struct shares *shares, struct view *view)
{
    const int zone = view_zone(view);
    const struct wish *wish;
    int rc;

    if (zone < 0)
        return zone;
    if (shares->by_zone[zone] != NOBODY)
        add_owner(shares, shares->by_zone[zone]);
    for (wish = shares->wishes; wish < shares->wishes + shares->nwishes; wish++) {
        rc = filter_match(wish->filter, view);
        if (rc < 0)
            refuse(shares, wish->target, -rc);
        else if (rc)
            add_owner(shares, wish->target);
    }
    return 0;
}

static int take(struct nlct_sink *sink, struct view *view)
{
    struct shares *shares = (struct shares *)sink;
    uint32_t row;
    int rc;

    if (!shares->deletes.batch.count)
        shares->nowners = 0;
    row = (uint32_t)shares->nowners;
    rc = make_room(shares);
    if (rc == 0)
        rc = add_owners(shares, view);
    if (rc < 0)
        return rc;
    if (shares->nowners > row) {
        shares->owners[shares->nowners++] = NOBODY;
        rc = deletes_add(&shares->deletes, view, row);
    }
    return rc == 0 && shares->out_of_memory ? -ENOMEM : rc;
}

static int finish(struct nlct_sink *sink)
{
    struct shares *shares = (struct shares *)sink;
    const int rc = deletes_send(&shares->deletes);

    return rc == 0 && shares->out_of_memory ? -ENOMEM : rc;
}

static void free_shares(struct nlct_sink *sink)
{
    struct shares *shares = (struct shares *)sink;
    struct refusals *next;

    for (; shares->refusals; shares->refusals = next) {
        next = shares->refusals->next;
        free(shares->refusals);
    }
    free(shares->owners);
    free(shares->by_zone);
    free(shares->wishes);
    free(shares->shares);
}

static int set_target(struct shares *shares, uint32_t number, const struct nlct_target *target)
{
    if (target->filter) {
        shares->wishes[shares->nwishes++] = (struct wish){target->filter, number};
        return 0;
    }
    if (shares->by_zone[target->zone] != NOBODY)
        return -EINVAL;
    shares->by_zone[target->zone] = number;
    return 0;
}

static int set_targets(struct shares *shares, const struct nlct_target *targets)
{
    uint32_t i;
    int rc = 0;

    shares->shares = calloc(shares->count + 1, sizeof(*shares->shares));
    shares->wishes = calloc(shares->count + 1, sizeof(*shares->wishes));
    shares->by_zone = malloc(ZONES * sizeof(*shares->by_zone));
    if (!shares->shares || !shares->wishes || !shares->by_zone)
        return -ENOMEM;
    for (i = 0; i < ZONES; i++)
        shares->by_zone[i] = NOBODY;
    for (i = 0; i < shares->count && rc == 0; i++)
        rc = set_target(shares, i, &targets[i]);
    return rc;
}

int nlct_deletes_new(struct nlct_sink **sink, struct nlct_socket *sock,
                     const struct nlct_target *targets, size_t count)
{
    struct shares *new;
    int rc;

    /* So that the rows of a whole batch are counted in 32 bits. */
    if (count > UINT32_MAX / 2 / BATCH_REQUESTS)
        return -EINVAL;
    new = calloc(1, sizeof(*new));
    if (!new)
        return -ENOMEM;
    new->sink = (struct nlct_sink){.take = take, .finish = finish, .free = free_shares};
    new->count = count;
    deletes_init(&new->deletes, sock, settle, new);
    *sink = &new->sink;
    rc = set_targets(new, targets);
    if (rc < 0)
        nlct_sink_free(sink);
    return rc;
}

const struct nlct_outcome *nlct_deletes_get(const struct nlct_sink *sink)
{
    return ((const struct shares *)sink)->shares;
}

const uint64_t *nlct_deletes_refused(const struct nlct_sink *sink, size_t which, int *error)
{
    const struct refusals *refusals = ((const struct shares *)sink)->refusals;

    while (refusals && which--)
        refusals = refusals->next;
    if (!refusals)
        return NULL;
    *error = refusals->error;
    return refusals->counts;
}
