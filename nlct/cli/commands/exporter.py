"""``nlct exporter``."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import click

from nlct.cli.app import Command
from nlct.cli.files import written
from nlct.cli.options import (
    Once,
    file_names,
    files,
    netns_names,
    number_option,
    seconds_option,
)
from nlct.cli.output import note
from nlct.cli.signals import stoppable

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

PORT, LAST_PORT = 9989, 65535
# A day between two dumps.
LONGEST = 86400
# A signal that comes between Python's last check and a wait does not end it.
LONGEST_WAIT = 0.5
# A mask with which node_exporter, which is another user, can read a new file.
READABLE = 0o022


class Address(NamedTuple):
    """Where to listen; without a host, on every address."""

    host: str
    port: int


def _addresses(
    _ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]
) -> tuple[Address, ...]:
    return tuple(map(_address, given))


def _address(text: str) -> Address:
    found = re.fullmatch(r"(?:\[([^\[\]\s]+)\]|([^:\[\]\s]*)):([0-9]{1,5})", text)
    if found is None or int(found[3]) > LAST_PORT:
        raise click.BadParameter(
            f"it is ADDRESS:PORT, an IPv6 address in brackets, the port from 0 to {LAST_PORT}, "
            f"not {text!r}: for example 127.0.0.1:{PORT} or [::1]:{PORT}; "
            f":{PORT} is every address"
        )
    return Address(found[1] or found[2], int(found[3]))


def _textfiles(
    ctx: click.Context, param: click.Parameter, given: tuple[str, ...]
) -> tuple[str, ...]:
    for name in file_names(ctx, param, given):
        if not name.endswith(".prom"):
            raise click.BadParameter(f"{name!r} must end in .prom: node_exporter reads no other")
    return given


def _names(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    if "" in given:
        raise click.BadParameter("the name is empty")
    return given


def _breakdowns(
    _ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]
) -> tuple[str, ...]:
    from nlct.exporter import Breakdown  # noqa: PLC0415 - its library is an extra

    try:
        for text in given:
            Breakdown.read(text)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None
    return given


@click.command("exporter", cls=Command)
@click.option(
    "--listen",
    cls=Once,
    metavar="ADDRESS:PORT",
    callback=_addresses,
    help=f"Serve /metrics there; without --textfile, 127.0.0.1:{PORT} is the default. "
    "IPv6 in brackets; :PORT is every address.",
)
@click.option(
    "--textfile",
    cls=Once,
    metavar="FILE",
    callback=_textfiles,
    shell_complete=files,
    help="Write FILE every --interval instead, for node_exporter's textfile collector; "
    "its name ends with .prom.",
)
@click.option(
    "--netns",
    metavar="NAME",
    multiple=True,
    callback=_names,
    shell_complete=netns_names,
    help="This network namespace: a name as `ip netns` shows it, or a path. May be repeated; "
    "it need not be there yet.",
)
@click.option(
    "--all-netns",
    is_flag=True,
    help="This one and all that `ip netns` shows, as they come and go.",
)
@click.option(
    "--by",
    metavar="FIELD[,FIELD...]",
    multiple=True,
    callback=_breakdowns,
    help="Count flows by up to three of zone, mark, proto and state (TCP's). May be repeated.",
)
@number_option(
    "--top", 1, 1_000_000, "Of each --by show the N largest, and the rest as other.", default=50
)
@seconds_option(
    "--interval",
    1,
    LONGEST,
    "Dump the table for --by so often, and write FILE.",
    default=15.0,
    show_default=True,
)
@click.option(
    "--mirror",
    is_flag=True,
    help="Listen to events: show the state of the mirror, and count by zone without a dump.",
)
def command(
    listen: Address | None,
    textfile: str | None,
    netns: tuple[str, ...],
    all_netns: bool,
    by: tuple[str, ...],
    top: int,
    interval: float,
    mirror: bool,
) -> None:
    """Show Prometheus what the kernel counts.

    A scrape reads the kernel's counters, and takes no dump. Counts by zone, mark, protocol or state
    are taken every --interval; metrics of flushes are those of the process that flushes, see
    nlct.exporter.

    \b
    Examples:
      nlct exporter
      nlct exporter --listen [::]:9989 --all-netns --by zone --by state
      nlct exporter --textfile /var/lib/prometheus/node-exporter/nlct.prom
    """
    from prometheus_client import CollectorRegistry  # noqa: PLC0415 - an extra

    from nlct.exporter import TableCollector  # noqa: PLC0415 - an extra

    if listen and textfile:
        raise click.UsageError("give --listen or --textfile, not both")
    _raise_limit()
    registry = CollectorRegistry()
    try:
        with (
            stoppable(),
            TableCollector(
                netns, all_netns=all_netns, by=by, top=top, interval=interval, mirror=mirror
            ) as tables,
        ):
            registry.register(tables)
            for name in tables.absent:
                note(f"nlct: there is no network namespace {name!r} yet")
            if textfile:
                _write(registry, textfile, interval)
            _serve(registry, listen or Address("127.0.0.1", PORT))
    except SystemExit:
        # A service that is told to stop has not failed.
        return


def _raise_limit() -> None:
    """Allow as many descriptors as may be: a namespace takes up to seven."""
    import resource  # noqa: PLC0415 - not for --help

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _serve(registry: CollectorRegistry, address: Address) -> None:
    """Serve until a signal comes."""
    from nlct.exporter import Server  # noqa: PLC0415 - an extra

    with Server(registry, *address) as server:
        note(f"nlct: serving {server.url}")
        server.serve_forever(LONGEST_WAIT)


def _write(registry: CollectorRegistry, path: str, interval: float) -> NoReturn:
    """Write the file, again and again, until a signal comes."""
    from prometheus_client import generate_latest  # noqa: PLC0415 - an extra

    before = os.umask(READABLE)
    was_written, told = False, ""
    try:
        while True:
            due = time.monotonic() + interval
            try:
                with written(path) as out:
                    out.write(generate_latest(registry))
            except OSError as exc:
                # A disk is not full for ever: until then the file is what it was.
                if not was_written:
                    raise
                if told != (told := f"nlct: {path}: {exc.strerror}"):
                    note(told)
            else:
                if not was_written:
                    note(f"nlct: writing {path} every {interval:g} s")
                was_written, told = True, ""
            while time.monotonic() < due:
                time.sleep(min(LONGEST_WAIT, max(0, due - time.monotonic())))
    finally:
        os.umask(before)
