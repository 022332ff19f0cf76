"""``nlct demo``."""

from __future__ import annotations

import click

from nlct.cli.app import Command, Failure
from nlct.cli.demo import Report, run
from nlct.cli.options import Once, file_names, files, json_option, number_option
from nlct.cli.output import print_json
from nlct.cli.streams import require_output
from nlct.fill import MAX_FLOWS


def _picture(ctx: click.Context, param: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    for name in file_names(ctx, param, names):
        if not name.lower().endswith(".svg"):
            raise click.BadParameter(f"{name!r} must end in .svg")
    return names


@click.command("demo", cls=Command)
@number_option("--flows", 1, MAX_FLOWS, "Flows in the table.", default=500_000)
@number_option("--zones", 1, 65534, "Zones that hold them.", default=500)
@number_option("--samples", 1, 10_000, "Flushes of each kind.", default=25)
@click.option(
    "--picture",
    cls=Once,
    metavar="FILE.svg",
    callback=_picture,
    shell_complete=files,
    help="Draw the medians into a file as well; needs nlct[picture].",
)
@json_option
def command(flows: int, zones: int, samples: int, picture: str | None, as_json: bool) -> None:
    """Measure every way to flush a zone.

    demo fills a network namespace of its own, touches no other table and leaves nothing behind.
    It needs no root where user namespaces are allowed. If nf_conntrack_max is too small for
    --flows, root raises it during the demo and then puts it back; others measure as many flows as
    fit.

    \b
    Examples:
      nlct demo
      nlct demo --flows 100000 --zones 100 --samples 10 --json
      nlct demo --picture figures.svg
    """
    require_output()
    if picture is None:
        _show(run(flows, zones, samples), as_json)
        return
    from nlct.cli.files import written  # noqa: PLC0415 - few demos need it
    from nlct.cli.picture import pygal, svg  # noqa: PLC0415 - likewise

    # What is missing shows before the minutes that the demo takes.
    pygal()
    with written(picture) as out:
        report = run(flows, zones, samples)
        out.write(svg(report))
    _show(report, as_json)


def _show(report: Report, as_json: bool) -> None:
    if as_json:
        print_json(report.to_dict())
    else:
        from nlct.cli.draw import Console  # noqa: PLC0415 - rich is slow to import
        from nlct.cli.report import show  # noqa: PLC0415 - likewise

        show(report, Console(width=80))
    if not report.exact:
        raise Failure("other zones lost flows, or the zones that were flushed kept some")
