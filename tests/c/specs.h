/* Flows in few words, and mirrors that are fed with them. */
#ifndef SPECS_H
#define SPECS_H

#include "fake.h"

enum direction { BOTH, ORIG, REPLY };
enum { ROW = 0, NEW = NLCT_EVENT_NEW, UPDATE = NLCT_EVENT_UPDATE, DESTROY = NLCT_EVENT_DESTROY };

enum { TUPLES = 8, IPV6 = 5 };

extern const struct mirror_tuple {
    const char *src;
    const char *dst;
    const char *reply_src;
    const char *reply_dst;
    uint8_t proto;
} mirror_tuples[TUPLES];

/* A flow. */
struct spec {
    uint32_t id;
    uint16_t zone;
    enum direction direction;
    unsigned tuple; /* one of those */
};

/* Of MANY flows, and more, in seven zones. */
enum { MANY = 100 };

struct spec numbered(unsigned number);

/* What may be missing or wrong. */
enum {
    NO_ID = 1 << 0,
    NO_ORIG = 1 << 1,
    NO_REPLY = 1 << 2,
    SHORT_ID = 1 << 3,
    SHORT_ZONE = 1 << 4,
    DEFECTS = 1 << 5,
};

/* Puts the message that the kernel sends of a flow, and indexes it. */
void make_view(struct view *view, const struct spec *spec, uint8_t event, unsigned defects);

/* Fills '*flow' with what a mirror should keep of it. */
void expect_row(struct nlct_flow *flow, const struct spec *spec);

/* Do both have the same values, and lack the same? */
bool is_same(const struct nlct_flow *row, const struct nlct_flow *other);

/* A mirror and what feeds it. */
struct fed {
    struct nlct_mirror *mirror;
    struct nlct_sink *feed;
};

struct fed make_fed(bool addresses);
void free_fed(struct fed *fed);

/* Gives an event or a row of a flow to a sink. Returns what that says. */
int give(struct nlct_sink *sink, const struct spec *spec, uint8_t event);

bool is_there(const struct fed *fed, const struct spec *spec);
int64_t count_all(const struct fed *fed);
int64_t count_zone(const struct fed *fed, uint16_t zone);
struct nlct_mirror_counters counters_of(const struct fed *fed);

#endif
