/* An expectation: its attributes, decoded and built by the same code as a flow's, and its text. */
#include "attributes.h"
#include "put.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <sys/socket.h>

_Static_assert(offsetof(struct nlct_expect, present) == 0, "'present' opens an expectation");

/* Attributes ---------------------------------------------------------------------------------- */

/* clang-format off */

#define MEMBER(kind_, name_, NAME_)                                                                \
    .kind = kind_, .size = sizeof(((struct nlct_expect *)0)->name_),                               \
    .offset = offsetof(struct nlct_expect, name_), .bit = NLCT_EXPECT_##NAME_

static const struct rule nat_rules[] = {
    [CTA_EXPECT_NAT_DIR] = {MEMBER(NUMBER, nat_direction, NAT_DIRECTION)},
    [CTA_EXPECT_NAT_TUPLE] = {MEMBER(TUPLE, nat, NAT), .nest = &tuple_table},
};
static const struct table nat_table = {nat_rules, COUNT(nat_rules)};

static const struct rule rules[] = {
    [CTA_EXPECT_MASTER] = {MEMBER(TUPLE, master, MASTER), .nest = &tuple_table},
    [CTA_EXPECT_TUPLE] = {MEMBER(TUPLE, tuple, TUPLE), .nest = &tuple_table},
    [CTA_EXPECT_MASK] = {MEMBER(TUPLE, mask, MASK), .nest = &tuple_table},
    [CTA_EXPECT_TIMEOUT] = {MEMBER(NUMBER, timeout, TIMEOUT)},
    [CTA_EXPECT_ID] = {MEMBER(NUMBER, id, ID)},
    [CTA_EXPECT_HELP_NAME] = {MEMBER(TEXT, helper, HELPER)},
    [CTA_EXPECT_ZONE] = {MEMBER(NUMBER, zone, ZONE)},
    [CTA_EXPECT_FLAGS] = {MEMBER(NUMBER, flags, FLAGS)},
    [CTA_EXPECT_CLASS] = {MEMBER(NUMBER, expect_class, CLASS)},
    [CTA_EXPECT_NAT] = {.kind = NEST, .nest = &nat_table},
    [CTA_EXPECT_FN] = {MEMBER(TEXT, function, FUNCTION)},
};
static const struct table expect_table = {rules, COUNT(rules)};

/* clang-format on */

int expect_read(struct wire payload, struct nlct_expect *expect)
{
    struct view view;
    bool unknown; /* and skipped */
    int rc = view_parse(&view, payload);

    if (rc < 0)
        return rc;
    memset(expect, 0, sizeof(*expect));
    expect->family = view.family;
    wire_skip(&payload, sizeof(struct nfgenmsg));
    return table_decode(&expect_table, payload, &view, expect, &unknown);
}

void expect_put(struct message *message, const struct nlct_expect *expect, uint64_t wanted)
{
    table_put(message, &expect_table, expect->family, expect, wanted, NULL);
}

int nlct_expect_parse(const void *message, size_t size, struct nlct_expect *expect)
{
    struct wire wire = {message, size};
    struct nlmsghdr header;
    struct wire payload;

    if (wire_message(&wire, &header, &payload) != 1 || wire.left)
        return -EBADMSG;
    return expect_read(payload, expect);
}

/* Text ---------------------------------------------------------------------------------------- */

/* The longest line. Only nlct_expect_text() checks for room. */
enum {
    LONGEST = sizeof(
        "[DESTROY] 4294967295 proto=255 "
        "src=1111:2222:3333:4444:5555:6666:7777:8888 dst=1111:2222:3333:4444:5555:6666:7777:8888 "
        "srckey=0xffff dstkey=0xffff "
        "mask-src=1111:2222:3333:4444:5555:6666:7777:8888 "
        "mask-dst=1111:2222:3333:4444:5555:6666:7777:8888 srckey=0xffff dstkey=0xffff "
        "master-src=1111:2222:3333:4444:5555:6666:7777:8888 "
        "master-dst=1111:2222:3333:4444:5555:6666:7777:8888 srckey=0xffff dstkey=0xffff "
        "zone=65535 PERMANENT,INACTIVE,USERSPACE class=4294967295 helper=0123456789abcdef ")
};
_Static_assert((int)LONGEST <= (int)NLCT_TEXT_MAX, "the longest line fits");

/* An absent tuple has no family and no protocol. */
static char *put_tuple(char *at, const char *prefix, const struct nlct_tuple *tuple)
{
    if (tuple->family == AF_INET || tuple->family == AF_INET6) {
        at = WORD(put_text(at, prefix), "src=");
        at = WORD(text_address(at, tuple->src, tuple->family), " ");
        at = WORD(put_text(at, prefix), "dst=");
        at = WORD(text_address(at, tuple->dst, tuple->family), " ");
    }
    return text_keys(at, tuple);
}

static char *put_flags(char *at, uint32_t flags)
{
    static const char *const names[] = {"PERMANENT", "INACTIVE", "USERSPACE"};
    const char *between = "";
    unsigned i;

    for (i = 0; i < COUNT(names); i++) {
        if (!(flags >> i & 1))
            continue;
        at = put_text(at, between);
        at = put_text(at, names[i]);
        between = ",";
    }
    return *between ? WORD(at, " ") : at;
}

int nlct_expect_text(const struct nlct_expect *expect, char *buffer, size_t capacity)
{
    char *at = buffer;

    if (capacity < NLCT_TEXT_MAX)
        return -EMSGSIZE;
    at = text_event(at, expect->event);
    at = NUMBER(at, "", expect->timeout);
    at = NUMBER(at, "proto=", expect->tuple.proto);
    at = put_tuple(at, "", &expect->tuple);
    at = put_tuple(at, "mask-", &expect->mask);
    at = put_tuple(at, "master-", &expect->master);
    if (has(expect->present, NLCT_EXPECT_ZONE))
        at = NUMBER(at, "zone=", expect->zone);
    at = put_flags(at, expect->flags);
    if (has(expect->present, NLCT_EXPECT_CLASS))
        at = NUMBER(at, "class=", expect->expect_class);
    if (has(expect->present, NLCT_EXPECT_HELPER)) {
        at = WORD(at, "helper=");
        at = put_bytes(at, expect->helper, strnlen(expect->helper, sizeof(expect->helper)));
        at = WORD(at, " ");
    }
    at[-1] = '\n'; /* in place of the last space */
    return (int)(at - buffer);
}
