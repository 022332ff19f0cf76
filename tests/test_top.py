"""What `nlct top` shows and what keys change, without a terminal and without a kernel."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

pytest.importorskip("click", reason="MISSING: click, which nlct[cli] brings")
pytest.importorskip("rich", reason="MISSING: rich, which nlct[cli] brings")

from nlct.cli.frame import LEAST, Context, frame, page
from nlct.cli.live import Shown
from nlct.cli.screen import keys_in
from nlct.cli.top import KEYS, Row, View, read_fields, rows_of
from nlct.live import Sample

PLAIN = Context("router-7", "", False)


class Groups:
    """Stands for LiveCounts: the values of each group by its key."""

    def __init__(self, values: dict[bytes, tuple[Any, ...]], told: bool = True) -> None:
        self._values = values
        self.told, self.listening = told, True
        self.reason = "" if told else "it counts by mark, which may change while a flow lives"
        self.decoded = 0

    def values(self, key: bytes) -> tuple[Any, ...]:
        """Return the values of a group."""
        self.decoded += 1
        return self._values[key]

    def order(self, key: bytes) -> tuple[Any, ...]:
        """Order absent ones first."""
        return tuple((value is not None, value or 0) for value in self._values[key])


def zones(many: int) -> Groups:
    """Groups of zones 1, 2, 3, ..."""
    return Groups({bytes([zone]): (zone,) for zone in range(1, many + 1)})


def sample(flows: dict[int, int], **more: Any) -> Sample:
    """A sample of zones."""
    given = {
        **{"new": {}, "gone": {}, "traffic": None, "change": None, "seconds": 2.0, "between": 4.0},
        **{"dumped": 3.0, "took": 0.02, "meanwhile": 0, "overruns": 0},
        **more,
    }
    packed = {
        name: {bytes([zone]): amount for zone, amount in value.items()}
        if isinstance(value, dict)
        else value
        for name, value in given.items()
    }
    return Sample(flows={bytes([zone]): count for zone, count in flows.items()}, **packed)


def shown(found: Sample, groups: Groups, **more: Any) -> Shown:
    """What is shown of a sample."""
    given = {"first": False, "entries": 5000, "limit": 10000, "unaccounted": "", **more}
    return Shown(counts=groups, sample=found, **given)  # type: ignore[arg-type]


def rows(view: View, found: Sample, groups: Groups) -> list[Row]:
    """The rows of a page."""
    return rows_of(view, found, False, groups)


# Rows --------------------------------------------------------------------------------------------


def test_rows_have_counts_shares_and_rates() -> None:
    """Rates of events are by the time between samples, those of bytes by that between dumps."""
    found = sample({1: 30, 2: 10}, new={1: 5}, gone={2: 3}, traffic={1: 4000})
    assert rows(View(("zone",)), found, zones(2)) == [
        Row(("1",), 30, 0.75, 2.5, 0.0, None, 1000.0),
        Row(("2",), 10, 0.25, 0.0, 1.5, None, None),
    ]


def test_a_group_that_just_ended_is_shown_once_more() -> None:
    """It has no flows, and those that ended have their rate."""
    found = sample({1: 3}, gone={2: 4})
    assert [row[:2] for row in rows(View(("zone",)), found, zones(2))] == [(("1",), 3), (("2",), 0)]


def test_without_events_there_is_only_a_change() -> None:
    """What began and what ended is then not known."""
    groups = Groups({b"\x01": (7,)}, told=False)
    (row,) = rows(View(("mark",)), sample({1: 3}, change={1: -8}), groups)
    assert (row.new, row.gone, row.change) == (None, None, -2.0)


def test_first_rates_are_unknown() -> None:
    """Not zero."""
    (row,) = rows_of(View(("zone",)), sample({1: 3}, new={1: 3}), True, zones(1))
    assert (row.new, row.gone, row.bytes) == (None, None, None)


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("flows", "2 1 3"),
        ("key", "1 2 3"),
        ("new", "3 2 1"),
        ("gone", "1 2 3"),
        ("bytes", "1 3 2"),
        ("change", "2 1 3"),
    ],
)
def test_sorting(sort: str, expected: str) -> None:
    """By any column, both ways; what is alike, by flows."""
    found = sample(
        {1: 20, 2: 30, 3: 10}, new={3: 9, 2: 1}, gone={1: 7}, traffic={1: 900, 3: 50}, change=None
    )
    view = View(("zone",), sort=sort)
    assert [row.words[0] for row in rows(view, found, zones(3))] == expected.split()
    view.press("r")
    if sort in ("flows", "key"):
        turned = [row.words[0] for row in rows(view, found, zones(3))]
        assert turned == expected.split()[::-1]


def test_words_of_values() -> None:
    """As `nlct count` has them; "-" is absent."""
    network = ipaddress.ip_network("10.1.0.0/16")
    groups = Groups({b"\x01": (network, 17), b"\x02": (network, None)})
    found = rows(View(("src/16", "proto")), sample({1: 2, 2: 1}), groups)
    assert [row.words for row in found] == [("10.1.0.0/16", "udp"), ("10.1.0.0/16", "-")]


def test_only_a_page_is_decoded() -> None:
    """Of many groups those that are seen, unless a text is looked for."""
    groups, found = zones(200), sample({zone: 1000 - zone for zone in range(1, 201)})
    view = View(("zone",), page=10, first=20)
    assert [row.words[0] for row in rows(view, found, groups)] == [*map(str, range(21, 31))]
    assert (groups.decoded, view.rows) == (10, 200)
    view.text = "20"
    assert [row.words[0] for row in rows(view, found, groups)] == ["20", "120", "200"]
    assert (view.rows, view.first) == (3, 0)


def test_top_shows_the_first_rows_only() -> None:
    """However large the page is."""
    view = View(("zone",), most=2)
    found = rows(view, sample({1: 1, 2: 2, 3: 3}), zones(3))
    assert [row.words[0] for row in found] == ["3", "2"]
    assert view.rows == 2


# Keys --------------------------------------------------------------------------------------------


def pressed(view: View, keys: str) -> View:
    """Press keys, by name or character."""
    for key in keys.split():
        view.press(" " if key == "space" else key)
    return view


def test_keys_count_by_other_fields() -> None:
    """From the first row on, and without the text that was looked for."""
    view = View(("zone",), first=7, text="10")
    assert pressed(view, "z").text == "10"
    for key, by in (("p", "proto"), ("s", "state"), ("a", "src"), ("d", "dst"), ("z", "zone")):
        assert pressed(view, key).by == (by,)
    assert (view.first, view.text) == (0, "")


def test_fields_are_typed() -> None:
    """One or two; what is none is said, and nothing changes."""
    view = pressed(View(("zone",)), "b")
    assert (view.prompt, view.typed) == ("b", "")
    pressed(view, "d clear s r c / 1 6 , p r o t x backspace o enter")
    assert (view.by, view.prompt, view.said) == (("src/16", "proto"), "", "")
    assert pressed(view, "b enter").by == ("src/16", "proto")
    assert (view.prompt, view.said) == ("", "")
    pressed(view, "b q enter")
    assert view.by == ("src/16", "proto")
    assert "'q'" in view.said
    assert not view.quit
    assert pressed(view, "b d escape").by == ("src/16", "proto")
    assert (view.typed, view.said) == ("", "")


@pytest.mark.parametrize("text", ["", "zone,zone", "zone,src,dst", "nonsense", "zone/8", "src/200"])
def test_what_is_no_field(text: str) -> None:
    """It is refused."""
    with pytest.raises(ValueError, match=r"fields"):
        read_fields(text)


def test_a_text_is_typed() -> None:
    """Keys have no other meaning meanwhile."""
    view = pressed(View(("zone",), first=3), "/ q r z enter")
    assert (view.text, view.first, view.by, view.quit) == ("qrz", 0, ("zone",), False)
    assert pressed(view, "/").typed == "qrz"
    assert pressed(view, "x escape").text == "qrz"
    assert pressed(view, "escape").text == ""


def test_sorting_goes_from_column_to_column() -> None:
    """Over those that are shown, in a circle; the share is that of flows."""
    view = View(("zone",), columns=("flows", "share", "new", "gone"))
    found = [pressed(view, key).sort for key in [">", ">", ">", ">", "<", "<", "<"]]
    assert found == ["new", "gone", "key", "flows", "key", "gone", "new"]
    # As the column that it was sorted by has gone.
    view.sort = "bytes"
    assert pressed(view, "right").sort == "flows"


def test_scrolling_stays_on_the_rows() -> None:
    """The last page is full."""
    view = View(("zone",), page=10, rows=25)
    keys = ("up", "down", "page down", "page down", "page up", "home", "end", "page down")
    found = []
    for key in keys:
        view.press(key)
        found.append(view.first)
    assert found == [0, 1, 11, 15, 5, 0, 15, 15]


def test_other_keys() -> None:
    """Hold, help, interval, quit; an unknown key does nothing."""
    view = View(("zone",))
    assert pressed(view, "space").held
    assert not pressed(view, "space").held
    assert pressed(view, "+").interval == 4.0
    assert pressed(view, "- - - - - - - - - -").interval == 0.1
    assert pressed(view, "?").help
    assert not pressed(view, "x").help
    assert pressed(view, "x").quit is False
    assert pressed(view, "? q").quit
    assert pressed(View(("zone",)), "q").quit


@pytest.mark.parametrize(
    ("typed", "keys", "rest"),
    [
        ("q", ["q"], ""),
        ("\x1b[A\x1bOB\x1b[5~", ["up", "down", "page up"], ""),
        ("\x1b[1;5C\x1b[99~z", ["z"], ""),
        ("\x1b", [], "\x1b"),
        ("a\x1b[", ["a"], "\x1b["),
        ("\x1b[5", [], "\x1b[5"),
        ("\x1bq", ["escape", "q"], ""),
        ("\x1b\x1b[A", ["escape", "up"], ""),
        ("\r\x7f\x15\x00é", ["enter", "backspace", "clear", "é"], ""),
    ],
)
def test_what_a_terminal_sends_for_keys(typed: str, keys: list[str], rest: str) -> None:
    """Sequences have names; the begin of one waits for its end, and unknown ones are dropped."""
    assert keys_in(typed) == (keys, rest)


# Frames ------------------------------------------------------------------------------------------


def text(
    view: View, what: Shown | None, size: tuple[int, int], about: Context = PLAIN
) -> list[str]:
    """The lines of a frame, which fit."""
    lines = frame(view, what, 1234, 65.0, about, size)
    assert len(lines) <= size[1]
    assert all(line.cell_len <= size[0] for line in lines)
    return [line.plain.rstrip() for line in lines]


FULL = sample(
    {zone: zone for zone in range(1, 201)}, new={7: 5}, gone={8: 3}, traffic={7: 4_000_000}
)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (40, 12), (40, 10), (200, 60), (61, 17)])
def test_a_frame_fills_every_size(size: tuple[int, int]) -> None:
    """Title, bar, headings, rows and a last line, whatever its size."""
    view = View(("zone",))
    lines = text(view, shown(FULL, zones(200)), size)
    assert len(lines) == size[1]
    assert "router-7" in lines[0]
    assert "5,000 of 10,000 (50.0 %)" in lines[1]
    assert lines[-1] == f"? keys  q quit   1-{view.page} of 200"
    at = next(number for number, line in enumerate(lines) if line.startswith("ZONE"))
    assert [line.split()[0] for line in lines[at + 1 : -1]] == [
        str(zone) for zone in range(200, 200 - view.page, -1)
    ]
    assert ("BYTES/S" in lines[at]) == (size[0] > 60)
    assert "NEW/S" in lines[at]


@pytest.mark.parametrize("size", [(39, 24), (80, 9), (10, 3), (1, 1)])
def test_a_screen_that_is_too_small(size: tuple[int, int]) -> None:
    """One line, cut off where it must be."""
    (line,) = text(View(("zone",)), shown(FULL, zones(200)), size)
    assert f"nlct top needs {LEAST[0]}x{LEAST[1]}; q quits".startswith(line.rstrip("…"))


def test_what_the_head_says() -> None:
    """Where the counts come from, what is left out, and how many were lost."""
    only = PLAIN._replace(only="Filter(zone=7)")
    lines = text(View(("zone",)), shown(FULL, zones(200)), (100, 24), only)
    assert lines[0].endswith("every 2 s  up 0:01:05")
    assert lines[2:5] == [
        "flows    20,100   new 2.5/s   gone 1.5/s   1.0 MB/s",
        "counted  by events, and a dump 3 s ago that took 20 ms",
        "only     Filter(zone=7)",
    ]
    silent = Groups({b"\x01": (7,)}, told=False)
    silent.listening = False
    lines = text(
        View(("mark",), held=True),
        shown(sample({1: 3}, overruns=2), silent, unaccounted="off", limit=0),
        (100, 24),
    )
    assert "held" in lines[0]
    assert lines[1:5] == [
        "table    5,000 flows, no limit",
        "flows    3   no bytes: nf_conntrack_acct=0   2 losses of events",
        "counted  by dumps alone, one 3 s ago that took 20 ms",
        "note     it counts by mark, which may change while a flow lives",
    ]
    quick = text(View(("zone",)), shown(FULL._replace(meanwhile=1500), zones(200)), (100, 24))
    assert quick[3].endswith("took 20 ms (up to 1,500 off)")


def test_before_the_first_sample() -> None:
    """It says how far the first dump is."""
    lines = text(View(("zone",)), None, (80, 24))
    assert lines[1] == "counting: 1,234 flows so far"
    assert lines[-1] == "? keys  q quit"


def test_an_empty_table() -> None:
    """No row, and no division by zero."""
    lines = text(View(("zone",)), shown(sample({}), zones(0), entries=0), (80, 24))
    assert "0 of 10,000 (0.0 %)" in lines[1]
    assert "#" not in lines[1]
    assert lines[-1].endswith("0-0 of 0")


def test_long_words_are_cut_and_numbers_are_not() -> None:
    """On a narrow screen the fields give way."""
    words = "2001:db8:1111:2222:3333:4444:5555:6666"
    groups = Groups({b"\x01": (words, words)})
    lines = text(View(("src", "dst")), shown(sample({1: 1_234_567}), groups), (40, 10))
    assert lines[3].startswith("2001:db")
    assert lines[3].count("…") == 2
    assert "1,234,567" in lines[3]
    wide = text(View(("src", "dst")), shown(sample({1: 1_234_567}), groups), (200, 10))
    assert wide[3].count(words) == 2


def test_the_list_of_keys_fits() -> None:
    """All of them in 80x24; as many as there is room for below that."""
    lines = text(View(("zone",), help=True), None, (80, 24))
    assert len(lines) == len(KEYS) + 2
    assert not any(line.endswith("…") for line in lines)
    assert len(text(View(("zone",), help=True), None, LEAST)) == LEAST[1]


def test_prompts_and_complaints() -> None:
    """They take the last line."""
    view = View(("zone",), prompt="/", typed="10.")
    assert text(view, shown(FULL, zones(200)), (80, 24))[-1] == "rows with: 10."
    view = View(("zone",), said="cannot count by 'x'")
    assert text(view, shown(FULL, zones(200)), (80, 24))[-1] == "cannot count by 'x'"
    view = View(("zone",), text="19")
    assert text(view, shown(FULL, zones(200)), (80, 24))[-1].endswith("of 12   with '19'")


def test_a_page_for_a_file_has_all_rows() -> None:
    """And nothing is cut off."""
    lines = [line.plain for line in page(View(("zone",)), shown(FULL, zones(200)), 1.0, PLAIN)]
    assert len(lines) == 205 + 1
    assert lines[-1].split() == ["1", "1", "0.0%", "0", "0", "-"]
