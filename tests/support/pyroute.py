"""pyroute2's dump of a namespace's table, as plain dicts by the names of everything.py.

The dump is made in a process of its own inside the namespace: this file, run as a program. What
pyroute2 has no name for is told by its path, in the list "unread".
"""

from __future__ import annotations

import importlib.util
import json
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import nlct
from tests.support import tool

Flow = dict[str, Any]

# By pyroute2's name: ours. Nested attributes are paths.
FIELDS = {
    "CTA_ZONE": "zone",
    "CTA_STATUS": "status",
    "CTA_TIMEOUT": "timeout",
    "CTA_MARK": "mark",
    "CTA_ID": "id",
    "CTA_USE": "use",
    "CTA_PROTOINFO/CTA_PROTOINFO_TCP/CTA_PROTOINFO_TCP_STATE": "tcp_state",
    "CTA_PROTOINFO/CTA_PROTOINFO_TCP/CTA_PROTOINFO_TCP_WSCALE_ORIGINAL": "tcp_wscale_orig",
    "CTA_PROTOINFO/CTA_PROTOINFO_TCP/CTA_PROTOINFO_TCP_WSCALE_REPLY": "tcp_wscale_reply",
    "CTA_PROTOINFO/CTA_PROTOINFO_SCTP/CTA_PROTOINFO_SCTP_STATE": "sctp_state",
    "CTA_PROTOINFO/CTA_PROTOINFO_SCTP/CTA_PROTOINFO_SCTP_VTAG_ORIGINAL": "sctp_vtag_orig",
    "CTA_PROTOINFO/CTA_PROTOINFO_SCTP/CTA_PROTOINFO_SCTP_VTAG_REPLY": "sctp_vtag_reply",
    "CTA_PROTOINFO/CTA_PROTOINFO_DCCP/CTA_PROTOINFO_DCCP_STATE": "dccp_state",
    "CTA_PROTOINFO/CTA_PROTOINFO_DCCP/CTA_PROTOINFO_DCCP_ROLE": "dccp_role",
    "CTA_PROTOINFO/CTA_PROTOINFO_DCCP/CTA_PROTOINFO_DCCP_HANDSHAKE_SEQ": "dccp_handshake_seq",
    "CTA_COUNTERS_ORIG/CTA_COUNTERS_PACKETS": "packets_orig",
    "CTA_COUNTERS_ORIG/CTA_COUNTERS_BYTES": "bytes_orig",
    "CTA_COUNTERS_REPLY/CTA_COUNTERS_PACKETS": "packets_reply",
    "CTA_COUNTERS_REPLY/CTA_COUNTERS_BYTES": "bytes_reply",
    "CTA_TIMESTAMP/CTA_TIMESTAMP_START": "timestamp_start",
    "CTA_TIMESTAMP/CTA_TIMESTAMP_STOP": "timestamp_stop",
    "CTA_LABELS": "labels",
    "CTA_HELP/CTA_HELP_NAME": "helper",
    "CTA_SECCTX/CTA_SECCTX_NAME": "secctx",
    "CTA_SYNPROXY/CTA_SYNPROXY_ISN": "synproxy_isn",
    "CTA_SYNPROXY/CTA_SYNPROXY_ITS": "synproxy_its",
    "CTA_SYNPROXY/CTA_SYNPROXY_TSOFF": "synproxy_tsoff",
    "CTA_SEQ_ADJ_ORIG/CTA_NAT_SEQ_CORRECTION_POS": "seqadj_orig_pos",
    "CTA_SEQ_ADJ_ORIG/CTA_NAT_SEQ_OFFSET_BEFORE": "seqadj_orig_before",
    "CTA_SEQ_ADJ_ORIG/CTA_NAT_SEQ_OFFSET_AFTER": "seqadj_orig_after",
    "CTA_SEQ_ADJ_REPLY/CTA_NAT_SEQ_CORRECTION_POS": "seqadj_reply_pos",
    "CTA_SEQ_ADJ_REPLY/CTA_NAT_SEQ_OFFSET_BEFORE": "seqadj_reply_before",
    "CTA_SEQ_ADJ_REPLY/CTA_NAT_SEQ_OFFSET_AFTER": "seqadj_reply_after",
}
TUPLES = {"CTA_TUPLE_ORIG": "orig", "CTA_TUPLE_REPLY": "reply", "CTA_TUPLE_MASTER": "master"}
KEYS = {
    "CTA_TUPLE_ZONE": "zone",
    "CTA_TUPLE_IP/CTA_IP_V4_SRC": "src",
    "CTA_TUPLE_IP/CTA_IP_V4_DST": "dst",
    "CTA_TUPLE_IP/CTA_IP_V6_SRC": "src",
    "CTA_TUPLE_IP/CTA_IP_V6_DST": "dst",
    "CTA_TUPLE_PROTO/CTA_PROTO_NUM": "proto",
    "CTA_TUPLE_PROTO/CTA_PROTO_SRC_PORT": "sport",
    "CTA_TUPLE_PROTO/CTA_PROTO_DST_PORT": "dport",
    "CTA_TUPLE_PROTO/CTA_PROTO_ICMP_ID": "icmp_id",
    "CTA_TUPLE_PROTO/CTA_PROTO_ICMP_TYPE": "icmp_type",
    "CTA_TUPLE_PROTO/CTA_PROTO_ICMP_CODE": "icmp_code",
    "CTA_TUPLE_PROTO/CTA_PROTO_ICMPV6_ID": "icmp_id",
    "CTA_TUPLE_PROTO/CTA_PROTO_ICMPV6_TYPE": "icmp_type",
    "CTA_TUPLE_PROTO/CTA_PROTO_ICMPV6_CODE": "icmp_code",
}
TCP_FLAGS = {
    "CTA_PROTOINFO/CTA_PROTOINFO_TCP/CTA_PROTOINFO_TCP_FLAGS_ORIGINAL": "tcp_flags_orig",
    "CTA_PROTOINFO/CTA_PROTOINFO_TCP/CTA_PROTOINFO_TCP_FLAGS_REPLY": "tcp_flags_reply",
}


def dump(netns: nlct.Netns) -> list[Flow]:
    """Every flow of both families, as pyroute2 tells it."""
    if importlib.util.find_spec("pyroute2") is None:
        pytest.skip("MISSING: pyroute2")
    said = tool.run(netns, sys.executable, "-m", "tests.support.pyroute")
    return list(map(json.loads, said.splitlines()))


def _leaves(message: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each attribute without attributes of its own, by its path."""
    for attribute in message["attrs"]:
        name, value = attribute[0], attribute[1]
        if isinstance(value, dict) and "attrs" in value:
            yield from _leaves(value, f"{path}{name}/")
        else:
            yield path + name, value


def _flow(message: Any) -> Flow:
    flow: Flow = {"family": message["nfgen_family"]}
    for path, value in _leaves(message):
        top, _, rest = path.partition("/")
        if path in FIELDS:
            flow[FIELDS[path]] = value
        elif rest in KEYS:
            flow.setdefault(TUPLES[top], {})[KEYS[rest]] = value
        elif path in TCP_FLAGS:
            # The second byte is a mask, which is of no use in an answer.
            flow[TCP_FLAGS[path]] = value[0]
        else:
            flow.setdefault("unread", []).append(path)
    return flow


def _teach(message: Any, nla: Any) -> None:
    """Add what pyroute2 0.9.7 lacks: the zone of a tuple, and that a helper's name is nested."""

    class Help(nla):
        nla_map = (("CTA_HELP_UNSPEC", "none"), ("CTA_HELP_NAME", "asciiz"))

    message.Help = Help
    message.nla_map = tuple(
        (name, "Help" if name == "CTA_HELP" else kind) for name, kind in message.nla_map
    )
    tuples = message.cta_tuple
    if "CTA_TUPLE_ZONE" not in dict(tuples.nla_map):
        tuples.nla_map = (*tuples.nla_map, ("CTA_TUPLE_ZONE", "be16"))


def main() -> None:
    """Print the table of this process's namespace, a JSON object to a line."""
    from pyroute2.netlink import nla  # noqa: PLC0415
    from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket, nfct_msg  # noqa: PLC0415

    _teach(nfct_msg, nla)
    # By default it asks for IPv4 alone.
    with NFCTSocket(nfgen_family=socket.AF_UNSPEC) as sock:
        for message in sock.dump():
            print(json.dumps(_flow(message)))


if __name__ == "__main__":
    main()
