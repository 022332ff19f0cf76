"""The kernel's numbers, by name."""

from __future__ import annotations

import enum


class Proto(enum.IntEnum):
    """Layer-4 protocols that conntrack knows by name (``CTA_PROTO_NUM``, ``conntrack -p``).

    Any other number from 0 to 255 is just as valid.
    """

    ICMP = 1
    TCP = 6
    UDP = 17
    DCCP = 33
    GRE = 47
    ICMPV6 = 58
    SCTP = 132
    UDPLITE = 136


class Status(enum.IntFlag):
    """The bits of a flow's status (``CTA_STATUS``, ``conntrack -u``)."""

    EXPECTED = 0x1
    SEEN_REPLY = 0x2
    ASSURED = 0x4
    CONFIRMED = 0x8
    SRC_NAT = 0x10
    DST_NAT = 0x20
    SEQ_ADJUST = 0x40
    SRC_NAT_DONE = 0x80
    DST_NAT_DONE = 0x100
    DYING = 0x200
    FIXED_TIMEOUT = 0x400
    TEMPLATE = 0x800
    UNTRACKED = 0x1000
    HELPER = 0x2000
    OFFLOAD = 0x4000
    HW_OFFLOAD = 0x8000
