/* Creating many flows from the columns of a table. */
#include "ctnetlink.h"

#include <stdlib.h>

struct load {
    struct nlct_tally *tally;
    uint8_t *created;
    size_t first;
};

/* The owner is the row, counted from the first. */
static void settle(void *context, uint32_t owner, int result)
{
    struct load *load = context;

    if (result < 0) {
        load->tally->refused[-result]++;
        return;
    }
    load->tally->done++;
    if (load->created)
        load->created[load->first + owner] = 1;
}

int nlct_load(struct nlct_socket *sock, const struct nlct_column *columns, size_t ncolumns,
              const uint8_t *bytes, size_t bytes_size, size_t first, size_t last, bool children,
              struct nlct_tally *tally, uint8_t *created)
{
    struct load load = {tally, created, first};
    struct batch *batch;
    size_t row;
    size_t i;
    int rc = 0;

    for (i = 0; i < ncolumns; i++)
        if (!flow_field(columns[i].field))
            return -EINVAL;
    batch = malloc(sizeof(*batch));
    if (!batch)
        return -ENOMEM;
    batch_init(batch, sock, NULL, settle, &load);
    for (row = first; row < last && rc == 0; row++) {
        struct nlct_flow flow;

        nlct_columns_row(columns, ncolumns, bytes_size, row, &flow);
        if (has(flow.present, NLCT_FLOW_MASTER) != children)
            continue;
        rc = batch_add(batch, flow_create_request(&flow, bytes, batch_room(batch), REQUEST_MAX),
                       (uint32_t)(row - first));
    }
    if (rc == 0)
        rc = batch_send(batch);
    free(batch);
    return rc;
}
