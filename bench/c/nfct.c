/*
 * libnetfilter_conntrack, used as its examples do: a callback for each flow, already parsed.
 *
 *     dump             receive and parse the whole table
 *     flush_zone ZONE  the same, deleting what is in the zone, one request each
 *     create N ZONES   create N UDP flows in zones 1 to ZONES in turn, one request each
 *
 * The library (1.0.9) cannot ask the kernel for a zone, so neither does this.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <libnetfilter_conntrack/libnetfilter_conntrack.h>
#include <netinet/in.h>
#include <string.h>

#include "program.h"

static struct nfct_handle *dumping;
static struct nfct_handle *changing;

static int seen(enum nf_conntrack_msg_type type, struct nf_conntrack *flow, void *zone)
{
    (void)type;
    if (zone && nfct_get_attr_u16(flow, ATTR_ZONE) == *(uint16_t *)zone &&
        nfct_query(changing, NFCT_Q_DESTROY, flow) < 0 && errno != ENOENT)
        die("delete");
    return NFCT_CB_CONTINUE;
}

static void dump(uint16_t *zone)
{
    uint32_t family = AF_UNSPEC;

    nfct_callback_register(dumping, NFCT_T_ALL, seen, zone);
    if (nfct_query(dumping, NFCT_Q_DUMP, &family) < 0)
        die("dump");
    nfct_callback_unregister(dumping);
}

static void create(uint32_t number, uint16_t zone)
{
    struct nf_conntrack *flow = nfct_new();

    if (!flow)
        die("nfct_new");
    nfct_set_attr_u8(flow, ATTR_L3PROTO, AF_INET);
    nfct_set_attr_u32(flow, ATTR_IPV4_SRC, htonl(0x0a000000 + number));
    nfct_set_attr_u32(flow, ATTR_IPV4_DST, htonl(0xc0000201));
    nfct_set_attr_u8(flow, ATTR_L4PROTO, IPPROTO_UDP);
    nfct_set_attr_u16(flow, ATTR_PORT_SRC, htons(1024));
    nfct_set_attr_u16(flow, ATTR_PORT_DST, htons(53));
    nfct_setobjopt(flow, NFCT_SOPT_SETUP_REPLY);
    nfct_set_attr_u16(flow, ATTR_ZONE, zone);
    nfct_set_attr_u32(flow, ATTR_TIMEOUT, 86400);
    if (nfct_query(changing, NFCT_Q_CREATE, flow) < 0)
        die("create");
    nfct_destroy(flow);
}

static void run(const char *line)
{
    unsigned flows;
    unsigned zones;
    unsigned short zone;

    if (sscanf(line, "flush_zone %hu", &zone) == 1) {
        dump(&zone);
    } else if (sscanf(line, "create %u %u", &flows, &zones) == 2) {
        for (unsigned number = 0; number < flows; number++)
            create(number, (uint16_t)(1 + number % zones));
    } else if (strcmp(line, "dump\n") == 0) {
        dump(NULL);
    } else {
        die(line);
    }
}

int main(void)
{
    dumping = nfct_open(CONNTRACK, 0);
    changing = nfct_open(CONNTRACK, 0);
    if (!dumping || !changing)
        die("nfct_open");
    return serve(run);
}
