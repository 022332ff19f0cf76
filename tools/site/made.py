"""Hook of the site: what is made from the code stands where a page says ``<!-- site: NAME -->``."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
from mkdocs.structure.pages import Page

from nlct.cli.commands import cli

_MARK = re.compile(r"^<!-- site: ([\w ]+) -->$", re.MULTILINE)


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


MAKERS = {"commands": commands}


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:  # noqa: ARG001
    """Put in what the page asks for."""
    return _MARK.sub(lambda found: MAKERS[found[1]](), markdown)
