"""What a flush did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from nlct.errors import errno_names


class FlushResult(NamedTuple):
    """What a flush did.

    ``scanned``: flows that the kernel sent to be looked at.
    ``matched``: flows among them that were to be deleted; of delete_flows(), flows that were given.
    ``deleted``: flows that the kernel confirmed to have deleted.
    ``already_gone``: flows that vanished by themselves in between, or made way for a new flow with
    another id, which stays. The kernel derives the id from the entry's place in memory and its
    tuple. So a flow that is reborn with the same tuple in the same place cannot be told from the
    old one.
    ``failed``: how many flows could not be deleted, by errno.
    ``strategy``: "scan" (dump, match, delete by id), "kernel" (one request a zone),
    "scan+kernel" if the kernel did the rest of a scan, or "flows" (delete by id, without a dump).
    ``passes``: how many dumps and kernel flushes it took. ``seconds``: how long it took.
    ``complete``: every flow that matched is gone: no delete failed, and no resize of the table
    disturbed the last dump. After a dry run: nothing matched.

    The kernel's own flush reports nothing but success: then ``scanned``, ``matched`` and
    ``deleted`` are None.
    """

    scanned: int | None
    matched: int | None
    deleted: int | None
    already_gone: int
    failed: Mapping[int, int]
    strategy: str = "scan"
    passes: int = 1
    seconds: float = 0.0
    complete: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return {**self._asdict(), "failed": errno_names(self.failed)}


def nothing_to_do() -> FlushResult:
    """Return the result of a flush that needed no dump."""
    return FlushResult(0, 0, 0, 0, {}, passes=0)
