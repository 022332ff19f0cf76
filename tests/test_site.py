"""The site: what `make docs` puts into its pages, as far as that needs no mkdocs."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

import nlct

ROOT = Path(__file__).parent.parent

if not ((ROOT / "mkdocs.yml").exists() and (ROOT / "bench").exists()):
    pytest.skip("MISSING: a whole checkout", allow_module_level=True)

from bench import pictures  # noqa: E402 - it is not where only the tests were copied


def _checks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("checks", ROOT / "tools/site/checks.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


checks = _checks()


def test_every_public_name_is_on_one_page_of_the_api() -> None:
    """And in the table of those pages."""
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "docs/api").glob("*.md")]
    shown = Counter(name for text in pages for name in re.findall(r"^::: nlct\.(\w+)$", text, re.M))
    assert {name: shown[name] for name in nlct.__all__} == dict.fromkeys(nlct.__all__, 1)
    table = (ROOT / "docs/api/README.md").read_text(encoding="utf-8")
    errors = {name for name in nlct.__all__ if name.endswith("Error")} - {"Error"}
    assert set(nlct.__all__) - set(re.findall(r"`(\w+)`", table)) == errors


def test_every_page_has_its_place_in_the_navigation() -> None:
    """By its name, or as one of its folder; and what is named there exists."""
    named = re.findall(r"^ +- (?:.*: )?([\w/*.-]+)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    folders = {name[:-1] for name in named if name.endswith("/*")}
    assert {page for page in pages - set(named) if not page.startswith(tuple(folders))} == set()
    others = {name for name in set(named) - pages if name.endswith(".md")}
    lost = {name for name in others if not (ROOT / name.removeprefix("repository/")).exists()}
    assert lost == set()


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_a_picture_shows_every_figure(name: str) -> None:
    """Bars as long as what RESULTS.md says, ours in a colour of their own; and a page shows it."""
    results = pictures.RESULTS.read_text(encoding="utf-8")
    drawn = ElementTree.fromstring(pictures.svg(name, results))
    texts = [each.text for each in drawn.findall("{*}text")]
    bars = drawn.findall("{*}rect")
    charts = [pictures.values(each, results) for each in pictures.PICTURES[name]]
    assert len(bars) == sum(map(len, charts))
    for chart, each in zip(pictures.PICTURES[name], charts):
        assert len(each) > 1
        assert {chart.title, *(who for who, _ in each)} <= set(texts)
        assert {pictures.shown(value, chart.unit) for _, value in each} <= set(texts)
        own, bars = bars[: len(each)], bars[len(each) :]
        widths = [float(bar.attrib["width"]) for bar in own]
        order = sorted(range(len(each)), key=lambda at: each[at][1])
        assert [widths[at] for at in order] == sorted(widths)
        assert [bar.get("class") for bar in own].count("ours") == sum("nlct" in w for w, _ in each)
    assert f"<!-- site: picture {name} -->" in (ROOT / "docs/benchmarks.md").read_text()


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (5.02, "ms", "5.02 ms"),
        (156, "ms", "156 ms"),
        (1100, "ms", "1.1 s"),
        (90443, "µs", "90.4 ms"),
        (108.38, "MiB", "108 MiB"),
    ],
)
def test_a_figure_has_three_digits_and_its_unit(value: float, unit: str, said: str) -> None:
    """In the unit that reads best."""
    assert pictures.shown(value, unit) == said


def test_a_table_that_is_not_there_is_an_error() -> None:
    """So that no picture is left empty when RESULTS.md changes."""
    with pytest.raises(ValueError, match="no table 'Dump of all flows'"):
        pictures.svg("dump", "# Results\n\n## Dumps\n\nDump of no flows:\n")


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example.org/a.js"></script>',
        '<script src="//cdn.example.org/a.js"></script>',
        '<link rel="stylesheet" href="https://fonts.example.org/css?family=X">',
        '<img srcset="a.png 1x, https://example.org/b.png 2x">',
        '<iframe src="http://example.org/"></iframe>',
        '<object data="https://example.org/a.svg"></object>',
        '<div style="background: url(https://example.org/a.png)"></div>',
        "<style>@import '//example.org/a.css';</style>",
        "<style>a { src: url('https://example.org/a.woff2') }</style>",
        '<a href="http://example.org/">not safe</a>',
        '<a href="https://example">no host</a>',
        '<a href="//example.org/">no scheme</a>',
    ],
)
def test_what_comes_from_elsewhere_is_found(text: str) -> None:
    """Whatever a browser would fetch, and links of a wrong form."""
    assert len(checks.html(f"<html><body>{text}</body></html>")) == 1


@pytest.mark.parametrize(
    "text",
    [
        '<script src="assets/a.js"></script><link rel="icon" href="../a.png">',
        '<svg xmlns="http://www.w3.org/2000/svg"><use href="#a"/></svg>',
        '<img src="data:image/png;base64,iVBORw0KGgo=">',
        '<a href="https://pytest-benchmark.readthedocs.io/en/latest/">a link</a>',
        '<a href="library.html#counts-and-sums">a page</a><a href="mailto:me@example.org">m</a>',
        "<style>a { background: url(a.png) }</style>",
    ],
)
def test_what_is_our_own_is_not(text: str) -> None:
    """Nor links to other hosts, which nobody follows without a click."""
    assert checks.html(text) == []


def test_a_folder_is_gone_through(tmp_path: Path) -> None:
    """Pages, style sheets and pictures, in every folder."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/a.html").write_text('<script src="https://example.org/a.js"></script>')
    (tmp_path / "deep/a.css").write_text("a { background: url(//example.org/a.png) }")
    (tmp_path / "a.svg").write_text('<svg><image xlink:href="https://example.org/a.png"/></svg>')
    (tmp_path / "fine.html").write_text("<p>https://example.org</p>")
    found = sorted(wrong.partition(":")[0] for wrong in checks.site(tmp_path))
    assert found == ["a.svg", "deep/a.css", "deep/a.html"]
