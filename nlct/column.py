"""One field of many flows."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, overload

from nlct._fields import CODES, FIELDS, NumberField, column_reader

if TYPE_CHECKING:
    import numpy


class _Table(Protocol):
    """What is needed of a FlowTable, which itself offers columns to its users."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __contains__(self, name: str) -> bool: ...
    def __getitem__(self, row: Any, /) -> Any: ...
    def column(self, name: str) -> memoryview: ...
    def valid(self, name: str) -> memoryview | None: ...


class Column(Sequence[Any]):
    """A column of a FlowTable: the value of each flow, as a Flow has it; None where it is absent.

    ``numpy()`` gives all values at once; ``numpy.asarray()`` and pandas take the column itself.
    It keeps its own values alive, not the whole table.
    """

    def __init__(self, name: str, table: _Table) -> None:
        self.name = name
        self._table = table
        self._read = column_reader(name)

    def __len__(self) -> int:
        """Return the number of flows."""
        return len(self._table)

    @overload
    def __getitem__(self, row: int) -> Any: ...

    @overload
    def __getitem__(self, row: slice) -> Column: ...

    def __getitem__(self, row: int | slice) -> Any:
        """Return one flow's value, or those of a slice in steps of one as a column.

        Raises IndexError and ValueError as the table does.
        """
        if isinstance(row, slice):
            return Column(self.name, self._table[row])
        return self._read(self._table[row])

    def __iter__(self) -> Iterator[Any]:
        return map(self._read, self._table)

    def __repr__(self) -> str:
        return f"<nlct.column.Column {self.name!r}: {len(self):,} flows>"

    def __eq__(self, other: object) -> NoReturn:
        # "False" would be taken for a row's number where a mask is meant.
        raise TypeError("compare the values: .numpy() == ..., or list() of the column")

    __hash__ = None  # type: ignore[assignment]

    def numpy(self) -> numpy.ndarray[Any, Any]:
        """Return the values as an array.

        Numbers, enumerations among them, are the kernel's, of the field's size, and not copied.
        If some are absent, it is a ``numpy.ma.MaskedArray`` that masks these. Addresses, labels,
        text and bytes are objects, None where absent. Raises ImportError without NumPy.
        """
        np = _numpy()
        field = FIELDS[self.name]
        if not isinstance(field, NumberField):
            found = np.empty(len(self), object)
            found[:] = list(self)
        elif self.name not in self._table:
            found = np.ma.masked_all(len(self), CODES[field.size])
        else:
            found = np.asarray(self._table.column(self.name))
            valid = self._table.valid(self.name)
            if valid is not None:
                found = np.ma.MaskedArray(found, mask=np.frombuffer(valid, np.uint8) == 0)
        array: numpy.ndarray[Any, Any] = found
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Return what numpy() does; with None where a number is absent, as objects."""
        np = _numpy()
        found = self.numpy()
        if isinstance(found, np.ma.MaskedArray):
            absent, found = found.mask, found.data.astype(object)
            found[absent] = None
        return np.array(found, dtype) if copy else np.asarray(found, dtype)


def _numpy() -> Any:
    try:
        return importlib.import_module("numpy")
    except ImportError as exc:
        raise ImportError("arrays need NumPy: pip install numpy") from exc
