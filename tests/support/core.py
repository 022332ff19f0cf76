"""The compiled core with some functions replaced: answers that this kernel never gives."""

from __future__ import annotations

from nlct._ffi import lib


class Lib:
    """The core, but for some functions."""

    def __init__(self, **functions: object) -> None:
        self.__dict__.update(functions)

    def __getattr__(self, name: str) -> object:
        return getattr(lib, name)
