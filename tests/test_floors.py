"""The floors of the package: a module imports only from floors below its own."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HIGHEST = 10

if not ((ROOT / "CONTRIBUTING.md").exists() and (ROOT / "nlct").exists()):
    pytest.skip("MISSING: a whole checkout", allow_module_level=True)


def module_of(file: Path) -> str:
    """Return the name that a file is imported by."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).replace(".__init__", "")


FILES = {module_of(file): file for file in sorted((ROOT / "nlct").rglob("*.py"))}


def imports(module: str) -> Iterator[str]:
    """Return the modules of the package that one imports, wherever in its text it does so."""
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            for name in (f"{node.module}.{alias.name}" for alias in node.names):
                imported = name if name in FILES else node.module
                if imported in FILES:
                    yield imported


GRAPH = {module: set(imports(module)) for module in FILES}


def place(module: str) -> str:
    """Return what the table calls a module: its file, or the room that it is in."""
    return "cli/" if module.startswith("nlct.cli") else FILES[module].name


def table() -> dict[str, str]:
    """Return the floor of each place, as the table in CONTRIBUTING.md has it."""
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("| floor |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (\d+|beside) \| (.*) \|$", text, re.MULTILINE)
    named = [(name, row) for row, said in rows for name in re.findall(r"`(\w+(?:\.py|/))`", said)]
    floors = dict(named)
    assert len(floors) == len(named), "a module has two floors"
    return floors


def test_the_table_has_every_module() -> None:
    """It has no other, and its floors are numbered from 1."""
    floors = table()
    assert set(floors) == {place(module) for module in FILES}
    numbers = {int(floor) for floor in floors.values() if floor != "beside"}
    assert numbers == set(range(1, max(numbers) + 1))
    assert max(numbers) <= HIGHEST


def test_imports_point_downwards() -> None:
    """Nobody imports what is beside the floors, but for the command line, which may use it."""
    floors = table()
    for module, imported in GRAPH.items():
        own = floors[place(module)]
        for other in {place(each) for each in imported} - {place(module)}:
            if own == "beside":
                assert other != "cli/", module
            elif floors[other] == "beside":
                assert (place(module), other) == ("cli/", "__init__.py"), module
            else:
                assert int(floors[other]) < int(own), f"{module} imports {other}"


def test_no_imports_in_a_circle() -> None:
    """Not even between the modules of the command line."""
    graphlib.TopologicalSorter(GRAPH).prepare()


def test_the_command_line_uses_public_names() -> None:
    """Of the others it may import how a field looks, and why the kernel refuses it."""
    for module, imported in GRAPH.items():
        if module.startswith("nlct.cli"):
            private = {each for each in imported if re.search(r"\._[a-z]", each)}
            assert private <= {"nlct._fields", "nlct._reasons"}, module
