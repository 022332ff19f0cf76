"""`make arch`: its programs keep up with what they use; the rows themselves take minutes."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ARCH = ROOT / "arch"

if not ((ARCH / "run").exists() and (ROOT / "Makefile").exists()):
    pytest.skip("MISSING: a whole checkout", allow_module_level=True)


def run(*command: str | Path) -> str:
    """Run a program of Python's that must succeed; return what it prints."""
    words = [sys.executable, *map(str, command)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_rows_are_those_of_the_readme() -> None:
    """The program starts, and has the rows that its page describes."""
    rows = re.findall(r"^\| `(\w+)` \|", (ARCH / "README.md").read_text(), re.MULTILINE)
    assert f"{' '.join(rows)}; all by default" in re.sub(r"\s+", " ", run(ARCH / "run", "--help"))


def test_wheels_are_looked_for_where_they_are_made() -> None:
    """The folder is the Makefile's."""
    (folder,) = re.findall(r"^WHEELS := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert f'default=ROOT / "{folder}"' in (ARCH / "run").read_text()


def test_what_other_machines_print_is_the_same_twice() -> None:
    """Nothing in it differs from run to run; the last line says where it ran."""
    first, again = run(ARCH / "check"), run(ARCH / "check")
    assert first == again
    assert first.splitlines()[-1].endswith(platform.python_version())
