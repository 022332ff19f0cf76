"""The pages of the documentation: their code blocks, run as a reader runs them.

The blocks of a page run in turn: ``python`` and ``pycon`` in one scope, each line of a ``console``
block behind ``$ `` in a shell. Output that a page shows must come, where ``...`` stands for
anything; a command must succeed. A block is left out if its fence says so: ``console not-run``;
a block with a title shows the file of that name: ``python title="recipes/neutron.py"``.

    unshare --net --mount python -m tests.support.pages PAGE

runs one page, in the current directory, on a table of its own.
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NamedTuple

import nlct
from nlct.fill import fill

ROOT = Path(__file__).parents[2]
NOT_RUN = "not-run"
FLOWS, ZONES = 5000, 50

_FENCE = re.compile(r"^```(\w*) ?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
LOOSELY = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL

Scope = dict[str, Any]


class Block(NamedTuple):
    """A code block.

    ``line`` is the number of its first line in the page; ``shows`` is the file whose text it is.
    """

    language: str
    runs: bool
    text: str
    line: int
    shows: str


def pages() -> list[Path]:
    """Return the pages, none where only the tests were copied."""
    found = (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")))
    return [page for page in found if page.exists()]


def blocks(page: Path) -> Iterator[Block]:
    """Yield the code blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start(3)) + 1
        title = _TITLE.search(found[2])
        runs = NOT_RUN not in found[2].split() and not title
        yield Block(found[1], runs, found[3], line, title[1] if title else "")


def _python(block: Block, page: Path, scope: Scope) -> str:
    """Run code; return what went wrong."""
    try:
        exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), scope)
    except Exception:
        return traceback.format_exc()
    return ""


def _session(block: Block, page: Path, scope: Scope) -> str:
    """Run an interactive session; return what went wrong."""
    test = doctest.DocTestParser().get_doctest(
        block.text, scope, page.name, str(page), block.line - 1
    )
    # It has made a copy.
    test.globs = scope
    wrong: list[str] = []
    doctest.DocTestRunner(verbose=False, optionflags=LOOSELY).run(
        test, out=wrong.append, clear_globs=False
    )
    return "".join(wrong)


def _commands(block: Block, page: Path, scope: Scope) -> str:  # noqa: ARG001
    """Run each command in a shell; return what went wrong."""
    wrong = ""
    for found in COMMAND.finditer(block.text):
        command, shown = found.groups()
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        as_shown = doctest.OutputChecker().check_output(shown, done.stdout, LOOSELY)
        if done.returncode or (shown and not as_shown):
            line = block.line + block.text.count("\n", 0, found.start())
            wrong += f"{page.name}:{line}: {command}\nexit code {done.returncode}\n{done.stdout}"
    return wrong


RUN: dict[str, Callable[[Block, Path, Scope], str]] = {
    "python": _python,
    "pycon": _session,
    "console": _commands,
}


def _prepare() -> None:
    """Make what the pages speak of: a table, a namespace with a name, the command, the recipes."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    subprocess.run(["ip", "netns", "add", "router-7"], check=True)
    here = Path.cwd()
    (here / "bin").mkdir()
    for name, options in (("nlct", "-m nlct"), ("python3", "")):
        command = here / "bin" / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {options} "$@"\n')
        command.chmod(0o755)
    (here / "recipes").symlink_to(ROOT / "recipes")
    os.environ.update(HOME=str(here), PATH=f"{here / 'bin'}:{os.environ['PATH']}")
    with nlct.Conntrack() as ct:
        if ct.count():
            sys.exit("this table is somebody's")
        fill(ct, FLOWS, ZONES)


def main(page: Path) -> str:
    """Run a page; return what went wrong."""
    _prepare()
    scope: Scope = {"__name__": "__main__"}
    return "".join(RUN[block.language](block, page, scope) for block in blocks(page) if block.runs)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])) or 0)
