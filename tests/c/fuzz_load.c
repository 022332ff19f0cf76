/*
 * A fuzz target for loading (csrc/ctnetlink/load.c), and for the rows of columns that it reads.
 *
 * The input says which columns there are and what is in them, which rows are to be made and what
 * the kernel answers. Whatever comes, a row has what its columns say; each row that can be built is
 * sent once, in order, as what it alone would be built as; that parses back to the row; and done
 * and refused add up.
 */
#include "fuzz.h"

#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { MAX_COLUMNS = 40, MAX_ROWS = 40, MAX_BYTES = 64, ANSWERS = 16 };

static uint8_t answers[ANSWERS];

/* Columns -------------------------------------------------------------------------------------- */

/* At an address that suits no number, and with nothing behind that may be read. */
static uint8_t *read_values(struct input *input, size_t size)
{
    uint8_t *values = malloc(size + 1);

    ASSERT(values);
    input_read(input, values + 1, size);
    return values + 1;
}

static void free_values(const void *values)
{
    if (values)
        free((uint8_t *)(uintptr_t)values - 1);
}

static void read_column(struct input *input, struct nlct_column *column, size_t rows)
{
    const uint8_t head = input_byte(input);
    const struct field *field;

    column->field = input_byte(input) % (flow_fields() + 1);
    field = flow_field(column->field);
    column->values = read_values(input, rows * (field ? field->public.size : 0));
    column->valid = head % 2 ? read_values(input, rows) : NULL;
}

static bool leaves(const struct nlct_column *column, size_t row, size_t bytes_size)
{
    struct nlct_span span;

    if (flow_field(column->field)->public.kind != NLCT_SPAN)
        return false;
    memcpy(&span, (const uint8_t *)column->values + row * sizeof(span), sizeof(span));
    return (uint64_t)span.at + span.size > bytes_size;
}

/* A row has what the last column of a field says where it says anything; spans inside the bytes. */
static void check_row(const struct nlct_column *columns, size_t ncolumns, size_t bytes_size,
                      size_t row, const struct nlct_flow *flow)
{
    bool said[FLOW_FIELDS_MAX] = {false};
    unsigned i;

    check_spans(flow, bytes_size);
    while (ncolumns-- > 0) {
        const struct nlct_column *column = &columns[ncolumns];
        const struct field *field = flow_field(column->field);
        const size_t size = field->public.size;

        if ((column->valid && !column->valid[row]) || said[column->field])
            continue;
        said[column->field] = true;
        if (leaves(column, row, bytes_size)) {
            ASSERT(!flow_has(flow, field));
            continue;
        }
        ASSERT(flow_has(flow, field));
        ASSERT(memcmp(flow_value(flow, field), (const uint8_t *)column->values + row * size,
                      size) == 0);
    }
    for (i = 0; i < flow_fields(); i++)
        if (!said[i] && flow_field(i)->attr && flow_field(i)->attr != CTA_ZONE)
            ASSERT(!flow_has(flow, flow_field(i)));
}

/* Requests ------------------------------------------------------------------------------------- */

static void kernel(const uint8_t *data, size_t size)
{
    static struct packet packet;
    static const int errnos[] = {0, EEXIST, ENOMEM, EINVAL};
    struct nlmsghdr header;
    size_t number = 0;
    size_t at;

    packet.size = 0;
    for (at = 0; at < size; at += (header.nlmsg_len + 3) & ~3U) {
        const int error = errnos[answers[number++ % ANSWERS] % 4];

        memcpy(&header, data + at, sizeof(header));
        if (!error && !(header.nlmsg_flags & NLM_F_ACK))
            continue;
        packet.size = 0;
        packet_verdict(&packet, header.nlmsg_seq, error);
        fake_queue(packet.bytes, packet.size, 0, 0);
    }
}

/* Is the name of its helper text, as what comes from the kernel is? */
static bool is_text(const struct nlct_flow *flow)
{
    const size_t length = strnlen(flow->helper, sizeof(flow->helper));
    size_t i;

    for (i = length; i < sizeof(flow->helper); i++)
        if (flow->helper[i])
            return false;
    return length < sizeof(flow->helper);
}

/* The request at 'at' is what the row alone is built as, but for what the batch puts in. */
static size_t check_request(size_t at, const uint8_t *expected, size_t size)
{
    const uint8_t *request = fake_sent.bytes + at;

    ASSERT(at <= fake_sent.size && size <= fake_sent.size - at);
    ASSERT(memcmp(request, expected, 6) == 0);
    ASSERT((two_bytes(request + 6) & ~NLM_F_ACK) == two_bytes(expected + 6));
    ASSERT(memcmp(request + 12, expected + 12, size - 12) == 0);
    return at + wire_align(size);
}

/* Of IPv4 addresses four bytes are meant. */
static void cut_addresses(struct nlct_tuple *tuple)
{
    if (tuple->family != AF_INET)
        return;
    memset(tuple->src + 4, 0, sizeof(tuple->src) - 4);
    memset(tuple->dst + 4, 0, sizeof(tuple->dst) - 4);
}

static void check_back(struct nlct_flow *flow, const uint8_t *request, size_t size)
{
    struct nlct_bytes bytes = {0};
    struct nlct_flow again;

    if (!is_text(flow))
        return;
    cut_addresses(&flow->orig);
    cut_addresses(&flow->reply);
    cut_addresses(&flow->master);
    /* flow_create_request() leaves it out. */
    flow->helper_info.size = 0;
    ASSERT(nlct_flow_parse(request, size, &again, &bytes) == 0);
    check_spans(&again, bytes.size);
    check_same(flow, &again);
    nlct_bytes_free(&bytes);
}

/* Looks at each row and at what was sent of it. Returns how many could not be built. */
static size_t check_rows(const struct nlct_column *columns, size_t ncolumns, const uint8_t *bytes,
                         size_t bytes_size, size_t first, size_t last, bool children,
                         size_t *considered)
{
    size_t unbuilt = 0;
    size_t at = 0;
    size_t row;

    *considered = 0;
    for (row = first; row < last; row++) {
        uint8_t room[REQUEST_MAX];
        struct nlct_flow flow;
        int size;

        nlct_columns_row(columns, ncolumns, bytes_size, row, &flow);
        check_row(columns, ncolumns, bytes_size, row, &flow);
        if (has(flow.present, NLCT_FLOW_MASTER) != children)
            continue;
        ++*considered;
        size = flow_create_request(&flow, bytes, room, sizeof(room));
        ASSERT(size > 0 || size == -EINVAL || size == -EMSGSIZE || size == -ERANGE ||
               size == -EOPNOTSUPP);
        ASSERT(size < 0 || !children || flow.orig.proto != IPPROTO_GRE);
        unbuilt += size < 0;
        if (size < 0)
            continue;
        at = check_request(at, room, (size_t)size);
        check_back(&flow, room, (size_t)size);
    }
    ASSERT(at == fake_sent.size);
    return unbuilt;
}

static void check_tally(const struct nlct_tally *tally, size_t considered, size_t unbuilt)
{
    uint64_t refused = 0;
    size_t i;

    for (i = 0; i < sizeof(tally->refused) / sizeof(tally->refused[0]); i++)
        refused += tally->refused[i];
    ASSERT(tally->done + refused == considered);
    ASSERT(refused >= unbuilt);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct nlct_tally tally;
    struct input input = {data, size};
    struct nlct_column columns[MAX_COLUMNS];
    const size_t ncolumns = input_byte(&input) % (MAX_COLUMNS + 1);
    const size_t rows = input_byte(&input) % (MAX_ROWS + 1);
    const size_t last = rows ? input_byte(&input) % (rows + 1) : 0;
    const size_t first = input_byte(&input) % (MAX_ROWS + 1);
    const size_t bytes_size = input_byte(&input) % MAX_BYTES;
    const uint8_t flags = input_byte(&input);
    struct nlct_socket *sock = fake_open();
    uint8_t *bytes;
    bool known = true;
    size_t considered;
    size_t unbuilt;
    size_t i;
    int rc;

    sock->room = (1U + flags / 2 % 8) * 1024;
    input_read(&input, answers, sizeof(answers));
    bytes = read_values(&input, bytes_size);
    for (i = 0; i < ncolumns; i++) {
        read_column(&input, &columns[i], rows);
        known &= columns[i].field < flow_fields();
    }
    memset(&tally, 0, sizeof(tally));
    fake_reset();
    fake_answer(kernel);
    rc =
        nlct_load(sock, columns, ncolumns, bytes, bytes_size, first, last, flags % 2, &tally, NULL);
    ASSERT(rc == (known ? 0 : -EINVAL));
    if (known) {
        unbuilt =
            check_rows(columns, ncolumns, bytes, bytes_size, first, last, flags % 2, &considered);
        check_tally(&tally, considered, unbuilt);
    } else {
        ASSERT(fake_sent.size == 0);
    }
    for (i = 0; i < ncolumns; i++) {
        free_values(columns[i].values);
        free_values(columns[i].valid);
    }
    free_values(bytes);
    fake_close(sock);
    return 0;
}
