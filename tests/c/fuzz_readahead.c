/*
 * A fuzz target for receiving ahead (csrc/netlink/readahead.c).
 *
 * The first byte says when the reader leaves; each that follows is something to receive (a
 * datagram, one of somebody else, an error) with a size, or how the reader behaves at that point.
 * Whatever comes, the reader gets exactly what was queued for it, in order, whole, and unharmed as
 * long as it holds it; an error comes after all that preceded it, and again each time; and nothing
 * is received twice by who goes on without the thread.
 */
#include "fuzz.h"

#include <sys/socket.h>

/* SLOTS is how many datagrams the thread may hold. */
enum { MAX_EVENTS = 120, LARGE = 4000, SLOTS = 8 };

/* What is queued. */
enum kind { DATAGRAM, LARGE_DATAGRAM, FOREIGN, INTERRUPTED, TRUNCATED, OVERRUN, KINDS };

/* The datagrams for the reader. */
static size_t sizes[MAX_EVENTS];
static size_t nsizes;
static size_t ahead_of_end; /* how many of them precede what ends the thread: */
static int ending;

/* Byte 'at' of datagram 'number'; the first is the number. */
static uint8_t byte_of(size_t number, size_t at)
{
    return (uint8_t)(number + at * 7 + (at >> 8));
}

static void queue_datagram(size_t number, size_t size, uint32_t from, int flags)
{
    static uint8_t bytes[LARGE + UINT8_MAX];
    size_t i;

    for (i = 0; i < size; i++)
        bytes[i] = byte_of(number, i);
    fake_queue(bytes, size, from, flags);
}

/* Something that ends the thread, unless something else has. */
static void end_with(int error)
{
    if (ending == -EAGAIN) {
        ending = error;
        ahead_of_end = nsizes;
    }
}

static void queue_one(enum kind kind, size_t size)
{
    switch (kind) {
    case DATAGRAM:
    case LARGE_DATAGRAM:
        size += kind == LARGE_DATAGRAM ? LARGE : 1;
        queue_datagram(nsizes, size, 0, 0);
        sizes[nsizes++] = size;
        break;
    case FOREIGN:
        queue_datagram(MAX_EVENTS, size, FAKE_PORT, 0);
        break;
    case INTERRUPTED:
        fake_queue_error(EINTR);
        break;
    case TRUNCATED:
        queue_datagram(MAX_EVENTS, size, 0, MSG_TRUNC);
        end_with(-EMSGSIZE);
        break;
    case OVERRUN:
        fake_queue_error(ENOBUFS);
        end_with(-ENOBUFS);
        break;
    case KINDS:
        break;
    }
}

static void check_datagram(const struct wire *wire, size_t number)
{
    size_t i;

    ASSERT(number < nsizes && wire->left == sizes[number]);
    for (i = 0; i < wire->left; i++)
        ASSERT(wire->at[i] == byte_of(number, i));
}

/* Reads up to 'wanted' datagrams ahead, now and then without patience. Returns how many came. */
static size_t read_ahead(struct readahead *ahead, size_t wanted, uint8_t impatience)
{
    struct wire wire = {NULL, 0};
    size_t count = 0;
    size_t tries = 0;
    bool held = false;
    int rc = 0;

    while (rc == 0 && count < wanted) {
        /* It is still what it was, whatever the thread has received meanwhile. */
        if (held)
            check_datagram(&wire, count - 1);
        rc = readahead_next(ahead, &wire, tries++ % 8 < impatience % 8U ? 0 : INT64_MAX / 1000000);
        held = rc == 0;
        if (held)
            check_datagram(&wire, count++);
        else if (rc == -EINTR)
            rc = 0;
    }
    if (rc == 0)
        return count;
    ASSERT(rc == ending && count == ahead_of_end);
    ASSERT(readahead_next(ahead, &wire, now_milliseconds()) == ending);
    return count;
}

/* What the thread left is there for the next reader, from some datagram on and without a gap. */
static void read_rest(struct nlct_socket *sock, size_t read)
{
    size_t number = nsizes;
    int rc;

    while ((rc = socket_receive(sock)) != -EAGAIN) {
        if (rc < 0)
            continue;
        if (number == nsizes)
            number = sock->buffer[0];
        ASSERT(number >= read && number <= read + SLOTS);
        check_datagram(&(struct wire){sock->buffer, (size_t)rc}, number);
        read = ++number;
    }
    ASSERT(number == nsizes && read + SLOTS >= nsizes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    const size_t wanted = input_byte(&input);
    const uint8_t impatience = input_byte(&input);
    struct nlct_socket *sock = fake_open();
    struct readahead *ahead;
    size_t events;
    size_t read;

    fake_reset();
    nsizes = 0;
    ending = -EAGAIN;
    for (events = 0; input.left && events < MAX_EVENTS; events++) {
        const enum kind kind = input_byte(&input) % KINDS;

        queue_one(kind, input_byte(&input));
    }
    if (ending == -EAGAIN)
        ahead_of_end = nsizes;
    ahead = readahead_start(sock);
    if (ahead) {
        read = read_ahead(ahead, wanted, impatience);
        readahead_stop(ahead);
        read_rest(sock, read);
    }
    fake_close(sock);
    return 0;
}
