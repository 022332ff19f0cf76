"""Lines of values, which the core writes: JSON, and columns as words with tabs between."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from nlct._ffi import ffi, lib, new_sink
from nlct._fields import FIELDS, FLOW_FIELDS, MEMBERS, Field, NumberField, status_names
from nlct.flow import ALWAYS, Flow, pointers

# Room for a message's worth of bytes that are escaped.
SIZE = 1 << 19


class _Item(NamedTuple):
    """A ``struct nlct_item``; see there. ``worded``: show words for numbers."""

    field: Field
    name: str = ""
    absent: str = ""
    worded: bool = True
    inner: int = 0


class Values:
    """Collects flows as lines, in the core.

    ``columns``: their names; None is the whole flow, which only JSON can have.
    ``event``: of a whole flow, "event" comes first, as in Event.to_dict().
    """

    def __init__(
        self, columns: Iterable[str] | None = None, *, json: bool, event: bool = False
    ) -> None:
        if columns is not None:
            items = [_column(FIELDS[name], json) for name in columns]
        else:
            items = list(_whole(event))
        # The core points into these.
        self._texts = [
            (ffi.new("char[]", one.name.encode()), ffi.new("char[]", one.absent.encode()))
            for one in items
        ]
        self._words = [_words(one.field.name) if one.worded else ffi.NULL for one in items]
        self._buffer = ffi.new("char[]", SIZE)
        made = [
            (one.field.number, one.inner, *texts, words)
            for one, texts, words in zip(items, self._texts, self._words)
        ]
        given = ffi.new("struct nlct_item[]", made)
        self.sink = new_sink(lib.nlct_values_new, given, len(made), json, self._buffer, SIZE)

    def add(self, flow: Flow) -> None:
        """Collect a flow that is in memory."""
        if lib.nlct_values_add(self.sink[0], *pointers(flow)):
            raise ValueError("the flow is too long for a line")

    def take(self) -> bytes:
        """Return what was collected, and start anew."""
        return bytes(ffi.buffer(self._buffer, lib.nlct_values_take(self.sink[0])))


def _column(field: Field, json: bool) -> _Item:
    if json:
        return _Item(field, f'"{field.name}": ', f'"{field.name}": null')
    return _Item(field, absent="-")


def _whole(event: bool) -> Iterator[_Item]:
    """Yield what Flow.to_dict() has, in its order."""
    if event:
        yield _key("event")
    yield _Item(FIELDS["proto"], '"protocol": ', '"protocol": null')
    yield from _tuple("orig", '"orig": null')
    yield from _tuple("reply", '"reply": null')
    yield _key("zone")
    for name in FLOW_FIELDS:
        if not (event and name == "event"):
            yield _key(name, f'"{name}": null' if name in ALWAYS else "")
    yield from _tuple("master")


def _key(name: str, absent: str = "") -> _Item:
    return _Item(FIELDS[name], f'"{name}": ', absent)


def _tuple(part: str, absent: str = "") -> Iterator[_Item]:
    """Yield an object, and the keys that are in it."""
    inner = [field for field in FIELDS.values() if field.part == part]
    # As MEMBERS has them.
    inner.sort(key=lambda field: list(MEMBERS).index(field.member))
    yield _Item(inner[0], f'"{part}": {{', absent, worded=False, inner=len(inner))
    for field in inner:
        yield _Item(field, f'"{field.member}": ', worded=False)


@functools.cache
def _words(name: str) -> Any:
    """Return the ``struct nlct_word[]`` of a field, NULL if it is shown as it is."""
    field = FIELDS[name]
    if name == "status":
        words = [status_names(1 << bit)[0] for bit in range(32)]
    elif isinstance(field, NumberField) and field.words:
        words = [str(field.plain(value)) for value in range(field.highest + 1)]
    else:
        return ffi.NULL
    return ffi.new("struct nlct_word[]", [(word.encode(), len(word)) for word in words])
