"""The command line's commands: each is the object ``command`` in a module of its name."""

from __future__ import annotations

import click

from nlct.cli.app import App, Modules, Shown


def _version(_ctx: click.Context) -> str:
    from importlib.metadata import version  # noqa: PLC0415 - slow to import

    return f"nlct {version('nlct')}"


@click.group(
    name="nlct",
    cls=App,
    commands=Modules(
        __name__,
        (
            "completion",
            "count",
            "create",
            "delete",
            "demo",
            "dump",
            "events",
            "expect",
            "exporter",
            "fill",
            "flush",
            "get",
            "load",
            "probe",
            "stats",
            "top",
            "update",
        ),
    ),
    invoke_without_command=True,
)
@click.option("--version", cls=Shown, show=_version, help="Show the version and exit.")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """List, count, change, save and delete Linux conntrack entries, exactly and fast.

    \b
    Examples:
      nlct probe                      show what this kernel can do
      nlct count --by zone            count the flows of each zone
      nlct top --by src/24            show live who has the flows
      nlct dump --zone 7 --json       list zone 7, one JSON object per line
      nlct events --dport 53          show what happens to flows, as it happens
      nlct flush --zone 7             delete zone 7 and nothing else
      nlct delete --src 10.0.0.0/8    delete the flows from this network
      nlct update --dport 53 --set-mark 7
                                      change the flows that match
      nlct demo                       measure every way to flush, safely

    \b
    Exit codes:
      0  done, also when nothing matched
      1  done in part, or failed
      2  wrong usage
      3  missing privilege (CAP_NET_ADMIN)
      4  not supported by this kernel
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(click.UsageError.exit_code)
