"""Debian's conntrack tool inside a namespace, and its XML as plain dicts.

A flow is a dict of what the tool says, by the names of everything.py's ``FIELDS``; what it
does not say is not in the dict. The XML has no status word, but tells two of its bits: "assured"
and "unreplied" (bools).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from typing import Any

import pytest

import nlct

Flow = dict[str, Any]

# The tool names labels by a file that most machines do not have. It gets one that gives each bit
# its number for a name, in a /etc that only the tool's process sees; times are as ever.
WITH_LABELS = r"""
set -e
mount -t tmpfs -o mode=755 none /mnt
mkdir /mnt/xtables
i=0
while [ $i -lt 128 ]; do
    echo "$i $i"
    i=$((i + 1))
done > /mnt/xtables/connlabel.conf
if [ -e /etc/localtime ]; then cp -L /etc/localtime /mnt/; fi
mount --move /mnt /etc
exec "$@"
"""

# Since then the tool lists both families unless told otherwise, and its XML could be parsed.
WHOLE = (1, 4, 7)

# The names of TCP's states, in the order of the kernel's numbers. The XML of 1.4.7 has them for
# the states of every protocol, so they are looked up here whatever the protocol is.
STATES = (
    *("NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT"),
    *("CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2"),
)
STATE_OF = {6: "tcp_state", 33: "dccp_state", 132: "sctp_state"}

# What the XML says nothing of, and what else is known of that; by field.
NOT_IN_XML = {
    r"status": "but for two bits",
    r"(orig|reply)\.icmp_(id|type|code)": "the text has them",
    r"master\..*": "nor has the text",
    r"tcp_(wscale|flags)_.*": "nor has the text",
    r"sctp_vtag_.*": "-o save has them, with their bytes reversed",
    r"dccp_(role|handshake_seq)": "the text of -o save has the role",
    r"synproxy_.*": "nor has the text",
    r"seqadj_.*": "nor has the text",
}
# Of a protocol whose ports the kernel does not know the tool says that they are 0.
PORTS = re.compile(r"(orig|reply)\.[sd]port")


def run(netns: nlct.Netns, *command: str, given: str = "", fds: tuple[int, ...] = ()) -> str:
    """Run a command inside a namespace; it must succeed. Returns its output."""
    if os.geteuid() != 0:
        pytest.skip("MISSING: root, to run tools in a namespace")
    for name in ("nsenter", command[0]):
        if not shutil.which(name):
            pytest.skip(f"MISSING: {name}")
    done = subprocess.run(
        ["nsenter", f"--net=/proc/self/fd/{netns.fileno()}", "--", *command],
        input=given,
        capture_output=True,
        text=True,
        timeout=240,
        pass_fds=(netns.fileno(), *fds),
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def version() -> tuple[int, ...]:
    """The version of the tool."""
    if not shutil.which("conntrack"):
        pytest.skip("MISSING: conntrack")
    said = subprocess.run(["conntrack", "-V"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, re.findall(r"\d+", said.split()[1])))


def lines(netns: nlct.Netns, *options: str) -> list[str]:
    """What ``conntrack -L`` prints, line by line; the family may be among the options."""
    return [line for said in _list(netns, options) for line in said.splitlines()]


def without_clocks(line: str) -> str:
    """A line of the tool's without what goes on by itself: the timeout and the flow's age."""
    line = re.sub(r" delta-time=\d+", "", line)
    # Names and numbers of the layers come first; the timeout follows, but of offloaded flows.
    return re.sub(r"^((?:ipv[46] +\d+ )?\S+ +\d+ )\d+ ", r"\1", line)


def xml(netns: nlct.Netns, *options: str) -> list[Flow]:
    """Every flow of both families, as the tool's XML tells it."""
    if version() < WHOLE:
        pytest.skip("MISSING: conntrack 1.4.7: the XML of 1.4.6 is not well-formed")
    (said,) = _list(netns, ("-o", "xml,extended,id,labels,ktimestamp", *options))
    # Of an empty table there is no document.
    return [_flow(element) for element in ET.fromstring(said)] if said.strip() else []


def _list(netns: nlct.Netns, options: tuple[str, ...]) -> list[str]:
    """List the table, once for each family where the tool does not know better."""
    families: tuple[tuple[str, ...], ...] = ((),)
    if version() < WHOLE and "-f" not in options:
        families = (("-f", "ipv4"), ("-f", "ipv6"))
    command = ("unshare", "--mount", "sh", "-c", WITH_LABELS, "sh", "conntrack", "-L")
    return [run(netns, *command, *options, *family) for family in families]


def _flow(element: ET.Element) -> Flow:
    metas = {meta.get("direction"): meta for meta in element.findall("meta")}
    flow: Flow = {
        "orig": _tuple(metas["original"]),
        "reply": _tuple(metas["reply"]),
        **_counters(metas["original"], "orig"),
        **_counters(metas["reply"], "reply"),
        **_independent(metas["independent"]),
    }
    flow["family"] = int(_child(metas["original"], "layer3").attrib["protonum"])
    if (helper := element.findtext("helper")) is not None:
        flow["helper"] = helper
    if "state" in flow:
        flow[STATE_OF[flow["orig"]["proto"]]] = STATES.index(flow.pop("state"))
    return flow


def _child(element: ET.Element, name: str) -> ET.Element:
    found = element.find(name)
    assert found is not None, f"no {name} in {ET.tostring(element)!r}"
    return found


def _tuple(meta: ET.Element) -> Flow:
    addresses, keys = _child(meta, "layer3"), _child(meta, "layer4")
    values: Flow = {
        "src": _child(addresses, "src").text,
        "dst": _child(addresses, "dst").text,
        "proto": int(keys.attrib["protonum"]),
    }
    # GRE has keys, in hexadecimal, where the others have ports.
    for tag, name in {"srckey": "sport", "dstkey": "dport"}.items():
        if (text := keys.findtext(tag) or keys.findtext(name)) is not None:
            values[name] = int(text, 0)
    if (text := meta.findtext("zone")) is not None:
        values["zone"] = int(text)
    return values


def _counters(meta: ET.Element, direction: str) -> Flow:
    found = meta.find("counters")
    if found is None:
        return {}
    return {f"{child.tag}_{direction}": int(child.text or "") for child in found}


def _independent(meta: ET.Element) -> Flow:
    flow: Flow = {name: meta.find(name) is not None for name in ("assured", "unreplied")}
    for name in ("timeout", "mark", "use", "id", "zone"):
        if (text := meta.findtext(name)) is not None:
            flow[name] = int(text)
    for name in ("state", "secctx"):
        if (text := meta.findtext(name)) is not None:
            flow[name] = text
    if (labels := meta.find("labels")) is not None:
        flow["labels"] = sum(1 << int(label.text or "") for label in labels)
    if (times := meta.find("timestamp")) is not None:
        for child in times:
            flow[f"timestamp_{child.tag}"] = int(child.text or "")
    return flow
