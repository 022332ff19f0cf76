"""The floors of the package: a module imports only from floors below its own."""

from __future__ import annotations

import graphlib
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HIGHEST = 11
# Packages of the package.
ROOMS = ("cli", "exporter")

if not ((ROOT / "CONTRIBUTING.md").exists() and (ROOT / "nlct").exists()):
    pytest.skip("MISSING: a whole checkout", allow_module_level=True)

from tools import layout  # noqa: E402 - it is not where only the tests were copied
from tools.layout import place  # noqa: E402

FILES = layout.modules()
GRAPH = layout.imports()


def test_the_table_has_every_module() -> None:
    """It has no other, and its floors are numbered from 1."""
    floors = layout.floors()
    assert set(floors) == {place(module) for module in FILES}
    numbers = {int(floor) for floor in floors.values() if floor != "beside"}
    assert numbers == set(range(1, max(numbers) + 1))
    assert max(numbers) <= HIGHEST


def test_imports_point_downwards() -> None:
    """Nobody imports what is beside the floors, but for the command line, which may use it."""
    floors = layout.floors()
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


def test_the_picture_has_every_module_and_file() -> None:
    """Each once, by its own name, and an arrow for each import that no other stands for."""
    picture = layout.svg()
    rooms = [file.relative_to(ROOT / "nlct").parts for file in FILES.values()]
    inside = ["/".join(parts[1:]) for parts in rooms if len(parts) > 1]
    core = [file.name for file in (ROOT / "csrc").rglob("*.[ch]")]
    drawn = Counter(re.findall(r">([\w/]+(?:\.\w+|/))<", picture))
    del drawn["csrc/"]
    assert drawn == Counter([*set(map(place, FILES)), *inside, *core, *layout.rooms()])
    links = layout.links()
    assert picture.count("<path") == sum(map(len, links.values()))
    assert "flush.py" in links["conntrack.py"]
    assert "errors.py" not in links["conntrack.py"]
