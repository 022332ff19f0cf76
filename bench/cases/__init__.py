"""The cases, in the order of the report.

A new case is a module here and a word in CASES. The first line of its docstring is its title, the
rest says what is measured and what is left out; its `run(bench, section)` measures with the peers
of `bench` and puts tables, figures and pictures into `section`.
"""

from __future__ import annotations

from bench.cases import (
    create,
    delete,
    dump,
    grid,
    growth,
    memory,
    neighbours,
    old,
    several,
    shares,
    startup,
    storm,
    text,
    zone,
)

CASES = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        *(startup, zone, old, shares, grid, several, storm),
        *(dump, text, delete, create, growth, neighbours, memory),
    )
}
