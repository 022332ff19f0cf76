"""Dumps of flows that are not just those of the table: ``nlct dump --list`` and ``--zero``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable

from nlct.cli.app import Failure
from nlct.cli.formats import Job
from nlct.cli.output import STANDARD_OUTPUT, errnos_word, flows_word, named
from nlct.cli.signals import unstoppable
from nlct.flow import Flow
from nlct.zero import Zeroing

# Some hundredths of a second.
ROWS = 4096


def unlisted(as_json: bool, which: str, job: Job) -> None:
    """Write the flows of one of the kernel's other lists."""
    found = job.ct.dying(job.wanted) if which == "dying" else job.ct.unconfirmed(job.wanted)
    _write(found, as_json, job)


def zeroed(as_json: bool, job: Job) -> None:
    """Write flows as they were, and zero their counters.

    A signal waits until what was zeroed is written. A second one does not: the reader may have
    stopped reading.
    """
    zeroing = job.ct.zero_counters(job.wanted, rows=ROWS)
    with unstoppable(at_most_once=True) as came, zeroing:
        try:
            for table in zeroing:
                _write(table, as_json, job)
                job.bar.at(zeroing.scanned)
                if came:
                    break
        finally:
            # Of a batch that failed.
            _write(zeroing.take(), as_json, job)
            with named(STANDARD_OUTPUT):
                sys.stdout.flush()
    if not zeroing.complete:
        raise Failure("not complete: " + _trouble(zeroing))


def _write(flows: Iterable[Flow], as_json: bool, job: Job) -> None:
    name = job.netns
    for flow in flows:
        if as_json:
            said = flow.to_dict() if name is None else {"netns": name, **flow.to_dict()}
            line = json.dumps(said)
        else:
            line = str(flow) if name is None else f"{name}: {flow}"
        job.out.write(line.encode() + b"\n")


def _trouble(zeroing: Zeroing) -> str:
    if zeroing.failed:
        return "counters not set to zero: " + errnos_word(zeroing.failed)
    if zeroing.lost:
        return f"the counters of {flows_word(zeroing.lost)} are lost"
    return "the table was resized meanwhile, so some flows may be left"
