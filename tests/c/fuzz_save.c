/*
 * A fuzz target for saved lines (csrc/flow/save.c, csrc/sinks/saved.c).
 *
 * The input is a file. What is wrong in it is named by a place inside it; each flow that was read
 * is written as a line, and that line read again is the same flow, as far as lines go.
 */
#include "fuzz.h"

#include <stdlib.h>

enum { MAX_FLOWS = 64 };

/* The text without anything behind it that may be read. */
static char *copy(const uint8_t *data, size_t size)
{
    char *text = malloc(size + !size);

    ASSERT(text);
    memcpy(text, data, size);
    return text;
}

static void check_again(const struct nlct_flow *flow)
{
    char first[NLCT_TEXT_MAX], second[NLCT_TEXT_MAX];
    struct nlct_bad_line bad;
    struct nlct_flow again;
    const int size = nlct_flow_save(flow, first, sizeof(first));
    int rc;

    ASSERT(size > 0 && first[size - 1] == '\n');
    rc = save_read(first, (size_t)size - 1, &again, &bad);
    /* A comment: without a state, for example. */
    ASSERT(rc == (first[0] != '#'));
    if (rc == 0)
        return;
    /* Where nothing is said of the reply, the second flow says as little. */
    ASSERT(nlct_flow_save(&again, second, sizeof(second)) > 0);
    ASSERT(again.family == flow->family && again.zone == flow->zone);
    ASSERT(again.timeout == flow->timeout && again.mark == flow->mark);
    ASSERT(again.orig.present == flow->orig.present);
    ASSERT(memcmp(&again.orig.src, &flow->orig.src, 32) == 0);
    ASSERT(again.orig.sport == flow->orig.sport && again.orig.dport == flow->orig.dport);
    ASSERT(again.tcp_state == flow->tcp_state && again.sctp_state == flow->sctp_state);
    ASSERT(again.sctp_vtag_orig == flow->sctp_vtag_orig);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t wanted[FLOW_FIELDS_MAX];
    char *text = copy(data, size);
    struct nlct_bad_line bad = {.why = NULL};
    struct nlct_sink *columns;
    size_t at = 0;
    size_t found = 0;
    int rc;

    memset(wanted, 1, sizeof(wanted));
    ASSERT(nlct_columns_new(&columns, wanted, SIZE_MAX) == 0);
    rc = nlct_save_read(columns, text, size, &bad);
    ASSERT(rc == 0 || rc == -EINVAL);
    if (rc < 0) {
        ASSERT(bad.why && bad.at <= size && bad.size <= size - bad.at);
        ASSERT(!memchr(text + bad.at, '\n', bad.size));
    }
    while (at < size && found < MAX_FLOWS) {
        const char *end = memchr(text + at, '\n', size - at);
        const size_t length = end ? (size_t)(end - text) - at : size - at;
        struct nlct_flow flow;

        rc = save_read(text + at, length, &flow, &bad);
        if (rc < 0)
            break;
        if (rc > 0) {
            found++;
            check_again(&flow);
        }
        at += length + 1;
    }
    if (found < MAX_FLOWS)
        ASSERT(nlct_columns_count(columns) == found);
    nlct_sink_free(&columns);
    free(text);
    return 0;
}
