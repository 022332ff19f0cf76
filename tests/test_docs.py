"""README and docs: what their examples show is what comes, and their links lead somewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import nlct
from tests.support.pages import ROOT, RUN, blocks, pages


def _each(pages: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=lambda page: str(page.relative_to(ROOT)))


PAGES = _each(pages())
EXAMPLES = _each([page for page in pages() if any(block.runs for block in blocks(page))])
# What the examples of all pages want; what else some of them do.
TOOLS, MODULES = ["unshare", "mount", "ip", "bash"], ["click", "rich"]
ALSO = {
    "arrow.md": ["duckdb", "nanoarrow", "pandas", "polars", "pyarrow"],
    "command-line.md": ["jq", "nanoarrow", "pyarrow"],
    "library.md": ["numpy"],
    "metrics.md": ["prometheus_client"],
}


def _require(page: Path) -> list[str]:
    """Return what enters a network namespace, where all is there that the examples want."""
    also = ALSO.get(page.name, [])
    tools = [*TOOLS, *(name for name in also if name == "jq")]
    modules = [*MODULES, *(name for name in also if name != "jq")]
    missing = [name for name in tools if shutil.which(name) is None]
    missing += [name for name in modules if find_spec(name) is None]
    if missing:
        pytest.skip(f"MISSING: {', '.join(missing)}")
    enter = ["unshare", "--net", "--mount", *["--map-root-user"] * (os.geteuid() != 0)]
    mount = ["mount", "-t", "tmpfs", "tmpfs", "/run"]
    tried = subprocess.run([*enter, *mount], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"MISSING: no namespaces can be had here: {tried.stderr.strip()}")
    return enter


@EXAMPLES
def test_the_examples_of_a_page_do_what_it_shows(page: Path, tmp_path: Path) -> None:
    """In a namespace of its own, with a table that makes the page true."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [*_require(page), sys.executable, "-m", "tests.support.pages", str(page)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@PAGES
def test_every_block_is_of_a_kind_that_runs(page: Path) -> None:
    """So that none is left out unless its fence says so, nor for standing in a list."""
    found = list(blocks(page))
    assert {block.language for block in found} <= RUN.keys()
    assert page.read_text(encoding="utf-8").count("```") == 2 * len(found)


def test_hardly_any_block_is_left_out() -> None:
    """Installing, what `make` does, a screen that is watched, events of traffic, and a service."""
    found = [(page, block) for page in pages() for block in blocks(page)]
    left_out = [f"{page.name}:{b.line}" for page, b in found if not (b.runs or b.shows)]
    assert len(left_out) <= 10, left_out


@PAGES
def test_a_file_that_a_page_shows_is_that_file(page: Path) -> None:
    """`python -m tests.support.recipes` makes it so."""
    for block in blocks(page):
        if block.shows:
            file = ROOT / block.shows
            if not file.parent.exists():
                pytest.skip("MISSING: a whole checkout")
            assert block.text == file.read_text(encoding="utf-8"), block.shows


@PAGES
def test_links_lead_somewhere(page: Path) -> None:
    """To a file of the project, and to a heading in it."""
    if not (ROOT / "kernels").exists():
        pytest.skip("MISSING: a whole checkout")
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not heading or heading in _anchors(target), link


def _anchors(page: Path) -> set[str]:
    """Return what a forge calls the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_table_of_calls_is_whole() -> None:
    """It has each public name of Conntrack."""
    text = (ROOT / "docs" / "library.md").read_text()
    _, _, rest = text.partition("## The calls")
    calls, _, _ = rest.partition("```")
    public = {name for name in vars(nlct.Conntrack) if not name.startswith("_")}
    assert public - set(re.findall(r"`(\w+)", calls)) == set()
