/* Reading many saved lines into columns. */
#include "sinks.h"

static size_t line_size(const char *text, size_t size)
{
    const char *end = memchr(text, '\n', size);

    return end ? (size_t)(end - text) : size;
}

int nlct_save_read(struct nlct_sink *columns, const char *text, size_t size,
                   struct nlct_bad_line *bad)
{
    struct nlct_flow flow;
    size_t line = 0;
    size_t at = 0;

    while (at < size) {
        const size_t length = line_size(text + at, size - at);
        int rc = save_read(text + at, length, &flow, bad);

        if (rc > 0)
            rc = nlct_columns_add(columns, &flow, NULL);
        if (rc == -EINVAL) {
            bad->line = line;
            bad->at += at;
        }
        /* A full sink takes no more. */
        if (rc)
            return rc < 0 ? rc : -ENOMEM;
        at += length + 1;
        line++;
    }
    return 0;
}
