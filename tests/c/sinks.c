/* Sinks by themselves: rows, text, counts and sums, columns. */
#include "cases.h"
#include "check.h"
#include "fake.h"
#include "make.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <sys/socket.h>

enum { MAX_COLUMNS = FLOW_FIELDS_MAX };

static struct packet packet;
static uint8_t every_field[MAX_COLUMNS];

/* Begins a flow whose number is its source port and its id. */
static void begin(unsigned number)
{
    packet_begin_flow(&packet, AF_INET);
    packet_tuple(&packet, CTA_TUPLE_ORIG, "10.0.0.1", "192.0.2.1", IPPROTO_UDP, (uint16_t)number,
                 53);
    packet_be32(&packet, CTA_ID, number);
}

static void put_context(const char *text, size_t size)
{
    const size_t nest = packet_nest(&packet, CTA_SECCTX);

    packet_attr(&packet, CTA_SECCTX_NAME, text, size);
    packet_end_nest(&packet, nest);
}

static void put_helper(const char *name)
{
    const size_t nest = packet_nest(&packet, CTA_HELP);

    packet_attr(&packet, CTA_HELP_NAME, name, strlen(name) + 1);
    packet_end_nest(&packet, nest);
}

/* Gives the flow in the packet to the sink. Returns what that says. */
static int give(struct nlct_sink *sink)
{
    struct view view;

    CHECK_IS(packet_view(&packet, &view), 0);
    return sink->take(sink, &view);
}

/* Rows ---------------------------------------------------------------------------------------- */

static void rows_share_bytes(void)
{
    struct nlct_bytes bytes = {0};
    struct nlct_flow rows[2];
    struct nlct_sink *sink = make_rows(rows, 2, &bytes);

    begin(1);
    put_context("one", 3);
    CHECK_IS(give(sink), 0);
    begin(2);
    put_context("second", 6);
    CHECK_IS(give(sink), 0);
    CHECK_IS(give(sink), 1);
    CHECK_IS(bytes.size, 9);
    CHECK_IS(nlct_rows_take(sink), 2);
    CHECK_BYTES(bytes.data + rows[1].secctx.at, "second", 6);
    CHECK_IS(nlct_rows_take(sink), 0);
    CHECK_IS(give(sink), 0);
    CHECK_IS(nlct_rows_take(sink), 1);
    CHECK_IS(rows[0].id, 2);
    nlct_sink_free(&sink);
    nlct_bytes_free(&bytes);
}

/* Lines --------------------------------------------------------------------------------------- */

static void lines_say_what_the_flow_says(void)
{
    static const char expected[] =
        "udp      17 src=10.0.0.1 dst=192.0.2.1 sport=1 dport=53 mark=7\n"
        "udp      17 src=10.0.0.1 dst=192.0.2.1 sport=2 dport=53 mark=7 "
        "secctx=context helper=ftp\n";
    static char buffer[4 * NLCT_TEXT_MAX];
    struct nlct_sink *sink = make_text(buffer, sizeof(buffer));

    begin(1);
    packet_be32(&packet, CTA_MARK, 7);
    CHECK_IS(give(sink), 0);
    begin(2);
    packet_be32(&packet, CTA_MARK, 7);
    put_context("context", 8);
    put_helper("ftp");
    CHECK_IS(give(sink), 0);
    CHECK_IS(nlct_text_take(sink), sizeof(expected) - 1);
    CHECK_BYTES(buffer, expected, sizeof(expected) - 1);
    CHECK_IS(nlct_text_take(sink), 0);
    nlct_sink_free(&sink);
}

/* Every line there is, whatever room the buffer has beyond the least. */
static void a_full_buffer_wants_its_line_again(void)
{
    const size_t room[] = {0, 1, 60, 61, 500};
    static char buffer[NLCT_TEXT_MAX + 500];
    size_t i;

    for (i = 0; i < sizeof(room) / sizeof(room[0]); i++) {
        struct nlct_sink *sink = make_text(buffer, NLCT_TEXT_MAX + room[i]);
        unsigned number = 0;
        size_t lines = 0;
        size_t size;
        int rc;

        while (number < 50) {
            begin(number);
            rc = give(sink);
            CHECK(rc == 0 || rc == 1);
            number += rc == 0;
            if (rc == 0 && number < 50)
                continue;
            size = nlct_text_take(sink);
            CHECK(size > 0 && size <= NLCT_TEXT_MAX + room[i]);
            for (; size; size--)
                lines += buffer[size - 1] == '\n';
        }
        CHECK_IS(lines, 50);
        nlct_sink_free(&sink);
    }
}

/* It would be wanted again for ever. */
static void a_line_longer_than_the_buffer_is_an_error(void)
{
    static char context[600];
    static char buffer[NLCT_TEXT_MAX + 599];
    struct nlct_sink *sink = make_text(buffer, sizeof(buffer));

    begin(1);
    put_context("short", 5);
    CHECK_IS(give(sink), 0);
    begin(2);
    memset(context, 'x', sizeof(context));
    put_context(context, sizeof(context));
    CHECK_IS(give(sink), 1);
    CHECK(nlct_text_take(sink) > 0);
    CHECK_IS(give(sink), -EMSGSIZE);
    nlct_sink_free(&sink);
    sink = make_text(buffer, NLCT_TEXT_MAX - 1);
    begin(1);
    CHECK_IS(give(sink), -EMSGSIZE);
    nlct_sink_free(&sink);
}

/* Values -------------------------------------------------------------------------------------- */

enum { ITEMS = 7 };

static const struct nlct_item *all_items(void)
{
    static struct nlct_word words[256];
    static struct nlct_item items[ITEMS];
    unsigned i;

    for (i = 0; i < 256; i++) {
        memcpy(words[i].text, "word", 4);
        words[i].size = 4;
    }
    items[0] = (struct nlct_item){field_number("mark"), 0, "\"mark\": ", "\"mark\": null", NULL};
    items[1] = (struct nlct_item){field_number("src"), 2, "\"orig\": {", "", NULL};
    items[2] = (struct nlct_item){field_number("src"), 0, "\"src\": ", "", NULL};
    items[3] = (struct nlct_item){field_number("proto"), 0, "\"proto\": ", "", words};
    items[4] = (struct nlct_item){field_number("secctx"), 0, "\"secctx\": ", "", NULL};
    items[5] = (struct nlct_item){field_number("status"), 0, "\"status\": ", "", words};
    items[6] = (struct nlct_item){field_number("unknown"), 0, "\"unknown\": ", "", NULL};
    return items;
}

static void values_say_what_the_flow_says(void)
{
    static const char expected[] =
        "{\"mark\": null, \"orig\": {\"src\": \"10.0.0.1\", \"proto\": \"word\"}, "
        "\"secctx\": \"a\\ufffd\\\"\", \"status\": [\"word\", \"word\"], "
        "\"unknown\": {\"99\": \"0aff\"}}\n"
        "{\"mark\": 7, \"orig\": {\"src\": \"10.0.0.1\", \"proto\": \"word\"}}\n";
    static char buffer[8192];
    struct nlct_sink *sink = make_values(all_items(), ITEMS, true, buffer, sizeof(buffer));

    begin(1);
    put_context("a\xff\"", 4);
    packet_be32(&packet, CTA_STATUS, 3);
    packet_attr(&packet, 99, "\x0a\xff", 2);
    CHECK_IS(give(sink), 0);
    begin(2);
    packet_be32(&packet, CTA_MARK, 7);
    CHECK_IS(give(sink), 0);
    CHECK_IS(nlct_values_take(sink), sizeof(expected) - 1);
    CHECK_BYTES(buffer, expected, sizeof(expected) - 1);
    CHECK_IS(nlct_values_take(sink), 0);
    nlct_sink_free(&sink);
}

/* Every line there is, in just as much room as it wants; no byte beyond is touched. */
static void values_keep_to_their_buffer(void)
{
    enum { CONTEXT = 50, MARGIN = 16, MOST = 16384 };
    static char context[CONTEXT];
    static char buffer[MOST + MARGIN];
    struct nlct_sink *sink = make_values(all_items(), ITEMS, true, buffer, MOST);
    const size_t room = nlct_values_room(sink) + 6 * CONTEXT;
    size_t i;

    nlct_sink_free(&sink);
    CHECK(room < MOST);
    memset(context, 0x80, sizeof(context));
    memset(buffer, 'x', sizeof(buffer));
    sink = make_values(all_items(), ITEMS, true, buffer, room);
    for (i = 0; i < 3; i++) {
        begin(1);
        packet_be32(&packet, CTA_STATUS, UINT32_MAX);
        put_context(context, CONTEXT);
        CHECK_IS(give(sink), 0);
        CHECK_IS(give(sink), 1);
        CHECK(nlct_values_take(sink) <= room);
        CHECK_BYTES(buffer + room, "xxxxxxxxxxxxxxxx", MARGIN);
    }
    nlct_sink_free(&sink);
    /* It would be wanted again for ever. */
    sink = make_values(all_items(), ITEMS, true, buffer, room - 1);
    CHECK_IS(give(sink), -EMSGSIZE);
    begin(1);
    CHECK_IS(give(sink), 0);
    nlct_sink_free(&sink);
}

static void values_refuse_items_without_sense(void)
{
    static char buffer[1];
    struct nlct_item items[ITEMS];
    size_t which;

    for (which = 0; which < 6; which++) {
        memcpy(items, all_items(), sizeof(items));
        switch (which) {
        case 0:
            items[0].field = FLOW_FIELDS_MAX;
            break;
        case 1:
            items[1].inner = ITEMS - 1; /* more than there are */
            break;
        case 2:
            items[1].inner = 3; /* one of them is of no tuple */
            break;
        case 3:
            items[2].inner = 1;
            break;
        case 4:
            items[4].words = items[3].words;
            break;
        case 5:
            items[0].inner = 1; /* it is in no tuple */
            break;
        }
        CHECK(!make_values(items, ITEMS, true, buffer, sizeof(buffer)));
    }
    CHECK(!make_values(all_items(), ITEMS, false, buffer, sizeof(buffer)));
}

/* Groups -------------------------------------------------------------------------------------- */

static struct nlct_sink *counts_by(const char *first, const char *second)
{
    const unsigned fields[] = {field_number(first), second ? field_number(second) : 0};
    struct nlct_sink *sink = make_counts(fields, second ? 2 : 1);

    CHECK(sink);
    return sink;
}

static void counts_are_by_up_to_three_fields_without_spans(void)
{
    const unsigned zone = field_number("zone");
    const unsigned bytes = field_number("bytes_orig");
    const unsigned wrong[][3] = {
        {field_number("secctx"), 0, 0},
        {field_number("helper_info"), 0, 0},
        {field_number("unknown"), 0, 0},
        {9999, 0, 0},
        {UINT32_MAX, 0, 0},
    };
    unsigned fields[] = {zone, zone, zone, zone};
    const unsigned sums[] = {bytes, bytes, bytes, bytes, bytes};
    const unsigned no_numbers[] = {field_number("src"), field_number("labels"), wrong[0][0], 9999};
    const struct nlct_group too_long[] = {{field_number("src"), 33, 0},
                                          {field_number("dst"), 0, 129}};
    struct nlct_sink *sink = NULL;
    size_t i;

    CHECK(!make_counts(fields, 4));
    CHECK(!make_sums(fields, 1, sums, NLCT_SUMS + 1));
    for (i = 0; i < sizeof(no_numbers) / sizeof(no_numbers[0]); i++)
        CHECK(!make_sums(fields, 1, &no_numbers[i], 1));
    for (i = 0; i < 2; i++)
        CHECK_IS(nlct_counts_new(&sink, &too_long[i], 1, NULL, 0), -EINVAL);
    for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        CHECK(!make_counts(wrong[i], 1));
        fields[1] = wrong[i][0];
        CHECK(!make_counts(fields, 2));
    }
}

static void counts_tell_absent_from_zero(void)
{
    struct nlct_sink *sink = counts_by("mark", NULL);
    const struct nlct_count *counts;
    uint32_t value;
    size_t count;
    int i;

    counts = nlct_counts_get(sink, &count);
    CHECK_IS(count, 0);
    for (i = 0; i < 3; i++) {
        begin(1);
        CHECK_IS(give(sink), 0);
        begin(1);
        packet_be32(&packet, CTA_MARK, 0);
        CHECK_IS(give(sink), 0);
        CHECK_IS(give(sink), 0);
    }
    counts = nlct_counts_get(sink, &count);
    CHECK_IS(count, 2);
    CHECK_IS(counts[0].present[0], 0);
    CHECK_IS(counts[0].count, 3);
    CHECK_IS(counts[1].present[0], 1);
    CHECK_IS(counts[1].count, 6);
    memcpy(&value, counts[1].values[0], sizeof(value));
    CHECK_IS(value, 0);
    nlct_sink_free(&sink);
}

/* More than there is room for at first: each once, and its twin. */
static void counts_grow(void)
{
    enum { MANY = 20000 };
    struct nlct_sink *sink = counts_by("sport", "mark");
    const struct nlct_count *counts;
    size_t count;
    uint32_t mark;
    uint16_t port;
    unsigned i;

    for (i = 0; i < 2 * MANY; i++) {
        begin(i % MANY);
        packet_be32(&packet, CTA_MARK, i % MANY * 65537);
        CHECK_IS(give(sink), 0);
    }
    counts = nlct_counts_get(sink, &count);
    CHECK_IS(count, MANY);
    for (i = 0; i < MANY; i++) {
        memcpy(&port, counts[i].values[0], sizeof(port));
        memcpy(&mark, counts[i].values[1], sizeof(mark));
        CHECK_IS(port, i);
        CHECK_IS(mark, i * 65537);
        CHECK_IS(counts[i].count, 2);
        CHECK_IS(counts[i].present[0] + counts[i].present[1], 2);
        CHECK_IS(counts[i].family, 0);
    }
    nlct_sink_free(&sink);
}

/* Addresses of the same 16 bytes, of each family; and ports beside a mark that is zero or absent:
   so many that they lie in each other's way. */
static void counts_tell_the_same_bytes_apart(void)
{
    enum { MANY = 300 };
    struct nlct_sink *sink = counts_by("src", "dport");
    struct nlct_sink *marks = counts_by("sport", "mark");
    const struct nlct_count *counts;
    const struct nlct_count *of_marks;
    size_t count;
    unsigned i;

    for (i = 0; i < 3 * MANY; i++) {
        const bool ipv6 = i % 3 == 0;

        packet_begin_flow(&packet, ipv6 ? AF_INET6 : AF_INET);
        packet_tuple(&packet, CTA_TUPLE_ORIG, ipv6 ? "a00:1::" : "10.0.0.1",
                     ipv6 ? "::" : "0.0.0.0", IPPROTO_UDP, (uint16_t)(i / 3), (uint16_t)(i / 3));
        if (ipv6)
            packet_be32(&packet, CTA_MARK, 0);
        CHECK_IS(give(sink), 0);
        CHECK_IS(give(marks), 0);
    }
    counts = nlct_counts_get(sink, &count);
    CHECK_IS(count, 2 * MANY);
    of_marks = nlct_counts_get(marks, &count);
    CHECK_IS(count, 2 * MANY);
    for (i = 0; i < 2 * MANY; i++) {
        CHECK_IS(counts[i].family, i % 2 ? AF_INET : AF_INET6);
        CHECK_IS(counts[i].count, i % 2 ? 2 : 1);
        CHECK_BYTES(counts[i].values, counts[i / 2 * 2].values, 32);
        CHECK_IS(of_marks[i].present[1], i % 2 ? 0 : 1);
        CHECK_IS(of_marks[i].count, i % 2 ? 2 : 1);
    }
    nlct_sink_free(&sink);
    nlct_sink_free(&marks);
}

static void counts_by_text_labels_zone_and_family(void)
{
    static const uint8_t labels[16] = {1, [15] = 0x80};
    struct nlct_sink *by_text = counts_by("helper", "labels");
    struct nlct_sink *by_zone = counts_by("zone", "family");
    const struct nlct_count *counts;
    uint16_t zone;
    size_t count;

    begin(1);
    packet_be16(&packet, CTA_ZONE, 258);
    put_helper("ftp");
    packet_attr(&packet, CTA_LABELS, labels, sizeof(labels));
    CHECK_IS(give(by_text), 0);
    CHECK_IS(give(by_zone), 0);
    begin(1);
    CHECK_IS(give(by_zone), 0);
    counts = nlct_counts_get(by_text, &count);
    CHECK_IS(count, 1);
    CHECK_BYTES(counts->values[0], "ftp\0\0\0\0\0\0\0\0\0\0\0\0", 16);
    CHECK_BYTES(counts->values[1], labels, 16);
    counts = nlct_counts_get(by_zone, &count);
    CHECK_IS(count, 2);
    memcpy(&zone, counts[0].values[0], sizeof(zone));
    CHECK_IS(zone, 258);
    CHECK_IS(counts[0].values[1][0], AF_INET);
    /* Zone 0 is there, though no attribute says so. */
    CHECK_IS(counts[1].present[0], 1);
    CHECK_IS(counts[1].values[0][0], 0);
    nlct_sink_free(&by_text);
    nlct_sink_free(&by_zone);
}

/* Begins a flow with a counter, or with none. */
static void begin_counted(unsigned number, const uint64_t *bytes)
{
    begin(number);
    if (bytes) {
        const size_t nest = packet_nest(&packet, CTA_COUNTERS_ORIG);

        packet_be64(&packet, CTA_COUNTERS_BYTES, *bytes);
        packet_end_nest(&packet, nest);
    }
}

/* More groups than there is room for at first; of each, two flows whose sum needs 65 bits, and one
   without a counter. The last group has no counter at all. */
static void sums_are_exact_and_of_what_is_there(void)
{
    enum { MANY = 3000 };
    const unsigned by[] = {field_number("zone"), field_number("sport"), field_number("dport")};
    const unsigned of[] = {field_number("packets_orig"), field_number("bytes_orig")};
    struct nlct_sink *sink = make_sums(by, 3, of, 2);
    const uint64_t most = UINT64_MAX;
    const uint64_t zero = 0;
    const struct nlct_count *counts;
    const struct nlct_sum *sums;
    size_t count;
    unsigned i;

    CHECK(sink);
    for (i = 0; i < 3 * MANY; i++) {
        begin_counted(i % MANY, i < 2 * MANY ? &most : NULL);
        CHECK_IS(give(sink), 0);
    }
    begin_counted(MANY, NULL);
    CHECK_IS(give(sink), 0);
    begin_counted(MANY + 1, &zero);
    CHECK_IS(give(sink), 0);
    counts = nlct_counts_get(sink, &count);
    sums = nlct_counts_sums(sink);
    CHECK_IS(count, MANY + 2);
    for (i = 0; i < MANY; i++) {
        uint16_t port;

        memcpy(&port, counts[i].values[1], sizeof(port));
        CHECK_IS(port, i);
        CHECK_IS(counts[i].count, 3);
        CHECK_IS(sums[2 * i].count, 0);
        CHECK_IS(sums[2 * i].low, 0);
        CHECK_IS(sums[2 * i + 1].count, 2);
        CHECK_IS(sums[2 * i + 1].low, UINT64_MAX - 1);
        CHECK_IS(sums[2 * i + 1].high, 1);
    }
    CHECK_IS(sums[2 * MANY + 1].count, 0);
    CHECK_IS(sums[2 * MANY + 3].count, 1);
    CHECK_IS(sums[2 * MANY + 3].low, 0);
    nlct_sink_free(&sink);
}

static void prefixes_are_of_their_family(void)
{
    static const uint8_t expected[][16] = {{10, 64}, {0x20, 0x01, 0x0d, 0xb8, 0xff, 0xfe}};
    const struct nlct_group by = {field_number("src"), 11, 47};
    struct nlct_sink *sink = NULL;
    const struct nlct_count *counts;
    size_t count;
    unsigned i;

    CHECK_IS(nlct_counts_new(&sink, &by, 1, NULL, 0), 0);
    for (i = 0; i < 4; i++) {
        packet_begin_flow(&packet, i % 2 ? AF_INET6 : AF_INET);
        packet_tuple(&packet, CTA_TUPLE_ORIG,
                     i % 2 ? "2001:db8:ffff:1::"
                     : i   ? "10.95.1.1"
                           : "10.64.0.1",
                     i % 2 ? "::" : "0.0.0.0", IPPROTO_UDP, 1, 2);
        CHECK_IS(give(sink), 0);
    }
    counts = nlct_counts_get(sink, &count);
    CHECK_IS(count, 2);
    for (i = 0; i < 2; i++) {
        CHECK_IS(counts[i].count, 2);
        CHECK_IS(counts[i].family, i ? AF_INET6 : AF_INET);
        CHECK_BYTES(counts[i].values[0], expected[i], 16);
    }
    nlct_sink_free(&sink);
}

/* It is not counted, and does not add a part. */
static void sums_refuse_what_is_malformed(void)
{
    const unsigned zone = field_number("zone");
    const unsigned of[] = {field_number("bytes_orig"), field_number("mark")};
    struct nlct_sink *sink = make_sums(&zone, 1, of, 2);
    const uint64_t bytes = 7;
    size_t count;

    begin_counted(1, &bytes);
    packet_attr(&packet, CTA_MARK, "12", 2);
    CHECK_IS(give(sink), -EBADMSG);
    nlct_counts_get(sink, &count);
    CHECK_IS(count, 0);
    begin_counted(1, &bytes);
    CHECK_IS(give(sink), 0);
    CHECK_IS(nlct_counts_sums(sink)->low, 7);
    nlct_sink_free(&sink);
}

static void counts_refuse_what_is_malformed(void)
{
    struct nlct_sink *sink = counts_by("zone", "mark");
    size_t count;

    begin(1);
    packet_attr(&packet, CTA_MARK, "12", 2);
    CHECK_IS(give(sink), -EBADMSG);
    nlct_counts_get(sink, &count);
    CHECK_IS(count, 0);
    nlct_sink_free(&sink);
}

/* Columns ------------------------------------------------------------------------------------- */

/* What a sink of columns handed over. */
struct table {
    struct nlct_column columns[MAX_COLUMNS];
    struct nlct_bytes bytes;
    size_t rows;
};

static struct nlct_sink *columns_of_all(size_t limit)
{
    struct nlct_sink *sink;

    memset(every_field, 1, sizeof(every_field));
    sink = make_columns(every_field, limit);
    CHECK(sink);
    return sink;
}

static void take(struct nlct_sink *sink, struct table *table)
{
    table->rows = nlct_columns_take(sink, table->columns, &table->bytes);
}

static void let_go(struct table *table)
{
    unsigned i;

    for (i = 0; i < flow_fields(); i++) {
        nlct_column_free(&table->columns[i]);
    }
    nlct_bytes_free(&table->bytes);
}

static const struct nlct_column *column(const struct table *table, const char *name)
{
    const struct nlct_column *found = &table->columns[field_number(name)];

    CHECK_IS(found->field, field_number(name));
    return found;
}

static uint32_t number_at(const struct nlct_column *of, size_t row)
{
    uint32_t value;

    memcpy(&value, (const uint8_t *)of->values + row * sizeof(value), sizeof(value));
    return value;
}

/* Fields that come late, go early, and come and go, over more rows than there is room at first. */
static void columns_keep_absent_values_apart(void)
{
    enum { ROWS = 5000, LATE = 2500, EARLY = 1025 };
    struct nlct_sink *sink = columns_of_all(SIZE_MAX);
    const struct nlct_column *late;
    const struct nlct_column *early;
    const struct nlct_column *every_third;
    struct table table;
    unsigned i;

    for (i = 0; i < ROWS; i++) {
        begin(i);
        if (i >= LATE)
            packet_be32(&packet, CTA_MARK, i + 1);
        if (i < EARLY)
            packet_be32(&packet, CTA_TIMEOUT, i + 2);
        if (i % 3 == 0)
            packet_be32(&packet, CTA_STATUS, i + 3);
        CHECK_IS(give(sink), 0);
    }
    CHECK_IS(nlct_columns_count(sink), ROWS);
    take(sink, &table);
    CHECK_IS(table.rows, ROWS);
    late = column(&table, "mark");
    early = column(&table, "timeout");
    every_third = column(&table, "status");
    for (i = 0; i < ROWS; i++) {
        CHECK_IS(number_at(column(&table, "id"), i), i);
        CHECK_IS(late->valid[i], i >= LATE);
        CHECK_IS(number_at(late, i), i >= LATE ? i + 1 : 0);
        CHECK_IS(early->valid[i], i < EARLY);
        CHECK_IS(number_at(early, i), i < EARLY ? i + 2 : 0);
        CHECK_IS(every_third->valid[i], i % 3 == 0);
        CHECK_IS(number_at(every_third, i), i % 3 == 0 ? i + 3 : 0);
    }
    CHECK(!column(&table, "id")->valid);
    CHECK(!column(&table, "zone")->valid);
    CHECK(column(&table, "zone")->values);
    CHECK(!column(&table, "use")->values && !column(&table, "use")->valid);
    CHECK(!column(&table, "reply_src")->values);
    let_go(&table);
    nlct_sink_free(&sink);
}

static void columns_start_anew_when_taken(void)
{
    struct nlct_sink *sink = columns_of_all(SIZE_MAX);
    struct table first;
    struct table none;
    struct table second;
    unsigned i;

    begin(1);
    put_context("first", 5);
    packet_be32(&packet, CTA_MARK, 1);
    CHECK_IS(give(sink), 0);
    take(sink, &first);
    CHECK_IS(nlct_columns_count(sink), 0);
    take(sink, &none);
    CHECK_IS(none.rows, 0);
    CHECK(!none.bytes.data && !none.bytes.size);
    for (i = 0; i < flow_fields(); i++)
        CHECK(!none.columns[i].values && !none.columns[i].valid);
    begin(2);
    put_context("second", 6);
    CHECK_IS(give(sink), 0);
    take(sink, &second);
    nlct_sink_free(&sink);

    CHECK_IS(first.rows, 1);
    CHECK_IS(number_at(column(&first, "mark"), 0), 1);
    CHECK_BYTES(first.bytes.data, "first", 5);
    CHECK_IS(second.rows, 1);
    CHECK(!column(&second, "mark")->values);
    CHECK_IS(number_at(column(&second, "secctx"), 0), 0);
    CHECK_BYTES(second.bytes.data, "second", 6);
    let_go(&first);
    let_go(&none);
    let_go(&second);
}

static void columns_are_full_at_their_limit(void)
{
    const struct nlct_flow flow = {.family = AF_INET, .present = BIT(NLCT_FLOW_ORIG)};
    struct nlct_sink *sink = columns_of_all(3);
    struct table table;
    unsigned i;

    for (i = 0; i < 5; i++) {
        begin(i);
        put_context("four", 4);
        CHECK_IS(give(sink), i < 3 ? 0 : 1);
    }
    CHECK_IS(nlct_columns_add(sink, &flow, NULL), 1);
    take(sink, &table);
    CHECK_IS(table.rows, 3);
    CHECK_IS(table.bytes.size, 12);
    let_go(&table);
    CHECK_IS(nlct_columns_add(sink, &flow, NULL), 0);
    nlct_sink_free(&sink);
    sink = columns_of_all(0);
    CHECK_IS(give(sink), 1);
    nlct_sink_free(&sink);
}

static void columns_that_are_not_wanted_are_not_kept(void)
{
    static uint8_t wanted[MAX_COLUMNS];
    struct nlct_sink *sink;
    struct table table;
    unsigned i;

    wanted[field_number("sport")] = 1;
    wanted[field_number("mark")] = 1;
    sink = make_columns(wanted, SIZE_MAX);
    begin(1);
    CHECK_IS(give(sink), 0);
    take(sink, &table);
    for (i = 0; i < flow_fields(); i++)
        CHECK_IS(table.columns[i].values != NULL, i == field_number("sport"));
    let_go(&table);
    nlct_sink_free(&sink);
}

/* A flow that has about everything, in one of two families. */
static void begin_whole(uint8_t family, unsigned number)
{
    const char *src = family == AF_INET ? "10.0.0.1" : "fd00::1";
    const char *dst = family == AF_INET ? "192.0.2.1" : "fd00::2";
    size_t nest;

    packet_begin_flow(&packet, family);
    packet_tuple(&packet, CTA_TUPLE_ORIG, src, dst, IPPROTO_TCP, (uint16_t)number, 80);
    packet_tuple(&packet, CTA_TUPLE_REPLY, dst, src, IPPROTO_TCP, 80, (uint16_t)number);
    if (number % 2)
        packet_tuple(&packet, CTA_TUPLE_MASTER, src, dst, IPPROTO_TCP, 1, 21);
    packet_be16(&packet, CTA_ZONE, 258);
    packet_be32(&packet, CTA_STATUS, number);
    nest = packet_nest(&packet, CTA_COUNTERS_REPLY);
    packet_be64(&packet, CTA_COUNTERS_BYTES, UINT64_MAX - number);
    packet_end_nest(&packet, nest);
    packet_attr(&packet, CTA_LABELS, "0123456789abcdef", 16);
    put_helper(number % 3 ? "ftp" : "irc");
    put_context("context of its own", number % 18);
    packet_attr(&packet, 99, "unknown", number % 8);
}

static void check_same_flow(const struct nlct_flow *a, const uint8_t *bytes,
                            const struct nlct_flow *b, const uint8_t *other_bytes)
{
    struct nlct_flow plain_a = *a;
    struct nlct_flow plain_b = *b;

    CHECK_IS(a->secctx.size, b->secctx.size);
    CHECK_BYTES(bytes + a->secctx.at, other_bytes + b->secctx.at, a->secctx.size);
    CHECK_IS(a->unknown.size, b->unknown.size);
    CHECK_BYTES(bytes + a->unknown.at, other_bytes + b->unknown.at, a->unknown.size);
    plain_a.secctx.at = plain_b.secctx.at = plain_a.unknown.at = plain_b.unknown.at = 0;
    CHECK_BYTES(&plain_a, &plain_b, sizeof(plain_a));
}

static struct nlct_flow row_of(const struct table *table, size_t row)
{
    struct nlct_column present[MAX_COLUMNS];
    struct nlct_flow flow;
    size_t count = 0;
    unsigned field;

    for (field = 0; field < flow_fields(); field++)
        if (table->columns[field].values)
            present[count++] = table->columns[field];
    nlct_columns_row(present, count, table->bytes.size, row, &flow);
    return flow;
}

/* From messages and from flows alike, each row is the flow that it was. */
static void columns_give_back_their_flows(void)
{
    enum { ROWS = 40 };
    struct nlct_sink *taking = columns_of_all(SIZE_MAX);
    struct nlct_sink *adding = columns_of_all(SIZE_MAX);
    struct nlct_flow flows[ROWS];
    struct nlct_bytes bytes = {0};
    struct nlct_flow row;
    struct table taken;
    struct table added;
    unsigned i;

    for (i = 0; i < ROWS; i++) {
        begin_whole(i % 5 ? AF_INET : AF_INET6, i);
        CHECK_IS(give(taking), 0);
        CHECK_IS(nlct_flow_parse(packet.bytes, packet.size, &flows[i], &bytes), 0);
    }
    for (i = 0; i < ROWS; i++)
        CHECK_IS(nlct_columns_add(adding, &flows[ROWS - 1 - i], bytes.data), 0);
    take(taking, &taken);
    take(adding, &added);
    for (i = 0; i < ROWS; i++) {
        row = row_of(&taken, i);
        check_same_flow(&row, taken.bytes.data, &flows[i], bytes.data);
        row = row_of(&added, ROWS - 1 - i);
        check_same_flow(&row, added.bytes.data, &flows[i], bytes.data);
    }
    let_go(&taken);
    let_go(&added);
    nlct_bytes_free(&bytes);
    nlct_sink_free(&taking);
    nlct_sink_free(&adding);
}

static void columns_refuse_what_is_malformed(void)
{
    struct nlct_sink *sink = columns_of_all(SIZE_MAX);
    struct table table;

    begin(1);
    CHECK_IS(give(sink), 0);
    begin(2);
    packet_attr(&packet, CTA_MARK, "12", 2);
    CHECK_IS(give(sink), -EBADMSG);
    begin(3);
    CHECK_IS(give(sink), 0);
    take(sink, &table);
    CHECK_IS(table.rows, 2);
    CHECK_IS(number_at(column(&table, "id"), 1), 3);
    let_go(&table);
    nlct_sink_free(&sink);
}

static void columns_that_nobody_takes_are_freed(void)
{
    struct nlct_sink *sink = columns_of_all(SIZE_MAX);

    begin_whole(AF_INET, 7);
    CHECK_IS(give(sink), 0);
    nlct_sink_free(&sink);
    nlct_sink_free(&(struct nlct_sink *){NULL});
}

const struct test_case sink_cases[] = {
    CASE(rows_share_bytes),
    CASE(lines_say_what_the_flow_says),
    CASE(a_full_buffer_wants_its_line_again),
    CASE(a_line_longer_than_the_buffer_is_an_error),
    CASE(values_say_what_the_flow_says),
    CASE(values_keep_to_their_buffer),
    CASE(values_refuse_items_without_sense),
    CASE(counts_are_by_up_to_three_fields_without_spans),
    CASE(counts_tell_absent_from_zero),
    CASE(counts_grow),
    CASE(counts_tell_the_same_bytes_apart),
    CASE(counts_by_text_labels_zone_and_family),
    CASE(sums_are_exact_and_of_what_is_there),
    CASE(prefixes_are_of_their_family),
    CASE(sums_refuse_what_is_malformed),
    CASE(counts_refuse_what_is_malformed),
    CASE(columns_keep_absent_values_apart),
    CASE(columns_start_anew_when_taken),
    CASE(columns_are_full_at_their_limit),
    CASE(columns_that_are_not_wanted_are_not_kept),
    CASE(columns_give_back_their_flows),
    CASE(columns_refuse_what_is_malformed),
    CASE(columns_that_nobody_takes_are_freed),
    END_OF_CASES,
};
