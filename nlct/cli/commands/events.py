"""``nlct events``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from nlct.cli.app import Command
from nlct.cli.filters import event_filter_options
from nlct.cli.follow import Found, follow_options, show
from nlct.events import Events
from nlct.filter import Filter
from nlct.stream import KINDS


@click.command("events", cls=Command)
@event_filter_options
@click.option("--new", is_flag=True, help="Flows that begin.")
@click.option("--update", is_flag=True, help="Flows that change.")
@click.option("--destroy", is_flag=True, help="Flows that end.")
@follow_options
def command(
    wanted: Filter,
    new: bool,
    update: bool,
    destroy: bool,
    buffer: int | None,
    **following: Any,
) -> None:
    """Show what happens to flows, as it happens.

    Text is the lines of conntrack -E, for both families; --json prints one object per line
    (NDJSON). Without --new, --update and --destroy it shows all three. If events come faster than
    they are read, the kernel drops some; a line on standard error, or an object, says how many.

    \b
    Examples:
      nlct events
      nlct events --zone 7 --new --destroy
      nlct events --proto tcp --dport 443 --timeout 60
      nlct events --json --count 1000 | jq -r .event | sort | uniq -c
    """
    kinds = [kind for kind, asked in zip(KINDS, (new, update, destroy)) if asked] or KINDS
    show(lambda ct: ct.events(*kinds, filter=wanted, buffer=buffer), _queued, **following)


def _queued(events: Events, as_json: bool) -> Iterator[Found]:
    return events.json(timeout=0) if as_json else events.text(timeout=0)
