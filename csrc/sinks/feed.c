/* What feeds a mirror: events and dumps; and rounds, which compare it with a dump. */
#include "index.h"

#include <stdlib.h>

/* Tombstones ---------------------------------------------------------------------------------- */

static void tombstone_read(struct tombstone *tombstone, const struct name *name)
{
    const size_t size = name->label.family == AF_INET ? 4 : 16;
    unsigned role;

    tombstone->label = name->label;
    for (role = SRC; role <= DST; role++)
        memcpy(tombstone->addresses[role], name->addresses[role], size);
}

static uint32_t find_tombstone(const struct nlct_mirror *mirror, const struct name *name)
{
    struct tombstone wanted = {.label.id = 0};
    uint32_t place = table_first(&mirror->tombstones, name->hash);

    if (place)
        tombstone_read(&wanted, name);
    for (; place; place = table_next(&mirror->tombstones, place)) {
        const struct tombstone *there = table_at(&mirror->tombstones, place);

        if (memcmp(&there->label, &wanted.label, sizeof(wanted.label)) == 0 &&
            memcmp(there->addresses, wanted.addresses, sizeof(wanted.addresses)) == 0)
            break;
    }
    return place;
}

int bury(struct nlct_mirror *mirror, const struct name *name)
{
    uint32_t place;

    if (mirror->phase != FEEDING || find_tombstone(mirror, name))
        return 0;
    place = table_add(&mirror->tombstones, name->hash);
    if (!place)
        return -ENOMEM;
    tombstone_read(table_at(&mirror->tombstones, place), name);
    return 0;
}

/* What happens to a flow ---------------------------------------------------------------------- */

/* Marks a flow as seen. 'place' is where one with its name is, 0 if there is none. Returns whether
   it is there, with this reply. */
static bool see(struct nlct_mirror *mirror, uint32_t place, const struct name *name)
{
    if (!place || !entry_replies(mirror, place, name))
        return false;
    entry_at(mirror, place)->round = mirror->round;
    return true;
}

/* Inserts a flow, in place of one with its name and another reply, whose end nobody told. Returns 0
   or -ENOMEM. */
static int insert(struct nlct_mirror *mirror, uint32_t place, const struct name *name)
{
    if (place)
        entry_remove(mirror, place);
    return entry_insert(mirror, name);
}

static int announce(struct nlct_mirror *mirror, const struct name *name)
{
    const uint32_t place = entry_find(mirror, name);

    if (!see(mirror, place, name))
        return insert(mirror, place, name);
    mirror->counters.repeated++;
    return 0;
}

/* Was the one there seen or announced in this round? Then a row may be older. */
static bool is_outdated(const struct nlct_mirror *mirror, uint32_t place)
{
    return mirror->phase != NO_ROUND && place && entry_at(mirror, place)->round == mirror->round;
}

/* Adds one that was seen in the table. If it has a tombstone and was not announced since, it was
   seen too early. Returns 1 if it is new, 0, or -ENOMEM. */
static int add(struct nlct_mirror *mirror, const struct name *name)
{
    const uint32_t place = entry_find(mirror, name);
    int rc;

    if (see(mirror, place, name))
        return 0;
    if (find_tombstone(mirror, name) || is_outdated(mirror, place)) {
        mirror->counters.outdated++;
        return 0;
    }
    rc = insert(mirror, place, name);
    return rc < 0 ? rc : 1;
}

/* Adds to one of two counters: of a flow that was there, or of one that was not. Returns 1, 0, or
   -ENOMEM. */
static int end(struct nlct_mirror *mirror, const struct name *name, uint64_t *removed,
               uint64_t *unknown)
{
    const uint32_t place = entry_find(mirror, name);
    int rc;

    if (place)
        entry_remove(mirror, place);
    ++*(place ? removed : unknown);
    rc = bury(mirror, name);
    return rc < 0 ? rc : place != 0;
}

int nlct_mirror_add(struct nlct_mirror *mirror, const struct nlct_flow *flow)
{
    struct name name;
    const int rc = name_flow(mirror, flow, &name);

    return rc < 0 ? rc : add(mirror, &name);
}

int nlct_mirror_remove(struct nlct_mirror *mirror, const struct nlct_flow *flow)
{
    uint64_t unknown = 0;
    struct name name;
    const int rc = name_flow(mirror, flow, &name);

    return rc < 0 ? rc : end(mirror, &name, &mirror->counters.deleted, &unknown);
}

/* The sink that feeds ------------------------------------------------------------------------- */

struct feed {
    struct nlct_sink sink;
    struct nlct_mirror *mirror;
};

static int take(struct nlct_sink *sink, struct view *view)
{
    struct nlct_mirror *mirror = ((struct feed *)sink)->mirror;
    struct nlct_mirror_counters *counters = &mirror->counters;
    struct name name;
    int rc;

    if (view->event == NLCT_EVENT_UPDATE)
        return 0;
    rc = name_view(mirror, view, &name);
    if (rc < 0)
        return rc;
    if (view->event == NLCT_EVENT_NEW)
        rc = announce(mirror, &name);
    else if (view->event == NLCT_EVENT_DESTROY)
        rc = end(mirror, &name, &counters->destroyed, &counters->strangers);
    else
        rc = add(mirror, &name);
    return rc < 0 ? rc : 0;
}

int nlct_feed_new(struct nlct_sink **sink, struct nlct_mirror *mirror)
{
    struct feed *new = calloc(1, sizeof(*new));

    if (!new)
        return -ENOMEM;
    *new = (struct feed){.sink.take = take, .mirror = mirror};
    *sink = &new->sink;
    return 0;
}

/* Rounds -------------------------------------------------------------------------------------- */

/* An entry remembers the latest round that saw it. Rounds are counted in 16 bits: after 65,536
   rounds that were given up a ghost may pass for seen, once. */
void nlct_mirror_round_begin(struct nlct_mirror *mirror, enum nlct_round round)
{
    nlct_mirror_round_drop(mirror);
    mirror->phase = round == NLCT_ROUND_FEED ? FEEDING : AUDITING;
    mirror->round++;
}

void nlct_mirror_round_drop(struct nlct_mirror *mirror)
{
    table_clear(&mirror->tombstones);
    mirror->phase = NO_ROUND;
}

int nlct_mirror_round_end(struct nlct_mirror *mirror, size_t limit)
{
    if (mirror->phase == NO_ROUND)
        return -EINVAL;
    if (mirror->phase != ENDING) {
        table_clear(&mirror->tombstones);
        mirror->phase = ENDING;
        mirror->ending_at = 1;
    }
    for (; limit && mirror->ending_at <= mirror->entries.places; limit--, mirror->ending_at++) {
        const struct entry *entry = entry_at(mirror, mirror->ending_at);

        if (!entry->label.family || entry->round == mirror->round)
            continue;
        entry_remove(mirror, mirror->ending_at);
        mirror->counters.ghosts++;
    }
    if (mirror->ending_at <= mirror->entries.places)
        return 1;
    mirror->phase = NO_ROUND;
    return 0;
}

/* The sink of an audit ------------------------------------------------------------------------ */

struct audit {
    struct nlct_sink sink;
    struct nlct_mirror *mirror;
    struct nlct_flow *rows;
    size_t capacity;
    size_t count;
};

/* Copies what a mirror would keep of a flow. */
static void copy_name(struct nlct_flow *row, const struct nlct_flow *flow, const struct name *name)
{
    *row = (struct nlct_flow){
        .present =
            bit(NLCT_FLOW_ORIG) | bit(NLCT_FLOW_REPLY) | bit(NLCT_FLOW_ZONE) | bit(NLCT_FLOW_ID),
        .id = flow->id,
        .zone = name->label.zone,
        .family = flow->family,
        .orig = flow->orig,
        .reply = flow->reply,
    };
}

/* Of the mirror it reads nothing that changes. */
static int take_audited(struct nlct_sink *sink, struct view *view)
{
    struct audit *audit = (struct audit *)sink;
    struct name name;
    int rc;

    if (audit->count == audit->capacity)
        return 1;
    rc = name_view(audit->mirror, view, &name);
    if (rc == 0)
        copy_name(&audit->rows[audit->count++], &view->flow, &name);
    return rc;
}

int nlct_audit_new(struct nlct_sink **sink, struct nlct_mirror *mirror, struct nlct_flow *rows,
                   size_t capacity)
{
    struct audit *new = calloc(1, sizeof(*new));

    if (!new)
        return -ENOMEM;
    *new = (struct audit){
        .sink.take = take_audited, .mirror = mirror, .rows = rows, .capacity = capacity};
    *sink = &new->sink;
    return 0;
}

size_t nlct_audit_take(struct nlct_sink *sink)
{
    struct audit *audit = (struct audit *)sink;
    size_t unknown = 0;
    size_t i;

    for (i = 0; i < audit->count; i++) {
        struct name name;

        if (name_flow(audit->mirror, &audit->rows[i], &name) == 0 &&
            see(audit->mirror, entry_find(audit->mirror, &name), &name))
            continue;
        audit->rows[unknown++] = audit->rows[i];
    }
    audit->count = 0;
    return unknown;
}
