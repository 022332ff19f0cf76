"""The limit of the table, nf_conntrack_max: raised for a while, and put back whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

import nlct

LIMIT = Path("/proc/sys/net/netfilter/nf_conntrack_max")


def how_to_raise(flows: int) -> str:
    """Say how to make room for so many flows."""
    return f"sysctl -w net.netfilter.nf_conntrack_max={flows}"


@contextmanager
def room(ct: nlct.Conntrack, flows: int) -> Iterator[int]:
    """Make room for so many flows where we may; yield how many fit."""
    # A limit of 0 is none.
    if not ct.limit or ct.limit >= flows:
        yield flows
        return
    before = _read_limit()
    try:
        if before is not None and _write_limit(flows):
            _note(f"nf_conntrack_max raised from {before} to {flows} for the time of the demo")
        else:
            _note(
                f"nf_conntrack_max is {ct.limit}, and only root in the initial namespace may "
                f"raise it ({how_to_raise(flows)}): measuring with as many flows as fit"
            )
        yield min(flows, ct.limit or flows)
    finally:
        # Whoever changed it meanwhile had a reason.
        if before is not None and _read_limit() == flows and _write_limit(before):
            _note(f"nf_conntrack_max put back to {before}")


def _read_limit() -> int | None:
    try:
        return int(LIMIT.read_text())
    except OSError:
        return None


def _write_limit(value: int) -> bool:
    try:
        LIMIT.write_text(f"{value}\n")
    except OSError:
        return False
    return True


def _note(text: str) -> None:
    click.echo(text, err=True)
