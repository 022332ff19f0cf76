"""What is loaded when: a slow import would be felt in every command, and seen by no other test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import nlct

ROOT = Path(nlct.__file__).parent
# What nlct may load beside itself, and whatever these load.
LIBRARY = (
    "_cffi_backend __future__ atexit contextlib copy enum errno importlib.machinery ipaddress "
    "mmap re struct typing weakref"
)
# The command's.
COMMAND = f"{LIBRARY} click gc select"
# Of nlct, what is not for everybody.
RARE = {"nlct.arrow", "nlct.fill"}
EACH = {
    *("nlct.cli", "nlct.cli.app", "nlct.cli.commands", "nlct.cli.options", "nlct.cli.output"),
    *("nlct.cli.places", "nlct.cli.progress", "nlct.cli.streams"),
}
COMMANDS = {
    ("flush", "--zone", "7"): {"nlct.cli.commands.flush", "nlct.cli.deleting"},
    ("count",): {"nlct.cli.commands.count", "nlct.cli.filters"},
    ("dump",): {"nlct.cli.commands.dump", "nlct.cli.filters", "nlct.cli.formats"},
    ("events", "--timeout", "0"): {
        *("nlct.cli.commands.events", "nlct.cli.filters", "nlct.cli.follow"),
    },
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


# Works with all that a first use needs, where nothing can be imported any more.
FIRST_USE = """
import sys
import nlct

class Nothing:
    def find_spec(self, name, path=None, target=None):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nothing())
before = set(sys.modules)
try:
    import wave
except ModuleNotFoundError:
    pass
else:
    raise AssertionError

made = [
    nlct.Flow(
        nlct.Tuple(src="192.0.2.1", dst="192.0.2.2", proto="udp", sport=port, dport=53),
        zone=port % 9, timeout=60,
    )
    for port in range(1, 100)
]
netns = nlct.Netns.scratch()
with nlct.Conntrack(netns) as ct:
    # Text and objects: an errno, a message, a look at what was created.
    ct.create(made[0].replace(mark=7))
    try:
        ct.create(made[0])
    except nlct.ExistsError as exc:
        str(exc)
    try:
        ct.create(nlct.Flow(nlct.Tuple(src="192.0.2.1"), timeout=60))
    except nlct.InvalidRequestError as exc:
        assert "orig must have" in str(exc)
    ct.update(made[0], mark=8)
    assert ct.get(made[0].orig, zone=1).mark == 8
    assert ct.load(made[1:]).created == 98
    for flow in ct.dump(nlct.Filter(src="192.0.2.0/24", state="established") | nlct.Filter(zone=1)):
        str(flow), repr(flow), flow.to_dict()
    assert b"udp" in b"".join(ct.dump_text())
    table = ct.table()
    assert len(list(table)) == len(table) == ct.count() == ct.count(zone=range(9)) == 99
    assert sum(map(len, ct.batches(rows=10))) == 99
    assert sum(ct.count_by("proto", "zone").values()) == 99
    assert ct.delete(nlct.Filter(sport=range(90, 100)) & ~nlct.Filter(mark=(8, 8))).deleted == 10
    assert ct.flush_zone(7, dry_run=True).matched == ct.flush_zone(7).matched == 10
    for strategy in ("auto", "scan", "kernel" if nlct.probe().zone_flush else "scan"):
        assert ct.flush_zones([2, 3], strategy=strategy).complete
    with nlct.Flusher(ct) as flusher:
        flusher.flush_zone(4)
        flusher.delete(nlct.Filter(zone=5))
    assert set(ct.count_by("zone")) == {0, 1, 6, 8}
    assert ct.flush_all().complete
assert set(sys.modules) == before
"""


def test_importing_nlct_loads_no_more_than_it_needs() -> None:
    """Neither socket, logging, pathlib, asyncio nor the like."""
    found = loaded("import nlct\nafter = set(sys.modules)", LIBRARY)
    assert {name for name in found if name.partition(".")[0] != "nlct"} == set()
    assert not found & RARE
    heavy = {"socket", "logging", "pathlib", "asyncio", "signal"}
    assert not loaded("import nlct\nafter = set(sys.modules)", "") & heavy


def test_a_first_use_imports_nothing() -> None:
    """A process may have changed its root, dropped its privileges or run out of descriptors."""
    subprocess.run([sys.executable, "-c", FIRST_USE], check=True, timeout=60)


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
    """All of them are listed, and nothing else is but modules."""
    public = {name for name in vars(nlct) if not name.startswith("_")}
    modules = {name for name in public if isinstance(getattr(nlct, name), ModuleType)}
    assert set(nlct.__all__) == public - modules
    with pytest.raises(AttributeError, match="module 'nlct' has no attribute 'nonsense'"):
        _ = nlct.nonsense  # type: ignore[attr-defined]


def test_modules_need_not_be_imported_by_name() -> None:
    """As for ``nlct.table.COLUMNS``."""
    code = "import nlct; nlct.table.COLUMNS, nlct.errors.Error; from nlct import fill; fill.fill"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
