"""The programs of recipes/, and the pages that show them.

    python -m tests.support.recipes

puts each program into the page that shows it.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.pages import ROOT, pages

RECIPES = ROOT / "recipes"
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


def show() -> None:
    """Put each program into the page that shows it."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        new = _SHOWN.sub(lambda m: m[1] + (ROOT / m[2]).read_text(encoding="utf-8") + m[4], text)
        if new != text:
            page.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    show()
