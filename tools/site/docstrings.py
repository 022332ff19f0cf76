"""Griffe extension of the site: makes Markdown of the package's docstrings.

Sentences that begin with "``name``:" become items of a list, and public names become links: a
class or function of nlct by its name, a method as ``dump()`` within its class or as
``Flow.to_dict()``. Names that are also words, such as Events, do not begin a sentence as links.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import griffe

_FIELD = r"``[^`]+``(?: \([^)]*\))?"
_ITEM = re.compile(rf"(?:^|(?<=\.)\s+)(?={_FIELD}(?:,\s{_FIELD})*:)")
_BEGINS = re.compile(r"(?:^|\.\s+|\* )$")
_CODE = re.compile(r"(``.*?``)", re.DOTALL)
_NAME = re.compile(r"(?<![\w.\[])(?:(?:nlct\.)?([A-Z]\w+)(?:\.([a-z]\w*)(\(\))?)?|([a-z]\w*)\(\))")


class Docstrings(griffe.Extension):
    """Rewrites each docstring when the package has been read."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Begin with the public names."""
        public = [name for name in pkg.exports or () if isinstance(name, str)]
        self.classes = {
            name: pkg[name] for name in public if pkg[name].is_class or pkg[name].is_function
        }
        for each in _objects(pkg):
            if each.docstring:
                each.docstring.value = self._markdown(each.docstring.value, each)
                each.docstring.value += _members(each)

    def _markdown(self, text: str, of: griffe.Object) -> str:
        paragraphs = re.split(r"\n\n+", text.replace("::\n", ":\n"))
        return "\n\n".join(self._linked(_items(each), of) for each in paragraphs)

    def _linked(self, paragraph: str, of: griffe.Object) -> str:
        if paragraph.startswith("    "):
            return paragraph
        parts = _CODE.split(paragraph)
        parts[::2] = [_NAME.sub(lambda found: self._link(found, of), part) for part in parts[::2]]
        return "".join(parts)

    def _link(self, found: re.Match[str], of: griffe.Object) -> str:
        name, member, call, method = found.groups()
        shown = found[0]
        if method:
            holder = of if of.is_class else of.parent
            if isinstance(holder, griffe.Class) and method in holder.all_members:
                name = next((n for n, c in self.classes.items() if c.path == holder.path), "")
                # An object is not linked to itself.
                if name and of.name != method and holder.all_members[method].has_docstring:
                    return f"[`{shown}`][nlct.{name}.{method}]"
            elif method in self.classes:
                return f"[`{shown}`][nlct.{method}]"
            return f"`{shown}`"
        if name not in self.classes or (of.name == name and not member):
            return f"`{shown}`" if call else shown
        if not member:
            is_word = name.istitle() and _BEGINS.search(found.string[: found.start()])
            return shown if is_word else f"[{shown}][nlct.{name}]"
        known = self.classes[name].all_members.get(member)
        # What has no docstring has no place on the page.
        return (
            f"[`{shown}`][nlct.{name}.{member}]" if known and known.has_docstring else f"`{shown}`"
        )


def _objects(of: griffe.Object) -> Iterator[griffe.Object]:
    yield of
    for each in of.members.values():
        if not each.is_alias:
            yield from _objects(each)  # type: ignore[arg-type]


def _items(paragraph: str) -> str:
    """Make a list of the sentences that begin with names and a colon, with what follows each."""
    before, *items = _ITEM.split(paragraph)
    if not items or paragraph.startswith("    "):
        return paragraph
    listed = "".join(f"* {item.strip()}\n".replace("\n    ", "\n") for item in items)
    return f"{before.strip()}\n\n{listed}"


def _members(of: griffe.Object) -> str:
    """Return the members of an enumeration, which have no docstrings."""
    if not isinstance(of, griffe.Class) or not any("enum." in str(base) for base in of.bases):
        return ""
    named = (f"`{each.name}` {each.value}" for each in of.attributes.values() if each.is_public)
    return "\n\n" + ", ".join(named) + "."
