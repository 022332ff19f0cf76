"""The lines that `nlct top` shows, for a screen of any size or for a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.filesize import decimal
from rich.text import Text

from nlct.cli.live import Shown
from nlct.cli.output import duration, of_limit
from nlct.cli.top import KEYS, Row, View, columns_of, rows_of

LEAST = (40, 10)
# From so many lines on there is room for what is not urgent.
_ROOMY = 14
_BAR = 40
# Of each column: its heading, its least width, and in which order it goes where there is no room.
_COLUMNS = {
    "flows": ("FLOWS", 9, 9),
    "share": ("SHARE", 6, 1),
    "new": ("NEW/S", 7, 4),
    "gone": ("GONE/S", 7, 3),
    "change": ("CHANGE/S", 8, 4),
    "bytes": ("BYTES/S", 9, 2),
}
_KEY_WIDTH = 8
_FULL, _NEARLY_FULL = 0.9, 0.7


class Context(NamedTuple):
    """What does not change: the namespace, the filter, and if the bar may be of blocks."""

    place: str
    only: str
    blocks: bool


def context(place: str, only: str) -> Context:
    """Return it for this standard output."""
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower()
    return Context(_printable(place), _printable(only), encoding.replace("-", "") == "utf8")


def _printable(text: str) -> str:
    """Return it with nothing that a terminal would obey."""
    return "".join(each if each.isprintable() else "?" for each in text)


def frame(
    view: View, shown: Shown | None, scanned: int, up: float, about: Context, size: tuple[int, int]
) -> list[Text]:
    """Return the lines for a screen of this size, no longer than its width."""
    columns, lines = size
    if columns < LEAST[0] or lines < LEAST[1]:
        said = f"nlct top needs {LEAST[0]}x{LEAST[1]}; q quits"
        return _fit([Text(said)], columns)
    if view.help:
        return _fit(_help(about)[:lines], columns)
    head = _head(view, shown, scanned, up, about, columns, lines)
    view.page = lines - len(head) - 2
    body = [] if shown is None else _table(view, shown, about, columns)
    body += [Text()] * (lines - len(head) - len(body) - 1)
    return _fit([*head, *body, _status(view, shown)], columns)


def page(view: View, shown: Shown, up: float, about: Context, *, width: int = 100) -> list[Text]:
    """Return all lines, for a file."""
    view.page = sys.maxsize
    head = _head(view, shown, 0, up, about, width, _ROOMY)
    return [*head, *_table(view, shown, about, 0)]


def _fit(lines: Sequence[Text], columns: int) -> list[Text]:
    for line in lines:
        line.truncate(columns, overflow="ellipsis")
    return list(lines)


# Above the table ---------------------------------------------------------------------------------


def _head(
    view: View,
    shown: Shown | None,
    scanned: int,
    up: float,
    about: Context,
    columns: int,
    lines: int,
) -> list[Text]:
    left = Text("nlct top", "bold").append(f"  {about.place}" if about.place else "", "cyan")
    right = f"{'held  ' if view.held else ''}every {view.interval:g} s  up {_clock(up)}"
    left.append(" " * max(2, columns - left.cell_len - len(right))).append(right, "dim")
    head = [left]
    if shown is None:
        return [*head, Text(f"counting: {scanned:,} flows so far")]
    head.append(_fill(shown, about, columns))
    if lines >= _ROOMY:
        head += [_totals(shown), Text(f"counted  {_source(shown)}")]
        if shown.counts.reason:
            head.append(Text(f"note     {shown.counts.reason}"))
        if about.only:
            head.append(Text(f"only     {about.only}"))
        head.append(Text())
    return head


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"


def _fill(shown: Shown, about: Context, columns: int) -> Text:
    if not shown.limit:
        return Text(f"table    {shown.entries:,} flows, no limit")
    said = of_limit(shown.entries, shown.limit)
    part = shown.entries / shown.limit
    width = max(4, min(_BAR, columns - len(said) - 13))
    full = min(width, max(round(part * width), int(shown.entries > 0)))
    done, rest = "█░" if about.blocks else "#."
    style = "red" if part >= _FULL else "yellow" if part >= _NEARLY_FULL else "green"
    bar = Text("table    ").append(done * full, style).append(rest * (width - full), "dim")
    return bar.append(f"  {said}")


def _totals(shown: Shown) -> Text:
    sample = shown.sample
    said = f"flows    {sum(sample.flows.values()):,}"
    if shown.counts.listening:
        new, gone = sum(sample.new.values()), sum(sample.gone.values())
        if not shown.first and sample.seconds > 0:
            said += (
                f"   new {_rate(new / sample.seconds)}/s   gone {_rate(gone / sample.seconds)}/s"
            )
    if sample.traffic is not None:
        amount = sum(sample.traffic.values()) / sample.between
        said += f"   {decimal(int(amount))}/s"
    elif shown.unaccounted:
        said += "   no bytes: nf_conntrack_acct=0"
    if sample.overruns:
        said += f"   {sample.overruns:,} losses of events"
    return Text(said)


def _source(shown: Shown) -> str:
    sample, counts = shown.sample, shown.counts
    said = f"{sample.dumped:.0f} s ago that took {duration(sample.took)}"
    if not counts.told:
        return f"by dumps alone, one {said}"
    wrong = f" (up to {sample.meanwhile:,} off)" if sample.meanwhile else ""
    return f"by events, and a dump {said}{wrong}"


# The table ---------------------------------------------------------------------------------------


def _table(view: View, shown: Shown, about: Context, columns: int) -> list[Text]:
    """Return the heading and the rows of a page; 0 columns are as many as it takes."""
    counts = shown.counts
    names = columns_of(counts.told, not shown.unaccounted)
    rows = rows_of(view, shown.sample, shown.first, counts)
    cells = {name: [_cell(row, name) for row in rows] for name in names}
    widths = {
        name: max(_COLUMNS[name][1], len(_COLUMNS[name][0]) + 1, *map(len, cells[name]), 0)
        for name in names
    }
    keys = [[row.words[at] for row in rows] for at in range(len(view.by))]
    key_widths = [
        max(_KEY_WIDTH // len(keys), len(heading) + 1, *map(cell_len, words), 0)
        for heading, words in zip(view.by, keys)
    ]
    if columns:
        _drop(widths, columns, min(sum(key_widths) + len(keys), columns // 2))
        room = columns - sum(width + 2 for width in widths.values())
        key_widths = _squeeze(key_widths, room)
    view.columns = tuple(widths)
    mark = ("▲" if about.blocks else "^", "▼" if about.blocks else "v")
    heading = Text()
    for at, (name, width) in enumerate(zip(view.by, key_widths)):
        sorts = view.sort == "key" and at == 0
        heading.append(_left(name.upper() + (mark[view.reverse] if sorts else ""), width), "bold")
    for name, width in widths.items():
        title = _COLUMNS[name][0] + (mark[not view.reverse] if name == view.sort else "")
        heading.append(f"  {title:>{width}}", "bold")
    heading.stylize("reverse")
    lines = [heading]
    for at in range(len(rows)):
        line = Text("".join(_left(words[at], width) for words, width in zip(keys, key_widths)))
        for name, width in widths.items():
            line.append(f"  {cells[name][at]:>{width}}", _style(rows[at], name))
        lines.append(line)
    return lines


def _drop(widths: dict[str, int], columns: int, key: int) -> None:
    """Drop columns until the others and a key of this width fit."""
    for name in sorted(widths, key=lambda name: _COLUMNS[name][2])[:-1]:
        if key + sum(width + 2 for width in widths.values()) > columns:
            del widths[name]


def _squeeze(widths: list[int], room: int) -> list[int]:
    """Make the widest narrower until all fit, with a space behind each."""
    widths = list(widths)
    while sum(widths) + len(widths) > max(room, 5 * len(widths)):
        widths[widths.index(max(widths))] -= 1
    return widths


def _left(words: str, width: int) -> str:
    text = Text(words)
    text.truncate(width, overflow="ellipsis", pad=True)
    return text.plain + " "


def _cell(row: Row, name: str) -> str:
    if name == "flows":
        return f"{row.flows:,}"
    if name == "share":
        return f"{row.share:.1%}"
    value: float | None = getattr(row, name)
    if name == "bytes":
        return "-" if value is None else decimal(int(value))
    return _rate(value, sign=name == "change")


def _rate(value: float | None, *, sign: bool = False) -> str:
    if value is None:
        return "-"
    plus = "+" if sign and value > 0 else ""
    return plus + ("0" if not value else f"{value:,.1f}" if abs(value) < 10 else f"{value:,.0f}")


def _style(row: Row, name: str) -> str:
    value = getattr(row, name)
    if name not in ("new", "gone", "change") or not value:
        return "dim" if name == "share" or not value else ""
    return "green" if name == "new" or (name == "change" and value > 0) else "red"


# Below it ----------------------------------------------------------------------------------------


def _status(view: View, shown: Shown | None) -> Text:
    if view.prompt:
        fields = "count by one or two fields, as in src/24,dport: "
        asked = "rows with: " if view.prompt == "/" else fields
        return Text(asked, "bold").append(view.typed).append(" ", "reverse")
    if view.said:
        return Text(view.said, "bold red")
    line = Text("? ", "bold").append("keys  ").append("q ", "bold").append("quit")
    if shown is not None:
        last = min(view.rows, view.first + view.page)
        line.append(f"   {view.first + 1 if last else 0:,}-{last:,} of {view.rows:,}")
    if view.text:
        line.append(f"   with {view.text!r}", "bold")
    return line


def _help(about: Context) -> list[Text]:
    lines = [Text("nlct top: keys", "bold").append(f"  {about.place}", "cyan")]
    for keys, what in KEYS:
        lines.append(Text(f"{keys:<11}", "bold").append(what, "none"))
    return [*lines, Text("any other key: back")]
