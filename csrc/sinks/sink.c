/* Freeing a sink of any kind. */
#include "sinks.h"

#include <stdlib.h>

void nlct_sink_free(struct nlct_sink **sink)
{
    struct nlct_sink *taken = __atomic_exchange_n(sink, NULL, __ATOMIC_ACQ_REL);

    if (taken && taken->free)
        taken->free(taken);
    free(taken);
}
