"""Dump to text, in a file.

`conntrack -L` to a file, `nlct dump` to a file, each from the start of the process to its end,
and the same lines from a process that is already there. The file is in memory where there is a
/dev/shm; it must have a line for each flow.
"""

import tempfile
from pathlib import Path

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
