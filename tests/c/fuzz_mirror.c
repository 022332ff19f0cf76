/*
 * A fuzz target for mirrors (csrc/sinks/feed.c, mirror.c, walk.c, table.c;
 * csrc/ctnetlink/mirror.c).
 *
 * The input says whether addresses are indexed and what the kernel answers to deletes. Then come
 * steps of one byte each, some with a message after two bytes with its size: events and rows,
 * audits, rounds, walks and deletes. Whatever comes, the mirror holds what a plain list of flows
 * holds, and a delete that is sent names one of the flows of the walk.
 */
#include "fuzz.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <sys/socket.h>

enum { MAX_FLOWS = 200, ANSWERS = 16 };

enum step {
    GIVE_ROW,
    GIVE_NEW,
    GIVE_UPDATE,
    GIVE_DESTROY,
    AUDIT,
    REMOVE,
    BEGIN_FEED,
    BEGIN_AUDIT,
    END,
    DROP,
    WALK,
    WALK_ZONE,
    WALK_SRC,
    ROWS,
    DELETES,
    STEPS
};

/* An identity that was seen, and what a plain list knows of it. */
struct known {
    struct nlct_flow row;
    bool there;
    bool seen;
    bool tombstone;
};

static struct known known[MAX_FLOWS];
static size_t nknown;
static enum { NO_ROUND, FEEDING, AUDITING } phase;
static struct nlct_mirror *mirror;
static struct nlct_sink *feed;
static struct nlct_sink *audit;
static struct nlct_flow unknown;
static struct nlct_walk *walk;
static struct nlct_list walked;
static int answers[ANSWERS];
static unsigned asked;

/* The list ------------------------------------------------------------------------------------- */

static bool same_tuple(const struct nlct_tuple *a, const struct nlct_tuple *b)
{
    return a->present == b->present && memcmp(a->src, b->src, 16) == 0 &&
           memcmp(a->dst, b->dst, 16) == 0 && a->proto == b->proto && a->sport == b->sport &&
           a->dport == b->dport && a->icmp_id == b->icmp_id && a->icmp_type == b->icmp_type &&
           a->icmp_code == b->icmp_code && a->zone == b->zone;
}

static bool same_flow(const struct nlct_flow *a, const struct nlct_flow *b)
{
    return a->family == b->family && a->id == b->id && a->zone == b->zone &&
           same_tuple(&a->orig, &b->orig) &&
           has(a->reply.present, NLCT_TUPLE_ZONE) == has(b->reply.present, NLCT_TUPLE_ZONE);
}

/* The flow with this identity; a new one if there is room; else NULL. */
static struct known *know(const struct nlct_flow *row)
{
    size_t i;

    for (i = 0; i < nknown; i++)
        if (same_flow(row, &known[i].row))
            return &known[i];
    if (nknown == MAX_FLOWS)
        return NULL;
    known[nknown] = (struct known){.row = *row};
    return &known[nknown++];
}

static bool is_there(const struct known *one, const struct nlct_flow *row)
{
    return one->there && same_tuple(&one->row.reply, &row->reply);
}

/* A row is older than what was announced in this round, or what it follows the end of. */
static bool is_outdated(const struct known *one, const struct nlct_flow *row)
{
    return !is_there(one, row) &&
           (one->tombstone || (phase != NO_ROUND && one->there && one->seen));
}

static void insert(struct known *one, const struct nlct_flow *row)
{
    one->row = *row;
    one->there = one->seen = true;
}

static void end(struct known *one)
{
    one->there = false;
    one->tombstone = phase == FEEDING;
}

static void forget_round(void)
{
    size_t i;

    phase = NO_ROUND;
    for (i = 0; i < nknown; i++)
        known[i].tombstone = false;
}

static bool both(uint64_t present, unsigned first, unsigned second)
{
    return has(present, first) && has(present, second);
}

/* Has the flow a name? */
static bool is_named(const struct nlct_flow *flow)
{
    const struct nlct_tuple *tuples[] = {&flow->orig, &flow->reply};
    size_t i;

    if (!both(flow->present, NLCT_FLOW_ORIG, NLCT_FLOW_REPLY) || !has(flow->present, NLCT_FLOW_ID))
        return false;
    for (i = 0; i < 2; i++) {
        const uint64_t present = tuples[i]->present;
        const bool ports = has(present, NLCT_TUPLE_SPORT) || has(present, NLCT_TUPLE_DPORT);
        const bool icmp = has(present, NLCT_TUPLE_ICMP_ID) || has(present, NLCT_TUPLE_ICMP_TYPE) ||
                          has(present, NLCT_TUPLE_ICMP_CODE);

        if (!both(present, NLCT_TUPLE_SRC, NLCT_TUPLE_DST) || (ports && icmp) ||
            (has(present, NLCT_TUPLE_ZONE) && tuples[i]->zone != flow->zone))
            return false;
    }
    return true;
}

/* Fills '*flow' with what names it. Returns 0 or -EBADMSG. */
static int name_of(const struct view *view, struct nlct_flow *flow)
{
    static const char *const fields[] = {"src", "reply_src", "id", "zone"};
    struct view copy = *view;
    size_t i;

    for (i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (view_decode(&copy, flow_field(field_number(fields[i]))) < 0)
            return -EBADMSG;
    *flow = copy.flow;
    return is_named(flow) ? 0 : -EBADMSG;
}

/* Deletes -------------------------------------------------------------------------------------- */

static bool in_walk(const struct nlct_flow *row)
{
    if (walked.kind == NLCT_LIST_ZONE)
        return row->zone == walked.zone;
    return walked.kind == NLCT_LIST_ALL ||
           (row->family == walked.family && memcmp(row->orig.src, walked.address, 16) == 0);
}

/* Does the request name this flow, by one of its tuples? */
static bool names(const struct nlct_flow *request, const struct nlct_flow *row)
{
    const bool by_orig = has(request->present, NLCT_FLOW_ORIG);
    const struct nlct_tuple *asked_for = by_orig ? &request->orig : &request->reply;
    const struct nlct_tuple *there = by_orig ? &row->orig : &row->reply;
    /* In the direction that the zone does not apply to, the flow is in zone 0. */
    const bool elsewhere = has((by_orig ? &row->reply : &row->orig)->present, NLCT_TUPLE_ZONE) &&
                           !has(there->present, NLCT_TUPLE_ZONE);

    return request->family == row->family && request->id == row->id &&
           request->zone == (elsewhere ? 0 : row->zone) &&
           memcmp(asked_for->src, there->src, 16) == 0 &&
           memcmp(asked_for->dst, there->dst, 16) == 0 && asked_for->sport == there->sport;
}

static void check_request(const uint8_t *request, size_t size)
{
    struct nlct_bytes bytes = {0};
    struct nlct_flow flow;
    size_t i;

    ASSERT(two_bytes(request + 4) == (NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE));
    ASSERT(nlct_flow_parse(request, size, &flow, &bytes) == 0);
    ASSERT(has(flow.present, NLCT_FLOW_ID));
    for (i = 0; i < nknown; i++)
        if (known[i].there && in_walk(&known[i].row) && names(&flow, &known[i].row))
            break;
    ASSERT(i < nknown);
    nlct_bytes_free(&bytes);
}

static void kernel(const uint8_t *data, size_t size)
{
    static struct packet packet;
    struct nlmsghdr header;
    size_t at;

    packet.size = 0;
    for (at = 0; at < size; at += (header.nlmsg_len + 3) & ~3U) {
        const int error = answers[asked++ % ANSWERS];

        memcpy(&header, data + at, sizeof(header));
        ASSERT(header.nlmsg_len <= size - at);
        check_request(data + at, header.nlmsg_len);
        if (error || header.nlmsg_flags & NLM_F_ACK)
            packet_verdict(&packet, header.nlmsg_seq, error);
        if (packet.size > sizeof(packet.bytes) / 2 || at + header.nlmsg_len >= size) {
            fake_queue(packet.bytes, packet.size, 0, 0);
            packet.size = 0;
        }
    }
}

/* What is gone is what the mirror says is gone: no more than was acknowledged. */
static void delete_some(struct nlct_socket *sock)
{
    struct nlct_tally tally = {.done = 0};
    uint64_t gone = 0;
    size_t i;

    fake_reset();
    fake_answer(kernel);
    ASSERT(nlct_walk_delete(walk, sock, NULL, 0, &tally) >= 0);
    for (i = 0; i < nknown; i++) {
        if (!known[i].there || nlct_mirror_has(mirror, &known[i].row))
            continue;
        ASSERT(in_walk(&known[i].row));
        end(&known[i]);
        gone++;
    }
    ASSERT(gone == tally.done);
}

/* Steps ---------------------------------------------------------------------------------------- */

static bool read_view(struct input *input, struct view *view)
{
    struct wire message = input_part(input);
    struct nlmsghdr header;
    struct wire payload;

    return wire_message(&message, &header, &payload) == 1 && view_parse(view, payload) == 0;
}

static void give(struct view *view, enum step step)
{
    static const uint8_t events[] = {0, NLCT_EVENT_NEW, NLCT_EVENT_UPDATE, NLCT_EVENT_DESTROY};
    struct nlct_flow row;
    const int rc = name_of(view, &row);
    struct known *one;

    view->event = events[step];
    if (rc < 0 || step == GIVE_UPDATE) {
        ASSERT(feed->take(feed, view) == (step == GIVE_UPDATE ? 0 : rc));
        return;
    }
    one = know(&row);
    if (!one)
        return;
    ASSERT(feed->take(feed, view) == 0);
    if (step == GIVE_DESTROY) {
        end(one);
    } else if (step == GIVE_NEW || !is_outdated(one, &row)) {
        insert(one, &row);
        one->tombstone = false;
    }
}

static void give_to_audit(struct view *view)
{
    struct nlct_flow row;
    const int rc = name_of(view, &row);
    struct known *one = rc < 0 ? NULL : know(&row);

    if (rc < 0)
        ASSERT(audit->take(audit, view) == rc);
    if (!one)
        return;
    ASSERT(audit->take(audit, view) == 0);
    ASSERT(nlct_audit_take(audit) == !is_there(one, &row));
    if (is_there(one, &row)) {
        one->seen = true;
        return;
    }
    ASSERT(same_flow(&unknown, &row) && same_tuple(&unknown.reply, &row.reply));
    ASSERT(nlct_mirror_add(mirror, &unknown) == !is_outdated(one, &row));
    if (!is_outdated(one, &row))
        insert(one, &row);
}

static void begin_round(enum nlct_round round)
{
    size_t i;

    nlct_mirror_round_begin(mirror, round);
    forget_round();
    phase = round == NLCT_ROUND_FEED ? FEEDING : AUDITING;
    for (i = 0; i < nknown; i++)
        known[i].seen = false;
}

static void end_round(size_t limit)
{
    size_t i;
    int rc;

    if (phase == NO_ROUND)
        ASSERT(nlct_mirror_round_end(mirror, limit) == -EINVAL);
    else
        while ((rc = nlct_mirror_round_end(mirror, limit)) > 0)
            ;
    for (i = 0; i < nknown && phase != NO_ROUND; i++)
        known[i].there = known[i].there && known[i].seen;
    forget_round();
}

static void begin_walk(struct input *input, enum step step, bool addresses)
{
    const struct known *one = nknown ? &known[input_byte(input) % nknown] : NULL;

    nlct_walk_free(&walk);
    walked = (struct nlct_list){.kind = NLCT_LIST_ALL};
    if (one && step != WALK) {
        walked.kind = step == WALK_ZONE ? NLCT_LIST_ZONE : NLCT_LIST_SRC;
        walked.zone = one->row.zone;
        walked.family = one->row.family;
        memcpy(walked.address, one->row.orig.src, 16);
    }
    ASSERT(nlct_walk_new(&walk, mirror, &walked) ==
           (walked.kind == NLCT_LIST_SRC && !addresses ? -EINVAL : 0));
}

static void read_rows(size_t capacity)
{
    struct nlct_flow rows[8];
    size_t count;
    size_t i;

    ASSERT(nlct_walk_rows(walk, NULL, rows, 1 + capacity % 8, &count) >= 0);
    for (i = 0; i < count; i++) {
        const struct known *one = know(&rows[i]);

        ASSERT(one && one->there && in_walk(&rows[i]));
        ASSERT(same_tuple(&one->row.reply, &rows[i].reply));
    }
}

static void take_step(struct input *input, struct nlct_socket *sock, bool addresses)
{
    const enum step step = (enum step)(input_byte(input) % STEPS);
    struct known *one;
    struct view view;

    switch (step) {
    case GIVE_ROW:
    case GIVE_NEW:
    case GIVE_UPDATE:
    case GIVE_DESTROY:
        if (read_view(input, &view))
            give(&view, step);
        break;
    case AUDIT:
        if (read_view(input, &view))
            give_to_audit(&view);
        break;
    case REMOVE:
        one = nknown ? &known[input_byte(input) % nknown] : NULL;
        if (one) {
            ASSERT(nlct_mirror_remove(mirror, &one->row) == one->there);
            end(one);
        }
        break;
    case BEGIN_FEED:
    case BEGIN_AUDIT:
        begin_round(step == BEGIN_FEED ? NLCT_ROUND_FEED : NLCT_ROUND_AUDIT);
        break;
    case END:
        end_round(1U + input_byte(input));
        break;
    case DROP:
        nlct_mirror_round_drop(mirror);
        forget_round();
        break;
    case WALK:
    case WALK_ZONE:
    case WALK_SRC:
        begin_walk(input, step, addresses);
        break;
    case ROWS:
        if (walk)
            read_rows(input_byte(input));
        break;
    default:
        if (walk)
            delete_some(sock);
    }
}

/* Everything ----------------------------------------------------------------------------------- */

static void check_all(void)
{
    struct nlct_list list = {.kind = NLCT_LIST_ALL};
    struct nlct_count counts[3];
    int64_t there = 0;
    int64_t sum = 0;
    uint32_t at = 0;
    size_t i;
    int got;
    int n;

    for (i = 0; i < nknown; i++) {
        ASSERT(nlct_mirror_has(mirror, &known[i].row) == known[i].there);
        there += known[i].there;
    }
    ASSERT(nlct_mirror_count(mirror, &list) == there);
    while ((got = nlct_mirror_lists(mirror, NLCT_LIST_ZONE, &at, counts, 3)) > 0)
        for (n = 0; n < got; n++)
            sum += (int64_t)counts[n].count;
    ASSERT(got == 0 && sum == there);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int errnos[] = {0, 0, ENOENT, EBUSY};
    struct input input = {data, size};
    struct nlct_socket *sock = fake_open();
    const bool addresses = input_byte(&input) % 2;
    unsigned i;

    nknown = asked = 0;
    phase = NO_ROUND;
    for (i = 0; i < ANSWERS; i++)
        answers[i] = errnos[input_byte(&input) % 4];
    ASSERT(nlct_mirror_new(&mirror, addresses) == 0);
    ASSERT(nlct_feed_new(&feed, mirror) == 0);
    ASSERT(nlct_audit_new(&audit, mirror, &unknown, 1) == 0);
    while (input.left)
        take_step(&input, sock, addresses);
    check_all();
    nlct_walk_free(&walk);
    nlct_sink_free(&audit);
    nlct_sink_free(&feed);
    nlct_mirror_free(&mirror);
    fake_close(sock);
    return 0;
}
