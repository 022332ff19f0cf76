/*
 * One dump of the table of the namespace it runs in, by nlct's core alone, for a profiler: `scan
 * WORK`.
 *
 *     flush    delete the flows of zone 1, the kernel's filter unasked: as on an old kernel
 *     count    count by zone
 *     table    keep every column
 *     text     write every line
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../csrc/nlct.h"

enum { LINES = 1 << 20 };

static unsigned field_named(const char *name)
{
    struct nlct_field field;
    unsigned number;

    for (number = 0; nlct_field_get(number, &field) == 0; number++)
        if (strcmp(field.name, name) == 0)
            return number;
    abort();
}

static struct nlct_filter *make_filter(bool one_zone)
{
    const struct nlct_range zone = {1, 1};
    const struct nlct_test test = {
        field_named("zone"), NLCT_TEST_RANGES, NLCT_MATCH, NLCT_DROP, 1, &zone,
    };
    struct nlct_filter *filter = NULL;

    nlct_filter_new(&filter, &test, one_zone ? 1 : 0);
    return filter;
}

static int make_sink(struct nlct_sink **sink, const char *work, struct nlct_socket *sock,
                     char *lines)
{
    const struct nlct_target all = {.wants = NLCT_WANTS_ALL};
    static uint8_t wanted[128];
    const struct nlct_group zone = {.field = field_named("zone")};

    memset(wanted, 1, sizeof(wanted));
    if (strcmp(work, "flush") == 0)
        return nlct_deletes_new(sink, sock, &all, 1);
    if (strcmp(work, "count") == 0)
        return nlct_counts_new(sink, &zone, 1, NULL, 0);
    if (strcmp(work, "table") == 0)
        return nlct_columns_new(sink, wanted, SIZE_MAX);
    return nlct_text_new(sink, NLCT_FORM_LIST, lines, LINES);
}

static int dump_once(const char *work)
{
    struct nlct_socket *socks[2] = {NULL, NULL};
    struct nlct_filter *filter = make_filter(strcmp(work, "flush") == 0);
    char *lines = malloc(LINES);
    struct nlct_dump *dump = NULL;
    struct nlct_netns here = {.fd.fd = -1};
    struct nlct_sink *sink = NULL;
    int rc = -1;

    if (!filter || !lines || nlct_netns_here(&here) < 0 || nlct_socket_open(&socks[0], &here) < 0 ||
        nlct_socket_open(&socks[1], &here) < 0)
        return 1;
    if (make_sink(&sink, work, socks[1], lines) == 0 &&
        nlct_dump_start(&dump, socks[0], filter, NULL, -1) == 0)
        do {
            rc = nlct_dump_next(dump, sink, 1000);
            if (strcmp(work, "text") == 0)
                nlct_text_take(sink);
        } while (rc > 0);
    nlct_dump_free(&dump);
    nlct_sink_free(&sink);
    nlct_filter_free(&filter);
    nlct_socket_close(&socks[0]);
    nlct_socket_close(&socks[1]);
    nlct_netns_close(&here);
    free(lines);
    return rc != 0;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: scan flush|count|table|text\n");
        return 2;
    }
    return dump_once(argv[1]);
}
