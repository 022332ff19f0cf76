"""The pictures, drawn with Matplotlib."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter

from bench.report import Picture, Section

PLAIN = FuncFormatter(lambda value, _: f"{value:,.10g}")


def draw(sections: Iterable[Section], folder: Path) -> None:
    """Draw all pictures, and remove those that are of nothing any more."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {f"{picture.name}.png": picture for each in sections for picture in each.pictures}
    for path in folder.glob("*.png"):
        if path.name not in wanted:
            path.unlink()
    for name, picture in wanted.items():
        figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
        axes.set_title(picture.title, fontsize="medium")
        DRAWERS[picture.kind](axes, picture)
        # Without the version of the library, so that the same data is the same file.
        figure.savefig(folder / name, dpi=110, metadata={"Software": None})
        plt.close(figure)


def _lines(axes: Any, picture: Picture) -> None:
    """Draw a line for each of "lines": a name and its points, each x, low, median, high."""
    for name, points in picture.data["lines"].items():
        xs, lows, medians, highs = zip(*points)
        (line,) = axes.plot(xs, medians, marker="o", markersize=4, label=name)
        axes.fill_between(xs, lows, highs, color=line.get_color(), alpha=0.15)
    axes.set_xlabel(picture.data["x"])
    axes.set_ylabel(picture.data["y"])
    # With a place for 0, beside what is next to it.
    smallest = min(x for points in picture.data["lines"].values() for x, *_ in points if x)
    axes.set_xscale("symlog", linthresh=smallest, linscale=0.5)
    axes.set_yscale("log")
    ticks = sorted({x for points in picture.data["lines"].values() for x, *_ in points})
    axes.set_xticks(ticks, [f"{x:,g}" if x < 1000 else f"{x:,.0f}" for x in ticks])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(PLAIN)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _boxes(axes: Any, picture: Picture) -> None:
    """Draw a box for each of "marks": quartiles, and whiskers from the 1st to the 99th of 100."""
    marks = picture.data["marks"]
    names = ("whislo", "q1", "med", "q3", "whishi")
    boxes = [dict(zip(names, values)) for values in marks.values()]
    axes.bxp(boxes[::-1], orientation="horizontal", widths=0.6, showfliers=False)
    axes.set_yticks(range(1, len(marks) + 1), list(marks)[::-1])
    axes.set_xlabel(picture.data["unit"])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(PLAIN)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="x", which="both", alpha=0.3)


def _heat(axes: Any, picture: Picture) -> None:
    """Draw "values" by "rows" and "columns", with their numbers."""
    values = picture.data["values"]
    image = axes.imshow(values, aspect="auto", cmap="RdYlGn_r", vmin=0.7, vmax=1.6)
    axes.figure.colorbar(image)
    axes.set_xticks(range(len(picture.data["columns"])), picture.data["columns"])
    axes.set_yticks(range(len(picture.data["rows"])), picture.data["rows"], fontsize="x-small")
    axes.set_xlabel(picture.data["x"])
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            axes.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize="x-small")


DRAWERS = {"lines": _lines, "boxes": _boxes, "heat": _heat}
