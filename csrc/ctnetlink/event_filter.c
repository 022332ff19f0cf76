/*
 * What the kernel is asked to drop of an event stream: a program of classic BPF on the socket.
 *
 * It drops an event only where it has found a value that differs. What it cannot find it lets
 * through, since the core matches everything again.
 */
#include "ctnetlink.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <sys/socket.h>

/* Where a message has what every program looks at. */
enum {
    TYPE_AT = offsetof(struct nlmsghdr, nlmsg_type),
    PORT_AT = offsetof(struct nlmsghdr, nlmsg_pid),
    FAMILY_AT = sizeof(struct nlmsghdr) + offsetof(struct nfgenmsg, nfgen_family),
    ATTRS_AT = sizeof(struct nlmsghdr) + sizeof(struct nfgenmsg),
};

/* Where jumps lead that are set at last: to the end of a test, and to the instruction that drops.
 */
enum { NEXT_TEST = 254, DROP = 255 };

struct program {
    struct sock_filter *code;
    size_t count;
    size_t test; /* where the test begins that is being written */
};

static void put(struct program *program, uint16_t code, uint8_t yes, uint8_t no, uint32_t k)
{
    program->code[program->count++] = (struct sock_filter){code, yes, no, k};
}

/* Jumps to the next test if the accumulator is 'value', else drops the event. */
static void put_decision(struct program *program, uint32_t value)
{
    put(program, BPF_JMP | BPF_JEQ | BPF_K, NEXT_TEST, DROP, value);
}

/* Ends a test: jumps that lead to the next one lead here. */
static void end_test(struct program *program)
{
    size_t at;

    for (at = program->test; at < program->count; at++) {
        struct sock_filter *jump = &program->code[at];
        const uint8_t distance = (uint8_t)(program->count - at - 1);

        if (BPF_CLASS(jump->code) != BPF_JMP)
            continue;
        if (jump->jt == NEXT_TEST)
            jump->jt = distance;
        if (jump->jf == NEXT_TEST)
            jump->jf = distance;
    }
    program->test = program->count;
}

/* Loads where the top-level attribute begins, 0 if there is none. */
static void put_find(struct program *program, uint16_t type)
{
    put(program, BPF_LD | BPF_IMM, 0, 0, ATTRS_AT);
    put(program, BPF_LDX | BPF_IMM, 0, 0, type);
    put(program, BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)(SKF_AD_OFF + SKF_AD_NLATTR));
}

/* The same inside of the attribute that was found. */
static void put_find_inside(struct program *program, uint16_t type)
{
    put(program, BPF_LDX | BPF_IMM, 0, 0, type);
    put(program, BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)(SKF_AD_OFF + SKF_AD_NLATTR_NEST));
}

/* Without the attribute, the test ends. */
static void put_unless_found(struct program *program)
{
    put(program, BPF_JMP | BPF_JEQ | BPF_K, NEXT_TEST, 0, 0);
}

/* Loads a number of the attribute that was found, 'at' bytes behind its beginning. */
static void put_load(struct program *program, size_t size, uint32_t at)
{
    const uint16_t width = size == 4 ? BPF_W : size == 2 ? BPF_H : BPF_B;

    put(program, BPF_MISC | BPF_TAX, 0, 0, 0);
    put(program, (uint16_t)(BPF_LD | BPF_IND | width), 0, 0, (uint32_t)sizeof(struct nlattr) + at);
}

/* Tests: each ends where the next one begins --------------------------------------------------- */

/* Our own deletes are no news. */
static void test_port(struct program *program, uint32_t port)
{
    const uint16_t type = message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE);

    /* BPF reads these numbers in network order. */
    put(program, BPF_LD | BPF_H | BPF_ABS, 0, 0, TYPE_AT);
    put(program, BPF_JMP | BPF_JEQ | BPF_K, 0, NEXT_TEST, (uint32_t)number_turn(type, 2));
    put(program, BPF_LD | BPF_W | BPF_ABS, 0, 0, PORT_AT);
    put(program, BPF_JMP | BPF_JEQ | BPF_K, DROP, NEXT_TEST, (uint32_t)number_turn(port, 4));
    end_test(program);
}

static void test_family(struct program *program, uint8_t family)
{
    put(program, BPF_LD | BPF_B | BPF_ABS, 0, 0, FAMILY_AT);
    put_decision(program, family);
    end_test(program);
}

/* Is it 'value' in the bits of 'mask'? */
static void test_bits(struct program *program, uint16_t type, uint32_t value, uint32_t mask)
{
    put_find(program, type);
    put_unless_found(program);
    put_load(program, 4, 0);
    put(program, BPF_ALU | BPF_AND | BPF_K, 0, 0, mask);
    put_decision(program, value);
    end_test(program);
}

/* If what was found is there, it decides. */
static void put_zone(struct program *program, uint16_t zone)
{
    enum { DECISION = 3 };

    put(program, BPF_JMP | BPF_JEQ | BPF_K, DECISION, 0, 0);
    put_load(program, 2, 0);
    put_decision(program, zone);
}

/* A zone that applies to one direction is in the tuple. A flow without any is in zone 0. */
static void test_zone(struct program *program, uint16_t zone)
{
    static const uint16_t tuples[] = {CTA_TUPLE_ORIG, CTA_TUPLE_REPLY};
    size_t i;

    put_find(program, CTA_ZONE);
    put_zone(program, zone);
    for (i = 0; i < 2; i++) {
        put_find(program, tuples[i]);
        put_unless_found(program);
        put_find_inside(program, CTA_TUPLE_ZONE);
        put_zone(program, zone);
    }
    if (zone)
        put(program, BPF_JMP | BPF_JA, 0, 0, DROP);
    end_test(program);
}

/* Finds an attribute in a nest of the original tuple. */
static void put_find_orig(struct program *program, uint16_t nest, uint16_t type)
{
    put_find(program, CTA_TUPLE_ORIG);
    put_unless_found(program);
    put_find_inside(program, nest);
    put_unless_found(program);
    put_find_inside(program, type);
    put_unless_found(program);
}

static void test_number(struct program *program, uint16_t type, size_t size, uint16_t value)
{
    put_find_orig(program, CTA_TUPLE_PROTO, type);
    put_load(program, size, 0);
    put_decision(program, value);
    end_test(program);
}

static void test_address(struct program *program, uint16_t type, const uint8_t *address,
                         size_t size)
{
    uint32_t at;

    for (at = 0; at < size; at += 4) {
        put_find_orig(program, CTA_TUPLE_IP, type);
        put_load(program, 4, at);
        put_decision(program, wire_be32(address + at));
        end_test(program);
    }
}

static void test_tuple(struct program *program, const struct nlct_tuple *tuple)
{
    const bool ipv4 = tuple->family == AF_INET;
    const size_t size = ipv4 ? 4 : 16;

    if (has(tuple->present, NLCT_TUPLE_PROTO))
        test_number(program, CTA_PROTO_NUM, 1, tuple->proto);
    if (has(tuple->present, NLCT_TUPLE_SPORT))
        test_number(program, CTA_PROTO_SRC_PORT, 2, tuple->sport);
    if (has(tuple->present, NLCT_TUPLE_DPORT))
        test_number(program, CTA_PROTO_DST_PORT, 2, tuple->dport);
    if (has(tuple->present, NLCT_TUPLE_SRC))
        test_address(program, ipv4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, tuple->src, size);
    if (has(tuple->present, NLCT_TUPLE_DST))
        test_address(program, ipv4 ? CTA_IP_V4_DST : CTA_IP_V6_DST, tuple->dst, size);
}

/* The end: where no test has dropped the event, it stays whole. */
static void end_program(struct program *program)
{
    const size_t drop = program->count + 1;
    size_t at;

    put(program, BPF_RET | BPF_K, 0, 0, UINT32_MAX);
    put(program, BPF_RET | BPF_K, 0, 0, 0);
    for (at = 0; at < drop; at++) {
        struct sock_filter *jump = &program->code[at];
        const size_t distance = drop - at - 1;

        if (BPF_CLASS(jump->code) != BPF_JMP)
            continue;
        if (BPF_OP(jump->code) == BPF_JA)
            jump->k = (uint32_t)distance;
        if (jump->jt == DROP)
            jump->jt = (uint8_t)distance;
        if (jump->jf == DROP)
            jump->jf = (uint8_t)distance;
    }
}

size_t event_filter_build(struct sock_filter code[EVENT_FILTER_MAX],
                          const struct nlct_kernel_filter *wanted, uint32_t muted)
{
    struct program program = {.code = code};

    if (muted)
        test_port(&program, muted);
    if (wanted->family)
        test_family(&program, wanted->family);
    if (wanted->zone_request)
        test_zone(&program, wanted->zone);
    if (wanted->mark_mask)
        test_bits(&program, CTA_MARK, wanted->mark, wanted->mark_mask);
    if (wanted->status_mask)
        test_bits(&program, CTA_STATUS, wanted->status, wanted->status_mask);
    test_tuple(&program, &wanted->orig);
    if (program.count)
        end_program(&program);
    return program.count;
}
