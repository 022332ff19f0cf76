"""Protocols by name: Proto's, those of /etc/protocols, and numbers as text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import nlct
from nlct import Filter, Flow, Proto, Tuple, _protocols
from nlct._fields import FIELDS
from tests.support import tool
from tests.support.command import nlct_

PORTS = {Proto.TCP, Proto.UDP, Proto.UDPLITE, Proto.SCTP, Proto.GRE}


def of_each_protocol(ct: nlct.Conntrack) -> list[int]:
    """Create a flow of every protocol that this kernel takes; return their numbers."""
    numbers = [number for number in range(256) if number not in (Proto.DCCP, Proto.ICMPV6)]
    for number in numbers:
        keys = dict.fromkeys(("sport", "dport"), 7) if number in PORTS else {}
        keys = {"icmp_type": 8, "icmp_code": 0, "icmp_id": 1} if number == Proto.ICMP else keys
        orig = Tuple("10.0.0.1", "10.0.0.2", number, **keys)
        ct.create(Flow(orig, timeout=1000))
    return numbers


def test_every_protocol_in_every_form(ct: nlct.Conntrack, netns: nlct.Netns, where: str) -> None:
    """Text as conntrack prints it; elsewhere IANA's word, or the number."""
    numbers = of_each_protocol(ct)
    ours = [line.decode() for lines in ct.dump_text() for line in lines.splitlines()]
    theirs = [line for line in tool.lines(netns) if not line.startswith("conntrack")]
    assert sorted(map(tool.without_clocks, ours)) == sorted(map(tool.without_clocks, theirs))
    words = {n: Proto(n).name.lower().replace("_", "-") for n in map(int, Proto)}
    assert len(words) > 30
    flows = {int(flow.orig.proto or 0): flow for flow in ct.dump()}
    assert sorted(flows) == numbers
    for number, flow in flows.items():
        assert flow.orig.proto == number
        assert isinstance(flow.orig.proto, Proto) == (number in words)
        said = json.loads(json.dumps(flow.to_dict()))
        assert said["protocol"] == words.get(number, str(number))
        assert said["orig"]["proto"] == number
        assert f"{flow.orig.proto:d}" == json.dumps(flow.orig.proto) == str(number)
    shown = sorted(words.get(number, str(number)) for number in numbers)
    lines = b"".join(ct.dump_text(columns=["proto"])).decode().splitlines()
    assert sorted(lines) == shown
    objects = map(json.loads, b"".join(ct.dump_json()).splitlines())
    assert sorted(one["protocol"] for one in objects) == shown
    assert ct.count_by("proto") == dict.fromkeys(numbers, 1)
    found = json.loads(nlct_("count", where, "--by", "proto", "--json").stdout)
    assert found["counts"] == {words.get(number, str(number)): 1 for number in numbers}
    for name, number in (("esp", 50), ("ipv6-icmp", 58), ("VRRP", 112), ("ggp", 3), ("200", 200)):
        there = int(number in numbers)
        assert ct.count(Filter(proto=name)) == there
        assert nlct_("count", where, "--proto", name).stdout == f"{there}\n"
    assert ct.get(Tuple("10.0.0.1", "10.0.0.2", "ospf")).orig == flows[89].orig
    bad = nlct_("count", where, "--proto", "esp,nope")
    assert bad.exit_code == 2
    assert "/etc/protocols" in bad.stderr


def test_names_and_numbers_as_text() -> None:
    """In upper and lower case, with the aliases, wherever a protocol is given."""
    for name, member in Proto.__members__.items():
        for text in (name, name.lower(), name.lower().replace("_", "-"), str(int(member))):
            assert Tuple(proto=text).proto is member
            assert Filter(proto=text) == Filter(proto=member)
    assert Tuple(proto="ipv6-icmp").proto is Proto.ICMPV6
    assert Tuple(proto="0").proto == 0
    assert repr(Tuple(proto="esp")) == "Tuple(proto=Proto.ESP)"
    assert Filter(proto=["esp", "6", 17]) == Filter(proto={6, 17, 50})
    assert FIELDS["reply_proto"].plain(50) == FIELDS["master_proto"].plain(50) == "esp"
    for wrong in ("256", "99999999999999999999"):
        with pytest.raises(ValueError, match=r"^proto must be from 0 to 255, not [0-9]+$"):
            Tuple(proto=wrong)


def test_names_in_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is read for a name that is not known, and only then; errors name it."""
    file = tmp_path / "protocols"
    monkeypatch.setattr(_protocols, "FILE", str(file))
    # Nothing is there to read.
    assert Tuple(proto="esp").proto is Proto.ESP
    with pytest.raises(ValueError, match=f"^proto .*in {file} .*No such file.*'nope'$"):
        Filter(proto="nope")
    file.write_bytes(
        b"# tcp 99\n\nours\t201 OURS Alias-1 # note\nlarge 262\nodd x\nalone\n\xff\xfe 203 raw\n"
        b"tcp 204\nlast 205"
    )
    for name, number in (
        ("ours", 201),
        ("OURS", 201),
        ("alias-1", 201),
        ("last", 205),
        ("raw", 203),
    ):
        assert Tuple(proto=name).proto == number
    assert Tuple(proto="tcp").proto == Proto.TCP
    with pytest.raises(ValueError, match=r"^proto must be from 0 to 255, not 262$"):
        Filter(proto="large")
    for wrong in ("note", "odd", "alone", "", " ", "#", "201 ", "0201", "-1", "+6", "0x6", "\0"):
        with pytest.raises(ValueError, match=f"^proto must be .* or a name in {file}, not "):
            Filter(proto=wrong)
