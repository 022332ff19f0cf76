"""Writes RESULTS.md from pytest-benchmark's JSON: `python -m bench.report NEW.json FOLDER`.

FOLDER/results.json keeps the entries of all runs, in the same format. New entries of a case replace
its old ones.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.results import Group, Spread, groups, number
from bench.targets import TARGETS, figures

HERE = Path(__file__).parent
ABOUT = """\
# Results

Written by `make bench`; [docs/benchmarks.md](../docs/benchmarks.md) says how it measures, and whom.
Times are medians in milliseconds, with the ratio to the first contender: the median of pairs, and
its quartiles.
"""
# Groups whose tables have room for ratios.
FEW = 3


def store(new: dict[str, Any], path: Path) -> dict[str, Any]:
    """Let new results replace those of the same cases; return all of them."""
    old = json.loads(path.read_text()) if path.exists() else {"benchmarks": [], "left_out": {}}
    measured = {_file(entry) for entry in new["benchmarks"]}
    for entry in new["benchmarks"]:
        entry["day"] = new["datetime"][:10]
    kept = [entry for entry in old["benchmarks"] if _file(entry) not in measured]
    left_out = {file: texts for file, texts in old["left_out"].items() if file not in measured}
    whole = {
        **new,
        "benchmarks": kept + new["benchmarks"],
        "left_out": {**left_out, **new["left_out"]},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole) + "\n")
    return whole


def _file(entry: dict[str, Any]) -> str:
    return str(entry["fullname"]).partition("::")[0]


def table(headers: Sequence[object], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Yield the lines of a table."""
    yield "\n| " + " | ".join(map(str, headers)) + " |"
    yield "| --- " * len(headers) + "|"
    for row in rows:
        yield "| " + " | ".join(map(str, row)) + " |"


def markdown(whole: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the report."""
    machine = whole["machine_info"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    yield f"{ABOUT}\n* machine: {machine['machine']}\n* versions: {versions}"
    found = groups(whole["benchmarks"])
    yield "\n## Targets"
    rows = ((*each[:-1], "**missed**" * each.missed) for each in figures(found))
    yield from table(("what", "at most", "measured", "", ""), rows)
    for source in sorted(HERE.glob("test_*.py")):
        entries = [entry for entry in whole["benchmarks"] if _file(entry).endswith(source.name)]
        if entries:
            yield from section(source, entries, whole)


def section(source: Path, entries: list[dict[str, Any]], whole: dict[str, Any]) -> Iterator[str]:
    """Yield the results of a file's cases, below their docstrings."""
    tree = ast.parse(source.read_text())
    title, _, about = (ast.get_docstring(tree) or "").partition("\n")
    yield f"\n## {title.rstrip('.')}\n{about}\n"
    days = " and ".join(sorted({entry["day"] for entry in entries}))
    flows, zones = whole["scale"]["flows"], whole["scale"]["zones"]
    yield f"Measured on {days}; {flows:,} flows in {zones:,} zones where nothing else is said."
    for text in whole["left_out"].get(_file(entries[0]), ()):
        yield f"\nLeft out: {text.replace('MISSING:', 'for want of')}."
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            ours = [entry for entry in entries if f"::{node.name}[" in entry["fullname"]]
            if ours:
                yield f"\n{(ast.get_docstring(node) or '').rstrip('.')}:"
                yield from results(list(groups(ours).values()))


def results(found: list[Group]) -> Iterator[str]:
    """Yield the tables of one test: a column for each of its groups, or ratios by two sizes."""
    name = found[0].name.partition(" ")[0]
    targets = [each for each in TARGETS if each.groups == f"{name} *" and each.to]
    if len(found[0].sizes) > 1:
        for target in targets:
            yield f"\n{target.of} to {target.to}:"
            yield from by_sizes({group.sizes: group.ratio(target.of, target.to) for group in found})
        return
    contenders = dict.fromkeys(who for group in found for who in group.entries)
    rows = [(who, *(cell(group, who, len(found) <= FEW) for group in found)) for who in contenders]
    for target in targets:
        ratios = (group.ratio(target.of, target.to) or "" for group in found)
        rows.append((f"*{target.of} to {target.to}*", *ratios))
    yield from table(("", *(" ".join(group.sizes) for group in found)), rows)


def cell(group: Group, who: str, with_ratio: bool) -> str:
    """Return what was measured of one contender, in few words."""
    waits, memory, times = (
        group.extra(who, "waits"),
        group.extra(who, "added_mib"),
        group.times(who),
    )
    if waits:
        return " / ".join(f"{wait:,.0f}" for wait in waits[:3])
    if memory:
        return f"{max(memory):.2f}"
    if not times:
        return ""
    first = next(iter(group.entries))
    ratio = f", {group.ratio(who, first)}" * (with_ratio and who != first)
    return number(1e3 * Spread.of([*times.values()]).median) + ratio


def by_sizes(ratios: dict[tuple[str, ...], Spread | None]) -> Iterator[str]:
    """Yield a row for each combination of the first sizes, and a column for each last one."""
    columns = dict.fromkeys(sizes[-1] for sizes in ratios)
    shown = {sizes: number(ratio.median) for sizes, ratio in ratios.items() if ratio}
    rows = (
        (" / ".join(row), *(shown.get((*row, last), "") for last in columns))
        for row in dict.fromkeys(sizes[:-1] for sizes in ratios)
    )
    yield from table(("", *columns), rows)


def main() -> None:
    """Write the report."""
    new, folder = Path(sys.argv[1]), Path(sys.argv[2])
    whole = store(json.loads(new.read_text()), folder / "results.json")
    (folder / "RESULTS.md").write_text("\n".join(markdown(whole)) + "\n")
    print(f"written: {folder / 'RESULTS.md'}")


if __name__ == "__main__":
    main()
