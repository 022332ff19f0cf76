"""What `nlct top` shows, and what keys change of it; it reads and writes nothing."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from nlct.cli.output import word
from nlct.counts import Group
from nlct.live import MOST_FIELDS, Key, Sample

# What a key counts by.
VIEWS = {
    "z": ("zone",),
    "p": ("proto",),
    "s": ("state",),
    "a": ("src",),
    "d": ("dst",),
    "o": ("dport",),
}
# What people may mean who type a field that is none.
TRY = "zone, proto, state, mark, src, src/24, dst, dport"
FASTER, SLOWER = 0.5, 2.0
SHORTEST, LONGEST = 0.1, 3600.0
# Of so many rows, those that are alike are in the order of their values.
FEW = 20000
# What rows can be sorted by, beside their fields.
SORTS = ("key", "flows", "new", "gone", "change", "bytes")

KEYS = (
    ("z p s", "by zone, protocol, TCP state"),
    ("a d o", "by source, destination, destination port"),
    ("b", "by other fields: type one or two"),
    ("< >", "sort by the column to the left, to the right"),
    ("r", "reverse the order"),
    ("/", "show only rows with this text"),
    ("Esc", "all rows again, from the first"),
    ("arrows", "scroll, as PgUp, PgDn, Home and End do"),
    ("+ -", "longer, shorter interval"),
    ("Space", "hold still, go on"),
    ("? h", "this list"),
    ("q", "quit"),
)


def read_fields(text: str) -> tuple[str, ...]:
    """Read one or two fields with a comma between. Raises ValueError."""
    fields = tuple(one.strip() for one in text.split(","))
    for one in fields:
        Group.read(one)
    if len(fields) > MOST_FIELDS or len(set(fields)) < len(fields):
        raise ValueError(f"give up to {MOST_FIELDS} different fields, not {', '.join(fields)}")
    return fields


class Counted(Protocol):
    """What counts, as nlct.live.LiveCounts does."""

    told: bool

    def values(self, key: Key) -> tuple[Any, ...]:
        """Return the values of a group."""

    def order(self, key: Key) -> tuple[Any, ...]:
        """Return what orders groups by their values."""


class Row(NamedTuple):
    """A group: the words of its values, and what is known of it; None is unknown."""

    words: tuple[str, ...]
    flows: int
    share: float
    new: float | None
    gone: float | None
    change: float | None
    bytes: float | None


@dataclass
class View:
    """What is shown and how; press() changes it.

    ``sort``: one of SORTS. ``text``: only rows that contain it. ``most``: only so many rows.
    ``prompt``: "/" or "b" while text is typed, ``typed`` that text. ``said``: what went wrong.
    """

    by: tuple[str, ...]
    interval: float = 2.0
    sort: str = "flows"
    reverse: bool = False
    text: str = ""
    most: int | None = None
    first: int = 0
    page: int = 10
    rows: int = 0
    held: bool = False
    help: bool = False
    quit: bool = False
    prompt: str = ""
    typed: str = ""
    said: str = ""
    columns: tuple[str, ...] = field(default=("flows",))

    def press(self, key: str) -> None:
        """Do what a key asks for."""
        self.said = ""
        if self.prompt:
            self._type(key)
        elif self.help:
            self.help, self.quit = False, key == "q"
        elif key in VIEWS:
            self._count_by(VIEWS[key])
        elif key in ("/", "b"):
            self.prompt, self.typed = key, self.text if key == "/" else ""
        elif key in _SCROLLS:
            self.scroll(_SCROLLS[key](self))
        elif key in _OTHERS:
            _OTHERS[key](self)

    def _count_by(self, by: tuple[str, ...]) -> None:
        if by != self.by:
            self.by, self.first, self.text = by, 0, ""

    def _type(self, key: str) -> None:
        """Take a key of a text."""
        if key == "escape":
            self.prompt = self.typed = ""
        elif key == "enter":
            prompt, self.prompt = self.prompt, ""
            if prompt == "/":
                self.text, self.first = self.typed, 0
            elif self.typed:
                try:
                    self._count_by(read_fields(self.typed))
                except ValueError:
                    self.said = f"cannot count by {self.typed!r}: try {TRY}"
        elif key == "backspace":
            self.typed = self.typed[:-1]
        elif key == "clear":
            self.typed = ""
        elif len(key) == 1:
            self.typed += key

    def scroll(self, first: int) -> None:
        """Show this row first, or the last ones."""
        self.first = max(0, min(first, self.rows - self.page))

    def sort_by(self, step: int) -> None:
        """Sort by the column that is so many to the right."""
        known = ("key", *(one for one in self.columns if one in SORTS))
        at = known.index(self.sort) if self.sort in known else 0
        self.sort, self.first = known[(at + step) % len(known)], 0

    def all_rows(self) -> None:
        """Show all rows, from the first."""
        self.text, self.first = "", 0

    def pace(self, factor: float) -> None:
        """Make the interval so many times as long."""
        self.interval = min(LONGEST, max(SHORTEST, round(self.interval * factor, 3)))

    def turn(self, name: str) -> None:
        """Turn something on or off."""
        setattr(self, name, not getattr(self, name))


_SCROLLS: dict[str, Callable[[View], int]] = {
    "up": lambda view: view.first - 1,
    "down": lambda view: view.first + 1,
    "page up": lambda view: view.first - view.page,
    "page down": lambda view: view.first + view.page,
    "home": lambda _: 0,
    "end": lambda view: view.rows,
}
_OTHERS: dict[str, Callable[[View], None]] = {
    "q": lambda view: view.turn("quit"),
    "?": lambda view: view.turn("help"),
    "h": lambda view: view.turn("help"),
    "r": lambda view: view.turn("reverse"),
    " ": lambda view: view.turn("held"),
    "<": lambda view: view.sort_by(-1),
    "left": lambda view: view.sort_by(-1),
    ">": lambda view: view.sort_by(1),
    "right": lambda view: view.sort_by(1),
    "+": lambda view: view.pace(SLOWER),
    "-": lambda view: view.pace(FASTER),
    "escape": lambda view: view.all_rows(),
}


def columns_of(told: bool, accounted: bool) -> tuple[str, ...]:
    """Return which columns there are."""
    rates = ("new", "gone") if told else ("change",)
    return ("flows", "share", *rates, *(("bytes",) if accounted else ()))


def rows_of(view: View, sample: Sample, first: bool, counts: Counted) -> list[Row]:
    """Return the rows that a page shows, sorted; ``view`` learns how many there are.

    ``first``: there are no rates yet.
    """
    # Only those of a page are decoded, if nothing asks for the others' text.
    keys: list[Key] = [*sample.flows]
    if counts.told:
        keys += [one for one in {**sample.new, **sample.gone} if one not in sample.flows]
    fields = [Group.read(one).field for one in view.by]

    def words(key: Key) -> tuple[str, ...]:
        return tuple(word(one.plain(value)) for one, value in zip(fields, counts.values(key)))

    if view.text:
        wanted = view.text.lower()
        keys = [key for key in keys if wanted in " ".join(words(key)).lower()]
    view.rows = len(keys) if view.most is None else min(len(keys), view.most)
    view.scroll(view.first)
    last = min(view.rows, view.first + view.page)
    if view.sort == "key":
        keys.sort(key=counts.order, reverse=view.reverse)
    else:
        amounts = _amounts(view.sort, sample)
        if len(keys) <= FEW:
            keys.sort(key=counts.order)
        pick = heapq.nsmallest if view.reverse else heapq.nlargest
        keys = pick(last, keys, key=lambda key: (amounts.get(key, 0), sample.flows.get(key, 0)))
    total = sum(sample.flows.values())
    return [
        _row(words(key), key, sample, total, counts.told, first) for key in keys[view.first : last]
    ]


def _amounts(sort: str, sample: Sample) -> Mapping[Key, int]:
    return {
        "new": sample.new,
        "gone": sample.gone,
        "change": sample.change or {},
        "bytes": sample.traffic or {},
    }.get(sort, sample.flows)


def _row(
    words: tuple[str, ...], key: Key, sample: Sample, total: int, told: bool, first: bool
) -> Row:
    def rate(amounts: Mapping[Key, int] | None, seconds: float, absent: int | None) -> float | None:
        amount = None if amounts is None else amounts.get(key, absent)
        return amount / seconds if amount is not None and seconds > 0 else None

    flows = sample.flows.get(key, 0)
    known = told and not first
    return Row(
        words,
        flows,
        flows / total if total else 0.0,
        rate(sample.new, sample.seconds, 0) if known else None,
        rate(sample.gone, sample.seconds, 0) if known else None,
        rate(sample.change, sample.between, 0),
        rate(sample.traffic, sample.between, None),
    )
