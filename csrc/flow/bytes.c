/* The bytes that go with a flow or a table. */
#include "flow.h"

#include <stdlib.h>

int bytes_add(struct nlct_bytes *bytes, const void *data, size_t size)
{
    size_t capacity = bytes->capacity ? bytes->capacity : 256;
    uint8_t *grown;

    /* Spans count in 32 bits. */
    if (size > UINT32_MAX - bytes->size)
        return -ENOMEM;
    while (capacity < bytes->size + size)
        capacity *= 2;
    if (capacity != bytes->capacity) {
        grown = realloc(bytes->data, capacity);
        if (!grown)
            return -ENOMEM;
        bytes->data = grown;
        bytes->capacity = capacity;
    }
    if (size)
        memcpy(bytes->data + bytes->size, data, size);
    bytes->size += size;
    return 0;
}

int bytes_bring(struct nlct_bytes *bytes, const uint8_t *from, struct nlct_span *span)
{
    const uint8_t *data = from + span->at;

    span->at = (uint32_t)bytes->size;
    return bytes_add(bytes, data, span->size);
}

void nlct_bytes_free(struct nlct_bytes *bytes)
{
    free(bytes->data);
    *bytes = (struct nlct_bytes){0};
}
