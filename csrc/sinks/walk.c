/* Walks over the lists of a mirror, between whose steps flows come and go. */
#include "index.h"

#include <stdlib.h>

struct nlct_walk {
    struct nlct_mirror *mirror;
    struct nlct_walk *next; /* of this mirror */
    bool all;               /* over the places, up to 'last'; else over a list, by 'link' */
    unsigned link;
    uint32_t at; /* the next entry, 0 at the end */
    uint32_t last;
};

/* Goes to an entry. Its removal must then move this walk. */
static void stand(struct nlct_walk *walk, uint32_t place)
{
    walk->at = place;
    if (place && !walk->all)
        entry_at(walk->mirror, place)->watched = true;
}

void walks_leave(struct nlct_mirror *mirror, uint32_t place)
{
    const struct entry *entry = entry_at(mirror, place);
    struct nlct_walk *walk;

    for (walk = mirror->walks; walk; walk = walk->next)
        if (walk->at == place && !walk->all)
            stand(walk, entry->links[walk->link].next);
}

int nlct_walk_new(struct nlct_walk **walk, struct nlct_mirror *mirror, const struct nlct_list *list)
{
    const struct head *head;
    struct nlct_walk *new;

    if (!list_is(mirror, list))
        return -EINVAL;
    new = calloc(1, sizeof(*new));
    if (!new)
        return -ENOMEM;
    new->mirror = mirror;
    new->next = mirror->walks;
    mirror->walks = new;
    *walk = new;
    if (list->kind == NLCT_LIST_ALL) {
        new->all = true;
        new->last = mirror->entries.places;
        new->at = new->last ? 1 : 0;
        return 0;
    }
    if (list->kind != NLCT_LIST_ZONE)
        new->link = 1 + (unsigned)(list->kind - NLCT_LIST_SRC);
    head = list_head(mirror, list);
    stand(new, head ? head->first : 0);
    return 0;
}

void nlct_walk_free(struct nlct_walk **walk)
{
    struct nlct_walk *taken = __atomic_exchange_n(walk, NULL, __ATOMIC_ACQ_REL);
    struct nlct_walk **at;

    if (!taken)
        return;
    for (at = &taken->mirror->walks; *at != taken;)
        at = &(*at)->next;
    *at = taken->next;
    free(taken);
}

/* What follows the entry or free place at 'place'. */
static uint32_t following(const struct nlct_walk *walk, uint32_t place)
{
    if (walk->all)
        return place < walk->last ? place + 1 : 0;
    return entry_at(walk->mirror, place)->links[walk->link].next;
}

int walk_rows(struct nlct_walk *walk, const struct nlct_filter *filter, struct nlct_flow *rows,
              uint32_t *places, size_t capacity, size_t *count)
{
    uint32_t place = walk->at;
    size_t looked;

    *count = 0;
    if (filter && !filter_asks_only(filter, MIRROR_KEEPS))
        return -EINVAL;
    for (looked = 0; place && looked < capacity; looked++, place = following(walk, place)) {
        const struct entry *entry = entry_at(walk->mirror, place);
        struct nlct_flow *row = &rows[*count];

        if (!entry->label.family)
            continue;
        entry_read(walk->mirror, entry, row);
        if (filter && !nlct_filter_match(filter, row))
            continue;
        if (places)
            places[*count] = place;
        ++*count;
    }
    stand(walk, place);
    return place != 0;
}

int nlct_walk_rows(struct nlct_walk *walk, const struct nlct_filter *filter, struct nlct_flow *rows,
                   size_t capacity, size_t *count)
{
    return walk_rows(walk, filter, rows, NULL, capacity, count);
}

int walk_deleted(struct nlct_walk *walk, uint32_t place)
{
    struct nlct_mirror *mirror = walk->mirror;
    struct nlct_flow flow;
    struct name name;
    int rc = 0;

    if (mirror->phase == FEEDING) {
        entry_read(mirror, entry_at(mirror, place), &flow);
        rc = name_flow(mirror, &flow, &name);
        if (rc == 0)
            rc = bury(mirror, &name);
    }
    entry_remove(mirror, place);
    mirror->counters.deleted++;
    return rc;
}
