"""Guards for arguments: clear errors that name argument and range, before anything is sent."""

from __future__ import annotations

import operator


def integer(name: str, value: object, low: int, high: int) -> int:
    """Return a whole number in range; True is not a number here."""
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer from {low} to {high}, not {value!r}")
    number = int(operator.index(value))
    if not low <= number <= high:
        raise ValueError(f"{name} must be from {low} to {high}, not {number}")
    return number


def function(name: str, value: object) -> None:
    """Refuse what cannot be called; None is no function."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable, not {value!r}")


def optional(name: str, value: object, low: int, high: int) -> int | None:
    """Like integer(), but None stays None."""
    return None if value is None else integer(name, value, low, high)


def seconds(name: str, value: object, least: int = 0) -> float:
    """Return a time in seconds, that or more."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not least <= value < float("inf"):
        raise ValueError(f"{name} must be {least} or more seconds, not {value!r}")
    return float(value)


U16 = 0xFFFF
U32 = 0xFFFFFFFF
