/* One request of any subsystem and its answer, if that is small. */
#include "ctnetlink.h"

/* The kernel works on a request inside send(2), so the answer is there at once. Give up after this
   time. */
enum { ANSWER_MILLISECONDS = 5000 };

/* What is wanted, and what came of it so far. */
struct answer {
    bool is_dump;
    uint16_t type;
    request_take *take;
    void *context;
    bool taken;
    bool interrupted;
};

/* Reads what ends an answer: an acknowledgement, or the end of a dump. */
static int end(struct nlct_socket *sock, const struct answer *answer, const struct nlmsghdr *header,
               struct wire payload)
{
    const int rc = socket_verdict(sock, header, payload);

    if (rc < 0)
        return rc;
    if (answer->interrupted)
        return -EINTR;
    /* Only a dump ends so, and it may be empty. */
    if (header->nlmsg_type == NLMSG_DONE)
        return answer->is_dump ? 0 : -EBADMSG;
    /* Success without the message asked for is none. */
    return answer->take && !answer->taken ? -EBADMSG : 0;
}

/* Takes one message. Returns 1 when there is more to come, or the verdict. */
static int take_message(struct nlct_socket *sock, struct answer *answer,
                        const struct nlmsghdr *header, struct wire payload)
{
    int rc;

    if (!socket_answers(sock, header, sock->sequence))
        return 1;
    if (header->nlmsg_flags & NLM_F_DUMP_INTR)
        answer->interrupted = true;
    if (header->nlmsg_type == NLMSG_ERROR || header->nlmsg_type == NLMSG_DONE)
        return end(sock, answer, header, payload);
    if (!answer->take || header->nlmsg_type != answer->type)
        return 1;
    answer->taken = true;
    rc = answer->take(answer->context, payload);
    return rc < 0 ? rc : 1;
}

/* Receives a datagram into the socket's buffer. Returns its size, -ETIMEDOUT, or -errno. */
static int receive(struct nlct_socket *sock)
{
    int rc = socket_receive(sock);

    while (rc == -EAGAIN) {
        rc = socket_wait(sock, ANSWER_MILLISECONDS);
        if (rc == -EAGAIN)
            return -ETIMEDOUT;
        if (rc == 0 || rc == -EINTR)
            rc = socket_receive(sock);
    }
    return rc;
}

/* Takes the next datagram. Returns 1 when there is more to come, or the verdict. */
static int take_datagram(struct nlct_socket *sock, struct answer *answer)
{
    struct wire wire = {sock->buffer, 0};
    struct nlmsghdr header;
    struct wire payload;
    int rc = receive(sock);

    if (rc < 0)
        return rc;
    wire.left = (size_t)rc;
    while ((rc = wire_message(&wire, &header, &payload)) > 0) {
        rc = take_message(sock, answer, &header, payload);
        if (rc <= 0)
            return rc;
    }
    return rc ? rc : 1;
}

int request_run(struct nlct_socket *sock, void *request, int size, uint16_t type,
                request_take *take, void *context)
{
    struct answer answer = {.type = type, .take = take, .context = context};
    struct nlmsghdr header;
    int rc;

    if (size < 0)
        return size;
    memcpy(&header, request, sizeof(header));
    answer.is_dump = (header.nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
    message_stamp(request, NLM_F_ACK, ++sock->sequence);
    rc = socket_send(sock, request, (size_t)size);
    if (rc < 0)
        return rc;
    do
        rc = take_datagram(sock, &answer);
    while (rc > 0);
    return rc;
}
