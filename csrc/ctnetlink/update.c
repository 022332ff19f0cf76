/*
 * Changing the flows of a dump, one request each, in batches.
 *
 * To the kernel an update is a NEW without NLM_F_CREATE: a request with that flag would create what
 * is gone. It ignores the id, so nothing but the tuple and the zone names the flow. Each request is
 * read back before it is sent: it must name one flow, and must not be able to create it.
 *
 * Where the zone of a flow applies to one direction, its tuple may lead to another flow. Such a
 * flow is looked up first, by its original tuple and then by its reply, and its id is compared.
 */
#include "ctnetlink.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <stdlib.h>

/* What a change may set. */
static const struct {
    unsigned bit;
    size_t offset; /* in a flow */
} changeable[] = {
    {NLCT_FLOW_STATUS, offsetof(struct nlct_flow, status)},
    {NLCT_FLOW_TIMEOUT, offsetof(struct nlct_flow, timeout)},
    {NLCT_FLOW_MARK, offsetof(struct nlct_flow, mark)},
    {NLCT_FLOW_HELPER, offsetof(struct nlct_flow, helper)},
    {NLCT_FLOW_LABELS, offsetof(struct nlct_flow, labels)},
};
enum { CHANGEABLE = COUNT(changeable) };

struct updates {
    struct nlct_sink sink;
    const struct nlct_change *change;
    struct nlct_updated *updated;
    const struct field *fields[CHANGEABLE];
    struct batch batch;
};

static const struct field *field_at(size_t offset)
{
    const struct field *field;
    unsigned number;

    for (number = 0; (field = flow_field(number)); number++)
        if (field->public.offset == offset)
            return field;
    return NULL;
}

/* Requests ------------------------------------------------------------------------------------ */

static uint16_t new_type(void)
{
    return message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW);
}

/* True if the request can only change one flow: it names one tuple, perhaps a zone, and has no flag
   that would make the kernel create a flow. */
static bool changes_one_flow(const void *request, size_t size)
{
    const uint32_t changes = 1U << CTA_STATUS | 1U << CTA_TIMEOUT | 1U << CTA_MARK |
                             1U << CTA_MARK_MASK | 1U << CTA_HELP | 1U << CTA_LABELS |
                             1U << CTA_LABELS_MASK;
    struct wire wire = {request, size};
    struct nlmsghdr header;
    struct wire payload;
    struct view view;
    uint32_t named;

    if (wire_message(&wire, &header, &payload) != 1 || wire.left != 0 ||
        header.nlmsg_type != new_type() || header.nlmsg_flags != NLM_F_REQUEST ||
        view_parse(&view, payload) != 0 || view.unknown || !(view.present & changes))
        return false;
    named = view.present & ~changes & ~(1U << CTA_ZONE);
    return (named == 1U << CTA_TUPLE_ORIG && view_names(&view, CTA_TUPLE_ORIG)) ||
           (named == 1U << CTA_TUPLE_REPLY && view_names(&view, CTA_TUPLE_REPLY));
}

/* Copies what names this flow, as the kernel sent it. */
static void put_name(struct message *message, const struct view *view, uint16_t type)
{
    const struct attr *tuple = view_attr(view, type);
    const struct attr *zone = view_attr(view, CTA_ZONE);

    if (tuple)
        message_copy(message, tuple);
    if (zone)
        message_copy(message, zone);
}

/* Puts what 'fields' says of the change. The status is the whole one: the kernel clears no bit and
   refuses a status that would. */
static void put_change(struct message *message, const struct nlct_change *change,
                       const struct nlct_flow *flow, uint64_t fields)
{
    const struct nlct_flow *to = &change->to;
    size_t nest;

    if (has(fields, NLCT_FLOW_STATUS))
        message_put_number(message, CTA_STATUS, flow->status | to->status, 4);
    if (has(fields, NLCT_FLOW_TIMEOUT))
        message_put_number(message, CTA_TIMEOUT, to->timeout, 4);
    if (has(fields, NLCT_FLOW_MARK)) {
        message_put_number(message, CTA_MARK, to->mark, 4);
        message_put_number(message, CTA_MARK_MASK, change->mark_mask, 4);
    }
    if (has(fields, NLCT_FLOW_HELPER)) {
        nest = message_nest_begin(message, CTA_HELP);
        message_put(message, CTA_HELP_NAME, to->helper, strnlen(to->helper, 15) + 1);
        message_nest_end(message, nest);
    }
    if (has(fields, NLCT_FLOW_LABELS)) {
        message_put(message, CTA_LABELS, to->labels, sizeof(to->labels));
        message_put(message, CTA_LABELS_MASK, change->labels_mask, sizeof(change->labels_mask));
    }
}

static int build(const struct updates *updates, const struct view *view, uint16_t type,
                 uint64_t fields, void *room)
{
    struct message message;

    message_begin(&message, room, REQUEST_MAX, new_type(), NLM_F_REQUEST, view->family);
    put_name(&message, view, type);
    put_change(&message, updates->change, &view->flow, fields);
    return message_end(&message);
}

/* What to send ------------------------------------------------------------------------------- */

/* Is the field as it should be? */
static bool is_so(const struct nlct_change *change, const struct nlct_flow *flow, unsigned field)
{
    const struct nlct_flow *to = &change->to;

    switch (field) {
    case NLCT_FLOW_STATUS:
        return (flow->status & to->status) == to->status;
    case NLCT_FLOW_MARK:
        return (flow->mark & change->mark_mask) == to->mark;
    case NLCT_FLOW_HELPER:
        return strncmp(flow->helper, to->helper, sizeof(to->helper)) == 0;
    case NLCT_FLOW_LABELS:
        return (flow->labels[0] & change->labels_mask[0]) == to->labels[0] &&
               (flow->labels[1] & change->labels_mask[1]) == to->labels[1];
    default:
        return false;
    }
}

/* Reads a field of the flow, which is zero where the kernel sent none. Returns 1 if the kernel sent
   it, 0, or -EBADMSG. */
static int read_field(struct view *view, const struct field *field)
{
    if (view_attr(view, field->attr)) {
        const int rc = view_decode(view, field);

        if (rc < 0)
            return rc;
        if (flow_has(&view->flow, field))
            return 1;
    }
    memset((uint8_t *)&view->flow + field->public.offset, 0, field->public.size);
    return 0;
}

/* Sets '*fields' to what must be sent. Returns 0 or -EBADMSG. */
static int choose(struct updates *updates, struct view *view, uint64_t *fields)
{
    struct nlct_updated *updated = updates->updated;
    size_t i;

    *fields = 0;
    for (i = 0; i < CHANGEABLE; i++) {
        const unsigned field = changeable[i].bit;
        int found;

        if (!has(updates->change->to.present, field))
            continue;
        found = read_field(view, updates->fields[i]);
        if (found < 0)
            return found;
        /* The kernel accepts both for a flow without one, and does nothing. */
        if (!found && field == NLCT_FLOW_MARK)
            updated->no_mark++;
        else if (!found && field == NLCT_FLOW_TIMEOUT)
            updated->no_timeout++;
        else if (!is_so(updates->change, &view->flow, field))
            *fields |= bit(field);
    }
    return 0;
}

/* Where a zone applies to one direction -------------------------------------------------------- */

static int take_id(void *context, struct wire payload)
{
    uint32_t *id = context;
    const struct attr *attr;
    struct view view;

    if (view_parse(&view, payload) < 0)
        return -EBADMSG;
    attr = view_attr(&view, CTA_ID);
    if (!attr || attr->size != 4)
        return -EBADMSG;
    *id = wire_be32(attr->data);
    return 0;
}

/* Does this tuple lead the kernel to this flow? Returns 0, -ENOENT, or -errno. */
static int leads(struct updates *updates, const struct view *view, uint16_t type)
{
    const struct attr *id = view_attr(view, CTA_ID);
    uint8_t room[REQUEST_MAX];
    struct message message;
    uint32_t found = 0;
    int rc;

    if (!view_attr(view, type) || !id || id->size != 4)
        return -EBADMSG;
    message_begin(&message, room, sizeof(room),
                  message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET), NLM_F_REQUEST,
                  view->family);
    put_name(&message, view, type);
    rc = request_run(updates->batch.sock, room, message_end(&message), new_type(), take_id, &found);
    if (rc < 0)
        return rc;
    return found == wire_be32(id->data) ? 0 : -ENOENT;
}

/* The sink ------------------------------------------------------------------------------------ */

static void settle(void *context, uint32_t owner, int result)
{
    struct updates *updates = context;

    (void)owner;
    if (result < 0)
        updates->updated->tally.refused[-result]++;
    else
        updates->updated->tally.done++;
}

/* Adds the request for this flow. Returns 0, or -errno if the socket failed. */
static int add(struct updates *updates, const struct view *view, uint64_t fields)
{
    const bool directional = !view_attr(view, CTA_ZONE) && view_zone(view) != 0;
    uint16_t type = CTA_TUPLE_ORIG;
    int rc = 0;

    if (directional) {
        rc = leads(updates, view, type);
        if (rc == -ENOENT) {
            type = CTA_TUPLE_REPLY;
            rc = leads(updates, view, type);
        }
    }
    /* Nothing else may be sent over a socket that still owes us an answer. */
    if (rc == -ETIMEDOUT || rc == -ENOBUFS || rc == -EPERM)
        return rc;
    if (rc == 0)
        rc = build(updates, view, type, fields, batch_room(&updates->batch));
    return batch_add(&updates->batch, rc, 0);
}

static int take(struct nlct_sink *sink, struct view *view)
{
    struct updates *updates = (struct updates *)sink;
    uint64_t fields;
    const int rc = choose(updates, view, &fields);

    if (rc < 0)
        return batch_add(&updates->batch, rc, 0);
    if (fields)
        return add(updates, view, fields);
    updates->updated->unchanged++;
    return 0;
}

static int finish(struct nlct_sink *sink)
{
    return batch_send(&((struct updates *)sink)->batch);
}

/* Would the kernel take it, and has each bit to set its place in the mask? */
static bool is_sound(const struct nlct_change *change)
{
    const struct nlct_flow *to = &change->to;
    uint64_t known = 0;
    size_t i;

    for (i = 0; i < CHANGEABLE; i++)
        known |= bit(changeable[i].bit);
    if (!(to->present & known))
        return false;
    if (has(to->present, NLCT_FLOW_TIMEOUT) && !to->timeout)
        return false;
    if (has(to->present, NLCT_FLOW_HELPER) && !*to->helper)
        return false;
    if (has(to->present, NLCT_FLOW_MARK) && (!change->mark_mask || to->mark & ~change->mark_mask))
        return false;
    return !has(to->present, NLCT_FLOW_LABELS) ||
           ((change->labels_mask[0] || change->labels_mask[1]) &&
            !(to->labels[0] & ~change->labels_mask[0]) &&
            !(to->labels[1] & ~change->labels_mask[1]));
}

int nlct_updates_new(struct nlct_sink **sink, struct nlct_socket *sock,
                     const struct nlct_change *change, struct nlct_updated *updated)
{
    struct updates *new;
    size_t i;

    if (!is_sound(change))
        return -EINVAL;
    new = calloc(1, sizeof(*new));
    if (!new)
        return -ENOMEM;
    new->sink = (struct nlct_sink){.take = take, .finish = finish};
    new->change = change;
    new->updated = updated;
    for (i = 0; i < CHANGEABLE; i++)
        new->fields[i] = field_at(changeable[i].offset);
    batch_init(&new->batch, sock, changes_one_flow, settle, new);
    *sink = &new->sink;
    return 0;
}
