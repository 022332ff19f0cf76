"""Changing every flow that matches, in one dump."""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Union

from nlct import _check, _reasons
from nlct import labels as label_names
from nlct._dump import MAX_DUMPS, Progress, dump, require, undisturbed
from nlct._ffi import ffi, lib, new_sink
from nlct._fields import status_names
from nlct._handle import Handle, refused
from nlct.enums import Status
from nlct.errors import errno_names
from nlct.filter import Filter
from nlct.flow import Flow, Tuple, pointers

# A value, or the value of the bits in a mask.
Masked = Union[int, "tuple[int, int]"]
# These too, or the names of bits.
MaskedNames = Union[Masked, str, "list[str]", "set[str]", "frozenset[str]"]
Names = Union[int, str, "list[str]", "set[str]", "frozenset[str]"]

# Bits of the status that every flow can get.
SETTABLE_BITS = Status.SEEN_REPLY | Status.ASSURED | Status.FIXED_TIMEOUT | Status.HELPER
_MARK_BITS = 32
_LABEL_BITS = 128
_WORD = 2**64 - 1


class UpdateResult(NamedTuple):
    """What update_all() did.

    ``scanned``: flows that the kernel sent to be looked at. ``matched``: flows among them that were
    to be changed. Each of these counts in one of the next four.
    ``updated``: flows that the kernel confirmed to have changed.
    ``unchanged``: flows that had all this already, or can have none of it, see ``dropped``; nothing
    was sent.
    ``already_gone``: flows that vanished in between.
    ``failed``: how many the kernel refused, by errno: ENOSPC for labels where no rule uses labels,
    EBUSY for ASSURED without SEEN_REPLY or a helper of a flow with another, EPERM for the timeout
    of a flow with FIXED_TIMEOUT, EOPNOTSUPP for a helper.
    ``dropped``: by field, "mark" or "timeout", how many flows have none and so cannot get one: the
    kernel was built without marks, or the flow is offloaded.
    ``passes``: how many dumps it took; more than one if resizes disturbed them, and then the counts
    are of all of them. ``seconds``: how long it took.
    ``complete``: all that matched is as it should be: nothing failed or was dropped, and no resize
    of the table disturbed the last dump. After a dry run: nothing matched.
    """

    scanned: int
    matched: int
    updated: int
    unchanged: int
    already_gone: int
    failed: Mapping[int, int]
    dropped: Mapping[str, int]
    passes: int = 1
    seconds: float = 0.0
    complete: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return {**self._asdict(), "failed": errno_names(self.failed)}


def _masked(name: str, given: Masked, bits: int) -> tuple[int, int]:
    """Return value and mask. Raises ValueError for bits outside of the mask."""
    highest = 2**bits - 1
    pair = given if isinstance(given, tuple) else (given, highest)
    if len(pair) != 2:
        raise TypeError(f"{name} must be a value or a pair (value, mask), not {given!r}")
    value = _check.integer(name, pair[0], 0, highest)
    mask = _check.integer(f"the mask of {name}", pair[1], 1, highest)
    if value & ~mask:
        raise ValueError(f"{name} {value:#x} has bits outside of its mask {mask:#x}")
    return value, mask


def _labels(given: MaskedNames) -> Masked:
    """Replace names by their bits, to be set beside the others."""
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, (list, set, frozenset)):
        return names
    bits = 0
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"labels must be bits, a pair (bits, mask), or names, not {given!r}")
        bits |= 1 << label_names.number(name)
    return bits, bits


class Change:
    """What is to become of each flow, checked: a ``struct nlct_change``."""

    def __init__(
        self,
        mark: Masked | None,
        timeout: int | None,
        labels: MaskedNames | None,
        status: Names | None,
        helper: str | None,
    ) -> None:
        self.c = ffi.new("struct nlct_change *")
        values: dict[str, Any] = {}
        if mark is not None:
            values["mark"], self.c.mark_mask = _masked("mark", mark, _MARK_BITS)
        if labels is not None:
            values["labels"], mask = _masked("labels", _labels(labels), _LABEL_BITS)
            self.c.labels_mask = [mask & _WORD, mask >> 64]
        if timeout is not None:
            values["timeout"] = _check.integer("timeout", timeout, 1, 2**32 - 1)
        if status is not None:
            values["status"] = _settable(status)
        if helper is not None:
            _reasons.refuse_no_helper(helper)
            values["helper"] = helper
        if not values:
            raise ValueError("nothing to change: name it, as in update_all(filter, mark=7)")
        row, _ = pointers(Flow(Tuple(), **values))
        self.c.to = row[0]


def _settable(status: Names) -> int:
    able = status_names(int(SETTABLE_BITS))
    wanted = 0
    for item in status if isinstance(status, (list, set, frozenset)) else [status]:
        bit = Status.__members__.get(item.upper()) if isinstance(item, str) else item
        if bit is None:
            raise ValueError(f"status must be bits or names of {', '.join(able)}, not {item!r}")
        wanted |= _check.integer("status", bit, 1, 2**32 - 1)
    if not wanted & int(SETTABLE_BITS) or wanted & ~int(SETTABLE_BITS):
        wrong = ", ".join(status_names(wanted & ~int(SETTABLE_BITS))) or repr(status)
        raise ValueError(
            f"status must be of the bits {', '.join(able)}, which can be set, not {wrong}"
        )
    return wanted


def update_all(
    handle: Handle, wanted: Filter, change: Change, dry_run: bool, progress: Progress | None
) -> UpdateResult:
    """Change every flow that matches, see Conntrack.update_all()."""
    _check.function("progress", progress)
    started = time.monotonic()
    require(handle, wanted.zone)
    if wanted.matches_nothing:
        result = UpdateResult(0, 0, 0, 0, 0, {}, {}, passes=0)
    elif dry_run:
        made = undisturbed(handle, wanted, "update_all", progress=progress)
        result = UpdateResult(
            made.scanned, made.matched, 0, 0, 0, {}, {}, complete=not made.matched
        )
    else:
        result = _update(handle, wanted, change, progress)
    return result._replace(seconds=time.monotonic() - started)


def _update(
    handle: Handle, wanted: Filter, change: Change, progress: Progress | None
) -> UpdateResult:
    said = ffi.new("struct nlct_updated *")
    scanned = matched = passes = 0
    disturbed = True
    # To set the same again harms nothing, so a dump that a resize has disturbed is repeated.
    while disturbed and passes < MAX_DUMPS:
        with dump(handle, wanted) as made, handle.pool.lend() as sock:
            sink = new_sink(lib.nlct_updates_new, sock.handle, change.c, said)
            for _ in made.steps(sink):
                if progress is not None:
                    progress(scanned + made.scanned)
        scanned += made.scanned
        matched += made.matched
        passes += 1
        disturbed = made.disturbed
    failed = refused(said.tally)
    gone = failed.pop(errno.ENOENT, 0)
    dropped = {"mark": int(said.no_mark), "timeout": int(said.no_timeout)}
    dropped = {name: count for name, count in dropped.items() if count}
    return UpdateResult(
        scanned=scanned,
        matched=matched,
        updated=int(said.tally.done),
        unchanged=int(said.unchanged),
        already_gone=gone,
        failed=failed,
        dropped=dropped,
        passes=passes,
        complete=not (disturbed or failed or dropped),
    )
