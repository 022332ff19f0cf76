/* Bytes of any number that go with a flow or a table. */
#include "flow.h"

#include <stdlib.h>

int bytes_add(struct nlct_bytes *heap, const void *data, size_t size)
{
    size_t capacity = heap->capacity ? heap->capacity : 256;
    uint8_t *grown;

    /* Spans count in 32 bits. */
    if (size > UINT32_MAX - heap->size)
        return -ENOMEM;
    while (capacity < heap->size + size)
        capacity *= 2;
    if (capacity != heap->capacity) {
        grown = realloc(heap->data, capacity);
        if (!grown)
            return -ENOMEM;
        heap->data = grown;
        heap->capacity = capacity;
    }
    if (size)
        memcpy(heap->data + heap->size, data, size);
    heap->size += size;
    return 0;
}

void nlct_bytes_free(struct nlct_bytes *heap)
{
    free(heap->data);
    *heap = (struct nlct_bytes){0};
}
