"""``nlct probe``."""

from __future__ import annotations

import click

from nlct.capabilities import Capabilities, probe
from nlct.cli.app import Command
from nlct.cli.options import json_option, netns_option
from nlct.cli.output import print_json
from nlct.cli.places import Place
from nlct.cli.streams import require_output

CAPABILITIES = {
    "zones": "flows may have a zone",
    "zone_filter": "has the explicit zone filter",
    "zone_dump": "dumps one zone when asked for one",
    "zone_flush": "flushes one zone and nothing else",
    "zone0_flush": "the same for zone 0",
}


@click.command("probe", cls=Command)
@netns_option
@json_option
def command(places: tuple[Place, ...], as_json: bool) -> None:  # noqa: ARG001 - see the help
    """Show what this kernel can do with zones.

    nlct measures this in a scratch network namespace and touches no other table. The answers are
    the kernel's, so they are the same for every --netns.

    \b
    Examples:
      nlct probe
      nlct probe --json | jq .zone_flush
    """
    require_output()
    capabilities = probe()
    if as_json:
        print_json(capabilities._asdict())
    else:
        _draw(capabilities)


def _draw(capabilities: Capabilities) -> None:
    from nlct.cli.draw import Console, table  # noqa: PLC0415 - rich is slow to import

    answers = table(f"Linux {capabilities.release}")
    for column in ("capability", "answer", "evidence", "meaning"):
        answers.add_column(column)
    for name, meaning in CAPABILITIES.items():
        answer = "[green]yes[/]" if getattr(capabilities, name) else "[yellow]no[/]"
        answers.add_row(name, answer, capabilities.evidence[name], meaning)
    Console().print(answers)
