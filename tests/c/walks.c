/* Walks over mirrors: any stream of events against a plain model, and deletes. */
#include "cases.h"
#include "check.h"
#include "specs.h"

#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>

/* Random streams ------------------------------------------------------------------------------ */

static const uint16_t zones[] = {0, 5, 65535};

enum { IDS = 2, IDENTITIES = TUPLES * 3 * 3 * IDS, WALKS = 4 };

static uint64_t random_state;

static unsigned draw(unsigned below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (unsigned)(random_state >> 33) % below;
}

/* What a plain model knows of one identity. */
struct known {
    struct spec spec;
    struct nlct_flow row;
    bool there;
    bool seen;      /* during this round */
    bool tombstone; /* of this round */
    unsigned life;  /* counts how often it was inserted */
};

static struct known model[IDENTITIES];
static bool feeding;

/* A walk, and the lives that it must and may meet. */
struct walking {
    struct nlct_walk *walk;
    struct nlct_list list;
    unsigned life[IDENTITIES]; /* 0: none */
};

static bool is_in(const struct nlct_list *list, const struct nlct_flow *flow)
{
    const uint8_t *addresses[] = {flow->orig.src, flow->orig.dst, flow->reply.src, flow->reply.dst};

    if (list->kind == NLCT_LIST_ALL)
        return true;
    if (list->kind == NLCT_LIST_ZONE)
        return flow->zone == list->zone;
    return flow->family == list->family &&
           memcmp(addresses[list->kind - NLCT_LIST_SRC], list->address, 16) == 0;
}

static struct nlct_list any_list(bool addresses)
{
    struct nlct_list list = {.kind = NLCT_LIST_ZONE, .zone = zones[draw(3)]};
    const char *text = mirror_tuples[draw(TUPLES)].src;

    if (draw(5) == 0)
        list.kind = NLCT_LIST_ALL;
    else if (addresses && draw(3)) {
        list.kind = (enum nlct_list_kind)(NLCT_LIST_SRC + draw(4));
        list.family = strchr(text, ':') ? AF_INET6 : AF_INET;
        CHECK_IS(inet_pton(list.family, text, list.address), 1);
    }
    return list;
}

static void begin_walk(struct walking *walking, struct fed *fed, bool addresses)
{
    unsigned i;

    walking->list = any_list(addresses);
    CHECK_IS(nlct_walk_new(&walking->walk, fed->mirror, &walking->list), 0);
    for (i = 0; i < IDENTITIES; i++) {
        const bool in = model[i].there && is_in(&walking->list, &model[i].row);

        walking->life[i] = in ? model[i].life : 0;
    }
}

static unsigned identity_of(const struct nlct_flow *row)
{
    unsigned i;

    for (i = 0; i < IDENTITIES; i++)
        if (is_same(row, &model[i].row))
            return i;
    CHECK(!"a row of the model");
    return 0;
}

/* Returns whether the walk goes on. */
static bool go_on(struct walking *walking, size_t capacity)
{
    struct nlct_flow rows[IDENTITIES];
    size_t count;
    size_t i;
    const int rc = nlct_walk_rows(walking->walk, NULL, rows, capacity, &count);

    CHECK(count <= capacity);
    for (i = 0; i < count; i++) {
        const unsigned number = identity_of(&rows[i]);

        CHECK(model[number].there);
        CHECK(walking->life[number] == model[number].life || walking->list.kind == NLCT_LIST_ALL);
        walking->life[number] = 0;
    }
    if (rc == 1)
        return true;
    CHECK_IS(rc, 0);
    for (i = 0; i < IDENTITIES; i++)
        CHECK(!model[i].there || walking->life[i] != model[i].life);
    nlct_walk_free(&walking->walk);
    return false;
}

static void insert(struct known *known)
{
    if (!known->there)
        known->life++;
    known->there = known->seen = true;
}

static void end_life(struct known *known)
{
    known->there = false;
    known->tombstone = feeding;
}

/* One event or row, to the mirror and to the model. */
static void happen(struct fed *fed, struct known *known)
{
    const bool was = known->there;

    switch (draw(6)) {
    case 0:
        CHECK_IS(give(fed->feed, &known->spec, NEW), 0);
        known->tombstone = false;
        insert(known);
        break;
    case 1:
        CHECK_IS(give(fed->feed, &known->spec, DESTROY), 0);
        end_life(known);
        break;
    case 2:
        CHECK_IS(give(fed->feed, &known->spec, ROW), 0);
        if (!known->tombstone)
            insert(known);
        break;
    case 3:
        CHECK_IS(nlct_mirror_add(fed->mirror, &known->row), !was && !known->tombstone);
        if (!known->tombstone)
            insert(known);
        break;
    case 4:
        CHECK_IS(nlct_mirror_remove(fed->mirror, &known->row), was);
        end_life(known);
        break;
    default:
        CHECK_IS(give(fed->feed, &known->spec, UPDATE), 0);
    }
}

static void begin_round(struct fed *fed)
{
    unsigned i;

    feeding = draw(2);
    nlct_mirror_round_begin(fed->mirror, feeding ? NLCT_ROUND_FEED : NLCT_ROUND_AUDIT);
    for (i = 0; i < IDENTITIES; i++)
        model[i].seen = model[i].tombstone = false;
}

/* Ends what there is, at once: in steps the model would have to know the order. */
static void finish_round(struct fed *fed)
{
    unsigned i;

    if (nlct_mirror_round_end(fed->mirror, SIZE_MAX) < 0)
        return;
    feeding = false;
    for (i = 0; i < IDENTITIES; i++) {
        model[i].tombstone = false;
        if (!model[i].seen)
            model[i].there = false;
    }
}

static void audit_one(struct fed *fed, struct known *known)
{
    struct nlct_sink *audit;
    struct nlct_flow row;

    CHECK_IS(nlct_audit_new(&audit, fed->mirror, &row, 1), 0);
    CHECK_IS(give(audit, &known->spec, ROW), 0);
    CHECK_IS(nlct_audit_take(audit), !known->there);
    if (known->there)
        known->seen = true;
    else
        CHECK(is_same(&row, &known->row));
    nlct_sink_free(&audit);
}

static void check_list(const struct fed *fed, const struct nlct_list *list)
{
    int64_t count = 0;
    unsigned i;

    for (i = 0; i < IDENTITIES; i++)
        count += model[i].there && is_in(list, &model[i].row);
    CHECK_IS(nlct_mirror_count(fed->mirror, list), count);
}

/* The lists of one kind, with their counts, are those of the model. */
static void check_lists(const struct fed *fed, enum nlct_list_kind kind)
{
    const size_t capacity = 1 + draw(4);
    struct nlct_count counts[5];
    int64_t sum = 0;
    uint32_t at = 0;
    int got;
    int i;

    while ((got = nlct_mirror_lists(fed->mirror, kind, &at, counts, capacity)) > 0) {
        for (i = 0; i < got; i++) {
            struct nlct_list list = {.kind = kind, .family = counts[i].family};

            memcpy(&list.zone, counts[i].values[0], sizeof(list.zone));
            memcpy(list.address, counts[i].values[0], sizeof(list.address));
            CHECK(counts[i].count > 0);
            CHECK_IS(counts[i].count, nlct_mirror_count(fed->mirror, &list));
            check_list(fed, &list);
            sum += (int64_t)counts[i].count;
        }
    }
    CHECK_IS(got, 0);
    CHECK_IS(sum, count_all(fed));
}

static void check_all(struct fed *fed, bool addresses)
{
    struct walking walking = {.walk = NULL};
    struct nlct_list list;
    unsigned i;

    check_list(fed, &(struct nlct_list){.kind = NLCT_LIST_ALL});
    check_lists(fed, NLCT_LIST_ZONE);
    for (i = 0; i < 4; i++)
        if (addresses)
            check_lists(fed, (enum nlct_list_kind)(NLCT_LIST_SRC + i));
    list = any_list(addresses);
    check_list(fed, &list);
    for (i = 0; i < IDENTITIES; i++)
        CHECK_IS(nlct_mirror_has(fed->mirror, &model[i].row), model[i].there);
    begin_walk(&walking, fed, addresses);
    while (go_on(&walking, 1 + draw(50)))
        ;
}

static void run_at_random(bool addresses, unsigned steps)
{
    struct walking walkings[WALKS] = {{.walk = NULL}};
    struct fed fed = make_fed(addresses);
    unsigned i;

    feeding = false;
    for (i = 0; i < IDENTITIES; i++) {
        model[i] = (struct known){.spec = {.id = 1 + i % IDS,
                                           .zone = zones[i / IDS % 3],
                                           .direction = (enum direction)(i / IDS / 3 % 3),
                                           .tuple = i / IDS / 9}};
        expect_row(&model[i].row, &model[i].spec);
    }
    for (i = 0; i < steps; i++) {
        struct known *known = &model[draw(IDENTITIES)];
        struct walking *walking = &walkings[draw(WALKS)];

        happen(&fed, known);
        if (draw(4) == 0)
            audit_one(&fed, known);
        if (draw(3) == 0 && walking->walk)
            go_on(walking, draw(4));
        else if (draw(20) == 0 && walking->walk)
            nlct_walk_free(&walking->walk);
        else if (!walking->walk)
            begin_walk(walking, &fed, addresses);
        if (draw(200) == 0)
            begin_round(&fed);
        if (draw(400) == 0)
            finish_round(&fed);
        if (draw(100) == 0)
            check_all(&fed, addresses);
    }
    for (i = 0; i < WALKS; i++)
        nlct_walk_free(&walkings[i].walk);
    check_all(&fed, addresses);
    free_fed(&fed);
}

static void any_stream_agrees_with_a_plain_model(void)
{
    unsigned seed;

    for (seed = 1; seed <= 20; seed++) {
        random_state = seed * UINT64_C(0x9e3779b97f4a7c15);
        run_at_random(seed % 2, 3000);
    }
}

/* Deletes ------------------------------------------------------------------------------------- */

/* Which flows, by id, the kernel refuses, and how; of what it is sent it notes the ids. */
static int refusals[MANY * 2];
static unsigned asked[MANY * 2];

static void kernel(const uint8_t *data, size_t size)
{
    static struct packet answers;
    struct nlmsghdr header;
    size_t at;

    answers.size = 0;
    for (at = 0; at < size; at += (header.nlmsg_len + 3) & ~3U) {
        struct view view;
        uint32_t id;

        memcpy(&header, data + at, sizeof(header));
        CHECK_IS(header.nlmsg_type, NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE);
        CHECK_IS(view_parse(&view, (struct wire){data + at + sizeof(header),
                                                 header.nlmsg_len - sizeof(header)}),
                 0);
        CHECK(view_attr(&view, CTA_ID));
        id = wire_be32(view_attr(&view, CTA_ID)->data) - 1000;
        CHECK(id < MANY * 2);
        asked[id]++;
        if (refusals[id] || header.nlmsg_flags & NLM_F_ACK)
            packet_verdict(&answers, header.nlmsg_seq, -refusals[id]);
    }
    fake_queue(answers.bytes, answers.size, 0, 0);
}

static struct nlct_socket *open_kernel(void)
{
    fake_reset();
    fake_answer(kernel);
    memset(refusals, 0, sizeof(refusals));
    memset(asked, 0, sizeof(asked));
    return fake_open();
}

static int delete_list(struct nlct_mirror *mirror, struct nlct_socket *sock,
                       const struct nlct_list *list, const struct nlct_filter *filter,
                       struct nlct_tally *tally)
{
    struct nlct_walk *walk = NULL;
    int rc;

    *tally = (struct nlct_tally){.done = 0};
    CHECK_IS(nlct_walk_new(&walk, mirror, list), 0);
    while ((rc = nlct_walk_delete(walk, sock, filter, 0, tally)) == 1)
        ;
    nlct_walk_free(&walk);
    return rc;
}

static void deletes_are_of_the_walk_and_leave_the_mirror(void)
{
    const struct nlct_list zone = {.kind = NLCT_LIST_ZONE, .zone = 3};
    const struct nlct_list empty = {.kind = NLCT_LIST_ZONE, .zone = 77};
    struct fed fed = make_fed(false);
    struct nlct_socket *sock = open_kernel();
    struct nlct_tally tally;
    struct spec spec;
    unsigned i;

    for (i = 0; i < MANY; i++)
        CHECK_IS(give(fed.feed, (spec = numbered(i), &spec), NEW), 0);
    refusals[3] = -EBUSY;
    refusals[10] = -ENOENT;
    CHECK_IS(delete_list(fed.mirror, sock, &empty, NULL, &tally), 0);
    CHECK_IS(fake_sent.sends, 0);
    CHECK_IS(delete_list(fed.mirror, sock, &zone, NULL, &tally), 0);
    CHECK_IS(tally.done, 12);
    CHECK_IS(tally.refused[EBUSY], 1);
    CHECK_IS(tally.refused[ENOENT], 1);
    for (i = 0; i < MANY; i++) {
        const bool kept = i % 7 != 3 || i == 3 || i == 10;

        CHECK_IS(is_there(&fed, (spec = numbered(i), &spec)), kept);
        /* What its original tuple does not find is tried by its reply. */
        CHECK_IS(asked[i], i % 7 != 3 ? 0 : i == 10 ? 2 : 1);
    }
    CHECK_IS(count_zone(&fed, 3), 2);
    CHECK_IS(counters_of(&fed).deleted, 12);
    fake_close(sock);
    free_fed(&fed);
}

static void deletes_go_on_where_they_were(void)
{
    const struct nlct_list zone = {.kind = NLCT_LIST_ZONE, .zone = 5};
    struct fed fed = make_fed(true);
    struct nlct_socket *sock = open_kernel();
    struct nlct_tally tally = {.done = 0};
    struct nlct_walk *walk = NULL;
    struct spec spec = {.zone = 5};
    unsigned i;

    for (i = 0; i < MANY; i++) {
        spec.id = 1000 + i;
        CHECK_IS(give(fed.feed, &spec, NEW), 0);
    }
    CHECK_IS(nlct_walk_new(&walk, fed.mirror, &zone), 0);
    CHECK_IS(nlct_walk_delete(walk, sock, NULL, 0, &tally), 1);
    CHECK(tally.done > 0 && tally.done < MANY);
    /* The next one goes, and others come. */
    spec.id = 1000 + MANY - 1 - (unsigned)tally.done;
    CHECK_IS(give(fed.feed, &spec, DESTROY), 0);
    for (i = MANY; i < MANY + 10; i++) {
        spec.id = 1000 + i;
        CHECK_IS(give(fed.feed, &spec, NEW), 0);
    }
    CHECK_IS(nlct_walk_delete(walk, sock, NULL, 1000, &tally), 0);
    CHECK_IS(nlct_walk_delete(walk, sock, NULL, 1000, &tally), 0);
    CHECK_IS(tally.done, MANY - 1);
    CHECK_IS(count_all(&fed), 10);
    for (i = MANY; i < MANY + 10; i++)
        CHECK_IS(asked[i], 0);
    nlct_walk_free(&walk);
    fake_close(sock);
    free_fed(&fed);
}

static struct nlct_filter *filter_by(const char *field, uint64_t value)
{
    const struct nlct_range range = {value, value};
    const struct nlct_test test = {.field = field_number(field),
                                   .kind = NLCT_TEST_RANGES,
                                   .yes = NLCT_MATCH,
                                   .no = NLCT_DROP,
                                   .count = 1,
                                   .values = &range};
    struct nlct_filter *filter = NULL;

    CHECK_IS(nlct_filter_new(&filter, &test, 1), 0);
    return filter;
}

static void a_filter_is_of_what_is_kept(void)
{
    static const char *const kept[] = {"zone",        "orig_zone", "reply_zone", "proto",
                                       "reply_sport", "icmp_type", "id",         "family"};
    static const char *const changing[] = {"mark", "status", "timeout", "tcp_state",
                                           "packets_orig"};
    const struct nlct_list all = {.kind = NLCT_LIST_ALL};
    struct nlct_socket *sock = open_kernel();
    struct fed fed = make_fed(false);
    struct nlct_walk *walk = NULL;
    struct nlct_tally tally;
    struct nlct_flow row;
    struct spec spec;
    size_t count;
    unsigned i;

    for (i = 0; i < MANY; i++)
        CHECK_IS(give(fed.feed, (spec = numbered(i), &spec), NEW), 0);
    CHECK_IS(nlct_walk_new(&walk, fed.mirror, &all), 0);
    for (i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
        struct nlct_filter *filter = filter_by(kept[i], 999);

        CHECK_IS(nlct_walk_rows(walk, filter, &row, 1, &count), 1);
        CHECK_IS(count, 0);
        nlct_filter_free(&filter);
    }
    for (i = 0; i < sizeof(changing) / sizeof(changing[0]); i++) {
        struct nlct_filter *filter = filter_by(changing[i], 0);

        CHECK_IS(nlct_walk_rows(walk, filter, &row, 1, &count), -EINVAL);
        CHECK_IS(nlct_walk_delete(walk, sock, filter, 1, &tally), -EINVAL);
        nlct_filter_free(&filter);
    }
    nlct_walk_free(&walk);
    CHECK_IS(fake_sent.sends, 0);
    {
        struct nlct_filter *filter = filter_by("id", 1042);

        CHECK_IS(delete_list(fed.mirror, sock, &all, filter, &tally), 0);
        nlct_filter_free(&filter);
    }
    CHECK_IS(tally.done, 1);
    for (i = 0; i < MANY; i++)
        CHECK_IS(asked[i], i == 42);
    CHECK_IS(count_all(&fed), MANY - 1);
    fake_close(sock);
    free_fed(&fed);
}

static void failures_of_the_socket_end_deletes(void)
{
    const struct nlct_list all = {.kind = NLCT_LIST_ALL};
    struct nlct_socket *sock = open_kernel();
    struct fed fed = make_fed(true);
    struct nlct_tally tally;
    struct spec spec;
    unsigned i;

    for (i = 0; i < MANY; i++)
        CHECK_IS(give(fed.feed, (spec = numbered(i), &spec), NEW), 0);
    fake_fail_send(EPERM);
    CHECK_IS(delete_list(fed.mirror, sock, &all, NULL, &tally), -EPERM);
    CHECK_IS(tally.done, 0);
    CHECK_IS(count_all(&fed), MANY);
    refusals[0] = -EPERM;
    CHECK_IS(delete_list(fed.mirror, sock, &all, NULL, &tally), -EPERM);
    fake_close(sock);
    free_fed(&fed);
}

/* It reads the table anew: a delete during a round must not be undone by a late row. */
static void deletes_during_a_round_leave_tombstones(void)
{
    const struct nlct_list zone = {.kind = NLCT_LIST_ZONE, .zone = 3};
    const struct nlct_list one = {.kind = NLCT_LIST_ZONE, .zone = 4};
    struct nlct_socket *sock = open_kernel();
    struct fed fed = make_fed(true);
    struct nlct_walk *walk = NULL;
    struct nlct_tally tally;
    struct spec spec;
    unsigned i;

    nlct_mirror_round_begin(fed.mirror, NLCT_ROUND_FEED);
    for (i = 0; i < MANY; i++)
        CHECK_IS(give(fed.feed, (spec = numbered(i), &spec), ROW), 0);
    CHECK_IS(delete_list(fed.mirror, sock, &zone, NULL, &tally), 0);
    for (i = 0; i < MANY; i++)
        CHECK_IS(give(fed.feed, (spec = numbered(i), &spec), ROW), 0);
    CHECK_IS(count_zone(&fed, 3), 0);
    CHECK_IS(counters_of(&fed).outdated, tally.done);
    CHECK_IS(nlct_mirror_round_end(fed.mirror, SIZE_MAX), 0);
    CHECK_IS(count_all(&fed), MANY - (int64_t)tally.done);
    /* The mirror says when it cannot leave one. */
    nlct_mirror_round_begin(fed.mirror, NLCT_ROUND_FEED);
    CHECK_IS(nlct_walk_new(&walk, fed.mirror, &one), 0);
    fake_fail_memory(0);
    CHECK_IS(nlct_walk_delete(walk, sock, NULL, 1000, &tally), -ENOMEM);
    fake_fail_memory(-1);
    CHECK_IS(count_zone(&fed, 4), 0);
    nlct_walk_free(&walk);
    fake_close(sock);
    free_fed(&fed);
}

const struct test_case walk_cases[] = {
    CASE(any_stream_agrees_with_a_plain_model),
    CASE(deletes_are_of_the_walk_and_leave_the_mirror),
    CASE(deletes_go_on_where_they_were),
    CASE(a_filter_is_of_what_is_kept),
    CASE(failures_of_the_socket_end_deletes),
    CASE(deletes_during_a_round_leave_tombstones),
    END_OF_CASES,
};
