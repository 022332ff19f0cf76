"""docs/conntrack.md names every option of ``conntrack``, and of nlct only what there is."""

from __future__ import annotations

import inspect
import re
import subprocess
from collections.abc import Iterator

import click
import pytest

import nlct
from nlct.cli.commands import cli
from tests.support import tool
from tests.support.pages import ROOT

PAGE = ROOT / "docs" / "conntrack.md"
if not PAGE.exists():
    pytest.skip("MISSING: a whole checkout", allow_module_level=True)
PROTOCOLS = ("tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmpv6", "gre")
_WORD = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")


def rows() -> list[tuple[str, str, str]]:
    """The three columns of all tables."""
    lines = re.findall(r"^\| (.*) \| (.*) \|(?: (.*))? \|$", PAGE.read_text(), re.MULTILINE)
    return [row for row in lines if not row[0].startswith(("---", "conntrack", "table"))]


def code(cell: str) -> list[str]:
    """What a cell says in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def options(command: click.Command) -> set[str]:
    """The options of a command."""
    return {name for one in command.params for name in (*one.opts, *one.secondary_opts)}


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words begin with, and the rest."""
    found: click.Command = cli
    context = click.Context(cli)
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        inner = found.get_command(context, words[0])
        assert inner is not None, words
        found, words = inner, words[1:]
    return found, words


def test_every_option_of_the_tool_is_on_the_page() -> None:
    """What its help and that of each protocol name, and what its manual names beyond."""
    tool.version()
    said = "".join(
        subprocess.run(
            ["conntrack", *words, "--help"], capture_output=True, text=True, check=True
        ).stdout
        for words in ((), *(("-p", name) for name in PROTOCOLS))
    )
    # Options begin a line, and commands; what is behind a tab is prose.
    named = {word for line in said.splitlines() for word in _WORD.findall(re.split(r"\t", line)[0])}
    assert len(named) > 50
    listed = {word for row in rows() for item in code(row[0]) for word in _WORD.findall(item)}
    assert named - listed == set()
    assert {"-R", "-A", "--role", "--load-file", "-V", "-o"} <= listed


def test_every_option_of_ours_is_there() -> None:
    """Commands, their options, and those that select flows."""
    selecting = options(command_of(["dump"])[0])
    for _, ours, _ in rows():
        for item in code(ours):
            words = item.split()
            if words[0] == "nlct":
                command, rest = command_of(words[1:])
                known = options(command) | {"--help"}
            elif words[0].startswith("--"):
                known, rest = selecting | {"--help"}, words
            else:
                continue
            assert {word for word in rest if word.startswith("-")} <= known, item


def _names(cell: str) -> Iterator[str]:
    for item in code(cell):
        yield from re.findall(r"^[\w.]+(?:\(\w+=)?", item)


def test_every_name_of_the_library_is_there() -> None:
    """Methods, and arguments by their names."""
    roots = {"ct": nlct.Conntrack, "nlct": nlct, "flow": nlct.Flow, "event": nlct.Event}
    for row in rows():
        for name in _names(row[2]):
            path, _, argument = name.partition("(")
            first, *rest = path.split(".")
            found = roots[first] if first in roots else getattr(nlct, first)
            for part in rest:
                found = nlct.Expectations if part == "expectations" else getattr(found, part)
            if argument:
                assert argument.rstrip("=") in inspect.signature(found).parameters, name
