"""Dump to a file: as text, and as the other formats.

`conntrack -L` to a file, `nlct dump` to a file, each from the start of the process to its end,
and the same lines from a process that is already there. The file is in memory where there is a
/dev/shm; it must have a line for each flow.
"""

import tempfile
from pathlib import Path

import pytest

from bench.turn import Turn, case

MEMORY = Path("/dev/shm")


@case("floor", "nlct", "nlct-command", "conntrack")
def test_text(turn: Turn) -> None:
    """Dump to a file."""
    turn.even()
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        path = Path(folder) / "flows"
        if turn.who == "floor":
            turn.run("dump")
        else:
            turn.run("text", path)
            assert path.read_bytes().count(b"\n") == turn.scale.flows


FORMATS = {
    "": (),
    "json": ("--json",),
    "columns": ("--columns", "src,dst,proto,dport"),
    "parquet": ("--format", "parquet"),
}


@case("nlct-command", "nlct-command.json", "nlct-command.columns", "nlct-command.parquet")
def test_formats(turn: Turn) -> None:
    """The formats of `nlct dump`, beside text."""
    if turn.does == "parquet":
        pytest.importorskip("pyarrow", reason="MISSING: pyarrow")
    turn.even()
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        path = Path(folder) / "flows"
        turn.run("text", path, *FORMATS[turn.does])
        if turn.does == "parquet":
            assert path.read_bytes().startswith(b"PAR1")
        else:
            assert path.read_bytes().count(b"\n") == turn.scale.flows
