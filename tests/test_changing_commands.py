"""``nlct get``, ``create`` and ``update``, beside the real ``conntrack``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import nlct
from nlct import labels
from tests.support import oracle, tool
from tests.support.command import nlct_, refused

UDP = "-s 10.0.0.1 -d 10.0.0.2 -p udp --sport 1000 --dport 53"

# Each as conntrack -I takes it, and nlct create.
SAME = (
    f"{UDP}",
    "-s fd00::1 -d fd00::2 -p udp --sport 1 --dport 2 -m 7",
    "-s 10.1.0.1 -d 10.1.0.2 -p tcp --sport 1 --dport 2 --state ESTABLISHED -u ASSURED,SEEN_REPLY",
    "-s 10.1.0.1 -d 10.1.0.3 -p tcp --sport 1 --dport 2 --state SYN_SENT -w 7",
    "-s 10.2.0.1 -d 10.2.0.2 -p icmp --icmp-type 8 --icmp-code 0 --icmp-id 9",
    "-s fd00::1 -d fd00::3 -p icmpv6 --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 9",
    "--orig-src 10.3.0.1 --orig-dst 10.3.0.2 -p udp --orig-port-src 1 --orig-port-dst 2 "
    "--orig-zone 4",
    "-s 10.3.0.1 -d 10.3.0.2 -p gre --srckey 1 --dstkey 2",
    "-s 10.3.0.1 -d 10.3.0.3 -p udp --sport 1 --dport 2 --reply-zone 4",
    "-s 10.4.0.1 -d 10.4.0.2 -p udp --sport 1 --dport 2 -n 1.2.3.4:77",
    "-s 10.4.0.1 -d 10.4.0.3 -p udp --sport 1 --dport 2 -g 1.2.3.5:78",
    "-s 10.4.0.1 -d 10.4.0.4 -p udp --sport 1 --dport 2 -r 9.9.9.9 -q 8.8.8.8 "
    "--reply-port-src 5 --reply-port-dst 6",
    "-s 10.4.0.1 -d 10.4.0.5 -p tcp --sport 1 --dport 2 --state CLOSE -n 1.2.3.4",
    "-s 10.4.0.1 -d 10.4.0.6 -p icmp --icmp-type 8 --icmp-code 0 --icmp-id 9 -n 1.2.3.4",
)


def content(netns: nlct.Netns) -> dict[Any, Any]:
    """What is in a table, but for what differs by itself."""
    with nlct.Conntrack(netns) as ct:
        flows = [flow.to_dict() for flow in ct.dump()]
    for flow in flows:
        for name in ("id", "timeout", "use"):
            flow.pop(name, None)
        # For a state like CLOSE conntrack sets 0x04 as well, after which a flow may take every RST
        # for invalid.
        for name in ("tcp_flags_orig", "tcp_flags_reply"):
            if name in flow:
                flow[name] &= ~0x04
    return {json.dumps(flow["orig"]) + str(flow.get("zone")): flow for flow in flows}


def test_a_flow_is_as_conntrack_makes_it(netns: nlct.Netns, where: str) -> None:
    """Entry by entry: replies, zones of both kinds, translation, states, status."""
    script = "".join(f"conntrack -I {line} -t 500 || exit 1\n" for line in SAME)
    with nlct.Netns.scratch() as other:
        tool.run(other, "sh", "-c", script)
        for line in SAME:
            done = nlct_("create", where, *line.split(), "-t", "500")
            assert (done.exit_code, done.stdout) == (0, "created\n"), (line, done.stderr)
        assert content(netns) == content(other)
        # The real tool's own mask, on what it can change: it puts back what it saw.
        tool.run(other, "conntrack", "-U", "-p", "udp", "-s", "10.0.0.1", "-m", "0x30/0xf0")
        done = nlct_("update", where, "-s", "10.0.0.1", "--set-mark", "0x30/0xf0")
        assert done.stdout.startswith("1 flow updated, 0 unchanged (")
        assert content(netns) == content(other)


def test_one_flow(netns: nlct.Netns, where: str) -> None:
    """Shown as conntrack -G shows it; what is absent, exists or makes no sense is said."""
    own = (where,)
    name = UDP.split()
    assert nlct_("create", *own, *name, "--timeout", "500").exit_code == 0
    shown = nlct_("get", *own, *name)
    real = tool.run(netns, "conntrack", "-G", *name)
    assert tool.without_clocks(shown.stdout) == tool.without_clocks(real)
    replies = ("-r", "10.0.0.2", "-q", "10.0.0.1", "-p", "udp")
    replies += ("--reply-sport", "53", "--reply-dport", "1000")
    assert json.loads(nlct_("get", *own, *replies, "--json").stdout)["orig"]["sport"] == 1000
    assert "no flow src=10.0.0.1" in refused(nlct_("get", *own, *name, "--zone", "7"), 1)
    assert "proto=udp sport=1000 dport=53 in zone 7" in refused(
        nlct_("get", *own, *name, "--zone", "7"), 1
    )
    assert "in zone 0" in refused(nlct_("get", *own, *name[:-1], "54"), 1)
    zoned = (*own, *name[:-1], "54", "--orig-zone", "4")
    assert nlct_("create", *zoned, "-t", "500").exit_code == 0
    assert "zone-orig=4" in nlct_("get", *zoned).stdout
    assert "zone 5 of one" in refused(nlct_("get", *zoned[:-1], "5"), 1)
    assert "of that direction" in refused(nlct_("get", *zoned[:-2], "--reply-zone", "4"), 2)
    before = oracle.dump(netns)
    again = ("create", *own, *name, "--timeout", "9")
    assert "there is a flow with the tuples of src=10.0.0.1" in refused(nlct_(*again), 1)
    done = nlct_(*again, "--if-absent", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"created": 0})
    assert oracle.dump(netns).keys() == before.keys()
    assert "both" in refused(nlct_("get", *own, *name, "-r", "1.2.3.4"), 2)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("get -p udp", 2, "name the flow"),
        ("get -s x -p udp", 2, "src must be an IPv4 or IPv6 address"),
        ("get -s 1.2.3.4 -p nonsense", 2, "proto"),
        ("get -s 1.2.3.4 -d 1.2.3.5 -p udp --sport 07 --dport 1", 2, "leading zero"),
        ("get -s 1.2.3.4 -d 1.2.3.5 -p udp --sport 1 --dport 65536", 2, "65535"),
        ("get -s 1.2.3.4 -d 1.2.3.5 -p udp --sport 1 --dport 2 --zone 65536", 2, "--zone"),
        ("get -s 1.2.3.4 -d 1.2.3.5 -p udp", 2, "add --sport, --dport"),
        ("get -s 1.2.3.4 -p udp --sport 1 --dport 2", 2, "add --dst"),
        ("get -r 1.2.3.4 -p udp --reply-sport 1 --reply-dport 2", 2, "add --reply-dst"),
        ("get -s 1.2.3.4 -d 1.2.3.5 -p icmp", 2, "add --icmp-id, --icmp-type, --icmp-code"),
        ("get -r 1.2.3.4 -q 1.2.3.5 -p icmp", 2, "original tuple"),
        ("create -s 1.2.3.4 -d 1.2.3.5 -p udp --dport 1 --timeout 5", 2, "add --sport"),
        (f"create {UDP} --timeout 5 --status dying", 2, "only seen_reply, assured"),
        (f"create {UDP} --timeout 5 --icmp-type 8", 2, "nlct: create a flow: Invalid"),
        (f"create {UDP} --timeout 5 --snat 1.2.3.4:80-90", 2, "'--snat'"),
        (f"create {UDP} --timeout 5 --dnat fd00::1", 2, "--dnat"),
        (f"create {UDP}", 2, "--timeout"),
        (f"create {UDP} --timeout 0", 2, "--timeout"),
        (f"create {UDP} --timeout 5 --state close", 2, "--state is for TCP"),
        ("create -s 1.2.3.4 -d 1.2.3.5 -p tcp --sport 1 --dport 2 --timeout 5", 2, "--state"),
        (f"create {UDP} --timeout 5 --zone 1 --orig-zone 2", 2, "one of --zone"),
        (f"create {UDP} --timeout 5 --label 128", 2, "127"),
        (f"create {UDP} --timeout 5 --status nonsense", 2, "'nonsense' is not one of"),
        (f"create {UDP} --timeout 5 --label 3", 1, "labels: no rule"),
        ("update --set-mark 1", 2, "restrict something"),
        ("update --all --set-mark 1", 2, "--all --yes"),
        ("update --zone 7", 2, "nothing to change"),
        ("update --zone 7 --set-mark 3/2", 2, "outside of its mask"),
        ("update --zone 7 --set-status dying", 2, "only seen_reply, assured"),
        ("update --zone 7 --all --yes --set-mark 1", 2, "contradict"),
    ],
)
def test_what_was_wrong_is_named(
    ct: nlct.Conntrack, where: str, words: str, code: int, says: str
) -> None:
    """With its exit code, and nothing is created or changed."""
    assert says in refused(nlct_(*words.split(), where), code)
    assert ct.count() == 0


def test_updates(
    ct: nlct.Conntrack, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every match and nothing else; none is no failure; what is refused is one."""
    ct.load(
        nlct.Flow(nlct.Tuple("10.0.0.1", "10.0.0.2", "udp", n, 53), zone=n % 2, timeout=600)
        for n in range(10)
    )
    own = (where,)
    change = ("update", *own, "--zone", "1", "--set-mark", "7", "--set-status", "seen_reply")
    assert "5 flows would be updated" in nlct_(*change, "--dry-run").stdout
    assert ct.count_by("mark") == {0: 10}
    result = json.loads(nlct_(*change, "--set-timeout", "50", "--json").stdout)
    assert (result["updated"], result["dry_run"], result["complete"]) == (5, False, True)
    assert ct.count_by("zone", "mark") == {(0, 0): 5, (1, 7): 5}
    assert max(flow.timeout or 0 for flow in ct.dump(zone=1)) <= 50
    done = nlct_("update", *own, "--zone", "9", "--set-mark", "1")
    assert (done.exit_code, done.stdout[:15]) == (0, "0 flows updated")
    done = nlct_("update", *own, "--all", "--yes", "--set-label", "3")
    assert (done.exit_code, "10 No space left" in done.stderr) == (1, True)
    assert "(labels: no rule" in done.stderr
    done = nlct_("update", *own, "--all", "--yes", "--set-helper", "ftp")
    assert (done.exit_code, "(helper: this kernel has none" in done.stderr) == (1, True)
    done = nlct_("update", *own, "--all", "--yes", "--clear-label", "all")
    assert "0 flows updated, 10 unchanged" in done.stdout
    # By the names that iptables has for them.
    (tmp_path / "connlabel.conf").write_text("3 bulk\n")
    monkeypatch.setattr(labels, "PATH", str(tmp_path / "connlabel.conf"))
    assert "5 No space" in nlct_("update", *own, "--zone", "1", "--set-label", "bulk").stderr
    assert nlct_("update", *own, "--zone", "1", "--clear-label", "bulk,4").exit_code == 0
    for option in ("--set-label", "--clear-label"):
        assert "'nonesuch'" in refused(nlct_("update", *own, "--zone", "1", option, "nonesuch"), 2)
