"""The only importer of the compiled module."""

from __future__ import annotations

from nlct._nlct import ffi, lib

__all__ = ["ffi", "lib", "own", "text"]


def text(pointer: ffi.CData) -> str:
    """Copy a C string."""
    return bytes(ffi.string(pointer)).decode(errors="replace")


def own(sink: ffi.CData) -> ffi.CData:
    """Free a sink with its last reference."""
    if sink == ffi.NULL:
        raise MemoryError
    return ffi.gc(sink, lib.nlct_sink_free)
