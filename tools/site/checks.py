"""Hook of the site: its pages load nothing from other hosts, and links to those are well-formed.

    python tools/site/checks.py FOLDER

checks what was built before.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Attributes that make a browser fetch something; of <link> it is href, of <a> only a click does.
FETCHED = {"src", "srcset", "data", "poster", "action", "background", "xlink:href"}
_CSS = re.compile(r"""(?:@import\s*|url\(\s*)["']?((?:https?:)?//[^"')\s]+)""")
_HOST = re.compile(r"[\w-]+(\.[\w-]+)+(:\d+)?")


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            url = value or ""
            fetched = name in FETCHED or (name == "href" and tag not in {"a", "area"})
            if fetched and re.search(r"(?:^|[\s,])(?:\w+:)?//", url):
                self.wrong.append(f"<{tag}> loads {url}")
            elif name == "style":
                self.wrong += css(url)
            elif tag == "a" and name == "href" and "//" in url.partition("#")[0]:
                parts = urlsplit(url)
                if parts.scheme != "https" or not _HOST.fullmatch(parts.netloc):
                    self.wrong.append(f"a link to {url}")


def css(text: str) -> list[str]:
    """Return what style sheets load from elsewhere."""
    return [f"a style loads {url}" for url in _CSS.findall(text)]


def html(text: str) -> list[str]:
    """Return what is wrong with a page."""
    page = _Page()
    page.feed(text)
    styles = re.findall(r"<style[^>]*>(.*?)</style>", text, re.DOTALL)
    return page.wrong + [wrong for style in styles for wrong in css(style)]


def site(folder: Path) -> Iterator[str]:
    """Yield what is wrong with a site."""
    for kind, check in (("html", html), ("css", css), ("svg", html)):
        for file in sorted(folder.rglob(f"*.{kind}")):
            for wrong in check(file.read_text(encoding="utf-8")):
                yield f"{file.relative_to(folder)}: {wrong}"


def on_post_build(config: Any) -> None:
    """Refuse a site with anything wrong."""
    # Only mkdocs calls this.
    from mkdocs.exceptions import PluginError  # noqa: PLC0415

    wrong = list(site(Path(config.site_dir)))
    if wrong:
        raise PluginError("\n".join(wrong))


if __name__ == "__main__":
    sys.exit("\n".join(site(Path(sys.argv[1]))) or 0)
