"""``nlct demo``."""

from __future__ import annotations

import click

from nlct.cli.app import Command, Failure
from nlct.cli.demo import run
from nlct.cli.options import json_option, number_option
from nlct.cli.output import print_json
from nlct.cli.streams import require_output
from nlct.fill import MAX_FLOWS


@click.command("demo", cls=Command)
@number_option("--flows", 1, MAX_FLOWS, "Flows in the table.", default=500_000)
@number_option("--zones", 1, 65534, "Zones that hold them.", default=500)
@number_option("--samples", 1, 10_000, "Flushes of each kind.", default=25)
@json_option
def command(flows: int, zones: int, samples: int, as_json: bool) -> None:
    """Measure every way to flush a zone.

    demo fills a network namespace of its own, touches no other table and leaves nothing behind.
    It needs no root where user namespaces are allowed. If nf_conntrack_max is too small for
    --flows, root raises it during the demo and then puts it back; others measure as many flows as
    fit.

    \b
    Examples:
      nlct demo
      nlct demo --flows 100000 --zones 100 --samples 10 --json
    """
    require_output()
    report = run(flows, zones, samples)
    if as_json:
        print_json(report.to_dict())
    else:
        from nlct.cli.draw import Console  # noqa: PLC0415 - rich is slow to import
        from nlct.cli.report import show  # noqa: PLC0415 - likewise

        show(report, Console(width=80))
    if not report.exact:
        raise Failure("other zones lost flows, or the zones that were flushed kept some")
