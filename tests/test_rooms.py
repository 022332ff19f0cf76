"""The rooms of the core: what each may know of the others, and that no check passes a file over."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CSRC = ROOT / "csrc"
FILES = sorted(CSRC.rglob("*.[ch]"))
SOURCES = [file for file in FILES if file.suffix == ".c"]
NAMES = {str(file.relative_to(ROOT)) for file in FILES}

# The private header that each room's own includes, and whose functions its files may call: those of
# a whole room, or of one file in it.
BELOW = {
    "netlink": "nlct.h",
    "flow": "netlink/netlink.h",
    "sinks": "flow/flow.h",
    "ctnetlink": "sinks/sinks.h",
}
CALLS = {
    "netlink": ("netlink/",),
    "flow": ("flow/", "netlink/message.c"),
    "sinks": ("sinks/", "flow/"),
    "ctnetlink": ("ctnetlink/", "sinks/", "flow/", "netlink/"),
}
# What netlink must not know.
CONNTRACK = re.compile(r"<linux/netfilter/(nf_conntrack|nfnetlink_conntrack)")
INCLUDE = re.compile(r'^#include "(.*)"$', re.MULTILINE)


def room(file: Path) -> str:
    """Return the name of the room that a file is in."""
    return file.relative_to(CSRC).parts[0]


def test_every_file_is_in_a_room() -> None:
    """Beside the public header there are only rooms, each with its private header."""
    assert [file.name for file in CSRC.iterdir() if file.is_file()] == ["nlct.h"]
    assert {room(file) for file in SOURCES} == set(CALLS)
    for name in CALLS:
        assert (CSRC / name / f"{name}.h").exists()


def test_includes_point_downwards() -> None:
    """A room's header includes the one below; its other files include what is in the room."""
    for file in FILES:
        if file == CSRC / "nlct.h":
            continue
        for name in INCLUDE.findall(file.read_text()):
            included = (file.parent / name).resolve()
            own = included.parent == file.parent
            header = file.name == f"{room(file)}.h"
            assert own or (header and included == CSRC / BELOW[room(file)]), (file, name)
        assert room(file) != "netlink" or not CONNTRACK.search(file.read_text()), file


def test_calls_point_downwards(tmp_path: Path) -> None:
    """No file calls a function of a room that it must not know."""
    for tool in ("cc", "nm"):
        if shutil.which(tool) is None:
            pytest.skip(f"MISSING: {tool}")
    objects = {file: tmp_path / f"{room(file)}-{file.stem}.o" for file in SOURCES}
    for file, compiled in objects.items():
        command = ["cc", "-std=c11", "-D_GNU_SOURCE", "-c", "-o", compiled, file]
        subprocess.run(command, check=True)
    home = {name: file for file in SOURCES for name in symbols(objects[file], "--defined-only")}
    for file in SOURCES:
        for name in symbols(objects[file], "--undefined-only"):
            if name in home:
                callee = str(home[name].relative_to(CSRC))
                assert callee.startswith(CALLS[room(file)]), f"{file} calls {name}() of {callee}"


def symbols(compiled: Path, which: str) -> list[str]:
    """Return the names of the functions and data that an object file gives, or wants."""
    said = subprocess.run(
        ["nm", "--extern-only", "--format=posix", which, compiled],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [line.split()[0] for line in said.splitlines()]


# What CI and developers do with each file of the core: none may pass one over. The source
# distribution is looked at where it is built, by .ci/packages.


def require_make() -> None:
    """Skip where nothing can be built: without make, or without a source tree."""
    if not (ROOT / "Makefile").exists() or shutil.which("make") is None:
        pytest.skip("MISSING: make, or a Makefile")


def make(*arguments: str) -> str:
    """Return what make would do, and its database."""
    require_make()
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    command = ["make", "--dry-run", "--always-make", "--print-data-base", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout


def core_in(line: str) -> set[str]:
    """Return the files of the core that a line names."""
    return {f"csrc/{name}" for name in re.findall(r"\bcsrc/(\S+\.[ch])\b", line)}


def lines(said: str, start: str) -> list[str]:
    """Return the lines that begin like this. There must be some."""
    found = [line for line in said.splitlines() if re.match(start, line)]
    assert found, start
    return found


def compiled(names: set[str]) -> set[str]:
    """Return those that are compiled by themselves."""
    return {name for name in names if name.endswith(".c")}


def test_every_file_is_formatted_and_compiled_strictly() -> None:
    """`make lint` looks at every file, `make strict` compiles every source."""
    for line in lines(make("lint"), "clang-format "):
        assert core_in(line) == NAMES
    for line in lines(make("strict"), "for file in "):
        assert core_in(line) == compiled(NAMES)


def objects_in(line: str) -> set[str]:
    """Return the sources of the core whose objects, of tests/c, a line names."""
    return {f"{name}.c" for name in re.findall(r"\bbuilt/[A-Z]+/(csrc/\S+)\.o\b", line)}


PROGRAM = r"built/(scripted|driver|fuzz-[a-z]+)[a-z-]*"


def test_every_file_is_a_reason_to_rebuild() -> None:
    """A change of any file of the core rebuilds the package, and each program in tests/c."""
    for line in lines(make(), r"\.venv/installed: "):
        assert core_in(line) == NAMES
    said = make("-C", "tests/c", "BUILD=built", "sanitize", "valgrind", "fuzz")
    for line in lines(said, f"{PROGRAM}: "):
        assert objects_in(line) == compiled(NAMES)
    for line in lines(said, r"built/[A-Z]+/csrc/\S+\.o: "):
        target, sources = line.split(":")
        assert core_in(sources) == NAMES - compiled(NAMES) | objects_in(target)


def test_every_file_is_sanitized_and_fuzzed() -> None:
    """Each program in tests/c is made of every source, compiled as the program is."""
    said = make("-C", "tests/c", "BUILD=built", "CC=cc", "sanitize", "valgrind", "fuzz")
    how: dict[str, list[str]] = {}
    for line in lines(said, r"(cc|clang) .* -c -o built/[A-Z]+/csrc/"):
        flags, _, names = line.partition(" -c -o ")
        how[names.split()[0]] = flags.split()
    for line in lines(said, f"(cc|clang) .* -o {PROGRAM} "):
        assert objects_in(line) == compiled(NAMES)
        flags = [word for word in line.partition(" -o ")[0].split() if "--wrap" not in word]
        assert all(how[name] == flags for name in line.split() if "/csrc/" in name)


def test_the_binding_is_built_of_every_file() -> None:
    """The builder compiles every source, and knows every header."""
    require_make()
    builder = runpy.run_path(str(ROOT / "nlct/_build.py"))
    assert {*builder["SOURCES"], *builder["HEADERS"]} == NAMES
    assert set(builder["SOURCES"]) == compiled(NAMES)
