#include "fuzz.h"

#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <sys/socket.h>

/* The input ------------------------------------------------------------------------------------ */

void input_read(struct input *input, void *to, size_t size)
{
    const size_t there = size < input->left ? size : input->left;

    memset(to, 0, size);
    memcpy(to, input->at, there);
    input->at += there;
    input->left -= there;
}

uint8_t input_byte(struct input *input)
{
    uint8_t byte;

    input_read(input, &byte, 1);
    return byte;
}

struct wire input_part(struct input *input)
{
    struct wire part;
    uint16_t size;

    input_read(input, &size, sizeof(size));
    part = (struct wire){input->at, size < input->left ? size : input->left};
    input->at += part.left;
    input->left -= part.left;
    return part;
}

/* Filters -------------------------------------------------------------------------------------- */

static void read_test(struct input *input, struct nlct_test *test, union test_values *values)
{
    const size_t sizes[] = {sizeof(values->ranges[0]), sizeof(values->masks[0]),
                            sizeof(values->prefixes[0])};
    uint8_t head[5];

    input_read(input, head, sizeof(head));
    test->field = head[0];
    test->kind = head[1] % 3;
    test->yes = (int8_t)head[2];
    test->no = (int8_t)head[3];
    test->count = head[4] % (MAX_VALUES + 1);
    test->values = values;
    input_read(input, values, test->count * sizes[test->kind]);
}

void program_read(struct input *input, struct program *program)
{
    size_t i;

    program->count = input_byte(input) % (MAX_TESTS + 1);
    for (i = 0; i < program->count; i++)
        read_test(input, &program->tests[i], &program->values[i]);
}

struct nlct_filter *program_compile(const struct program *program)
{
    struct nlct_filter *filter = NULL;
    const int rc = nlct_filter_new(&filter, program->tests, program->count);

    ASSERT(rc == 0 || rc == -EINVAL);
    return filter;
}

static bool is_in_range(const struct nlct_range *range, uint64_t number)
{
    return range->low <= number && number <= range->high;
}

static bool agrees(const struct nlct_mask *mask, const uint64_t words[2])
{
    return (words[0] & mask->mask[0]) == mask->value[0] &&
           (words[1] & mask->mask[1]) == mask->value[1];
}

static bool is_in_network(const struct nlct_prefix *prefix, const uint8_t *bytes, uint8_t family)
{
    unsigned i;

    for (i = 0; i < prefix->length; i++)
        if ((prefix->bytes[i / 8] ^ bytes[i / 8]) >> (7 - i % 8) & 1)
            return false;
    return prefix->family == family;
}

static bool has_one_of(const struct nlct_test *test, const struct nlct_flow *flow)
{
    const struct field *field = flow_field(test->field);
    const bool text = field->public.kind == NLCT_TEXT;
    const union test_values *values = test->values;
    uint64_t words[2] = {0, 0};
    size_t i;

    if (field->attr && !flow_has(flow, field))
        return false;
    if (field->public.kind == NLCT_NUMBER)
        words[0] = flow_number(flow, field);
    else
        memcpy(words, flow_value(flow, field), sizeof(words));
    for (i = 0; i < test->count; i++) {
        if (test->kind == NLCT_TEST_RANGES && is_in_range(&values->ranges[i], words[0]))
            return true;
        if (test->kind == NLCT_TEST_MASKS && agrees(&values->masks[i], words))
            return true;
        if (test->kind == NLCT_TEST_PREFIXES &&
            is_in_network(&values->prefixes[i], (const uint8_t *)words, text ? 0 : flow->family))
            return true;
    }
    return false;
}

bool program_matches(const struct program *program, const struct nlct_flow *flow)
{
    int at = program->count ? 0 : NLCT_MATCH;

    while (at >= 0) {
        const struct nlct_test *test = &program->tests[at];

        at = has_one_of(test, flow) ? test->yes : test->no;
    }
    return at == NLCT_MATCH;
}

/* What was sent -------------------------------------------------------------------------------- */

uint16_t two_bytes(const uint8_t *at)
{
    uint16_t value;

    memcpy(&value, at, sizeof(value));
    return value;
}

bool nest_has(const uint8_t *nest, size_t size, uint16_t type)
{
    bool found = false;
    size_t at = 4;

    while (at + 4 <= size) {
        size_t length = two_bytes(nest + at);

        ASSERT(length >= 4 && length <= size - at);
        if ((two_bytes(nest + at + 2) & 0x3fff) == type && length > 4)
            found = true;
        at += (length + 3) & ~(size_t)3;
    }
    ASSERT(at >= size);
    return found;
}

const uint8_t *find_attr(const uint8_t *request, size_t request_size, uint16_t type, size_t *size)
{
    size_t at = 20;

    while (at + 4 <= request_size) {
        *size = two_bytes(request + at);
        ASSERT(*size >= 4 && *size <= request_size - at);
        if ((two_bytes(request + at + 2) & 0x3fff) == type)
            return request + at;
        at += (*size + 3) & ~(size_t)3;
    }
    return NULL;
}

void check_delete(const uint8_t *request, size_t size, const uint8_t *shown, size_t shown_size)
{
    unsigned seen[CTA_ID + CTA_ZONE] = {0};
    size_t at = 20;

    ASSERT(size >= 20 && size <= REQUEST_MAX);
    ASSERT(two_bytes(request + 4) == (NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE));
    ASSERT((two_bytes(request + 6) & ~NLM_F_ACK) == NLM_F_REQUEST);
    ASSERT(request[16] == AF_INET || request[16] == AF_INET6);
    while (at < size) {
        uint16_t length = two_bytes(request + at);
        uint16_t type = two_bytes(request + at + 2) & 0x3fff;
        const bool tuple = type == CTA_TUPLE_ORIG || type == CTA_TUPLE_REPLY;

        ASSERT(length >= 4 && length <= size - at);
        ASSERT(tuple || type == CTA_ID || type == CTA_ZONE);
        ASSERT(!seen[type]++);
        ASSERT(type != CTA_ID || length == 8);
        ASSERT(type != CTA_ZONE || length == 6);
        ASSERT(memmem(shown, shown_size, request + at, length));
        if (tuple) {
            ASSERT(nest_has(request + at, length, CTA_TUPLE_IP));
            ASSERT(nest_has(request + at, length, CTA_TUPLE_PROTO));
        }
        at += ((size_t)length + 3) & ~(size_t)3;
    }
    ASSERT(seen[CTA_TUPLE_ORIG] + seen[CTA_TUPLE_REPLY] == 1 && seen[CTA_ID]);
}

/* What was built ------------------------------------------------------------------------------- */

/* ICMP fields are written for the ICMP protocols alone. */
static bool is_writable(const struct nlct_tuple *tuple)
{
    const uint64_t icmp =
        bit(NLCT_TUPLE_ICMP_ID) | bit(NLCT_TUPLE_ICMP_TYPE) | bit(NLCT_TUPLE_ICMP_CODE);

    return !(tuple->present & icmp) ||
           (has(tuple->present, NLCT_TUPLE_PROTO) &&
            (tuple->proto == IPPROTO_ICMP || tuple->proto == IPPROTO_ICMPV6));
}

void check_spans(const struct nlct_flow *flow, size_t bytes_size)
{
    const struct nlct_span spans[] = {flow->helper_info, flow->secctx, flow->unknown};
    size_t i;

    for (i = 0; i < sizeof(spans) / sizeof(spans[0]); i++)
        ASSERT(spans[i].at <= bytes_size && spans[i].size <= bytes_size - spans[i].at);
}

/* Is this an attribute that may be set, and has no say in others? */
static bool is_settable(const struct field *field)
{
    static const uint8_t attrs[] = {CTA_PROTOINFO,     CTA_TIMEOUT, CTA_MARK, CTA_SEQ_ADJ_ORIG,
                                    CTA_SEQ_ADJ_REPLY, CTA_LABELS,  24};

    return memchr(attrs, field->attr, sizeof(attrs));
}

/* Of TCP's flags as many are sent as a request may mean. */
static struct nlct_flow as_sent(const struct nlct_flow *flow)
{
    struct nlct_flow sent = *flow;

    sent.tcp_flags_orig &= NLCT_TCP_FLAGS;
    sent.tcp_flags_reply &= NLCT_TCP_FLAGS;
    return sent;
}

void check_same(const struct nlct_flow *flow, const struct nlct_flow *again)
{
    const struct nlct_flow sent = as_sent(flow);
    unsigned i;

    for (i = 0; i < flow_fields(); i++) {
        const struct field *field = flow_field(i);

        if (!is_settable(field))
            continue;
        ASSERT(flow_has(flow, field) == flow_has(again, field));
        ASSERT(memcmp(flow_value(&sent, field), flow_value(again, field), field->public.size) == 0);
    }
    ASSERT(memcmp(flow->helper, again->helper, sizeof(flow->helper)) == 0);
    ASSERT(flow->helper_info.size == again->helper_info.size);
    if (is_writable(&flow->orig))
        ASSERT(memcmp(&again->orig, &flow->orig, sizeof(flow->orig)) == 0);
    if (has(flow->present, NLCT_FLOW_MASTER) && is_writable(&flow->master))
        ASSERT(memcmp(&again->master, &flow->master, sizeof(flow->master)) == 0);
    if (has(flow->present, NLCT_FLOW_REPLY) && is_writable(&flow->reply) &&
        !(flow->status & IPS_NAT_MASK))
        ASSERT(memcmp(&again->reply, &flow->reply, sizeof(flow->reply)) == 0);
}
