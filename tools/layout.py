"""Draws how the code is laid out, as SVG: the floors of nlct/ with its imports, the rooms of csrc/.

    python -m tools.layout > layout.svg

An arrow leads from who imports or includes to what is imported; what follows from other arrows is
left out. The floors are those of the table in CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
BESIDE = "beside"
CONTRACT = "nlct.h"

# What is there ------------------------------------------------------------------------------------


@cache
def modules() -> dict[str, Path]:
    """Return the files of nlct/, by the names that they are imported by."""
    files = sorted((ROOT / "nlct").rglob("*.py"))
    names = (".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files)
    return {name.replace(".__init__", ""): file for name, file in zip(names, files)}


def _imports(module: str) -> Iterator[str]:
    files = modules()
    for node in ast.walk(ast.parse(files[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            for name in (f"{node.module}.{alias.name}" for alias in node.names):
                imported = name if name in files else node.module
                if imported in files:
                    yield str(imported)


@cache
def imports() -> dict[str, set[str]]:
    """Return which modules of nlct/ each one imports, wherever in its text it does so."""
    return {module: set(_imports(module)) for module in modules()}


def place(module: str) -> str:
    """Return what the table of floors calls a module: its file, or the room that it is in."""
    within = modules()[module].relative_to(ROOT / "nlct")
    return within.name if len(within.parts) == 1 else f"{within.parts[0]}/"


def inside(room: str) -> tuple[str, ...]:
    """Return the files of a room of nlct/; none of what is a file itself."""
    files = (file.relative_to(ROOT / "nlct") for file in modules().values())
    within = (str(file) for file in files if len(file.parts) > 1)
    return tuple(file[len(room) :] for file in within if file.startswith(room))


@cache
def floors() -> dict[str, str]:
    """Return the floor of each place, as the table in CONTRIBUTING.md has it."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| (\d+|beside) \| (.*) \|$",
        text.partition("| floor |")[2].partition("\n\n")[0],
        re.MULTILINE,
    )
    named = [(name, row) for row, said in rows for name in re.findall(r"`(\w+(?:\.py|/))`", said)]
    assert len(dict(named)) == len(named), "a module has two floors"
    return dict(named)


@cache
def rooms() -> dict[str, list[str]]:
    """Return the files of each room of csrc/, from the top; nlct.h is a room of its own."""
    found = {folder.name + "/": folder for folder in (ROOT / "csrc").iterdir() if folder.is_dir()}
    files = {room: sorted(file.name for file in each.iterdir()) for room, each in found.items()}
    below = {
        room: sum(_reached(each, includes()[room], includes()) for each in files) for room in files
    }
    return {
        room: [each for each in files[room] if each.endswith((".c", ".h"))]
        for room in sorted(files, key=below.__getitem__, reverse=True)
    }


@cache
def includes() -> dict[str, set[str]]:
    """Return which other rooms each room includes headers of."""
    headers = {file.name: _room(file) for file in (ROOT / "csrc").rglob("*.h")}
    found: dict[str, set[str]] = {}
    for file in (ROOT / "csrc").rglob("*.[ch]"):
        named = re.findall(r'#include "(?:.*/)?(\S+)"', file.read_text(encoding="utf-8"))
        found.setdefault(_room(file), set()).update(headers[name] for name in named)
    # Every room may see the contract, which is what the core is called by.
    return {room: others - {room, CONTRACT} for room, others in found.items()}


def _room(file: Path) -> str:
    return file.name if file.parent.name == "csrc" else file.parent.name + "/"


def links() -> dict[str, set[str]]:
    """Return what each place imports or includes, without what follows from the rest."""
    whole: dict[str, set[str]] = {}
    for module, others in imports().items():
        whole.setdefault(place(module), set()).update(map(place, others))
    whole.update(includes())
    # The binding is cut from the contract.
    whole["_ffi.py"] = whole["_ffi.py"] | {CONTRACT}
    whole[CONTRACT] = set(rooms())
    # What is beside the floors stands for the public names, and arrows to it would tell nothing.
    beside = {name for name, floor in floors().items() if floor == BESIDE}
    direct = {who: others - {who} - beside for who, others in whole.items() if who not in beside}
    return {
        who: {each for each in others if not _reached(each, others - {each}, direct)}
        for who, others in direct.items()
    }


def _reached(what: str, others: Iterable[str], direct: Mapping[str, set[str]]) -> bool:
    waiting, seen = list(others), set()
    while waiting:
        one = waiting.pop()
        if one == what:
            return True
        if one not in seen:
            seen.add(one)
            waiting += direct.get(one, ())
    return False


# How it is drawn ----------------------------------------------------------------------------------

WIDTH, MARGIN, LETTER, LINE, GAP = 1100, 90, 7.3, 26, 12


class Box(NamedTuple):
    """A box with names in it; ``title`` is the first, if there are others."""

    title: str
    inner: tuple[str, ...]

    @property
    def rows(self) -> list[list[str]]:
        """The inner names, in lines that fit."""
        rows: list[list[str]] = [[]]
        for name in self.inner:
            if len("  ".join([*rows[-1], name])) * LETTER > WIDTH - MARGIN - 40:
                rows.append([])
            rows[-1].append(name)
        return [row for row in rows if row]

    @property
    def size(self) -> tuple[float, float]:
        """Width and height."""
        longest = max((len("  ".join(row)) for row in self.rows), default=0)
        wide = max(longest, len(self.title)) * LETTER + 14
        return wide, 22 + 18 * len(self.rows)


def _bands() -> Iterator[tuple[str, list[Box]]]:
    """Yield the floors from the top, and below them the rooms of the core."""
    by_floor: dict[str, list[Box]] = {}
    for name in dict.fromkeys(map(place, modules())):
        if name not in floors():
            raise ValueError(f"{name} has no floor in CONTRIBUTING.md")
        by_floor.setdefault(floors()[name], []).append(Box(name, inside(name)))
    numbers = sorted((int(floor) for floor in by_floor if floor != BESIDE), reverse=True)
    for floor in (BESIDE, *map(str, numbers)):
        yield floor, by_floor.get(floor, [])
    for name, files in {CONTRACT: [], **rooms()}.items():
        yield "csrc/", [Box(name, tuple(files))]


def svg() -> str:
    """Return the picture, in the colours of the page around it."""
    drawn: list[str] = []
    middle: dict[str, tuple[float, float, float]] = {}
    direct = links()
    y = 10.0
    for label, boxes in _bands():
        # Below who points at them, so that arrows cross less.
        boxes.sort(key=lambda box: _middle(middle, direct, box.title))
        drawn.append(f'<text x="4" y="{y + 16}" opacity="0.6">{_floor(label)}</text>')
        for line in _lines(boxes):
            free = WIDTH - MARGIN - sum(box.size[0] for box in line)
            x, apart = MARGIN + free / (len(line) + 1), free / (len(line) + 1)
            tall = max(box.size[1] for box in line)
            for box in line:
                drawn += _box(box, x, y)
                middle[box.title] = (x + box.size[0] / 2, y, y + box.size[1])
                x += box.size[0] + apart
            y += tall + LINE
        y += GAP
    arrows = [
        _arrow(middle[who], middle[what])
        for who, others in sorted(direct.items())
        for what in sorted(others)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0f}" role="img"'
            ' aria-label="The layout of the code" fill="currentColor" font-size="12"'
            ' font-family="monospace">',
            *arrows,
            *drawn,
            "</svg>",
        ]
    )


def _middle(
    drawn: Mapping[str, tuple[float, float, float]], direct: Mapping[str, set[str]], name: str
) -> float:
    """Return the middle of those, drawn already, that point at one."""
    above = [drawn[who][0] for who, others in direct.items() if who in drawn and name in others]
    return sum(above) / max(1, len(above))


def _floor(label: str) -> str:
    return f"floor {label}" if label.isdecimal() else label


def _lines(boxes: list[Box]) -> Iterator[list[Box]]:
    """Break a floor into lines that fit."""
    line: list[Box] = []
    for box in boxes:
        if line and sum(each.size[0] + GAP for each in [*line, box]) > WIDTH - MARGIN:
            yield line
            line = []
        line.append(box)
    if line:
        yield line


def _box(box: Box, x: float, y: float) -> Iterator[str]:
    wide, tall = box.size
    at = f'x="{x:.0f}" y="{y:.0f}" width="{wide:.0f}" height="{tall}" rx="4"'
    # No arrow shows through.
    yield f'<rect {at} style="fill:var(--md-default-bg-color,#fff)"/>'
    yield f'<rect {at} fill="#3f6fd8" fill-opacity="0.16" stroke="#3f6fd8"/>'
    yield f'<text x="{x + 7:.0f}" y="{y + 15:.0f}" font-weight="bold">{escape(box.title)}</text>'
    for number, row in enumerate(box.rows, 1):
        words = "".join(f"<tspan>{escape(name)}</tspan>  " for name in row)
        yield (
            f'<text x="{x + 7:.0f}" y="{y + 15 + 18 * number:.0f}" xml:space="preserve"'
            f' opacity="0.85">{words}</text>'
        )


def _arrow(start: tuple[float, float, float], end: tuple[float, float, float]) -> str:
    x, y, to_x, to_y = start[0], start[2], end[0], end[1]
    bend = max(12, (to_y - y) / 2)
    return (
        f'<path d="M{x:.0f} {y:.0f}C{x:.0f} {y + bend:.0f} {to_x:.0f} {to_y - bend:.0f}'
        f' {to_x:.0f} {to_y:.0f}" fill="none" stroke="currentColor" stroke-opacity="0.28"/>'
        f'<circle cx="{to_x:.0f}" cy="{to_y:.0f}" r="2.5" opacity="0.6"/>'
    )


if __name__ == "__main__":
    print(svg())
