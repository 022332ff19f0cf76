"""What was done, and every error that was met: expected and counted, or a violation."""

from __future__ import annotations

import errno
import threading
import traceback
from collections import Counter
from typing import Any, NamedTuple

import nlct


class Expected(NamedTuple):
    """An error that some operations may meet, and why."""

    kind: type[BaseException] | int
    operations: frozenset[str]
    reason: str

    def covers(self, operation: str, error: BaseException | int) -> bool:
        """Tell if it is this one."""
        if operation not in self.operations:
            return False
        if isinstance(self.kind, int):
            number = error.errno if isinstance(error, OSError) else error
            return number == self.kind
        return isinstance(error, self.kind)


DUMPS = frozenset(
    (
        *("dump", "dump text", "batches", "table", "count by", "count", "dry run", "delete flows"),
        *("mirror own", "mirror count"),
    )
)
EXPECTED = (
    Expected(nlct.TableFullError, frozenset(("create", "change")), "the table is at its limit"),
    Expected(nlct.ExistsError, frozenset(("create", "change")), "random flows meet"),
    Expected(nlct.NotFoundError, frozenset(("change",)), "others flush its zone"),
    Expected(nlct.InterruptedDumpError, DUMPS, "the hash table was resized"),
    Expected(
        errno.ENOMEM, frozenset(("load", "refill", "mirror own")), "the table is at its limit"
    ),
    Expected(errno.EEXIST, frozenset(("load", "refill")), "others have created the same"),
    Expected(errno.EEXIST, frozenset(("mirror own",)), "it was left there"),
    Expected(errno.ECANCELED, frozenset(("close",)), "its Flusher was closed without waiting"),
    Expected(ValueError, frozenset(("close",)), "it asked after the close"),
    Expected(TimeoutError, frozenset(("talk",)), "a flush or the limit silences a connection"),
    Expected(OSError, frozenset(("talk",)), "so does a reset"),
)


def name_of(error: BaseException | int) -> str:
    """Return the name of an error."""
    number = error if isinstance(error, int) else getattr(error, "errno", None)
    if isinstance(error, int) or type(error) in (nlct.Error, OSError):
        return errno.errorcode.get(number or 0, str(number))
    return type(error).__name__


class Tally:
    """Counters for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, Counter[str]] = {}
        self._violations: list[str] = []

    def count(self, what: str, name: str, number: int = 1) -> None:
        """Count: ``what`` is "operations", "errors", "flows" or "events"."""
        with self._lock:
            self._counts.setdefault(what, Counter())[name] += number

    def error(self, operation: str, error: BaseException | int, number: int = 1) -> None:
        """Count an error that is expected here; any other is a violation."""
        self.count("errors", f"{operation}: {name_of(error)}", number)
        if any(each.covers(operation, error) for each in EXPECTED):
            return
        text = name_of(error)
        if isinstance(error, BaseException):
            text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self.violation(f"{operation}: {text[-2500:]}")

    def violation(self, text: str) -> None:
        """Something that must not be."""
        with self._lock:
            self._violations.append(text)

    def take(self) -> dict[str, Any]:
        """Return what was counted so far, and begin anew."""
        with self._lock:
            counts, self._counts = self._counts, {}
            violations, self._violations = self._violations, []
        return {"counts": counts, "violations": violations}

    def add(self, taken: dict[str, Any]) -> None:
        """Add what another tally has counted."""
        for what, counts in taken["counts"].items():
            for name, number in counts.items():
                self.count(what, name, number)
        for text in taken["violations"]:
            self.violation(text)

    def counts(self, what: str) -> dict[str, int]:
        """Return the counters of one sort."""
        with self._lock:
            return dict(sorted(self._counts.get(what, {}).items()))

    @property
    def violations(self) -> list[str]:
        """What must not be, so far."""
        with self._lock:
            return list(self._violations)
