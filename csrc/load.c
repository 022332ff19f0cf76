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

static void set_bit(struct nlct_flow *flow, size_t offset, uint32_t bit)
{
    uint32_t present;

    memcpy(&present, (uint8_t *)flow + offset, sizeof(present));
    present |= bit;
    memcpy((uint8_t *)flow + offset, &present, sizeof(present));
}

static void gather(const struct nlct_column *columns, size_t ncolumns, size_t row,
                   struct nlct_flow *flow)
{
    size_t i;

    memset(flow, 0, sizeof(*flow));
    for (i = 0; i < ncolumns; i++) {
        const struct nlct_column *column = &columns[i];
        const struct field *field = flow_field(column->field);
        size_t size = field->public.size;

        if (column->valid && !column->valid[row])
            continue;
        memcpy((uint8_t *)flow + field->offset, (const uint8_t *)column->values + row * size, size);
        set_bit(flow, field->present, field->bit);
        set_bit(flow, offsetof(struct nlct_flow, present), field->part);
    }
}

int nlct_load(struct nlct_socket *sock, const struct nlct_column *columns, size_t ncolumns,
              size_t first, size_t last, struct nlct_tally *tally)
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
    batch_init(batch, sock, tally, is_new);
    for (row = first; row < last && rc == 0; row++) {
        struct nlct_flow flow;

        gather(columns, ncolumns, row, &flow);
        rc = batch_add(batch, nlct_flow_build(&flow, batch_room(batch), REQUEST_MAX));
    }
    if (rc == 0)
        rc = batch_send(batch);
    free(batch);
    return rc;
}
