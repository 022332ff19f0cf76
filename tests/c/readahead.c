/* Dumps that are long enough for a thread to receive ahead. */
#include "cases.h"
#include "check.h"
#include "fake.h"
#include "make.h"

#include <errno.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Datagrams: enough for the thread to have begun, and for it to run out of room. */
enum { BEGUN = 40, MANY = 200, ROWS = 7 };

static struct nlct_filter *everything;
static struct nlct_socket *sock;
static struct nlct_dump *dump;
static struct nlct_sink *sink;
static struct nlct_flow rows[ROWS];
static struct nlct_bytes spans;
static uint32_t seen;

/* A kernel with one flow a datagram: numbers 1 to 'datagrams', in their ids. */
static void begin(uint32_t datagrams)
{
    static struct packet packet;
    uint32_t number;

    CHECK_IS(nlct_filter_new(&everything, NULL, 0), 0);
    fake_reset();
    sock = fake_open();
    CHECK_IS(nlct_dump_start(&dump, sock, everything, NULL, -1), 0);
    sink = make_rows(rows, ROWS, &spans);
    CHECK(sink);
    seen = 0;
    for (number = 1; number <= datagrams; number++) {
        packet_begin_flow(&packet, AF_INET);
        packet_tuple(&packet, CTA_TUPLE_ORIG, "10.0.0.1", "192.0.2.1", IPPROTO_UDP, 1024, 53);
        packet_be32(&packet, CTA_ID, number);
        packet_end(&packet);
        fake_queue(packet.bytes, packet.size, 0, 0);
    }
}

static void queue_done(void)
{
    static struct packet packet;

    packet.size = 0;
    packet_begin(&packet, NLMSG_DONE, NLM_F_MULTI, 1, FAKE_PORT);
    packet_bytes(&packet, "\0\0\0\0", 4);
    packet_end(&packet);
    fake_queue(packet.bytes, packet.size, 0, 0);
}

/* Goes on for a step, and checks that the flows come in turn, none twice. */
static int step(void)
{
    const int rc = nlct_dump_next(dump, sink, 1000);
    const size_t count = nlct_rows_take(sink);
    size_t i;

    for (i = 0; i < count; i++)
        CHECK_IS(rows[i].id, ++seen);
    return rc;
}

/* The same until there is nothing more, or until 'flows' have been seen. */
static int steps(uint32_t flows)
{
    int rc = 1;

    while (rc == 1 && seen < flows)
        rc = step();
    return rc;
}

/* Did a thread receive? On one processor none does. */
static void check_thread(void)
{
    cpu_set_t usable;

    CHECK_IS(sched_getaffinity(0, sizeof(usable), &usable), 0);
    CHECK_IS(fake_received_by_another_thread(), CPU_COUNT(&usable) > 1);
}

static void end(void)
{
    nlct_dump_free(&dump);
    nlct_sink_free(&sink);
    nlct_bytes_free(&spans);
    fake_close(sock);
    nlct_filter_free(&everything);
}

static void every_flow_comes_in_turn(void)
{
    begin(MANY);
    queue_done();
    CHECK_IS(steps(UINT32_MAX), 0);
    CHECK_IS(seen, MANY);
    check_thread();
    end();
}

static void a_short_dump_needs_no_thread(void)
{
    begin(2);
    queue_done();
    CHECK_IS(steps(UINT32_MAX), 0);
    CHECK_IS(seen, 2);
    CHECK(!fake_received_by_another_thread());
    end();
}

static void at_the_end_the_socket_is_free(void)
{
    begin(BEGUN);
    queue_done();
    CHECK_IS(steps(UINT32_MAX), 0);
    fake_queue("next", 4, 0, 0);
    CHECK_IS(socket_receive(sock), 4);
    CHECK_BYTES(sock->buffer, "next", 4);
    end();
}

static void an_overrun_comes_after_what_was_received(void)
{
    begin(BEGUN);
    fake_queue_error(ENOBUFS);
    queue_done();
    CHECK_IS(steps(UINT32_MAX), -ENOBUFS);
    CHECK_IS(seen, BEGUN);
    check_thread();
    end();
}

static void a_truncated_datagram_is_refused(void)
{
    begin(BEGUN);
    fake_queue("cut", 3, 0, MSG_TRUNC);
    queue_done();
    CHECK_IS(steps(UINT32_MAX), -EMSGSIZE);
    CHECK_IS(seen, BEGUN);
    end();
}

static void a_malformed_datagram_ends_the_thread(void)
{
    begin(BEGUN);
    fake_queue("malformed", 9, 0, 0);
    queue_done();
    CHECK_IS(steps(UINT32_MAX), -EBADMSG);
    CHECK_IS(seen, BEGUN);
    end();
}

static void other_senders_are_ignored(void)
{
    begin(BEGUN);
    fake_queue("malformed", 9, 1234, 0);
    queue_done();
    CHECK_IS(steps(UINT32_MAX), 0);
    CHECK_IS(seen, BEGUN);
    end();
}

static void a_kernel_that_pauses_is_waited_for(void)
{
    begin(BEGUN);
    CHECK_IS(steps(BEGUN), 1);
    CHECK_IS(step(), 1);
    queue_done();
    CHECK_IS(steps(UINT32_MAX), 0);
    CHECK_IS(seen, BEGUN);
    end();
}

static void a_dump_may_be_left_while_the_thread_waits_for_room(void)
{
    begin(MANY);
    queue_done();
    CHECK_IS(steps(BEGUN), 1);
    check_thread();
    end();
}

static void a_child_may_let_go_of_its_parents_dump(void)
{
    int status;
    pid_t child;

    begin(MANY);
    queue_done();
    CHECK_IS(steps(BEGUN), 1);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        nlct_dump_free(&dump);
        /* So that nobody looks for leaks here: the rest is the parent's. */
        execlp("true", "true", (char *)NULL);
        _exit(1);
    }
    CHECK_IS(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status));
    CHECK_IS(WEXITSTATUS(status), 0);
    CHECK_IS(steps(UINT32_MAX), 0);
    CHECK_IS(seen, MANY);
    end();
}

const struct test_case readahead_cases[] = {
    CASE(every_flow_comes_in_turn),
    CASE(a_short_dump_needs_no_thread),
    CASE(at_the_end_the_socket_is_free),
    CASE(an_overrun_comes_after_what_was_received),
    CASE(a_truncated_datagram_is_refused),
    CASE(a_malformed_datagram_ends_the_thread),
    CASE(other_senders_are_ignored),
    CASE(a_kernel_that_pauses_is_waited_for),
    CASE(a_dump_may_be_left_while_the_thread_waits_for_room),
    CASE(a_child_may_let_go_of_its_parents_dump),
    END_OF_CASES,
};
