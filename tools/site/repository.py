"""Hook of the site: pages outside docs/ that a page links to come along, as repository/PATH.

So a link such as ../CONTRIBUTING.md works in the repository and on the site alike.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
BROUGHT = "repository/"
_LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=[#)])")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name the pages of a folder in the navigation."""
    docs = Path(config.docs_dir)
    config.nav = list(_expanded(config.nav or [], docs, set(_named(config.nav or []))))
    return config


def _named(nav: list[Any]) -> Iterator[str]:
    for entry in nav:
        inner = next(iter(entry.values())) if isinstance(entry, dict) else entry
        if isinstance(inner, list):
            yield from _named(inner)
        else:
            yield inner


def _expanded(nav: list[Any], docs: Path, named: set[str]) -> Iterator[Any]:
    for entry in nav:
        title, inner = next(iter(entry.items())) if isinstance(entry, dict) else ("", entry)
        if isinstance(inner, list):
            yield {title: list(_expanded(inner, docs, named))}
        elif inner.endswith("/*"):
            found = (str(each.relative_to(docs)) for each in sorted(docs.glob(inner + ".md")))
            yield from (each for each in found if each not in named)
        else:
            yield entry


def _place(uri: str) -> str:
    """Return where in the repository a file of the site comes from."""
    return uri[len(BROUGHT) :] if uri.startswith(BROUGHT) else f"docs/{uri}"


def _uri(place: str) -> str:
    """Return where on the site a file of the repository is."""
    return place[len("docs/") :] if place.startswith("docs/") else BROUGHT + place


def _targets(text: str, place: str) -> Iterator[str]:
    """Yield the files of the repository that a page links to."""
    for link in _LINK.findall(text):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(place), link))
        if "://" not in link and not target.startswith("..") and (ROOT / target).is_file():
            yield target


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Bring along what is linked to, and what that links to."""
    named = [uri for uri in _named(config.nav or []) if uri.startswith(BROUGHT)]
    waiting = [_place(uri) for uri in (*named, *files.src_uris)]
    while waiting:
        place = waiting.pop()
        uri = _uri(place)
        if uri not in files.src_uris:
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / place)))
        if place.endswith(".md"):
            text = (ROOT / place).read_text(encoding="utf-8")
            waiting += [each for each in _targets(text, place) if _uri(each) not in files.src_uris]
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Let links lead to where their targets are on the site."""
    here = page.file.src_uri
    place = _place(here)

    def moved(found: re.Match[str]) -> str:
        for target in _targets(f"]({found[0]})", place):
            return posixpath.relpath(_uri(target), posixpath.dirname(here) or ".")
        return found[0]

    return _LINK.sub(moved, markdown)
