/*
 * Does a message match? A filter is a row of tests, each of which leads to a later one or to the
 * end. Only the attributes that a test asks for are decoded.
 */
#include "flow.h"

#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <stdlib.h>

/* Networks, addresses (networks of full length) and texts. A look-up tries each length there is.
   Most look-ups miss; a byte of the hash beside each slot keeps them out of the large array. */
struct prefixes {
    struct length {
        uint8_t family;
        uint8_t length;
    } lengths[33 + 129 + 1];
    unsigned nlengths;
    size_t mask; /* slots - 1, a power of two */
    uint8_t *tags;
    struct nlct_prefix *slots;
    struct hash_key key;
};

struct test {
    const struct field *field;
    int yes;
    int no;
    size_t count;
    uint8_t *bitmap;           /* ranges of 8 and 16 bits */
    struct nlct_range *ranges; /* others, sorted, disjoint */
    struct nlct_mask *masks;
    struct prefixes *prefixes;
    bool borrowed; /* they are those of an earlier test */
};

struct nlct_filter {
    size_t count;
    struct test tests[];
};

/* The values of a test, copied; NULL if there is no memory. */
static void *copy_values(const void *values, size_t count, size_t size)
{
    void *copy = calloc(count + 1, size);

    if (copy && count)
        memcpy(copy, values, count * size);
    return copy;
}

/* Ranges -------------------------------------------------------------------------------------- */

static int compare_ranges(const void *a, const void *b)
{
    const struct nlct_range *left = a;
    const struct nlct_range *right = b;

    return (left->low > right->low) - (left->low < right->low);
}

/* Sorts ranges and joins those that overlap. Returns how many are left. */
static size_t join_ranges(struct nlct_range *ranges, size_t count)
{
    size_t kept = 0;
    size_t i;

    qsort(ranges, count, sizeof(*ranges), compare_ranges);
    for (i = 1; i < count; i++) {
        if (ranges[i].low <= ranges[kept].high) {
            if (ranges[i].high > ranges[kept].high)
                ranges[kept].high = ranges[i].high;
        } else {
            ranges[++kept] = ranges[i];
        }
    }
    return count ? kept + 1 : 0;
}

static bool in_ranges(const struct test *test, uint64_t number)
{
    size_t low = 0;
    size_t high = test->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (number > test->ranges[middle].high)
            low = middle + 1;
        else if (number < test->ranges[middle].low)
            high = middle;
        else
            return true;
    }
    return false;
}

static bool in_bitmap(const uint8_t *bitmap, uint64_t number)
{
    return bitmap[number / 8] & 1U << number % 8;
}

static void fill_bitmap(struct test *test, uint64_t top)
{
    size_t i;

    for (i = 0; i < test->count; i++) {
        uint64_t number;

        for (number = test->ranges[i].low; number <= test->ranges[i].high && number <= top;
             number++)
            test->bitmap[number / 8] |= (uint8_t)(1U << number % 8);
    }
}

static int compile_ranges(struct test *test, const struct nlct_range *ranges)
{
    const size_t size = test->field->public.size;
    const size_t values = size > 2 ? 0 : (size_t)1 << size * 8;
    size_t i;

    if (test->field->public.kind != NLCT_NUMBER)
        return -EINVAL;
    for (i = 0; i < test->count; i++)
        if (ranges[i].low > ranges[i].high)
            return -EINVAL;
    test->ranges = copy_values(ranges, test->count, sizeof(*ranges));
    if (!test->ranges)
        return -ENOMEM;
    test->count = join_ranges(test->ranges, test->count);
    if (!values)
        return 0;
    test->bitmap = calloc(1, values / 8);
    if (!test->bitmap)
        return -ENOMEM;
    fill_bitmap(test, values - 1);
    return 0;
}

/* Masks --------------------------------------------------------------------------------------- */

static int compile_masks(struct test *test, const struct nlct_mask *masks)
{
    const enum nlct_kind kind = test->field->public.kind;

    if (kind != NLCT_NUMBER && kind != NLCT_LABELS)
        return -EINVAL;
    test->masks = copy_values(masks, test->count, sizeof(*masks));
    return test->masks ? 0 : -ENOMEM;
}

static bool in_masks(const struct test *test, const struct nlct_flow *flow)
{
    uint64_t words[2] = {0, 0};
    size_t i;

    if (test->field->public.kind == NLCT_LABELS)
        memcpy(words, flow_value(flow, test->field), sizeof(words));
    else
        words[0] = flow_number(flow, test->field);
    for (i = 0; i < test->count; i++) {
        const struct nlct_mask *mask = &test->masks[i];

        if ((words[0] & mask->mask[0]) == mask->value[0] &&
            (words[1] & mask->mask[1]) == mask->value[1])
            return true;
    }
    return false;
}

/* Prefixes ------------------------------------------------------------------------------------ */

static void cut(const uint8_t bytes[16], unsigned length, uint8_t prefix[16])
{
    unsigned whole = length / 8;

    memset(prefix, 0, 16);
    memcpy(prefix, bytes, whole);
    if (length % 8)
        prefix[whole] = (uint8_t)(bytes[whole] & 0xff00U >> length % 8);
}

static uint64_t hash_prefix(const struct prefixes *prefixes, const uint8_t bytes[16],
                            uint8_t family, uint8_t length)
{
    const uint64_t kind = (uint64_t)family << 8 | length;
    uint64_t words[2];
    uint32_t word;

    if (family != AF_INET) {
        memcpy(words, bytes, sizeof(words));
        return hash_words(&prefixes->key, words, 2, kind, 2);
    }
    memcpy(&word, bytes, sizeof(word));
    return hash_words(&prefixes->key, NULL, 0, kind << 32 | word, 6);
}

static uint8_t tag_of(uint64_t hash)
{
    return (uint8_t)(hash >> 56 | 1);
}

/* The slot that holds this prefix, or the empty one where it would be. */
static size_t find_slot(const struct prefixes *prefixes, const uint8_t bytes[16], uint8_t family,
                        uint8_t length)
{
    const uint64_t hash = hash_prefix(prefixes, bytes, family, length);
    size_t slot = hash & prefixes->mask;

    for (; prefixes->tags[slot]; slot = (slot + 1) & prefixes->mask) {
        const struct nlct_prefix *there = &prefixes->slots[slot];

        if (prefixes->tags[slot] == tag_of(hash) && there->family == family &&
            there->length == length && memcmp(there->bytes, bytes, 16) == 0)
            break;
    }
    return slot;
}

static void add_length(struct prefixes *prefixes, uint8_t family, uint8_t length)
{
    unsigned i;

    for (i = 0; i < prefixes->nlengths; i++)
        if (prefixes->lengths[i].family == family && prefixes->lengths[i].length == length)
            return;
    prefixes->lengths[prefixes->nlengths++] = (struct length){family, length};
}

static void add_prefix(struct prefixes *prefixes, const struct nlct_prefix *prefix)
{
    struct nlct_prefix new = *prefix;
    size_t slot;

    cut(prefix->bytes, prefix->length, new.bytes);
    add_length(prefixes, new.family, new.length);
    slot = find_slot(prefixes, new.bytes, new.family, new.length);
    prefixes->tags[slot] = tag_of(hash_prefix(prefixes, new.bytes, new.family, new.length));
    prefixes->slots[slot] = new;
}

static bool is_prefix_of(const struct nlct_prefix *prefix, enum nlct_kind kind)
{
    if (kind == NLCT_TEXT)
        return prefix->family == 0 && prefix->length == 128;
    return (prefix->family == AF_INET && prefix->length <= 32) ||
           (prefix->family == AF_INET6 && prefix->length <= 128);
}

static int compile_prefixes(struct test *test, const struct nlct_prefix *values)
{
    const enum nlct_kind kind = test->field->public.kind;
    struct prefixes *prefixes;
    size_t slots = 16;
    size_t i;
    int rc;

    if (kind != NLCT_ADDRESS && kind != NLCT_TEXT)
        return -EINVAL;
    for (i = 0; i < test->count; i++)
        if (!is_prefix_of(&values[i], kind))
            return -EINVAL;
    prefixes = test->prefixes = calloc(1, sizeof(*prefixes));
    if (!prefixes)
        return -ENOMEM;
    rc = hash_key_new(&prefixes->key);
    if (rc < 0)
        return rc;
    while (slots < test->count * 2)
        slots *= 2;
    prefixes->mask = slots - 1;
    prefixes->tags = calloc(slots, 1);
    prefixes->slots = calloc(slots, sizeof(*prefixes->slots));
    if (!prefixes->tags || !prefixes->slots)
        return -ENOMEM;
    for (i = 0; i < test->count; i++)
        add_prefix(prefixes, &values[i]);
    return 0;
}

static bool in_prefixes(const struct prefixes *prefixes, const uint8_t bytes[16], uint8_t family)
{
    unsigned i;

    for (i = 0; i < prefixes->nlengths; i++) {
        const struct length *length = &prefixes->lengths[i];
        uint8_t prefix[16];

        if (length->family != family)
            continue;
        cut(bytes, length->length, prefix);
        if (prefixes->tags[find_slot(prefixes, prefix, family, length->length)])
            return true;
    }
    return false;
}

/* Filters ------------------------------------------------------------------------------------- */

static bool leads_on(int target, size_t from, size_t count)
{
    return target == NLCT_MATCH || target == NLCT_DROP ||
           (target > (int)from && (size_t)target < count);
}

static int compile(struct test *test, const struct nlct_test *from)
{
    *test = (struct test){
        .field = flow_field(from->field),
        .yes = from->yes,
        .no = from->no,
        .count = from->count,
    };
    if (!test->field)
        return -EINVAL;
    switch (from->kind) {
    case NLCT_TEST_RANGES:
        return compile_ranges(test, from->values);
    case NLCT_TEST_MASKS:
        return compile_masks(test, from->values);
    case NLCT_TEST_PREFIXES:
        return compile_prefixes(test, from->values);
    }
    return -EINVAL;
}

/* Networks, perhaps very many, may be looked for in one field after the other: such tests share
   them. Returns false if the test before has others. */
static bool borrow_prefixes(struct test *test, const struct nlct_test *from)
{
    const struct nlct_test *before = from - 1;
    const struct field *field = flow_field(from->field);

    if (from->kind != NLCT_TEST_PREFIXES || before->kind != from->kind || !field ||
        before->values != from->values || before->count != from->count ||
        test[-1].field->public.kind != field->public.kind)
        return false;
    *test = test[-1];
    test->field = field;
    test->yes = from->yes;
    test->no = from->no;
    test->borrowed = true;
    return true;
}

int nlct_filter_new(struct nlct_filter **filter, const struct nlct_test *tests, size_t count)
{
    struct nlct_filter *new = calloc(1, sizeof(*new) + count * sizeof(new->tests[0]));
    size_t i;
    int rc = new ? 0 : -ENOMEM;

    for (i = 0; i < count && rc == 0; i++) {
        rc = -EINVAL;
        if (!leads_on(tests[i].yes, i, count) || !leads_on(tests[i].no, i, count))
            break;
        new->count = i + 1;
        if (i == 0 || !borrow_prefixes(&new->tests[i], &tests[i]))
            rc = compile(&new->tests[i], &tests[i]);
        else
            rc = 0;
    }
    *filter = new;
    if (rc < 0)
        nlct_filter_free(filter);
    return rc;
}

void nlct_filter_free(struct nlct_filter **filter)
{
    struct nlct_filter *taken = __atomic_exchange_n(filter, NULL, __ATOMIC_ACQ_REL);
    size_t i;

    for (i = 0; taken && i < taken->count; i++) {
        struct test *test = &taken->tests[i];

        if (test->prefixes && !test->borrowed) {
            free(test->prefixes->tags);
            free(test->prefixes->slots);
            free(test->prefixes);
        }
        free(test->masks);
        free(test->ranges);
        free(test->bitmap);
    }
    free(taken);
}

/* Of a flow that is decoded, or that field of it. */
static bool agrees(const struct test *test, const struct nlct_flow *flow)
{
    if (!flow_has(flow, test->field))
        return false;
    if (test->prefixes)
        return in_prefixes(test->prefixes, flow_value(flow, test->field),
                           test->field->public.kind == NLCT_TEXT ? 0 : flow->family);
    if (test->masks)
        return in_masks(test, flow);
    if (test->bitmap)
        return in_bitmap(test->bitmap, flow_number(flow, test->field));
    return in_ranges(test, flow_number(flow, test->field));
}

/* Returns 1, 0, or -EBADMSG. */
static int answer(const struct test *test, struct view *view)
{
    int rc;

    /* The most common test, which needs no decoding. */
    if (test->field->attr == CTA_ZONE && test->bitmap) {
        rc = view_zone(view);
        return rc < 0 ? rc : in_bitmap(test->bitmap, (uint64_t)rc);
    }
    rc = view_decode(view, test->field);
    return rc < 0 ? rc : agrees(test, &view->flow);
}

int filter_match(const struct nlct_filter *filter, struct view *view)
{
    int at = filter->count ? 0 : NLCT_MATCH;
    int rc;

    while (at >= 0) {
        rc = answer(&filter->tests[at], view);
        if (rc < 0)
            return rc;
        at = rc ? filter->tests[at].yes : filter->tests[at].no;
    }
    return at == NLCT_MATCH;
}

bool nlct_filter_match(const struct nlct_filter *filter, const struct nlct_flow *flow)
{
    int at = filter->count ? 0 : NLCT_MATCH;

    while (at >= 0) {
        const struct test *test = &filter->tests[at];

        at = agrees(test, flow) ? test->yes : test->no;
    }
    return at == NLCT_MATCH;
}

bool filter_asks_only(const struct nlct_filter *filter, uint32_t attrs)
{
    const uint32_t asked = attrs | 1U; /* bit 0: what is in no attribute */
    size_t i;

    for (i = 0; i < filter->count; i++)
        if (!(asked & 1U << filter->tests[i].field->attr))
            return false;
    return true;
}
