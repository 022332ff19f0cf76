/*
 * Deleting flows by name: one engine, and what feeds it. A sink deletes the flows of a dump that
 * its targets want; others give the flows themselves.
 *
 * To the kernel a delete that names no flow is a flush of everything, and so is nearly every
 * malformed delete; it returns success. So each request is read back, byte by byte, before it is
 * sent: it must name one flow by its tuple, its zone and its id.
 *
 * A tuple may be the original one of a flow and the reply of another. It then leads to only one of
 * them; the id protects the wrong one. So a flow that is not found by its original tuple is tried
 * by its reply.
 */
#include "ctnetlink.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <stdlib.h>

/* Requests ------------------------------------------------------------------------------------ */

static uint16_t delete_type(void)
{
    return message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE);
}

void delete_begin(struct message *message, void *buffer, size_t capacity, uint8_t family)
{
    message_begin(message, buffer, capacity, delete_type(), NLM_F_REQUEST, family);
}

bool delete_read(const void *request, size_t size, struct view *view)
{
    struct wire wire = {request, size};
    struct nlmsghdr header;
    struct wire payload;

    return wire_message(&wire, &header, &payload) == 1 && wire.left == 0 &&
           header.nlmsg_type == delete_type() && header.nlmsg_flags == NLM_F_REQUEST &&
           view_parse(view, payload) == 0;
}

static bool has_one(struct wire wire, uint16_t type)
{
    struct attr attr;
    int found = 0;
    int rc;

    while ((rc = wire_attr(&wire, &attr)) > 0)
        if (attr.type == type && attr.size)
            found++;
    return found == 1 && rc == 0;
}

bool view_names(const struct view *view, uint16_t type)
{
    const struct attr *tuple = view_attr(view, type);
    const struct attr *zone = view_attr(view, CTA_ZONE);

    return (view->family == AF_INET || view->family == AF_INET6) && tuple &&
           (!zone || zone->size == 2) && has_one(wire_nest(tuple), CTA_TUPLE_IP) &&
           has_one(wire_nest(tuple), CTA_TUPLE_PROTO);
}

/* True if the request can hit only one flow: it names one tuple and an id, perhaps a zone, and
   nothing that would turn it into a filter. */
static bool names_one_flow(const void *request, size_t size)
{
    const uint32_t by_orig = 1U << CTA_TUPLE_ORIG | 1U << CTA_ID;
    const uint32_t by_reply = 1U << CTA_TUPLE_REPLY | 1U << CTA_ID;
    uint32_t named;
    struct view view;

    if (!delete_read(request, size, &view) || view.unknown)
        return false;
    named = view.present & ~(1U << CTA_ZONE);
    if (named != by_orig && named != by_reply)
        return false;
    return view_attr(&view, CTA_ID)->size == 4 &&
           view_names(&view, named == by_orig ? CTA_TUPLE_ORIG : CTA_TUPLE_REPLY);
}

/* Copies what names this flow as the kernel sent it. The id protects another flow that has taken
   over the tuple since. */
static int build_delete(const struct view *view, uint16_t type, void *room, size_t capacity)
{
    const struct attr *tuple = view_attr(view, type);
    const struct attr *zone = view_attr(view, CTA_ZONE);
    const struct attr *id = view_attr(view, CTA_ID);
    struct message message;

    if (!tuple || !id)
        return -EBADMSG;
    delete_begin(&message, room, capacity, view->family);
    message_copy(&message, tuple);
    if (zone)
        message_copy(&message, zone);
    message_copy(&message, id);
    return message_end(&message);
}

/* The same request as by the message that the flow was decoded from; -EINVAL where the kernel would
   refuse it. */
static int build_named(const struct nlct_flow *flow, uint16_t type, void *room, size_t capacity)
{
    const bool by_orig = type == CTA_TUPLE_ORIG;
    const struct nlct_tuple *tuple = by_orig ? &flow->orig : &flow->reply;
    const uint64_t addresses = bit(NLCT_TUPLE_SRC) | bit(NLCT_TUPLE_DST);
    struct message message;

    if (!has(flow->present, NLCT_FLOW_ID) ||
        !has(flow->present, by_orig ? NLCT_FLOW_ORIG : NLCT_FLOW_REPLY) ||
        !has(tuple->present, NLCT_TUPLE_PROTO) || !(tuple->present & addresses))
        return -EINVAL;
    delete_begin(&message, room, capacity, flow->family);
    flow_put_key(&message, flow, type);
    message_put_number(&message, CTA_ID, flow->id, 4);
    return message_end(&message);
}

/* By name: the engine ------------------------------------------------------------------------- */

enum { SPARE_BYTES = 256 };

/* The request by the reply tuple, in case the original tuple does not find the flow. */
struct spare {
    uint32_t owner;
    bool wanted;
    int size; /* less than 0 if there is none */
    uint8_t bytes[SPARE_BYTES];
};

struct deleter {
    batch_settle *settle;
    void *context;
    /* The requests by the original tuple, a spare for each, and those by the reply. */
    struct batch batch;
    struct spare spares[BATCH_REQUESTS];
    struct batch second;
};

/* The result of the first request for a flow, at that place in the batch. */
static void settle_first(void *context, uint32_t place, int result)
{
    struct deleter *deleter = context;
    struct spare *spare = &deleter->spares[place];

    spare->wanted = result == -ENOENT && spare->size > 0;
    if (!spare->wanted)
        deleter->settle(deleter->context, spare->owner, result);
}

/* Tries the flows again that the first batch of 'count' did not find. */
static int send_second(struct deleter *deleter, unsigned count)
{
    unsigned i;
    int rc = 0;

    for (i = 0; i < count && rc == 0; i++) {
        struct spare *spare = &deleter->spares[i];

        if (!spare->wanted)
            continue;
        spare->wanted = false;
        memcpy(batch_room(&deleter->second), spare->bytes, (size_t)spare->size);
        rc = batch_add(&deleter->second, spare->size, spare->owner);
    }
    return rc ? rc : batch_send(&deleter->second);
}

/* Where the spare of the next request goes. */
static struct spare *next_spare(struct deleter *deleter)
{
    return &deleter->spares[deleter->batch.count];
}

/* Adds what was built: a request of 'size' in the batch's room, and its spare. */
static int add_built(struct deleter *deleter, int size, uint32_t owner)
{
    const unsigned place = deleter->batch.count;
    int rc;

    deleter->spares[place].owner = owner;
    deleter->spares[place].wanted = false;
    rc = batch_add(&deleter->batch, size, place);
    if (rc == 0 && deleter->batch.count == 0)
        rc = send_second(deleter, place + 1);
    return rc;
}

/* Adds the delete of the flow in a message. */
static int add_view(struct deleter *deleter, const struct view *view, uint32_t owner)
{
    struct spare *spare = next_spare(deleter);

    spare->size = build_delete(view, CTA_TUPLE_REPLY, spare->bytes, sizeof(spare->bytes));
    return add_built(deleter,
                     build_delete(view, CTA_TUPLE_ORIG, batch_room(&deleter->batch), REQUEST_MAX),
                     owner);
}

int deleter_add(struct deleter *deleter, const struct nlct_flow *flow, uint32_t owner)
{
    struct spare *spare = next_spare(deleter);

    spare->size = build_named(flow, CTA_TUPLE_REPLY, spare->bytes, sizeof(spare->bytes));
    return add_built(deleter,
                     build_named(flow, CTA_TUPLE_ORIG, batch_room(&deleter->batch), REQUEST_MAX),
                     owner);
}

int deleter_finish(struct deleter *deleter)
{
    const unsigned count = deleter->batch.count;
    const int rc = batch_send(&deleter->batch);

    return rc ? rc : send_second(deleter, count);
}

struct deleter *deleter_new(struct nlct_socket *sock, batch_settle *settle, void *context)
{
    struct deleter *new = malloc(sizeof(*new));

    if (!new)
        return NULL;
    new->settle = settle;
    new->context = context;
    batch_init(&new->batch, sock, names_one_flow, settle_first, new);
    batch_init(&new->second, sock, names_one_flow, settle, context);
    return new;
}

void deleter_free(struct deleter *deleter)
{
    free(deleter);
}

/* Targets ------------------------------------------------------------------------------------- */

enum { ZONES = UINT16_MAX + 1 };

/* What a target wants that is no zone. NULL for the filter is everything. */
struct wish {
    const struct nlct_filter *filter;
    uint32_t target;
};

/* How many requests of each target were refused with one errno. */
struct refusals {
    struct refusals *next;
    int error;
    uint64_t counts[];
};

struct deletes {
    struct nlct_sink sink;
    /* Who wants what. */
    size_t count;
    uint32_t *by_zone; /* a target or NOBODY; NULL when none wants a zone */
    struct wish *wishes;
    size_t nwishes;
    /* What has come of it. */
    struct nlct_outcome *outcomes;
    struct refusals *refusals;
    bool out_of_memory; /* something was not counted */
    /* A flow that several targets want is deleted once: a request belongs to a row of targets,
       which ends with NOBODY. These are the rows of the requests in the deleter. */
    uint32_t *owners;
    size_t nowners;
    size_t capacity;
    struct deleter *deleter;
};

static const uint32_t NOBODY = UINT32_MAX;

/* The account --------------------------------------------------------------------------------- */

/* NULL if there is no memory for them. */
static struct refusals *find_refusals(struct deletes *deletes, int error)
{
    struct refusals **at = &deletes->refusals;

    while (*at && (*at)->error != error)
        at = &(*at)->next;
    if (!*at) {
        *at = calloc(1, sizeof(**at) + deletes->count * sizeof((*at)->counts[0]));
        if (*at)
            (*at)->error = error;
    }
    return *at;
}

static void refuse(struct deletes *deletes, uint32_t target, int error)
{
    struct refusals *refusals = find_refusals(deletes, error);

    if (refusals)
        refusals->counts[target]++;
    else
        deletes->out_of_memory = true;
}

/* The result of the request whose owners begin there. */
static void settle(void *context, uint32_t owner, int result)
{
    struct deletes *deletes = context;
    const uint32_t *target;

    for (target = deletes->owners + owner; *target != NOBODY; target++) {
        if (result < 0)
            refuse(deletes, *target, -result);
        else
            deletes->outcomes[*target].deleted++;
    }
}

/* Adds to the latest row, which has room for every target. */
static void add_owner(struct deletes *deletes, uint32_t target)
{
    deletes->owners[deletes->nowners++] = target;
    deletes->outcomes[target].matched++;
}

/* For one more row. */
static int make_room(struct deletes *deletes)
{
    const size_t needed = deletes->nowners + deletes->count + 1;
    uint32_t *grown;

    if (needed <= deletes->capacity)
        return 0;
    grown = realloc(deletes->owners, needed * 2 * sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    deletes->owners = grown;
    deletes->capacity = needed * 2;
    return 0;
}

/* Adds a row with all targets that want this flow. Returns 0, or -EBADMSG if its zone cannot be
   told. */
static int add_owners(struct deletes *deletes, struct view *view)
{
    const int zone = deletes->by_zone ? view_zone(view) : 0;
    const struct wish *wish;
    int rc;

    if (zone < 0)
        return zone;
    if (deletes->by_zone && deletes->by_zone[zone] != NOBODY)
        add_owner(deletes, deletes->by_zone[zone]);
    for (wish = deletes->wishes; wish < deletes->wishes + deletes->nwishes; wish++) {
        rc = wish->filter ? filter_match(wish->filter, view) : 1;
        if (rc < 0)
            refuse(deletes, wish->target, -rc);
        else if (rc)
            add_owner(deletes, wish->target);
    }
    return 0;
}

/* The sink ------------------------------------------------------------------------------------ */

static int take(struct nlct_sink *sink, struct view *view)
{
    struct deletes *deletes = (struct deletes *)sink;
    uint32_t row;
    int rc;

    if (!deletes->deleter->batch.count)
        deletes->nowners = 0;
    row = (uint32_t)deletes->nowners;
    rc = make_room(deletes);
    if (rc == 0)
        rc = add_owners(deletes, view);
    if (rc < 0)
        return rc;
    if (deletes->nowners > row) {
        deletes->owners[deletes->nowners++] = NOBODY;
        rc = add_view(deletes->deleter, view, row);
    }
    return rc == 0 && deletes->out_of_memory ? -ENOMEM : rc;
}

static int finish(struct nlct_sink *sink)
{
    struct deletes *deletes = (struct deletes *)sink;
    const int rc = deleter_finish(deletes->deleter);

    return rc == 0 && deletes->out_of_memory ? -ENOMEM : rc;
}

static void free_deletes(struct nlct_sink *sink)
{
    struct deletes *deletes = (struct deletes *)sink;
    struct refusals *next;

    for (; deletes->refusals; deletes->refusals = next) {
        next = deletes->refusals->next;
        free(deletes->refusals);
    }
    deleter_free(deletes->deleter);
    free(deletes->owners);
    free(deletes->by_zone);
    free(deletes->wishes);
    free(deletes->outcomes);
}

static int set_zone(struct deletes *deletes, uint16_t zone, uint32_t target)
{
    const size_t size = ZONES * sizeof(*deletes->by_zone);

    if (!deletes->by_zone) {
        deletes->by_zone = malloc(size);
        if (!deletes->by_zone)
            return -ENOMEM;
        memset(deletes->by_zone, UINT8_MAX, size); /* NOBODY in each */
    }
    if (deletes->by_zone[zone] != NOBODY)
        return -EINVAL;
    deletes->by_zone[zone] = target;
    return 0;
}

/* Notes what a target wants. To name nothing must never mean to delete something. */
static int set_target(struct deletes *deletes, const struct nlct_target *target, uint32_t number)
{
    switch (target->wants) {
    case NLCT_WANTS_ZONE:
        return set_zone(deletes, target->zone, number);
    case NLCT_WANTS_FILTER:
        if (!target->filter)
            return -EINVAL;
        deletes->wishes[deletes->nwishes++] = (struct wish){target->filter, number};
        return 0;
    case NLCT_WANTS_ALL:
        deletes->wishes[deletes->nwishes++] = (struct wish){NULL, number};
        return 0;
    }
    return -EINVAL;
}

static int set_targets(struct deletes *deletes, const struct nlct_target *targets)
{
    uint32_t i;
    int rc = 0;

    deletes->outcomes = calloc(deletes->count + 1, sizeof(*deletes->outcomes));
    deletes->wishes = calloc(deletes->count + 1, sizeof(*deletes->wishes));
    if (!deletes->outcomes || !deletes->wishes)
        return -ENOMEM;
    for (i = 0; i < deletes->count && rc == 0; i++)
        rc = set_target(deletes, &targets[i], i);
    return rc;
}

int nlct_deletes_new(struct nlct_sink **sink, struct nlct_socket *sock,
                     const struct nlct_target *targets, size_t count)
{
    struct deletes *new;
    int rc;

    /* The rows of a whole batch are counted in 32 bits. */
    if (count > UINT32_MAX / 2 / BATCH_REQUESTS)
        return -EINVAL;
    new = calloc(1, sizeof(*new));
    if (!new)
        return -ENOMEM;
    new->sink = (struct nlct_sink){.take = take, .finish = finish, .free = free_deletes};
    new->count = count;
    new->deleter = deleter_new(sock, settle, new);
    *sink = &new->sink;
    rc = new->deleter ? set_targets(new, targets) : -ENOMEM;
    if (rc < 0)
        nlct_sink_free(sink);
    return rc;
}

const struct nlct_outcome *nlct_deletes_get(const struct nlct_sink *sink)
{
    return ((const struct deletes *)sink)->outcomes;
}

const uint64_t *nlct_deletes_refused(const struct nlct_sink *sink, size_t which, int *error)
{
    const struct refusals *refusals = ((const struct deletes *)sink)->refusals;

    while (refusals && which--)
        refusals = refusals->next;
    if (!refusals)
        return NULL;
    *error = refusals->error;
    return refusals->counts;
}

/* Flows that are given ------------------------------------------------------------------------ */

static void note(void *context, uint32_t owner, int result)
{
    int *results = context;

    results[owner] = result;
}

int nlct_delete_flows(struct nlct_socket *sock, const struct nlct_flow *flows, size_t count,
                      int *results)
{
    struct deleter *deleter;
    size_t i;
    int rc = 0;

    if (count > UINT32_MAX)
        return -EINVAL;
    deleter = deleter_new(sock, note, results);
    if (!deleter)
        return -ENOMEM;
    for (i = 0; i < count && rc == 0; i++)
        rc = deleter_add(deleter, &flows[i], (uint32_t)i);
    if (rc == 0)
        rc = deleter_finish(deleter);
    deleter_free(deleter);
    return rc;
}

static int delete_by(struct nlct_socket *sock, const struct nlct_flow *flow, uint16_t type)
{
    uint8_t room[REQUEST_MAX];
    const int size = build_named(flow, type, room, sizeof(room));

    if (size >= 0 && !names_one_flow(room, (size_t)size))
        return -EINVAL;
    return request_run(sock, room, size, 0, NULL, NULL);
}

int nlct_delete(struct nlct_socket *sock, const struct nlct_flow *flow)
{
    int rc = delete_by(sock, flow, CTA_TUPLE_ORIG);

    if (rc == -ENOENT && has(flow->present, NLCT_FLOW_REPLY))
        rc = delete_by(sock, flow, CTA_TUPLE_REPLY);
    return rc;
}
