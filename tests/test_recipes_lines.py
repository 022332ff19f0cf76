"""docs/recipes/from-conntrack.md: both sides of each row do the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("click", reason="MISSING: click, which nlct[cli] brings")

import nlct
from tests.support import beside, flows, listeners, tool
from tests.support.beside import Pair, Said
from tests.support.command import NLCT
from tests.support.pages import ROOT

PAGE = ROOT / "docs/recipes/from-conntrack.md"
Row = tuple[str, str]


def rows(heading: str) -> list[Row]:
    """The rows of the table below a heading."""
    if not PAGE.exists():
        return []
    _, _, rest = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    section, _, _ = rest.partition("\n## ")
    found = re.findall(r"^\| `(.*)` \| `nlct (.*)` \|$", section, re.MULTILINE)
    return [(theirs.replace("\\|", "|"), ours.replace("\\|", "|")) for theirs, ours in found]


def each(heading: str) -> pytest.MarkDecorator:
    """A test of each row; but in `make check` those of which others are telling.

    One command with options that select is like many in test_beside_conntrack.py; a command for
    each flow takes long.
    """
    more = re.compile(r"conntrack -[LD]( [-\w./:]+)+|.*while read.*")
    parameters = [
        pytest.param(row, marks=[pytest.mark.exhaustive] if more.fullmatch(row[0]) else [])
        for row in rows(heading)
    ]
    return pytest.mark.parametrize("row", parameters, ids=lambda row: row[0])


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Two namespaces, for all rows."""
    with beside.pair() as made:
        yield made


# The page's examples are about flows that are in the tables of tests/support/beside.py.
@pytest.fixture(scope="module")
def full(pair: Pair) -> Pair:
    """Both tables full, for rows that leave them so."""
    pair.fill()
    return pair


def shell(line: str, netns: nlct.Netns) -> Said:
    """Run a line in a namespace, as a person would."""
    return beside.inside(netns, "bash", "-c", line)


def both(pair: Pair, row: Row) -> tuple[Said, Said]:
    """Run both sides, each in its namespace; each must succeed.

    But not a loop that deletes while its listing runs: a flow that is listed twice, as a listing
    beside deletes may, is not there the second time.
    """
    theirs = shell(row[0], pair.theirs)
    ours = pair.nlct(row[1])
    assert ours.code == 0, ours
    assert theirs.code == 0 or "while read" in row[0], theirs
    return theirs, ours


def lines(said: Said) -> list[str]:
    """The flows that were listed, without what differs from namespace to namespace."""
    found = (re.sub(r" (labels|use)=\S+", "", line) for line in said.out.splitlines())
    return sorted(map(tool.without_clocks, found))


def test_the_page_has_rows() -> None:
    """Every row of the page is one that a test has read."""
    if not PAGE.exists():
        pytest.skip("MISSING: a whole checkout")
    text = PAGE.read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == [*TESTED, "What it replaces"]
    tables = len(re.findall(r"^\| --- \| --- \|$", text, re.MULTILINE))
    assert sum(len(rows(heading)) for heading in headings) == text.count("\n|") - 2 * tables
    assert all(rows(heading) for heading in TESTED)


TESTED = (
    "Looking",
    "Counting",
    "Counting by something",
    "Deleting",
    "Creating and changing",
    "As it happens",
)


@each("Looking")
def test_looking(full: Pair, row: Row) -> None:
    """The same flows, in the same words."""
    theirs, ours = both(full, row)
    assert lines(ours) == lines(theirs) != []


@each("Counting")
def test_counting(full: Pair, row: Row) -> None:
    """The same number."""
    theirs, ours = both(full, row)
    assert int(ours.out) == int(theirs.out) > 0


@each("Counting by something")
def test_counting_by_something(full: Pair, row: Row) -> None:
    """The same numbers, each of the same value."""
    theirs, ours = both(full, (row[0], f"{row[1]} --json"))
    counted = dict(reversed(line.lower().split()) for line in theirs.out.splitlines())
    found = {value: str(count) for value, count in json.loads(ours.out)["counts"].items()}
    assert found == counted
    assert len(found) > 1


@each("Deleting")
def test_deleting(pair: Pair, row: Row) -> None:
    """The same flows are left, and not all that there were."""
    for netns in (pair.theirs, pair.ours):
        with nlct.Conntrack(netns) as ct:
            ct.load(beside.FLOWS)
            before = ct.count()
    both(pair, row)
    wanted, found = pair.tables()
    assert found == wanted
    assert len(found) < before
    assert bool(found) == ("-F" not in row[0])


@each("Creating and changing")
def test_creating_and_changing(pair: Pair, row: Row) -> None:
    """The same flows change alike."""
    pair.fill()
    before = beside.entries(pair.ours)
    both(pair, row)
    wanted, found = pair.tables()
    assert found == wanted != before


# `make test` compares events with conntrack's in test_events_command.py.
@pytest.mark.exhaustive
@pytest.mark.usefixtures("root")
@pytest.mark.skipif(not PAGE.exists(), reason="MISSING: a whole checkout")
def test_as_it_happens(netns: nlct.Netns, tmp_path: Path) -> None:
    """All of them listen at once, and both of each row print the same."""
    with ExitStack() as stack, nlct.Conntrack(netns) as ct:

        def listening(number: int, *command: str) -> listeners.Listener:
            file = tmp_path / f"{number}{'-ours' * (command[0] != 'conntrack')}"
            return stack.enter_context(listeners.listening(netns, file, *command))

        told = [
            (theirs, listening(number, *theirs.split()), listening(number, *NLCT, *ours.split()))
            for number, (theirs, ours) in enumerate(rows("As it happens"))
        ]
        for flow in (flows.udp(1, 7), beside.FLOWS[0], flows.udp(2)):
            ct.create(flow)
            ct.update(flow, mark=7)
            ct.delete_flow(flow)
        for line, *both in told:
            events = (1 if "-e" in line else 3) * (2 if "-p udp" in line else 3)
            for one in both:
                listeners.wait_until(lambda: len(one.lines()) == events, line)  # noqa: B023
            wanted, found = (
                [re.sub(r" *\[USERSPACE\].*", "", said) for said in one.lines()] for one in both
            )
            assert found == wanted
