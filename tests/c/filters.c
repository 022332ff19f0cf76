/* Filters: what is refused, and what matches. */
#include "cases.h"
#include "check.h"
#include "fake.h"

#include <arpa/inet.h>
#include <limits.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <sys/socket.h>

static struct packet packet;

#define COUNT(array_) (sizeof(array_) / sizeof((array_)[0]))

/* Compiles a filter, and frees it. Returns what the core says. */
static int compile(const struct nlct_test *tests, size_t count)
{
    struct nlct_filter *filter = NULL;
    int rc = nlct_filter_new(&filter, tests, count);

    nlct_filter_free(&filter);
    return rc;
}

/* Does the flow in the packet match? Returns what the core says, which is the same of the flow in
   memory. */
static int match(const struct nlct_test *tests, size_t count)
{
    struct nlct_bytes bytes = {0};
    struct nlct_filter *filter;
    struct view view;
    int rc;

    CHECK_IS(packet_view(&packet, &view), 0);
    CHECK_IS(nlct_filter_new(&filter, tests, count), 0);
    rc = filter_match(filter, &view);
    CHECK_IS(packet_view(&packet, &view), 0);
    if (flow_decode(&view, &bytes) == 0)
        CHECK_IS(nlct_filter_match(filter, &view.flow), rc);
    nlct_bytes_free(&bytes);
    nlct_filter_free(&filter);
    return rc;
}

static struct nlct_test test_of(const char *field, enum nlct_test_kind kind, const void *values,
                                size_t count)
{
    return (struct nlct_test){field_number(field), kind, NLCT_MATCH, NLCT_DROP, count, values};
}

static int match_one(const char *field, enum nlct_test_kind kind, const void *values, size_t count)
{
    const struct nlct_test test = test_of(field, kind, values, count);

    return match(&test, 1);
}

static void begin(uint8_t family)
{
    packet_begin_flow(&packet, family);
    if (family == AF_INET)
        packet_tuple(&packet, CTA_TUPLE_ORIG, "10.0.0.1", "192.0.2.1", IPPROTO_UDP, 1024, 53);
    else
        packet_tuple(&packet, CTA_TUPLE_ORIG, "fd00::1", "2001:db8::1", IPPROTO_UDP, 1024, 53);
}

/* What is refused ----------------------------------------------------------------------------- */

static void tests_lead_on_to_later_ones_or_to_the_end(void)
{
    static const int targets[] = {NLCT_MATCH, NLCT_DROP, INT_MIN, -3, 0, 1, 2, 3, 4, INT_MAX};
    struct nlct_test tests[3];
    size_t from;
    size_t i;
    size_t j;

    for (from = 0; from < COUNT(tests); from++) {
        for (i = 0; i < COUNT(targets); i++) {
            const int to = targets[i];
            const bool good =
                to == NLCT_MATCH || to == NLCT_DROP || (to > (int)from && to < (int)COUNT(tests));

            for (j = 0; j < COUNT(tests); j++)
                tests[j] = test_of("mark", NLCT_TEST_RANGES, NULL, 0);
            tests[from].yes = to;
            CHECK_IS(compile(tests, COUNT(tests)), good ? 0 : -EINVAL);
            tests[from].yes = NLCT_DROP;
            tests[from].no = to;
            CHECK_IS(compile(tests, COUNT(tests)), good ? 0 : -EINVAL);
        }
    }
}

static bool goes_with(enum nlct_test_kind test, enum nlct_kind field)
{
    switch (test) {
    case NLCT_TEST_RANGES:
        return field == NLCT_NUMBER;
    case NLCT_TEST_MASKS:
        return field == NLCT_NUMBER || field == NLCT_LABELS;
    case NLCT_TEST_PREFIXES:
        return field == NLCT_ADDRESS || field == NLCT_TEXT;
    }
    return false;
}

static void each_kind_of_test_has_its_kinds_of_field(void)
{
    struct nlct_field field;
    struct nlct_test test = {.yes = NLCT_MATCH, .no = NLCT_DROP};
    unsigned kind;

    for (; nlct_field_get(test.field, &field) == 0; test.field++) {
        for (kind = 0; kind < 5; kind++) {
            test.kind = kind;
            CHECK_IS(compile(&test, 1), goes_with(test.kind, field.kind) ? 0 : -EINVAL);
        }
    }
    CHECK(test.field > 40);
    test.kind = NLCT_TEST_RANGES;
    CHECK_IS(compile(&test, 1), -EINVAL);
    test.field = UINT_MAX;
    CHECK_IS(compile(&test, 1), -EINVAL);
}

static void ranges_run_upwards(void)
{
    const struct nlct_range ranges[] = {{5, 5}, {7, 6}};
    const struct nlct_test test = test_of("mark", NLCT_TEST_RANGES, ranges, 1);
    const struct nlct_test wrong = test_of("mark", NLCT_TEST_RANGES, ranges, 2);

    CHECK_IS(compile(&test, 1), 0);
    CHECK_IS(compile(&wrong, 1), -EINVAL);
}

static void prefixes_fit_their_field(void)
{
    static const struct {
        const char *field;
        uint8_t family;
        uint8_t length;
        int rc;
    } cases[] = {
        {"src", AF_INET, 0, 0},
        {"src", AF_INET, 32, 0},
        {"src", AF_INET, 33, -EINVAL},
        {"src", AF_INET6, 0, 0},
        {"src", AF_INET6, 128, 0},
        {"src", AF_INET6, 129, -EINVAL},
        {"src", AF_INET6, 255, -EINVAL},
        {"src", 0, 128, -EINVAL},
        {"src", 7, 8, -EINVAL},
        {"helper", 0, 128, 0},
        {"helper", 0, 127, -EINVAL},
        {"helper", 0, 129, -EINVAL},
        {"helper", AF_INET6, 128, -EINVAL},
    };
    size_t i;

    for (i = 0; i < COUNT(cases); i++) {
        const struct nlct_prefix prefix = {.family = cases[i].family, .length = cases[i].length};
        const struct nlct_test test = test_of(cases[i].field, NLCT_TEST_PREFIXES, &prefix, 1);

        CHECK_IS(compile(&test, 1), cases[i].rc);
    }
}

static void a_refused_test_frees_those_before_it(void)
{
    const struct nlct_range range = {0, 9};
    const struct nlct_prefix prefix = {.family = AF_INET, .length = 8};
    const struct nlct_mask mask = {{1, 0}, {1, 0}};
    struct nlct_test tests[] = {
        test_of("zone", NLCT_TEST_RANGES, &range, 1),
        test_of("mark", NLCT_TEST_RANGES, &range, 1),
        test_of("src", NLCT_TEST_PREFIXES, &prefix, 1),
        test_of("status", NLCT_TEST_MASKS, &mask, 1),
        test_of("helper", NLCT_TEST_PREFIXES, &prefix, 1),
    };

    CHECK_IS(compile(tests, 4), 0);
    CHECK_IS(compile(tests, 5), -EINVAL);
    nlct_filter_free(&(struct nlct_filter *){NULL});
}

/* Ranges -------------------------------------------------------------------------------------- */

static bool in_ranges(uint64_t number, const struct nlct_range *ranges, size_t count)
{
    size_t i;

    for (i = 0; i < count; i++)
        if (number >= ranges[i].low && number <= ranges[i].high)
            return true;
    return false;
}

static void check_mark(uint32_t mark, const struct nlct_range *ranges, size_t count)
{
    begin(AF_INET);
    packet_be32(&packet, CTA_MARK, mark);
    CHECK_IS(match_one("mark", NLCT_TEST_RANGES, ranges, count), in_ranges(mark, ranges, count));
}

static void ranges_may_come_in_any_order_and_overlap(void)
{
    static const struct nlct_range ranges[] = {
        {50, 50}, {10, 20}, {31, 40}, {15, 30}, {5, 12}, {17, 18}, {50, 52}, {54, 54}, {50, 51},
    };
    size_t count;
    uint32_t mark;

    for (count = 0; count <= COUNT(ranges); count++)
        for (mark = 0; mark < 60; mark++)
            check_mark(mark, ranges, count);
}

static void ranges_reach_both_ends_of_a_number(void)
{
    static const struct nlct_range ends[] = {{UINT32_MAX, UINT64_MAX}, {0, 0}};
    static const struct nlct_range all[] = {{0, UINT64_MAX}, {3, 4}};
    static const uint32_t marks[] = {0, 1, UINT32_MAX - 1, UINT32_MAX};
    size_t i;

    for (i = 0; i < COUNT(marks); i++) {
        check_mark(marks[i], ends, 2);
        check_mark(marks[i], all, 2);
        check_mark(marks[i], all, 1);
    }
}

static void ranges_of_64_bits(void)
{
    static const uint64_t numbers[] = {0,         1, UINT32_MAX, UINT64_C(1) << 32, UINT64_MAX - 1,
                                       UINT64_MAX};
    static const struct nlct_range ranges[] = {
        {0, 0}, {UINT64_C(1) << 32, UINT64_C(1) << 40}, {UINT64_MAX, UINT64_MAX}};
    size_t count;
    size_t nest;
    size_t i;

    for (i = 0; i < COUNT(numbers); i++) {
        for (count = 0; count <= COUNT(ranges); count++) {
            begin(AF_INET);
            nest = packet_nest(&packet, CTA_COUNTERS_REPLY);
            packet_be64(&packet, CTA_COUNTERS_BYTES, numbers[i]);
            packet_end_nest(&packet, nest);
            CHECK_IS(match_one("bytes_reply", NLCT_TEST_RANGES, ranges, count),
                     in_ranges(numbers[i], ranges, count));
        }
    }
}

static void bitmaps_reach_both_ends(void)
{
    static const struct nlct_range ranges[][2] = {
        {{0, 0}, {0, 0}},
        {{65535, 65535}, {0, 0}},
        {{1, 65534}, {1, 1}},
        {{255, 256}, {7, 8}},
        {{65530, UINT64_MAX}, {5, 5}},
        {{65536, 70000}, {9, 9}},
        {{0, UINT64_MAX}, {0, UINT64_MAX}},
    };
    static const uint16_t numbers[] = {0, 1, 5, 7, 8, 9, 255, 256, 257, 65529, 65530, 65534, 65535};
    uint8_t proto;
    size_t i;
    size_t j;

    for (i = 0; i < COUNT(ranges); i++) {
        for (j = 0; j < COUNT(numbers); j++) {
            begin(AF_INET);
            packet_be16(&packet, CTA_ZONE, numbers[j]);
            CHECK_IS(match_one("zone", NLCT_TEST_RANGES, ranges[i], 2),
                     in_ranges(numbers[j], ranges[i], 2));
            proto = (uint8_t)numbers[j];
            packet_begin_flow(&packet, AF_INET);
            packet_tuple(&packet, CTA_TUPLE_ORIG, "10.0.0.1", "10.0.0.2", proto, 0, numbers[j]);
            CHECK_IS(match_one("proto", NLCT_TEST_RANGES, ranges[i], 2),
                     in_ranges(proto, ranges[i], 2));
            CHECK_IS(match_one("dport", NLCT_TEST_RANGES, ranges[i], 2),
                     in_ranges(numbers[j], ranges[i], 2));
        }
    }
}

static void put_zone(uint16_t type, uint16_t zone)
{
    const size_t nest = packet_nest(&packet, type);

    packet_be16(&packet, CTA_TUPLE_ZONE, zone);
    packet_end_nest(&packet, nest);
}

static void zones_match_in_whichever_direction(void)
{
    const struct nlct_range seven = {7, 7};
    const struct nlct_range none = {0, 0};
    const struct nlct_mask odd = {{1, 0}, {1, 0}};
    int i;

    for (i = 0; i < 4; i++) {
        packet_begin_flow(&packet, AF_INET);
        if (i == 0)
            packet_be16(&packet, CTA_ZONE, 7);
        if (i == 1)
            put_zone(CTA_TUPLE_ORIG, 7);
        if (i == 2)
            put_zone(CTA_TUPLE_REPLY, 7);
        CHECK_IS(match_one("zone", NLCT_TEST_RANGES, &seven, 1), i < 3);
        CHECK_IS(match_one("zone", NLCT_TEST_RANGES, &none, 1), i == 3);
        CHECK_IS(match_one("zone", NLCT_TEST_MASKS, &odd, 1), i < 3);
        CHECK_IS(match_one("orig_zone", NLCT_TEST_RANGES, &seven, 1), i == 1);
        CHECK_IS(match_one("reply_zone", NLCT_TEST_RANGES, &seven, 1), i == 2);
        CHECK_IS(match_one("orig_zone", NLCT_TEST_RANGES, &none, 1), 0);
    }
}

/* Prefixes ------------------------------------------------------------------------------------ */

static bool agree(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    unsigned i;

    for (i = 0; i < bits; i++)
        if ((a[i / 8] ^ b[i / 8]) & 0x80U >> i % 8)
            return false;
    return true;
}

static struct nlct_prefix prefix_of(const char *address, unsigned length)
{
    struct nlct_prefix prefix = {
        .family = strchr(address, ':') ? AF_INET6 : AF_INET,
        .length = (uint8_t)length,
    };

    CHECK_IS(inet_pton(prefix.family, address, prefix.bytes), 1);
    return prefix;
}

/* Every length, of addresses that differ from the flow's in one bit, at every place. */
static void check_lengths(const char *address, unsigned bits)
{
    struct nlct_prefix exact = prefix_of(address, bits);
    unsigned length;
    unsigned differs;

    for (length = 0; length <= bits; length++) {
        for (differs = 0; differs <= bits; differs++) {
            struct nlct_prefix prefix = exact;

            prefix.length = (uint8_t)length;
            if (differs < bits)
                prefix.bytes[differs / 8] ^= (uint8_t)(0x80U >> differs % 8);
            CHECK_IS(match_one("src", NLCT_TEST_PREFIXES, &prefix, 1),
                     agree(prefix.bytes, exact.bytes, length));
        }
    }
}

static void prefixes_of_every_length(void)
{
    begin(AF_INET);
    check_lengths("10.0.0.1", 32);
    begin(AF_INET6);
    check_lengths("fd00::1", 128);
}

static void prefixes_of_one_family_do_not_match_the_other(void)
{
    /* The same bytes as the IPv4 address 10.0.0.1 in its 16. */
    const struct nlct_prefix ipv6[] = {prefix_of("::", 0), prefix_of("a00:1::", 32),
                                       prefix_of("a00:1::", 128)};
    const struct nlct_prefix ipv4[] = {prefix_of("0.0.0.0", 0), prefix_of("253.0.0.0", 8)};

    begin(AF_INET);
    CHECK_IS(match_one("src", NLCT_TEST_PREFIXES, ipv6, COUNT(ipv6)), 0);
    CHECK_IS(match_one("src", NLCT_TEST_PREFIXES, ipv4, COUNT(ipv4)), 1);
    begin(AF_INET6);
    CHECK_IS(match_one("src", NLCT_TEST_PREFIXES, ipv4, COUNT(ipv4)), 0);
    CHECK_IS(match_one("src", NLCT_TEST_PREFIXES, ipv6, COUNT(ipv6)), 1);
}

static void one_prefix_of_many(void)
{
    enum { MANY = 5000 };
    static struct nlct_prefix prefixes[MANY];
    unsigned i;

    for (i = 0; i < MANY; i++) {
        prefixes[i] = prefix_of("10.0.0.0", 32);
        prefixes[i].bytes[2] = (uint8_t)(i >> 8);
        prefixes[i].bytes[3] = (uint8_t)i;
    }
    begin(AF_INET);
    CHECK_IS(match_one("src", NLCT_TEST_PREFIXES, prefixes, MANY), 1);
    prefixes[1] = prefixes[2];
    CHECK_IS(match_one("src", NLCT_TEST_PREFIXES, prefixes, MANY), 0);
    prefixes[MANY - 1] = prefix_of("10.0.0.0", 31);
    CHECK_IS(match_one("src", NLCT_TEST_PREFIXES, prefixes, MANY), 1);
    CHECK_IS(match_one("dst", NLCT_TEST_PREFIXES, prefixes, MANY), 0);
}

static void networks_are_looked_for_in_one_field_after_the_other(void)
{
    const struct nlct_prefix one[] = {prefix_of("192.0.2.1", 32), prefix_of("fd00::", 16)};
    const struct nlct_prefix other[] = {prefix_of("10.0.0.0", 8), prefix_of("192.0.2.1", 32)};
    struct nlct_test tests[] = {
        test_of("src", NLCT_TEST_PREFIXES, one, COUNT(one)),
        test_of("reply_src", NLCT_TEST_PREFIXES, one, COUNT(one)),
        test_of("dst", NLCT_TEST_PREFIXES, one, COUNT(one)),
    };

    tests[0].no = 1;
    begin(AF_INET);
    CHECK_IS(match(tests, 2), 0);
    tests[1].no = 2;
    CHECK_IS(match(tests, 3), 1);
    tests[2].count = 0;
    CHECK_IS(match(tests, 3), 0);
    tests[2].count = COUNT(one);
    tests[1].values = other;
    CHECK_IS(match(tests, 3), 1);
    tests[0].yes = NLCT_DROP;
    tests[0].values = other;
    CHECK_IS(match(tests, 3), 0);
    /* The same bytes are no text. */
    tests[1] = test_of("helper", NLCT_TEST_PREFIXES, other, COUNT(other));
    CHECK_IS(compile(tests, COUNT(tests)), -EINVAL);
}

static void an_absent_address_is_in_no_network(void)
{
    const struct nlct_prefix all[] = {prefix_of("0.0.0.0", 0), prefix_of("::", 0)};

    packet_begin_flow(&packet, AF_INET);
    CHECK_IS(match_one("src", NLCT_TEST_PREFIXES, all, 2), 0);
    begin(AF_INET);
    CHECK_IS(match_one("src", NLCT_TEST_PREFIXES, all, 2), 1);
    CHECK_IS(match_one("reply_src", NLCT_TEST_PREFIXES, all, 2), 0);
    CHECK_IS(match_one("master_src", NLCT_TEST_PREFIXES, all, 2), 0);
}

static int match_helper(const char *name, const char *wanted)
{
    struct nlct_prefix text = {.length = 128};
    size_t nest;

    memcpy(text.bytes, wanted, strlen(wanted));
    begin(AF_INET);
    nest = packet_nest(&packet, CTA_HELP);
    packet_attr(&packet, CTA_HELP_NAME, name, strlen(name) + 1);
    packet_end_nest(&packet, nest);
    return match_one("helper", NLCT_TEST_PREFIXES, &text, 1);
}

static void texts_match_as_a_whole(void)
{
    const struct nlct_prefix empty = {.length = 128};

    CHECK_IS(match_helper("ftp", "ftp"), 1);
    CHECK_IS(match_helper("ftp", "ft"), 0);
    CHECK_IS(match_helper("ftp", "ftp-2121"), 0);
    CHECK_IS(match_helper("ftp-2121", "ftp"), 0);
    CHECK_IS(match_helper("", ""), 1);
    CHECK_IS(match_helper("0123456789abcde", "0123456789abcde"), 1);
    CHECK_IS(match_helper("0123456789abcde", "0123456789abcdf"), 0);
    begin(AF_INET);
    CHECK_IS(match_one("helper", NLCT_TEST_PREFIXES, &empty, 1), 0);
}

/* Masks --------------------------------------------------------------------------------------- */

static void masks_on_numbers(void)
{
    const struct nlct_mask masks[] = {
        {{0x0a, 0}, {0x0f, 0}},
        {{0x10, 0}, {0x0f, 0}}, /* outside of its mask */
        {{0x2a, 0}, {UINT64_MAX, 0}},
        {{0, 0}, {0, 0}},
        {{0, 1}, {0, 1}}, /* numbers have no second word */
    };

    begin(AF_INET);
    packet_be32(&packet, CTA_STATUS, 0x2a);
    CHECK_IS(match_one("status", NLCT_TEST_MASKS, &masks[0], 1), 1);
    CHECK_IS(match_one("status", NLCT_TEST_MASKS, &masks[1], 1), 0);
    CHECK_IS(match_one("status", NLCT_TEST_MASKS, &masks[2], 1), 1);
    CHECK_IS(match_one("status", NLCT_TEST_MASKS, &masks[3], 1), 1);
    CHECK_IS(match_one("status", NLCT_TEST_MASKS, &masks[4], 1), 0);
    CHECK_IS(match_one("status", NLCT_TEST_MASKS, masks, 0), 0);
    CHECK_IS(match_one("status", NLCT_TEST_MASKS, &masks[1], 2), 1);
    /* Absent, not zero. */
    CHECK_IS(match_one("mark", NLCT_TEST_MASKS, &masks[3], 1), 0);
}

static void masks_on_labels(void)
{
    static const uint64_t labels[2] = {UINT64_C(1) << 63, 5};
    const struct nlct_mask masks[] = {
        {{UINT64_C(1) << 63, 0}, {UINT64_C(1) << 63, 0}}, /* label 63 */
        {{0, 1}, {0, 1}},                                 /* label 64 */
        {{1, 0}, {1, 0}},                                 /* label 0 */
        {{0, 2}, {0, 2}},                                 /* label 65 */
        {{UINT64_C(1) << 63, 4}, {UINT64_MAX, 6}},
        {{UINT64_C(1) << 63, 6}, {UINT64_MAX, 6}},
    };
    static const int expected[] = {1, 1, 0, 0, 1, 0};
    size_t i;

    begin(AF_INET);
    packet_attr(&packet, CTA_LABELS, labels, sizeof(labels));
    for (i = 0; i < COUNT(masks); i++)
        CHECK_IS(match_one("labels", NLCT_TEST_MASKS, &masks[i], 1), expected[i]);
    CHECK_IS(match_one("labels", NLCT_TEST_MASKS, masks, COUNT(masks)), 1);
    CHECK_IS(match_one("labels", NLCT_TEST_MASKS, &masks[2], 2), 0);
}

/* Programs ------------------------------------------------------------------------------------ */

static void no_test_matches_everything(void)
{
    begin(AF_INET);
    CHECK_IS(match(NULL, 0), 1);
}

static void the_family_is_always_there(void)
{
    const struct nlct_range ipv6 = {AF_INET6, AF_INET6};
    const struct nlct_range none = {0, 0};

    packet_begin_flow(&packet, AF_INET6);
    CHECK_IS(match_one("family", NLCT_TEST_RANGES, &ipv6, 1), 1);
    CHECK_IS(match_one("family", NLCT_TEST_RANGES, &none, 1), 0);
}

/* (zone 1 and mark 1) or not status 1, for each answer that the three questions may get. */
static void programs_lead_from_test_to_test(void)
{
    const struct nlct_range one = {1, 1};
    struct nlct_test tests[] = {
        test_of("zone", NLCT_TEST_RANGES, &one, 1),
        test_of("mark", NLCT_TEST_RANGES, &one, 1),
        test_of("status", NLCT_TEST_RANGES, &one, 1),
    };
    unsigned zone;
    unsigned mark;
    unsigned status;

    tests[0].yes = 1;
    tests[0].no = 2;
    tests[1].no = 2;
    tests[2].yes = NLCT_DROP;
    tests[2].no = NLCT_MATCH;
    for (zone = 0; zone < 2; zone++) {
        for (mark = 0; mark < 3; mark++) {
            for (status = 0; status < 3; status++) {
                begin(AF_INET);
                packet_be16(&packet, CTA_ZONE, (uint16_t)zone);
                if (mark < 2)
                    packet_be32(&packet, CTA_MARK, mark);
                if (status < 2)
                    packet_be32(&packet, CTA_STATUS, status);
                CHECK_IS(match(tests, 3), (zone == 1 && mark == 1) || status != 1);
            }
        }
    }
}

static void only_what_a_test_asks_for_is_decoded(void)
{
    const struct nlct_range one = {1, 1};
    struct nlct_test tests[] = {
        test_of("zone", NLCT_TEST_RANGES, &one, 1),
        test_of("mark", NLCT_TEST_RANGES, &one, 1),
    };

    begin(AF_INET);
    packet_be16(&packet, CTA_ZONE, 1);
    packet_attr(&packet, CTA_MARK, "123", 3);
    tests[0].no = 1;
    CHECK_IS(match(tests, 2), 1);
    tests[0].yes = 1;
    CHECK_IS(match(tests, 2), -EBADMSG);
}

/* Whoever asks for anything in a malformed attribute is refused, also the second time, and nobody
   is given the flow as a whole. */
static void check_refused(uint16_t type)
{
    struct nlct_bytes bytes = {0};
    struct view view;
    unsigned i;
    unsigned asked = 0;
    int again;

    CHECK_IS(packet_view(&packet, &view), 0);
    for (again = 0; again < 2; again++) {
        for (i = 0; i < flow_fields(); i++) {
            const bool inside = flow_field(i)->attr == type;

            /* The zone may be in a tuple. */
            if (flow_field(i)->attr == CTA_ZONE && !inside)
                continue;
            CHECK_IS(view_decode(&view, flow_field(i)), inside ? -EBADMSG : 0);
            asked += inside;
        }
    }
    CHECK(asked);
    CHECK_IS(flow_decode(&view, &bytes), -EBADMSG);
    CHECK_IS(flow_decode(&view, &bytes), -EBADMSG);
    nlct_bytes_free(&bytes);
}

static void a_malformed_attribute_is_refused_every_time(void)
{
    uint16_t type;
    unsigned i;

    for (i = 0; i < flow_fields(); i++) {
        type = flow_field(i)->attr;
        if (!type)
            continue;
        packet_begin_flow(&packet, AF_INET);
        packet_attr(&packet, type, "?", 1);
        check_refused(type);
    }
}

/* What precedes the fault is not believed either. */
static void an_attribute_is_refused_as_a_whole(void)
{
    size_t tuple;
    size_t nest;

    packet_begin_flow(&packet, AF_INET);
    tuple = packet_nest(&packet, CTA_TUPLE_ORIG);
    packet_addresses(&packet, "10.0.0.1", "192.0.2.1");
    packet_attr(&packet, CTA_TUPLE_PROTO, "?", 1);
    packet_end_nest(&packet, tuple);
    check_refused(CTA_TUPLE_ORIG);
    packet_begin_flow(&packet, AF_INET);
    tuple = packet_nest(&packet, CTA_PROTOINFO);
    nest = packet_nest(&packet, CTA_PROTOINFO_TCP);
    packet_attr(&packet, CTA_PROTOINFO_TCP_STATE, "\3", 1);
    packet_attr(&packet, CTA_PROTOINFO_TCP_WSCALE_REPLY, "\3\3", 2);
    packet_end_nest(&packet, nest);
    packet_end_nest(&packet, tuple);
    check_refused(CTA_PROTOINFO);
}

/* The short cut to the zone is as strict as what decodes the tuple. */
static void a_zone_that_is_said_twice_is_refused(void)
{
    static const uint16_t types[] = {CTA_TUPLE_ORIG, CTA_TUPLE_REPLY};
    const struct nlct_range seven = {7, 7};
    size_t tuple;
    size_t i;

    for (i = 0; i < COUNT(types); i++) {
        packet_begin_flow(&packet, AF_INET);
        tuple = packet_nest(&packet, types[i]);
        packet_be16(&packet, CTA_TUPLE_ZONE, 7);
        packet_be16(&packet, CTA_TUPLE_ZONE, 8);
        packet_end_nest(&packet, tuple);
        CHECK_IS(match_one("zone", NLCT_TEST_RANGES, &seven, 1), -EBADMSG);
        CHECK_IS(match_one(i ? "reply_zone" : "orig_zone", NLCT_TEST_RANGES, &seven, 1), -EBADMSG);
        packet_begin_flow(&packet, AF_INET);
        tuple = packet_nest(&packet, types[i]);
        packet_be16(&packet, CTA_TUPLE_ZONE, 7);
        packet_bytes(&packet, "\1\0\0\0", 4);
        packet_end_nest(&packet, tuple);
        CHECK_IS(match_one("zone", NLCT_TEST_RANGES, &seven, 1), -EBADMSG);
    }
}

const struct test_case filter_cases[] = {
    CASE(tests_lead_on_to_later_ones_or_to_the_end),
    CASE(each_kind_of_test_has_its_kinds_of_field),
    CASE(ranges_run_upwards),
    CASE(prefixes_fit_their_field),
    CASE(a_refused_test_frees_those_before_it),
    CASE(ranges_may_come_in_any_order_and_overlap),
    CASE(ranges_reach_both_ends_of_a_number),
    CASE(ranges_of_64_bits),
    CASE(bitmaps_reach_both_ends),
    CASE(zones_match_in_whichever_direction),
    CASE(prefixes_of_every_length),
    CASE(prefixes_of_one_family_do_not_match_the_other),
    CASE(one_prefix_of_many),
    CASE(networks_are_looked_for_in_one_field_after_the_other),
    CASE(an_absent_address_is_in_no_network),
    CASE(texts_match_as_a_whole),
    CASE(masks_on_numbers),
    CASE(masks_on_labels),
    CASE(no_test_matches_everything),
    CASE(the_family_is_always_there),
    CASE(programs_lead_from_test_to_test),
    CASE(only_what_a_test_asks_for_is_decoded),
    CASE(a_malformed_attribute_is_refused_every_time),
    CASE(an_attribute_is_refused_as_a_whole),
    CASE(a_zone_that_is_said_twice_is_refused),
    END_OF_CASES,
};
