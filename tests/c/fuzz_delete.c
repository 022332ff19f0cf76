/*
 * A fuzz target for deletes that many share (csrc/ctnetlink/delete.c).
 *
 * The input says who wants what, how much room there is for refusals, what the kernel answers to
 * each request in turn, and then flows, each after two bytes with its size. Whatever comes, each
 * request names one flow that a target wanted, as it was shown and in the order in which it came,
 * by its reply only where its original tuple was not found; and each target's account agrees with
 * one that is kept here.
 *
 * Or the input says that the flows are given by themselves. Then each request names one of them, in
 * the same order, and each flow gets the result of its latest request.
 */
#include "fuzz.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <sys/socket.h>

enum { MAX_TARGETS = 5, MAX_FLOWS = 300, ANSWERS = 16 };

/* What becomes of a request: an errno, or nothing more in this send, not even the ack. */
enum answer { DONE, GONE, BUSY, DENIED, LOST, KINDS };

static const int errnos[KINDS] = {[GONE] = ENOENT, [BUSY] = EBUSY, [DENIED] = EPERM};

/* A flow that somebody wants. */
struct flow {
    const uint8_t *message;
    size_t size;
    bool wanted[MAX_TARGETS];
    enum { NEW, ASKED, NOT_FOUND, OVER } state;
};

/* The other way to keep account. */
struct target {
    enum nlct_wants wants;
    uint16_t zone;
    struct program program;
    struct nlct_filter *filter;
    uint64_t matched;
    uint64_t deleted;
    uint64_t puzzled; /* flows of which it could not tell */
};

static struct target targets[MAX_TARGETS];
static size_t ntargets;
static struct flow flows[MAX_FLOWS];
static size_t nflows;
static enum answer answers[ANSWERS];
static uint32_t asked;
static const uint8_t *shown;
static size_t shown_size;

/* Flows ---------------------------------------------------------------------------------------- */

static int view_of(struct view *view, struct wire message)
{
    struct nlmsghdr header;
    struct wire payload;

    if (wire_message(&message, &header, &payload) != 1)
        return -EBADMSG;
    return view_parse(view, payload);
}

/* Does this target want the flow, by a look of its own at it? Returns 1, 0 or -EBADMSG. */
static int wants(const struct target *target, struct wire message)
{
    struct nlct_bytes bytes = {0};
    struct nlct_flow flow;
    struct view view;
    int rc;

    ASSERT(view_of(&view, message) == 0);
    if (target->wants == NLCT_WANTS_ALL)
        return 1;
    if (target->wants == NLCT_WANTS_ZONE)
        return view_zone(&view) == target->zone;
    rc = filter_match(target->filter, &view);
    /* What is translated shows in the flow, which a request becomes, and not in its reply. */
    if (nlct_flow_parse(message.at, message.left, &flow, &bytes) == 0) {
        const bool matches = program_matches(&target->program, &flow);

        ASSERT(nlct_filter_match(target->filter, &flow) == matches);
        ASSERT(rc == matches || view_attr(&view, CTA_NAT_SRC) || view_attr(&view, CTA_NAT_DST));
    }
    nlct_bytes_free(&bytes);
    return rc;
}

/* Keeps account of a flow that the sink is about to see. */
static void expect(struct wire message)
{
    struct flow *flow = &flows[nflows++];
    size_t i;
    int rc;

    *flow = (struct flow){.message = message.at, .size = message.left};
    for (i = 0; i < ntargets; i++) {
        rc = wants(&targets[i], message);
        flow->wanted[i] = rc > 0;
        targets[i].matched += rc > 0;
        targets[i].puzzled += rc < 0;
    }
}

/* The kernel ----------------------------------------------------------------------------------- */

static bool same_attr(const uint8_t *request, size_t size, const struct flow *flow, uint16_t type)
{
    const struct attr *there;
    const uint8_t *attr;
    struct view view;
    size_t length = 0;

    ASSERT(view_of(&view, (struct wire){flow->message, flow->size}) == 0);
    attr = find_attr(request, size, type, &length);
    there = view_attr(&view, type);
    if (!attr || !there)
        return !attr && !there;
    return there->whole == length && memcmp(there->start, attr, length) == 0;
}

/* Is this request what names the flow? */
static bool names(const uint8_t *request, size_t size, const struct flow *flow, uint16_t tuple)
{
    return request[16] == flow->message[16] && same_attr(request, size, flow, tuple) &&
           same_attr(request, size, flow, CTA_ZONE) && same_attr(request, size, flow, CTA_ID);
}

static bool is_wanted(const struct flow *flow)
{
    size_t i;

    for (i = 0; i < ntargets; i++)
        if (flow->wanted[i])
            return true;
    return false;
}

/* The flow that a request is about: the next one that waits for such a request. */
static struct flow *flow_of(const uint8_t *request, size_t size)
{
    size_t length;
    const bool first = find_attr(request, size, CTA_TUPLE_ORIG, &length);
    size_t i;

    for (i = 0; i < nflows; i++) {
        struct flow *flow = &flows[i];

        if (flow->state == (first ? NEW : NOT_FOUND) && is_wanted(flow) &&
            names(request, size, flow, first ? CTA_TUPLE_ORIG : CTA_TUPLE_REPLY)) {
            flow->state = first ? ASKED : OVER;
            return flow;
        }
    }
    return NULL;
}

static void queue_verdict(uint32_t sequence, int error)
{
    static struct packet packet;

    packet.size = 0;
    packet_verdict(&packet, sequence, error);
    fake_queue(packet.bytes, packet.size, 0, 0);
}

/* Was the last request of this send answered? Else none without an answer is known to be done. */
static bool is_answered(const uint8_t *data, size_t size)
{
    uint32_t number = asked;
    uint32_t length;
    size_t at;

    for (at = 0; at < size; at += (length + 3) & ~3U) {
        memcpy(&length, data + at, sizeof(length));
        if (answers[number++ % ANSWERS] == LOST)
            return false;
    }
    return true;
}

static void settle(const struct flow *flow)
{
    size_t i;

    for (i = 0; i < ntargets; i++)
        targets[i].deleted += flow->wanted[i];
}

static void kernel(const uint8_t *data, size_t size)
{
    const bool answered = is_answered(data, size);
    struct nlmsghdr header;
    bool silent = false;
    bool last = false;
    size_t at;

    for (at = 0; at < size; at += (header.nlmsg_len + 3) & ~3U) {
        enum answer answer = answers[asked++ % ANSWERS];
        struct flow *flow;

        ASSERT(!last && size - at >= 20);
        memcpy(&header, data + at, sizeof(header));
        ASSERT(header.nlmsg_len <= size - at);
        check_delete(data + at, header.nlmsg_len, shown, shown_size);
        flow = flow_of(data + at, header.nlmsg_len);
        ASSERT(flow);
        last = header.nlmsg_flags & NLM_F_ACK;
        silent |= answer == LOST;
        if (!silent && errnos[answer])
            queue_verdict(header.nlmsg_seq, errnos[answer]);
        else if (!silent && last)
            queue_verdict(header.nlmsg_seq, 0);
        if (!silent && answer == GONE && flow->state == ASKED)
            flow->state = NOT_FOUND;
        if (answered && !errnos[answer])
            settle(flow);
    }
    ASSERT(last);
}

/* The account ---------------------------------------------------------------------------------- */

static void check_outcomes(const struct nlct_sink *sink)
{
    uint64_t refused[MAX_TARGETS] = {0};
    const uint64_t *counts;
    size_t which;
    size_t i;
    int error;

    for (which = 0; (counts = nlct_deletes_refused(sink, which, &error)); which++) {
        ASSERT(error > 0 && error < 4096);
        for (i = 0; i < ntargets; i++)
            refused[i] += counts[i];
    }
    for (i = 0; i < ntargets; i++) {
        const struct nlct_outcome *outcome = &nlct_deletes_get(sink)[i];

        ASSERT(outcome->matched == targets[i].matched);
        ASSERT(outcome->deleted == targets[i].deleted);
        ASSERT(outcome->deleted + refused[i] == outcome->matched + targets[i].puzzled);
    }
}

/* Flows that are given ------------------------------------------------------------------------- */

static struct nlct_flow given[MAX_FLOWS];
static int results[MAX_FLOWS];  /* what the core says */
static int expected[MAX_FLOWS]; /* what it must say */
static size_t ngiven;
static size_t at_first; /* the first flow that was not asked for yet */

static bool is_nameable(const struct nlct_flow *flow, unsigned field,
                        const struct nlct_tuple *tuple)
{
    return has(flow->present, NLCT_FLOW_ID) && has(flow->present, field) &&
           has(tuple->present, NLCT_TUPLE_PROTO) &&
           tuple->present & (bit(NLCT_TUPLE_SRC) | bit(NLCT_TUPLE_DST));
}

/* A tuple as a request holds it: with what is ICMP's for ICMP alone. */
static struct nlct_tuple as_sent(struct nlct_tuple tuple)
{
    if (tuple.proto == IPPROTO_ICMP || tuple.proto == IPPROTO_ICMPV6)
        return tuple;
    tuple.present &=
        ~(bit(NLCT_TUPLE_ICMP_ID) | bit(NLCT_TUPLE_ICMP_TYPE) | bit(NLCT_TUPLE_ICMP_CODE));
    tuple.icmp_id = tuple.icmp_type = tuple.icmp_code = 0;
    return tuple;
}

/* Is this request for the flow, by its original tuple or by its reply? */
static bool names_given(const struct nlct_flow *request, const struct nlct_flow *flow)
{
    const bool by_orig = has(request->present, NLCT_FLOW_ORIG);
    const struct nlct_tuple sent = by_orig ? request->orig : request->reply;
    const struct nlct_tuple meant = as_sent(by_orig ? flow->orig : flow->reply);
    const bool own =
        has(flow->orig.present, NLCT_TUPLE_ZONE) ||
        (has(flow->present, NLCT_FLOW_REPLY) && has(flow->reply.present, NLCT_TUPLE_ZONE));

    if (!has(sent.present, NLCT_TUPLE_ZONE) && request->zone != (own ? 0 : flow->zone))
        return false;
    return request->id == flow->id && request->family == flow->family &&
           sent.present == meant.present && memcmp(&sent, &meant, sizeof(sent)) == 0;
}

/* The number of the flow that a request is for: the next one, or by its reply one that was not
   found. */
static size_t number_given(const struct nlct_flow *request)
{
    size_t i;

    if (has(request->present, NLCT_FLOW_ORIG)) {
        while (at_first < ngiven &&
               !is_nameable(&given[at_first], NLCT_FLOW_ORIG, &given[at_first].orig))
            at_first++;
        ASSERT(at_first < ngiven && names_given(request, &given[at_first]));
        flows[at_first].state = ASKED;
        return at_first++;
    }
    for (i = 0; i < at_first; i++) {
        if (flows[i].state != NOT_FOUND)
            continue;
        ASSERT(names_given(request, &given[i]));
        flows[i].state = OVER;
        return i;
    }
    ASSERT(false);
    return 0;
}

static void kernel_of_given(const uint8_t *data, size_t size)
{
    const bool answered = is_answered(data, size);
    struct nlct_bytes bytes = {0};
    struct nlmsghdr header;
    bool silent = false;
    size_t at;

    for (at = 0; at < size; at += (header.nlmsg_len + 3) & ~3U) {
        const enum answer answer = answers[asked++ % ANSWERS];
        struct nlct_flow request;
        size_t number;

        memcpy(&header, data + at, sizeof(header));
        check_delete(data + at, header.nlmsg_len, data + at, header.nlmsg_len);
        ASSERT(nlct_flow_parse(data + at, header.nlmsg_len, &request, &bytes) == 0);
        number = number_given(&request);
        silent |= answer == LOST;
        expected[number] = answered ? 0 : -ENOBUFS;
        if (!silent && errnos[answer])
            expected[number] = -errnos[answer];
        if (!silent && (errnos[answer] || header.nlmsg_flags & NLM_F_ACK))
            queue_verdict(header.nlmsg_seq, errnos[answer]);
        if (expected[number] == -ENOENT && flows[number].state == ASKED &&
            is_nameable(&given[number], NLCT_FLOW_REPLY, &given[number].reply))
            flows[number].state = NOT_FOUND;
    }
    ASSERT(!bytes.data);
}

static void run_given(struct nlct_socket *sock, struct input *input)
{
    struct nlct_bytes bytes = {0};
    size_t i;
    int rc;

    for (ngiven = at_first = 0; input->left && ngiven < MAX_FLOWS;) {
        const struct wire message = input_part(input);

        if (nlct_flow_parse(message.at, message.left, &given[ngiven], &bytes) < 0)
            continue;
        flows[ngiven].state = NEW;
        results[ngiven] = 1;
        expected[ngiven++] = -EINVAL;
    }
    nlct_bytes_free(&bytes);
    fake_answer(kernel_of_given);
    rc = nlct_delete_flows(sock, given, ngiven, results);
    ASSERT(rc == 0 || rc == -EPERM);
    for (i = 0; i < ngiven && rc == 0; i++)
        ASSERT(results[i] == expected[i] && flows[i].state != NOT_FOUND);
}

/* Everything ----------------------------------------------------------------------------------- */

enum { GIVEN = 1 << 7 };

static void read_targets(struct input *input)
{
    static const enum nlct_wants kinds[] = {NLCT_WANTS_FILTER, NLCT_WANTS_ZONE, NLCT_WANTS_ALL};
    size_t i;

    ntargets = input_byte(input) % (MAX_TARGETS + 1);
    for (i = 0; i < ntargets; i++) {
        struct target *target = &targets[i];

        *target = (struct target){.wants = kinds[input_byte(input) % 3]};
        if (target->wants == NLCT_WANTS_ZONE)
            input_read(input, &target->zone, sizeof(target->zone));
        else if (target->wants == NLCT_WANTS_FILTER)
            program_read(input, &target->program);
    }
}

/* Returns NULL where two targets want one zone, or a filter makes no sense. */
static struct nlct_sink *make_sink(struct nlct_socket *sock)
{
    struct nlct_target wanted[MAX_TARGETS] = {{.filter = NULL}};
    struct nlct_sink *sink = NULL;
    bool twice = false;
    size_t i;
    size_t j;

    for (i = 0; i < ntargets; i++) {
        if (targets[i].wants == NLCT_WANTS_FILTER &&
            !(targets[i].filter = program_compile(&targets[i].program)))
            return NULL;
        wanted[i] = (struct nlct_target){targets[i].wants, targets[i].zone, targets[i].filter};
        for (j = 0; j < i; j++)
            twice |= targets[i].wants == NLCT_WANTS_ZONE && targets[j].wants == NLCT_WANTS_ZONE &&
                     targets[i].zone == targets[j].zone;
    }
    ASSERT(nlct_deletes_new(&sink, sock, wanted, ntargets) == (twice ? -EINVAL : 0));
    return twice ? NULL : sink;
}

static bool has_zones(void)
{
    size_t i;

    for (i = 0; i < ntargets; i++)
        if (targets[i].wants == NLCT_WANTS_ZONE)
            return true;
    return false;
}

/* Gives a flow to the sink. Returns what that says, but for a flow that cannot be read at all. */
static int give(struct nlct_sink *sink, struct wire message)
{
    struct view view;

    if (view_of(&view, message) < 0)
        return 0;
    if (has_zones() && view_zone(&view) < 0) {
        ASSERT(sink->take(sink, &view) == -EBADMSG);
        return 0;
    }
    expect(message);
    return sink->take(sink, &view);
}

static void run(struct nlct_sink *sink, struct input *input)
{
    int rc = 0;

    while (rc == 0 && input->left && nflows < MAX_FLOWS)
        rc = give(sink, input_part(input));
    if (rc == 0)
        rc = sink->finish(sink);
    if (rc == 0)
        check_outcomes(sink);
    else
        ASSERT(rc == -EPERM);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    struct nlct_socket *sock = fake_open();
    const uint8_t wish = input_byte(&input);
    struct nlct_sink *sink = NULL;
    size_t i;

    shown = data;
    shown_size = size;
    nflows = asked = 0;
    sock->room = (1U + wish % 8) * 1024;
    for (i = 0; i < ANSWERS; i++)
        answers[i] = input_byte(&input) % KINDS;
    fake_reset();
    ntargets = 0;
    if (wish & GIVEN) {
        run_given(sock, &input);
    } else {
        read_targets(&input);
        fake_answer(kernel);
        sink = make_sink(sock);
        if (sink)
            run(sink, &input);
    }
    nlct_sink_free(&sink);
    for (i = 0; i < ntargets; i++)
        nlct_filter_free(&targets[i].filter);
    fake_close(sock);
    return 0;
}
