/*
 * The hash tables of counts and of filters from inside: no flows that somebody chose make a look-up
 * in them long. Their sources are compiled here once more, under other names.
 */
#define nlct_counts_new tables_counts_new
#define nlct_counts_get tables_counts_get
#define nlct_counts_sums tables_counts_sums
#define nlct_filter_new tables_filter_new
#define nlct_filter_free tables_filter_free
#define nlct_filter_match tables_nlct_filter_match
#define filter_match tables_filter_match
#define filter_asks_only tables_filter_asks_only

#include "../../csrc/flow/filter.c"
#include "../../csrc/sinks/counts.c"

#include "cases.h"
#include "check.h"
#include "fake.h"
#include "make.h"

#include <sys/auxv.h>
#include <sys/socket.h>

/* Chosen addresses, and the longest look-up among as many that nobody chose: in a table that is
   half full, runs of more than a hundred are not seen. */
enum { CHOSEN = 4000, LONG = 400 };

/* What to multiply by to undo a multiplication by 'odd'. */
static uint64_t inverse(uint64_t odd)
{
    uint64_t found = odd;
    unsigned i;

    for (i = 0; i < 5; i++)
        found *= 2 - odd * found;
    return found;
}

/* A hash without a key can be turned round. This does so with one that multiplies, as it might be
   found in any such table: hash_bytes(), below, of what this makes of 'hash' is 'hash' again. */
static const uint64_t first_factor = UINT64_C(0x9e3779b97f4a7c15);
static const uint64_t second_factor = UINT64_C(0xd6e8feb86659fd93);

static uint64_t second_word(uint64_t first, uint64_t seed, uint64_t hash)
{
    const uint64_t mixed = (first ^ seed) * first_factor;

    return (hash ^ hash >> 32) * inverse(second_factor) ^ mixed ^ mixed >> 32;
}

/* The seed for which 16 zeros have this hash. */
static uint64_t seed_of(uint64_t hash)
{
    const uint64_t mixed = (hash ^ hash >> 32) * inverse(second_factor);

    return (mixed ^ mixed >> 32) * inverse(first_factor);
}

/* The address number 'i' of one /64, all of which have the same lower 32 bits of their hash: as a
   count, or as a prefix. */
static void choose(uint8_t address[16], uint64_t i, bool as_count)
{
    uint64_t words[2];

    memcpy(address, "\x20\1\xd\xb8\0\0\0\1", 8);
    memcpy(words, address, 8);
    if (as_count)
        words[1] = second_word(words[0], (uint64_t)AF_INET6 << 8 | 1, seed_of(i << 32));
    else
        words[1] = second_word(words[0], (uint64_t)AF_INET6 << 8 | 128, i << 32);
    memcpy(address + 8, words + 1, 8);
}

static struct nlct_sink *count_chosen(void)
{
    static struct packet packet;
    const unsigned field = field_number("src");
    struct nlct_sink *sink = make_counts(&field, 1);
    uint64_t i;

    CHECK(sink);
    for (i = 0; i < CHOSEN; i++) {
        uint8_t address[16];
        struct view view;
        size_t tuple;
        size_t nest;

        choose(address, i, true);
        packet_begin_flow(&packet, AF_INET6);
        tuple = packet_nest(&packet, CTA_TUPLE_ORIG);
        nest = packet_nest(&packet, CTA_TUPLE_IP);
        packet_attr(&packet, CTA_IP_V6_SRC, address, sizeof(address));
        packet_end_nest(&packet, nest);
        packet_end_nest(&packet, tuple);
        CHECK_IS(packet_view(&packet, &view), 0);
        CHECK_IS(sink->take(sink, &view), 0);
    }
    return sink;
}

static struct nlct_filter *match_chosen(void)
{
    static struct nlct_prefix prefixes[CHOSEN];
    const struct nlct_test test = {
        field_number("src"), NLCT_TEST_PREFIXES, NLCT_MATCH, NLCT_DROP, CHOSEN, prefixes};
    struct nlct_filter *filter;
    uint64_t i;

    for (i = 0; i < CHOSEN; i++) {
        prefixes[i] = (struct nlct_prefix){.family = AF_INET6, .length = 128};
        choose(prefixes[i].bytes, i, false);
    }
    CHECK_IS(nlct_filter_new(&filter, &test, 1), 0);
    return filter;
}

/* The longest row of slots in use, which no look-up exceeds. */
static size_t longest_run(bool (*used)(const void *table, size_t slot), const void *table,
                          size_t slots)
{
    size_t longest = 0;
    size_t run = 0;
    size_t slot;

    for (slot = 0; slot < slots * 2; slot++) { /* a row may go on at the first */
        run = used(table, slot % slots) ? run + 1 : 0;
        if (run > longest)
            longest = run;
    }
    return longest;
}

static bool has_count(const void *table, size_t slot)
{
    return ((const struct counts *)table)->slots[slot] != 0;
}

static bool has_prefix(const void *table, size_t slot)
{
    return ((const struct prefixes *)table)->tags[slot] != 0;
}

static void chosen_addresses_spread_over_counts(void)
{
    struct nlct_sink *sink = count_chosen();
    const struct counts *counts = (const struct counts *)sink;

    CHECK_IS(counts->nrows, CHOSEN);
    CHECK(longest_run(has_count, counts, counts->mask + 1) < LONG);
    nlct_sink_free(&sink);
}

static void chosen_addresses_spread_over_a_filter(void)
{
    struct nlct_filter *filter = match_chosen();
    const struct prefixes *prefixes = filter->tests[0].prefixes;

    CHECK(longest_run(has_prefix, prefixes, prefixes->mask + 1) < LONG);
    nlct_filter_free(&filter);
}

/* So that nothing can be learned from one about another. */
static void each_table_has_its_own_order(void)
{
    struct nlct_sink *sinks[2] = {count_chosen(), count_chosen()};
    struct nlct_filter *filters[2] = {match_chosen(), match_chosen()};
    const struct counts *counts = (const struct counts *)sinks[0];
    const struct prefixes *prefixes = filters[0]->tests[0].prefixes;

    CHECK(memcmp(counts->slots, ((const struct counts *)sinks[1])->slots,
                 (counts->mask + 1) * sizeof(counts->slots[0])) != 0);
    CHECK(memcmp(prefixes->tags, filters[1]->tests[0].prefixes->tags, prefixes->mask + 1) != 0);
    nlct_sink_free(&sinks[0]);
    nlct_sink_free(&sinks[1]);
    nlct_filter_free(&filters[0]);
    nlct_filter_free(&filters[1]);
}

/* The bytes 0, 1, 2, ... under the key of the bytes 0 to 15. */
static void the_hash_is_siphash_1_3(void)
{
    static const struct {
        size_t size;
        uint64_t hash;
    } known[] = {
        {0, UINT64_C(0xabac0158050fc4dc)},  {6, UINT64_C(0xc50d2b50c59f22a7)},
        {8, UINT64_C(0x369095118d299a8e)},  {18, UINT64_C(0x8ffc389cb473e63e)},
        {35, UINT64_C(0xcea1a3bebf186b91)},
    };
    const struct hash_key key = {{UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)}};
    uint64_t words[5] = {0};
    size_t i;

    for (i = 0; i < 35; i++)
        words[i / 8] |= (uint64_t)i << i % 8 * 8;
    for (i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        const size_t whole = known[i].size / 8;
        const size_t left = known[i].size % 8;
        const uint64_t last = words[whole] & ((UINT64_C(1) << left * 8) - 1);

        CHECK(hash_words(&key, words, whole, last, left) == known[i].hash);
    }
}

/* Under a policy, or early after boot: the key is what the kernel gave the program at its start. */
static void without_randomness_there_is_a_key_all_the_same(void)
{
    static const int errors[] = {0, ENOSYS, EPERM, EAGAIN, EINTR};
    struct hash_key key;
    size_t i;

    for (i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        memset(&key, 0, sizeof(key));
        fake_fail_random(errors[i]);
        CHECK_IS(hash_key_new(&key), 0);
        CHECK_BYTES(&key, (const void *)getauxval(AT_RANDOM), sizeof(key));
    }
    CHECK_IS(hash_key_new(&key), 0);
    CHECK(memcmp(&key, (const void *)getauxval(AT_RANDOM), sizeof(key)) != 0);
}

const struct test_case table_cases[] = {
    CASE(the_hash_is_siphash_1_3),
    CASE(without_randomness_there_is_a_key_all_the_same),
    CASE(chosen_addresses_spread_over_counts),
    CASE(chosen_addresses_spread_over_a_filter),
    CASE(each_table_has_its_own_order),
    END_OF_CASES,
};
