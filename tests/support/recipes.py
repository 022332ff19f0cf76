"""The programs of recipes/, loaded or run, and the pages that show them.

    python -m tests.support.recipes

puts each program into the page that shows it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

import nlct
from tests.support.pages import ROOT, pages

RECIPES = ROOT / "recipes"
# Longer than any program here takes.
LONG = 60.0
_SHOWN = re.compile(r'(^```python title="(recipes/[^"]+)"\n)(.*?)(^```$)', re.MULTILINE | re.DOTALL)


def path(name: str) -> Path:
    """Return where a program is."""
    if not RECIPES.exists():
        pytest.skip("MISSING: a whole checkout")
    return RECIPES / f"{name}.py"


def load(name: str) -> ModuleType:
    """Load recipes/NAME.py as a module of its own."""
    spec = importlib.util.spec_from_file_location(f"recipe_{name.replace('-', '_')}", path(name))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def place(netns: nlct.Netns) -> str:
    """How a program reaches a namespace."""
    return f"--netns=/proc/{os.getpid()}/fd/{netns.fileno()}"


def command(name: str, *args: object) -> list[str]:
    """A recipe as a command."""
    return [sys.executable, str(path(name)), *map(str, args)]


def output(words: list[str], given: str = "") -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(
        words, input=given, capture_output=True, text=True, timeout=LONG, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def running(ready: bytes, words: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program and wait until it has said that it is ready; end it by SIGTERM."""
    program = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert program.stdout is not None
    assert program.stderr is not None
    rest = None
    try:
        said = []
        for line in program.stderr:
            said.append(line)
            if ready in line:
                break
        else:
            pytest.fail(b"".join(said).decode())
        # What it says from now on must not fill the pipe.
        rest = threading.Thread(target=program.stderr.read)
        rest.start()
        yield program
        program.terminate()
        assert program.wait(LONG) == 0
    finally:
        program.kill()
        program.wait()
        if rest is not None:
            rest.join()
        program.stdout.close()
        program.stderr.close()


def show() -> None:
    """Put each program into the page that shows it."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        new = _SHOWN.sub(lambda m: m[1] + (ROOT / m[2]).read_text(encoding="utf-8") + m[4], text)
        if new != text:
            page.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    show()
