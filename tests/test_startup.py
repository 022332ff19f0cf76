"""What is loaded when: a slow import would be felt in every command, and seen by no other test."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import nlct

ROOT = Path(nlct.__file__).parent
# What a Conntrack may load beside nlct, and whatever these load.
LIBRARY = (
    "_cffi_backend __future__ atexit contextlib copy importlib.machinery ipaddress mmap re socket "
    "struct typing weakref"
)
# The command's.
COMMAND = f"{LIBRARY} click gc"
# Of nlct, what is not for everybody.
RARE = {"nlct.arrow", "nlct.fill", "nlct.flusher"}
EACH = {
    *("nlct.cli", "nlct.cli.app", "nlct.cli.commands", "nlct.cli.options", "nlct.cli.output"),
    *("nlct.cli.places", "nlct.cli.progress", "nlct.cli.streams"),
}
COMMANDS = {
    ("flush", "--zone", "7"): {"nlct.cli.commands.flush", "nlct.cli.deleting"},
    ("count",): {"nlct.cli.commands.count", "nlct.cli.filters"},
    ("dump",): {"nlct.cli.commands.dump", "nlct.cli.filters", "nlct.cli.formats"},
}


def loaded(code: str, allowed: str) -> set[str]:
    """The modules that ``code`` loads in a fresh interpreter, but for ``allowed`` and theirs."""
    modules = "".join(f"import {name}\n" for name in allowed.split())
    program = (
        f"import importlib, sys\n{modules}sys.path.insert(0, {str(ROOT.parent)!r})\n"
        f"before = set(sys.modules)\n{code}\n"
        "import json\nprint(json.dumps(sorted(after - before)), file=sys.stderr)"
    )
    words = (sys.executable, "-I", "-c", program)
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_importing_nlct_loads_nothing_else() -> None:
    """Each name is loaded when it is first used."""
    assert loaded("import nlct\nafter = set(sys.modules)", "") == {"nlct"}


def test_a_name_loads_what_it_needs() -> None:
    """Neither logging, pathlib, asyncio nor the like; and the Flusher is for who uses one."""
    found = loaded("import nlct; nlct.Conntrack\nafter = set(sys.modules)", LIBRARY)
    assert {name for name in found if name.partition(".")[0] != "nlct"} == set()
    assert not found & RARE


@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_a_command_loads_what_it_needs(where: str, args: tuple[str, ...]) -> None:
    """Neither rich, nor what other commands are made of."""
    pytest.importorskip("click", reason="MISSING: click, which nlct[cli] brings")
    # In this process' namespaces, as the path of ``where`` names this process.
    words = ["nlct", *args, where]
    code = (
        f"sys.argv = {words}\nimport nlct.cli\ntry:\n    nlct.cli.main()\n"
        "except SystemExit as exc:\n    assert not exc.code\nafter = set(sys.modules)"
    )
    found = loaded(code, COMMAND)
    assert {name for name in found if name.partition(".")[0] != "nlct"} == set()
    assert {name for name in found if name.startswith("nlct.cli")} <= EACH | COMMANDS[args]
    assert not found & RARE


def test_every_public_name_is_there() -> None:
    """Type checkers read them from a file of their own, which says the same."""
    stub = ast.parse((ROOT / "__init__.pyi").read_text())
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    typed = {(node.module, name.name, name.asname) for node in imports for name in node.names}
    assert typed == {(f"nlct.{module}", name, name) for name, module in nlct._HOME.items()}
    for name in nlct.__all__:
        assert getattr(nlct, name) is not None
    assert set(nlct.__all__) <= set(dir(nlct))
    with pytest.raises(AttributeError, match="module 'nlct' has no attribute 'nonsense'"):
        _ = nlct.nonsense


def test_modules_need_not_be_imported_by_name() -> None:
    """As for ``nlct.table.COLUMNS``."""
    code = "import nlct; nlct.table.COLUMNS, nlct.errors.Error; from nlct import fill; fill.fill"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
