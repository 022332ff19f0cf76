"""``nlct stats``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from nlct.cli.app import Command
from nlct.cli.options import json_option, netns_option
from nlct.cli.output import of_limit, print_json
from nlct.cli.places import Place, in_each
from nlct.cli.streams import require_output
from nlct.conntrack import Conntrack
from nlct.stats import Stats


@click.command("stats", cls=Command)
@click.option("--cpu", "by_cpu", is_flag=True, help="Show each processor, not their sum.")
@netns_option
@json_option
def command(by_cpu: bool, places: tuple[Place, ...], as_json: bool) -> None:
    """Show what the kernel counts: packets, flows and expectations.

    The names are those of conntrack -S; JSON has the sums and each processor.

    \b
    Examples:
      nlct stats
      nlct stats --cpu
      nlct stats --json | jq .flows.insert_failed
    """
    require_output()
    in_each(places, lambda place: _show(place, by_cpu, as_json))


def _show(place: Place, by_cpu: bool, as_json: bool) -> None:
    with Conntrack(place.netns) as ct:
        found = ct.stats()
    if as_json:
        print_json(found.to_dict(), place.name)
        return
    from nlct.cli.draw import Console, table  # noqa: PLC0415 - rich is slow to import

    columns = _columns(found, by_cpu)
    drawn = table(place.name)
    drawn.add_column("counter")
    for heading in columns:
        drawn.add_column(heading, justify="right")
    for name in dict.fromkeys(name for values in columns.values() for name in values):
        values = (column.get(name) for column in columns.values())
        drawn.add_row(name, *("-" if value is None else f"{value:,}" for value in values))
    # A limit of 0 is none.
    full = of_limit(found.entries, found.limit) if found.limit else f"{found.entries:,}"
    drawn.caption = f"flows: {full}"
    drawn.caption_justify = "left"
    Console().print(drawn)


def _columns(found: Stats, by_cpu: bool) -> dict[str, dict[str, int]]:
    """Return what to show, by heading."""
    said = found.to_dict()
    if not by_cpu:
        return {"all processors": _flat(said)}
    return {f"cpu {cpu}": _flat(values) for cpu, values in said["cpus"].items()}


def _flat(values: Mapping[str, Any]) -> dict[str, int]:
    """Return counters by name; those of expectations as conntrack calls them."""
    flat: dict[str, int] = {}
    for prefix, part in (("", "flows"), ("expect_", "expectations")):
        for name, value in values[part].items():
            if name == "unknown":
                flat.update({f"{prefix}unknown {each}": n for each, n in value.items()})
            else:
                flat[prefix + name] = value
    return flat
