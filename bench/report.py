"""What was measured, as data, and as Markdown."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.measure import Series, Spread
from bench.scale import FULL, Scale
from bench.targets import TARGETS
from nlct.cli.measure import summary

HEADERS = ("min", "median", "90 %ile", "99 %ile", "max", "mean", "total", "count")


@dataclass
class Table:
    """A table of text."""

    title: str
    headers: list[str]
    rows: list[list[str]]


@dataclass
class Figure:
    """A figure that has a target. ``quartiles``: of the ratios that it is the median of."""

    value: float
    detail: str
    quartiles: tuple[float, float] | None = None


@dataclass
class Picture:
    """What pictures.py draws. ``kind``: "lines", "boxes" or "heat"; ``data`` is what that wants."""

    name: str
    title: str
    kind: str
    data: dict[str, Any]


@dataclass
class Section:
    """What one case has measured. ``about``: what it measures, and what it leaves out."""

    name: str
    title: str
    about: str
    measured: str = ""
    notes: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Section:
        """Read it back from JSON."""
        made = cls(**data)
        made.tables = [Table(**table) for table in data["tables"]]
        made.figures = {key: Figure(**figure) for key, figure in data["figures"].items()}
        made.pictures = [Picture(**picture) for picture in data["pictures"]]
        return made

    def table(self, title: str, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Add a table."""
        self.tables.append(Table(title, list(headers), [list(row) for row in rows]))

    def times(self, title: str, series: Series, beside: str) -> None:
        """Add the times of tools, in milliseconds, and their ratios to one, or the first."""
        beside = beside if beside in series.times else next(iter(series.times))
        rows = []
        for tool in series.times:
            figures = summary([1e3 * value for value in series.values(tool)])
            numbers = [f"{value:,.2f}" for value in asdict(figures).values()]
            numbers[-1] = str(figures.count)
            rows.append([tool, *numbers, spread_text(series.ratios(tool, beside))])
        self.table(
            f"{title}, milliseconds", ["tool", *HEADERS, f"to the {beside} (quartiles)"], rows
        )
        times = {tool: [1e3 * value for value in series.values(tool)] for tool in series.times}
        self.boxes(f"{self.name}-{len(self.pictures) + 1}", title, times, "ms")

    def boxes(self, name: str, title: str, times: Mapping[str, Sequence[float]], unit: str) -> None:
        """Add a picture of how times are spread."""
        marks = {tool: _marks(values) for tool, values in times.items()}
        self.pictures.append(Picture(name, title, "boxes", {"marks": marks, "unit": unit}))

    def figure(self, key: str, value: float, detail: str) -> None:
        """Give a figure that has a target its value."""
        assert key in TARGETS, key
        self.figures[key] = Figure(value, detail)

    def ratio(self, key: str, series: Series, tool: str, other: str) -> None:
        """Give a figure the median of the ratios of pairs, if there are any."""
        ratios = series.ratios(tool, other)
        if not ratios:
            return
        assert key in TARGETS, key
        spread = Spread.of(ratios)
        detail = f"{seconds_text(series.median(tool))} to {seconds_text(series.median(other))}"
        self.figures[key] = Figure(
            spread.median, f"{detail}, {spread.count} pairs", (spread.low, spread.high)
        )


def _marks(values: Sequence[float]) -> list[float]:
    """The 1st, 25th, 50th, 75th and 99th of 100."""
    two = values if len(values) > 1 else [*values, *values]
    percentiles = statistics.quantiles(two, n=100, method="inclusive")
    return [round(percentiles[at - 1], 4) for at in (1, 25, 50, 75, 99)]


def number(value: float) -> str:
    """Three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1 else f"{value:.3f}"


def seconds_text(seconds: float) -> str:
    """Seconds, or milliseconds."""
    return f"{number(seconds)} s" if seconds >= 1 else f"{number(1e3 * seconds)} ms"


def spread_text(values: Sequence[float]) -> str:
    """The median, and the quartiles where there are some."""
    if not values:
        return ""
    spread = Spread.of(values)
    if spread.count < 3:
        return number(spread.median)
    return f"{number(spread.median)} ({number(spread.low)} to {number(spread.high)})"


def times_text(values: Sequence[float]) -> str:
    """The median in milliseconds, and the quartiles; "" without values."""
    return spread_text([1e3 * value for value in values])


ABOUT = """\
# Results

Written by `make bench`. What is measured, and what is left out:

* **Measured** is the wall time of each piece of work in a scratch network namespace: by the
  tool's own clock where it stays between two pieces (nlct, the C loops, libnetfilter_conntrack,
  pyroute2), from the start to the end of its process where it does not (conntrack, Open vSwitch,
  the command `nlct`). Each tool has processes of its own; what its start takes is shown
  [apart](#startup).
* **In turn**: A B C A B C, so that a drift of the machine hits all alike. A ratio is the median
  of the ratios of such pairs, with the quartiles in brackets. A tool that is too slow for the time
  of a table takes part in every second, third, ... round; `count` says how many samples there are.
* **Checked**: what was to be flushed must be gone, and nothing else: it is put back after each
  sample, every flow of it must be new, and the table full again. A tool that fails at that ends
  the case.
* **Left out**: making the table and putting back; what is no plain flow (the tables are UDP over
  IPv4 without NAT, counters or timestamps); live traffic, but for "What a running flush does to
  others"; other kernels, see `kernels/`.
* Absolute times are this machine's. Timing decides no test.
"""


def markdown(sections: Sequence[Section], here: dict[str, str], missing: Sequence[str]) -> str:
    """Write the whole report."""
    parts = [ABOUT, "## The machine\n", *(f"* {name}: {text}" for name, text in here.items())]
    parts += [f"* **not here: {text}**" for text in missing]
    parts += ["\n## Figures and targets\n", *_targets(sections)]
    for section in sections:
        parts += _section(section)
    return "\n".join(parts) + "\n"


def _targets(sections: Sequence[Section]) -> Iterable[str]:
    figures = {key: figure for section in sections for key, figure in section.figures.items()}
    yield f"The targets are for {FULL.flows:,} flows in {FULL.zones:,} zones.\n"
    yield "| figure | target | measured | | |"
    yield "| --- | --- | --- | --- | --- |"
    for key, target in TARGETS.items():
        figure = figures.get(key)
        if figure is None:
            yield f"| {target.says} | {target.text} | not measured | | |"
            continue
        value = number(figure.value) + target.unit
        if figure.quartiles:
            value += f" ({number(figure.quartiles[0])} to {number(figure.quartiles[1])})"
        missed = "**missed**" if target.missed(figure.value) else ""
        yield f"| {target.says} | {target.text} | {value} | {missed} | {figure.detail} |"


def _section(section: Section) -> Iterable[str]:
    yield f'\n<a id="{section.name}"></a>\n\n## {section.title}\n'
    yield section.about.strip()
    yield f"\nMeasured {section.measured}."
    for note in section.notes:
        yield f"\n{note}"
    for table in section.tables:
        yield f"\n{table.title}:\n"
        yield "| " + " | ".join(table.headers) + " |"
        yield "| --- " * len(table.headers) + "|"
        for row in table.rows:
            yield "| " + " | ".join(row) + " |"
    for picture in section.pictures:
        yield f"\n![{picture.title}](pictures/{picture.name}.png)"


class Store:
    """The sections of all runs so far, in a file beside the report: a case replaces its own."""

    def __init__(self, folder: Path, order: Sequence[str]) -> None:
        self._folder = folder
        self._file = folder / "results.json"
        self._order = order
        self.sections: dict[str, Section] = {}
        if self._file.exists():
            for data in json.loads(self._file.read_text()):
                if data["name"] in order:
                    self.sections[data["name"]] = Section.from_dict(data)

    def add(self, section: Section, scale: Scale) -> None:
        """Keep what a case has measured."""
        section.measured = (
            f"on {time.strftime('%Y-%m-%d')} (flows: {scale.flows:,}, zones: {scale.zones:,}, "
            f"samples: up to {scale.samples:,})"
        )
        self.sections[section.name] = section

    def write(self, here: dict[str, str], missing: Sequence[str]) -> None:
        """Write data and report."""
        there = [self.sections[name] for name in self._order if name in self.sections]
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps([asdict(section) for section in there]) + "\n")
        (self._folder / "RESULTS.md").write_text(markdown(there, here, missing))
