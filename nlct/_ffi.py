"""The only importer of the compiled module."""

from __future__ import annotations

from typing import Any, Callable

from nlct._nlct import ffi, lib

__all__ = ["descriptor", "ffi", "lib", "own", "slot", "text"]


def text(pointer: ffi.CData) -> str:
    """Copy a C string."""
    return bytes(ffi.string(pointer)).decode(errors="replace")


def slot(kind: str, free: Callable[[ffi.CData], None], initial: Any = None) -> ffi.CData:
    """Make room for what a function of the core is to put there, freed with its last reference.

    The owner exists before the call, so an exception that a signal handler raises right behind the
    call loses nothing. ``free`` is a function of the core, in which no signal handler runs.
    """
    return ffi.gc(ffi.new(kind, initial), free)


def descriptor() -> ffi.CData:
    """Make room for a descriptor."""
    return slot("int *", lib.nlct_fd_close, -1)


def own(sink: ffi.CData) -> ffi.CData:
    """Free a sink with its last reference."""
    if sink == ffi.NULL:
        raise MemoryError
    return ffi.gc(sink, lib.nlct_sink_free)
