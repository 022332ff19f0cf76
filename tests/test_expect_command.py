"""``nlct expect``: list, create, delete and flush, beside the real tool."""

from __future__ import annotations

import json

import nlct
from tests.support import expectations, tool
from tests.support.command import nlct_, refused

MASTER = "--master-src 10.0.0.1 --master-dst 10.0.0.2 --master-sport {} --master-dport 21"


def create(where: str, number: int, *more: str) -> tuple[str, ...]:
    """The command that makes the expectation of a master."""
    one = f"--proto tcp --src 10.0.0.2 --dst 10.0.0.1 --dport {50_000 + number}"
    master = MASTER.format(40_000 + number)
    return ("expect", "create", where, *one.split(), *master.split(), *more)


def test_from_create_to_flush(ct: nlct.Conntrack, netns: nlct.Netns, where: str) -> None:
    """Each does what it says to the one that it names, and says what it did."""
    for zone in (0, 7):
        expectations.masters(ct, 2, zone)
    assert nlct_(*create(where, 0)).stdout == "1 expectation created\n"
    assert "File exists" in refused(nlct_(*create(where, 0)), 1)
    assert "No such file" in refused(nlct_(*create(where, 5)), 1)
    nat = "--nat-src 10.9.9.9 --nat-sport 5 --nat-direction reply --flags permanent,inactive"
    made = nlct_(*create(where, 1, "--json", *nat.split()))
    assert json.loads(made.stdout) == {"created": 1}
    assert nlct_(*create(where, 0, "--zone", "7")).exit_code == 0
    said = tool.run(netns, "conntrack", "-L", "expect", "-f", "ipv4").splitlines()
    listed = nlct_("expect", "list", where).stdout.splitlines()
    assert [line.split()[1:] for line in listed] == [line.split()[1:] for line in said]
    objects = [json.loads(x) for x in nlct_("expect", "list", where, "--json").stdout.splitlines()]
    (second,) = (one for one in objects if one["tuple"]["dport"] == 50_001)
    assert (second["nat"]["src"], second["nat"]["sport"], second["nat_direction"]) == (
        *("10.9.9.9", 5),
        1,
    )
    assert second["flags"] == ["permanent", "inactive"]
    zoned = nlct_("expect", "list", where, "--zone", "7").stdout
    assert " zone=7 " in zoned
    assert zoned.count("\n") == 1
    # Nothing goes that is not named, or that is named like another.
    before = expectations.dump(netns)
    for words, said_so, code in (
        ("--dst 10.0.0.1", "2 expectations of zone 0 match", 1),
        ("--dport 50001 --zone 7", "no such expectation in zone 7", 1),
        ("--id 1", "no such expectation", 1),
        ("--dport 50000 --src 10.0.0.9", "no such expectation", 1),
        ("", "name the expectation", 2),
        ("--dst here", "dst must be", 2),
    ):
        assert said_so in refused(nlct_("expect", "delete", where, *words.split()), code)
    for words in ("", "--yes", "--all"):
        refused(nlct_("expect", "flush", where, *words.split()), 2)
    for words in ("--proto tcp", "--proto tcp --dst 10.0.0.1", "--proto tcp --dst ::1 --flags x"):
        refused(nlct_("expect", "create", where, *words.split()), 2)
    assert expectations.dump(netns) == before
    assert nlct_("expect", "delete", where, "--dport", "50000", "--zone", "7").exit_code == 0
    gone = nlct_("expect", "delete", where, "--dport", "50000", "--json").stdout
    assert json.loads(gone)["zone"] == 0
    assert len(expectations.dump(netns)) == 1
    flushed = nlct_("expect", "flush", where, "--all", "--yes", "--json").stdout
    assert json.loads(flushed) == {"flushed": True}
    assert expectations.dump(netns) == {}
