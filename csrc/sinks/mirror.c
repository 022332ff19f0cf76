/*
 * What a listener remembers of flows: a table of entries by identity, with a list for each zone
 * and, if wanted, for each address in each role.
 *
 * Addresses that many flows share are kept once, in tables of their own.
 */
#include "index.h"

#include <stdlib.h>

/* Names --------------------------------------------------------------------------------------- */

static const uint64_t PORTS = UINT64_C(1) << NLCT_TUPLE_SPORT | UINT64_C(1) << NLCT_TUPLE_DPORT;
static const uint64_t ICMP = UINT64_C(1) << NLCT_TUPLE_ICMP_ID |
                             UINT64_C(1) << NLCT_TUPLE_ICMP_TYPE |
                             UINT64_C(1) << NLCT_TUPLE_ICMP_CODE;

static size_t address_size(uint8_t family)
{
    return family == AF_INET ? 4 : 16;
}

/* No protocol has both ports and what ICMP has. */
static uint32_t ends_of(const struct nlct_tuple *tuple)
{
    if (tuple->present & ICMP)
        return (uint32_t)tuple->icmp_id << 16 | (uint32_t)tuple->icmp_type << 8 | tuple->icmp_code;
    return (uint32_t)tuple->sport << 16 | tuple->dport;
}

static bool is_whole(const struct nlct_tuple *tuple)
{
    return has(tuple->present, NLCT_TUPLE_SRC) && has(tuple->present, NLCT_TUPLE_DST) &&
           !(tuple->present & PORTS && tuple->present & ICMP);
}

/* The zone of a flow, in whichever direction it applies. Returns -EINVAL if there are two. */
static int zone_of(const struct nlct_flow *flow)
{
    const bool in_orig = has(flow->orig.present, NLCT_TUPLE_ZONE);
    const bool in_reply = has(flow->reply.present, NLCT_TUPLE_ZONE);
    int zone = in_orig ? flow->orig.zone : in_reply ? flow->reply.zone : 0;

    if (has(flow->present, NLCT_FLOW_ZONE))
        zone = flow->zone;
    if ((in_orig && flow->orig.zone != zone) || (in_reply && flow->reply.zone != zone))
        return -EINVAL;
    return zone;
}

static uint32_t hash_name(const struct nlct_mirror *mirror, const struct name *name)
{
    const size_t size = address_size(name->label.family);
    uint64_t words[6];

    memcpy(words, &name->label, sizeof(name->label));
    memcpy((uint8_t *)&words[2], name->addresses[SRC], size);
    memcpy((uint8_t *)&words[2] + size, name->addresses[DST], size);
    return (uint32_t)hash_words(&mirror->key, words, 2 + size / 4, 0, 0);
}

int name_flow(const struct nlct_mirror *mirror, const struct nlct_flow *flow, struct name *name)
{
    const uint64_t needed = bit(NLCT_FLOW_ORIG) | bit(NLCT_FLOW_REPLY) | bit(NLCT_FLOW_ID);
    const int zone = zone_of(flow);

    if ((flow->present & needed) != needed || zone < 0 || !is_whole(&flow->orig) ||
        !is_whole(&flow->reply) || (flow->family != AF_INET && flow->family != AF_INET6))
        return -EINVAL;
    *name = (struct name){
        .label =
            {
                .id = flow->id,
                .ends = ends_of(&flow->orig),
                .zone = (uint16_t)zone,
                .present = (uint16_t)flow->orig.present,
                .proto = flow->orig.proto,
                .family = flow->family,
                .zone_in_reply = has(flow->reply.present, NLCT_TUPLE_ZONE),
            },
        .reply_ends = ends_of(&flow->reply),
        .reply_present = (uint16_t)flow->reply.present,
        .reply_proto = flow->reply.proto,
        .addresses = {flow->orig.src, flow->orig.dst, flow->reply.src, flow->reply.dst},
    };
    name->hash = hash_name(mirror, name);
    return 0;
}

int name_view(const struct nlct_mirror *mirror, struct view *view, struct name *name)
{
    static const uint8_t types[] = {CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_ID, CTA_ZONE};
    size_t i;
    int rc = 0;

    for (i = 0; i < sizeof(types) && rc == 0; i++)
        rc = view_decode(view, &(struct field){.attr = types[i]});
    if (rc == 0)
        rc = name_flow(mirror, &view->flow, name);
    return rc == -EINVAL ? -EBADMSG : rc;
}

/* Addresses ----------------------------------------------------------------------------------- */

/* The addresses that are kept in a table, NULL where entries have them. */
static struct table *addresses_of(struct nlct_mirror *mirror, uint8_t family)
{
    if (family == AF_INET)
        return mirror->by_address ? &mirror->ipv4 : NULL;
    return &mirror->ipv6;
}

static const uint8_t *address_bytes(const struct nlct_mirror *mirror, const struct entry *entry,
                                    unsigned role)
{
    const uint32_t *there = &entry->addresses[role];

    if (entry->label.family == AF_INET6)
        return ((const struct address *)table_at(&mirror->ipv6, *there))->bytes;
    if (mirror->by_address)
        return ((const struct address *)table_at(&mirror->ipv4, *there))->bytes;
    return (const uint8_t *)there;
}

static uint32_t hash_address(const struct nlct_mirror *mirror, const uint8_t *bytes, size_t size)
{
    uint64_t words[2] = {0, 0};

    memcpy(words, bytes, size);
    return (uint32_t)hash_words(&mirror->key, words, size > 4 ? 2 : 1, 0, 0);
}

static uint32_t find_address(const struct nlct_mirror *mirror, const struct table *table,
                             const uint8_t *bytes, size_t size)
{
    const uint32_t hash = hash_address(mirror, bytes, size);
    uint32_t place = table_first(table, hash);

    for (; place; place = table_next(table, place)) {
        const struct address *address = table_at(table, place);

        if (address->item.hash == hash && memcmp(address->bytes, bytes, size) == 0)
            break;
    }
    return place;
}

/* Counts an entry for an address. Returns its place, or 0 if there is no memory. */
static uint32_t hold_address(const struct nlct_mirror *mirror, struct table *table,
                             const uint8_t *bytes, size_t size, unsigned role)
{
    uint32_t place = find_address(mirror, table, bytes, size);
    struct address *address;

    if (!place) {
        place = table_add(table, hash_address(mirror, bytes, size));
        if (!place)
            return 0;
        address = table_at(table, place);
        memcpy(address->bytes, bytes, size);
    }
    address = table_at(table, place);
    address->heads[role].count++;
    return place;
}

static void release_address(struct table *table, uint32_t place, unsigned role)
{
    struct address *address = table_at(table, place);
    unsigned i;

    address->heads[role].count--;
    for (i = 0; i < ROLES; i++)
        if (address->heads[i].count)
            return;
    table_remove(table, place);
}

/* Fills the addresses of an entry, or none of them if there is no memory. */
static int hold_addresses(struct nlct_mirror *mirror, struct entry *entry, const struct name *name)
{
    const size_t size = address_size(name->label.family);
    struct table *table = addresses_of(mirror, name->label.family);
    unsigned role;

    for (role = 0; role < ROLES; role++) {
        uint32_t *there = &entry->addresses[role];

        if (!table)
            memcpy(there, name->addresses[role], size);
        else if (!(*there = hold_address(mirror, table, name->addresses[role], size, role)))
            break;
    }
    if (role == ROLES)
        return 0;
    while (role--)
        release_address(table, entry->addresses[role], role);
    return -ENOMEM;
}

static void release_addresses(struct nlct_mirror *mirror, const struct entry *entry)
{
    struct table *table = addresses_of(mirror, entry->label.family);
    unsigned role;

    for (role = 0; table && role < ROLES; role++)
        release_address(table, entry->addresses[role], role);
}

/* Lists --------------------------------------------------------------------------------------- */

/* An entry is in this many. */
static unsigned lists_of(const struct nlct_mirror *mirror)
{
    return mirror->by_address ? 1 + ROLES : 1;
}

/* The head of the list that an entry has its link number 'link' in. */
static struct head *head_at(struct nlct_mirror *mirror, const struct entry *entry, unsigned link)
{
    const unsigned role = link - 1;
    struct address *address;

    if (!link)
        return &mirror->zones[entry->label.zone];
    address = table_at(addresses_of(mirror, entry->label.family), entry->addresses[role]);
    return &address->heads[role];
}

/* At the head: a walk that has begun does not meet it. */
static void put_in_list(struct nlct_mirror *mirror, uint32_t place, unsigned link)
{
    struct entry *entry = entry_at(mirror, place);
    struct head *head = head_at(mirror, entry, link);

    entry->links[link] = (struct link){0, head->first};
    if (head->first)
        entry_at(mirror, head->first)->links[link].previous = place;
    head->first = place;
}

static void take_from_list(struct nlct_mirror *mirror, const struct entry *entry, unsigned link)
{
    const struct link there = entry->links[link];

    if (there.previous)
        entry_at(mirror, there.previous)->links[link].next = there.next;
    else
        head_at(mirror, entry, link)->first = there.next;
    if (there.next)
        entry_at(mirror, there.next)->links[link].previous = there.previous;
}

bool list_is(const struct nlct_mirror *mirror, const struct nlct_list *list)
{
    switch (list->kind) {
    case NLCT_LIST_ALL:
    case NLCT_LIST_ZONE:
        return true;
    case NLCT_LIST_SRC:
    case NLCT_LIST_DST:
    case NLCT_LIST_REPLY_SRC:
    case NLCT_LIST_REPLY_DST:
        return mirror->by_address && (list->family == AF_INET || list->family == AF_INET6);
    }
    return false;
}

const struct head *list_head(const struct nlct_mirror *mirror, const struct nlct_list *list)
{
    const struct table *table = list->family == AF_INET ? &mirror->ipv4 : &mirror->ipv6;
    const struct address *address;
    uint32_t place;

    if (list->kind == NLCT_LIST_ZONE)
        return &mirror->zones[list->zone];
    place = find_address(mirror, table, list->address, address_size(list->family));
    if (!place)
        return NULL;
    address = table_at(table, place);
    return &address->heads[list->kind - NLCT_LIST_SRC];
}

static void count_in_zone(struct nlct_mirror *mirror, uint16_t zone)
{
    mirror->zones[zone].count++;
    mirror->zones_in_use[zone / 64] |= bit(zone % 64);
}

static void count_out_of_zone(struct nlct_mirror *mirror, uint16_t zone)
{
    if (--mirror->zones[zone].count == 0)
        mirror->zones_in_use[zone / 64] &= ~bit(zone % 64);
}

/* Entries ------------------------------------------------------------------------------------- */

static bool is_named(const struct nlct_mirror *mirror, const struct entry *entry,
                     const struct name *name)
{
    const size_t size = address_size(name->label.family);

    return entry->item.hash == name->hash &&
           memcmp(&entry->label, &name->label, sizeof(name->label)) == 0 &&
           memcmp(address_bytes(mirror, entry, SRC), name->addresses[SRC], size) == 0 &&
           memcmp(address_bytes(mirror, entry, DST), name->addresses[DST], size) == 0;
}

uint32_t entry_find(const struct nlct_mirror *mirror, const struct name *name)
{
    uint32_t place = table_first(&mirror->entries, name->hash);

    while (place && !is_named(mirror, entry_at(mirror, place), name))
        place = table_next(&mirror->entries, place);
    return place;
}

bool entry_replies(const struct nlct_mirror *mirror, uint32_t place, const struct name *name)
{
    const struct entry *entry = entry_at(mirror, place);
    const size_t size = address_size(name->label.family);

    return entry->reply_ends == name->reply_ends && entry->reply_present == name->reply_present &&
           entry->reply_proto == name->reply_proto &&
           memcmp(address_bytes(mirror, entry, REPLY_SRC), name->addresses[REPLY_SRC], size) == 0 &&
           memcmp(address_bytes(mirror, entry, REPLY_DST), name->addresses[REPLY_DST], size) == 0;
}

int entry_insert(struct nlct_mirror *mirror, const struct name *name)
{
    const uint32_t place = table_add(&mirror->entries, name->hash);
    struct entry *entry;
    unsigned link;

    if (!place)
        return -ENOMEM;
    entry = entry_at(mirror, place);
    if (hold_addresses(mirror, entry, name) < 0) {
        table_remove(&mirror->entries, place);
        return -ENOMEM;
    }
    entry->label = name->label;
    entry->reply_ends = name->reply_ends;
    entry->reply_present = name->reply_present;
    entry->reply_proto = name->reply_proto;
    entry->round = mirror->round;
    for (link = 0; link < lists_of(mirror); link++)
        put_in_list(mirror, place, link);
    count_in_zone(mirror, entry->label.zone);
    mirror->counters.inserted++;
    return 0;
}

void entry_remove(struct nlct_mirror *mirror, uint32_t place)
{
    const struct entry *entry = entry_at(mirror, place);
    unsigned link;

    if (entry->watched)
        walks_leave(mirror, place);
    for (link = 0; link < lists_of(mirror); link++)
        take_from_list(mirror, entry, link);
    count_out_of_zone(mirror, entry->label.zone);
    release_addresses(mirror, entry);
    table_remove(&mirror->entries, place);
}

static void read_tuple(struct nlct_tuple *tuple, const struct label *label, uint64_t present,
                       uint32_t ends, uint8_t proto)
{
    tuple->present = present;
    tuple->family = label->family;
    tuple->proto = proto;
    if (has(present, NLCT_TUPLE_ZONE))
        tuple->zone = label->zone;
    if (present & ICMP) {
        tuple->icmp_id = (uint16_t)(ends >> 16);
        tuple->icmp_type = (uint8_t)(ends >> 8);
        tuple->icmp_code = (uint8_t)ends;
    } else {
        tuple->sport = (uint16_t)(ends >> 16);
        tuple->dport = (uint16_t)ends;
    }
}

void entry_read(const struct nlct_mirror *mirror, const struct entry *entry, struct nlct_flow *flow)
{
    const struct label *label = &entry->label;
    const size_t size = address_size(label->family);

    *flow = (struct nlct_flow){
        .present =
            bit(NLCT_FLOW_ORIG) | bit(NLCT_FLOW_REPLY) | bit(NLCT_FLOW_ZONE) | bit(NLCT_FLOW_ID),
        .id = label->id,
        .zone = label->zone,
        .family = label->family,
    };
    read_tuple(&flow->orig, label, label->present, label->ends, label->proto);
    read_tuple(&flow->reply, label, entry->reply_present, entry->reply_ends, entry->reply_proto);
    memcpy(flow->orig.src, address_bytes(mirror, entry, SRC), size);
    memcpy(flow->orig.dst, address_bytes(mirror, entry, DST), size);
    memcpy(flow->reply.src, address_bytes(mirror, entry, REPLY_SRC), size);
    memcpy(flow->reply.dst, address_bytes(mirror, entry, REPLY_DST), size);
}

/* The mirror ---------------------------------------------------------------------------------- */

int nlct_mirror_new(struct nlct_mirror **mirror, bool addresses)
{
    struct nlct_mirror *new = calloc(1, sizeof(*new));
    int rc = new ? hash_key_new(&new->key) : -ENOMEM;

    if (rc < 0) {
        free(new);
        return rc;
    }
    new->by_address = addresses;
    new->zones = calloc(ZONES, sizeof(*new->zones));
    new->entries.size = sizeof(struct entry) + lists_of(new) * sizeof(struct link);
    new->ipv4.size = sizeof(struct address) + address_size(AF_INET);
    new->ipv6.size = sizeof(struct address) + address_size(AF_INET6);
    new->tombstones.size = sizeof(struct tombstone);
    *mirror = new;
    if (!new->zones) {
        nlct_mirror_free(mirror);
        return -ENOMEM;
    }
    return 0;
}

void nlct_mirror_free(struct nlct_mirror **mirror)
{
    struct nlct_mirror *taken = __atomic_exchange_n(mirror, NULL, __ATOMIC_ACQ_REL);

    if (!taken)
        return;
    table_clear(&taken->entries);
    table_clear(&taken->ipv4);
    table_clear(&taken->ipv6);
    table_clear(&taken->tombstones);
    free(taken->zones);
    free(taken);
}

int nlct_mirror_has(const struct nlct_mirror *mirror, const struct nlct_flow *flow)
{
    struct name name;
    const int rc = name_flow(mirror, flow, &name);
    const uint32_t place = rc < 0 ? 0 : entry_find(mirror, &name);

    return rc < 0 ? rc : place && entry_replies(mirror, place, &name);
}

void nlct_mirror_counters(const struct nlct_mirror *mirror, struct nlct_mirror_counters *counters)
{
    *counters = mirror->counters;
}

size_t nlct_mirror_bytes(const struct nlct_mirror *mirror)
{
    return sizeof(*mirror) + ZONES * sizeof(*mirror->zones) + table_bytes(&mirror->entries) +
           table_bytes(&mirror->ipv4) + table_bytes(&mirror->ipv6) +
           table_bytes(&mirror->tombstones);
}

/* Counts -------------------------------------------------------------------------------------- */

int64_t nlct_mirror_count(const struct nlct_mirror *mirror, const struct nlct_list *list)
{
    const struct head *head;

    if (!list_is(mirror, list))
        return -EINVAL;
    if (list->kind == NLCT_LIST_ALL)
        return mirror->entries.count;
    head = list_head(mirror, list);
    return head ? head->count : 0;
}

static int count_zones(const struct nlct_mirror *mirror, uint32_t *at, struct nlct_count *counts,
                       size_t capacity)
{
    size_t filled = 0;

    while (*at < ZONES && filled < capacity) {
        const uint64_t in_use = mirror->zones_in_use[*at / 64] >> *at % 64;
        const uint16_t zone = (uint16_t)(*at + (in_use ? (uint32_t)__builtin_ctzll(in_use) : 0));

        *at = in_use ? zone + 1U : (*at / 64 + 1) * 64;
        if (!in_use)
            continue;
        counts[filled] = (struct nlct_count){.count = mirror->zones[zone].count, .present = {1}};
        memcpy(counts[filled++].values[0], &zone, sizeof(zone));
    }
    return (int)filled;
}

/* From the place '*at' on. */
static size_t count_addresses(const struct table *table, uint8_t family, unsigned role,
                              uint32_t *at, struct nlct_count *counts, size_t capacity)
{
    size_t filled = 0;

    for (; *at < table->places && filled < capacity; ++*at) {
        const struct address *address = table_at(table, *at + 1);

        if (!address->heads[role].count)
            continue;
        counts[filled] = (struct nlct_count){
            .count = address->heads[role].count, .present = {1, 0}, .family = family};
        memcpy(counts[filled++].values[0], address->bytes, address_size(family));
    }
    return filled;
}

int nlct_mirror_lists(const struct nlct_mirror *mirror, enum nlct_list_kind kind, uint32_t *at,
                      struct nlct_count *counts, size_t capacity)
{
    const struct nlct_list list = {.kind = kind, .family = AF_INET};
    const unsigned role = (unsigned)kind - NLCT_LIST_SRC;
    const uint32_t in_ipv6 = UINT32_C(1) << 31;
    size_t filled = 0;
    uint32_t place;

    if (kind == NLCT_LIST_ALL || !list_is(mirror, &list))
        return -EINVAL;
    if (capacity > INT32_MAX)
        capacity = INT32_MAX;
    if (kind == NLCT_LIST_ZONE)
        return count_zones(mirror, at, counts, capacity);
    if (!(*at & in_ipv6)) {
        filled = count_addresses(&mirror->ipv4, AF_INET, role, at, counts, capacity);
        if (filled == capacity)
            return (int)filled;
        *at = in_ipv6;
    }
    place = *at & ~in_ipv6;
    filled +=
        count_addresses(&mirror->ipv6, AF_INET6, role, &place, counts + filled, capacity - filled);
    *at = place | in_ipv6;
    return (int)filled;
}
