"""Hook of the site: what is made from the code stands where a page says ``<!-- site: NAME -->``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Callable

import click
from mkdocs.exceptions import PluginError
from mkdocs.structure.pages import Page

from bench import pictures
from nlct.cli.commands import cli
from tools import layout

# The tests leave such a block out; to Markdown the word would spoil the fence.
_NOT_RUN = re.compile(r"^(```\w+) not-run$", re.MULTILINE)
_MARK = re.compile(r"^<!-- site: (\w+) ?(\w*) -->$", re.MULTILINE)


def commands() -> str:
    """Return the help of every command, as it prints it."""
    return "\n".join(_help(cli, click.Context(cli, info_name="nlct", max_content_width=100)))


def _help(command: click.Command, ctx: click.Context) -> Iterator[str]:
    yield f"## {ctx.command_path}\n\n```text\n{command.get_help(ctx)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            one = command.get_command(ctx, name)
            assert one
            yield from _help(one, click.Context(one, parent=ctx, info_name=name))


def picture(name: str) -> str:
    """Return a picture of bench/RESULTS.md."""
    drawn = pictures.svg(name, pictures.RESULTS.read_text(encoding="utf-8"))
    return f'<div class="picture">\n{drawn}\n</div>\n'


def house() -> str:
    """Return the picture of the code's layout."""
    return f'<div class="picture wide">\n{layout.svg()}\n</div>\n'


MAKERS: dict[str, Callable[..., str]] = {"commands": commands, "layout": house, "picture": picture}


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Put in what the page asks for."""

    def made(found: re.Match[str]) -> str:
        name, argument = found.groups()
        if name not in MAKERS:
            raise PluginError(f"{page.file.src_uri}: nothing makes '{name}'")
        return MAKERS[name](argument) if argument else MAKERS[name]()

    return _NOT_RUN.sub(r"\1", _MARK.sub(made, markdown))
