/* Creating many flows from the columns of a table. */
#include "core.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <stdlib.h>

static bool is_new(const void *request, size_t size)
{
    struct wire wire = {request, size};
    struct nlmsghdr header;
    struct wire payload;

    return wire_message(&wire, &header, &payload) == 1 && wire.left == 0 &&
           header.nlmsg_type == (NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW);
}

int nlct_load(struct nlct_socket *sock, const struct nlct_column *columns, size_t ncolumns,
              const uint8_t *heap, size_t heap_size, size_t first, size_t last, bool children,
              struct nlct_tally *tally)
{
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
    batch_init(batch, sock, is_new, batch_tally, tally);
    for (row = first; row < last && rc == 0; row++) {
        struct nlct_flow flow;

        nlct_columns_row(columns, ncolumns, heap_size, row, &flow);
        if (has(flow.present, NLCT_FLOW_MASTER) != children)
            continue;
        rc = batch_add(batch, nlct_flow_build(&flow, heap, batch_room(batch), REQUEST_MAX), 0);
    }
    if (rc == 0)
        rc = batch_send(batch);
    free(batch);
    return rc;
}
