"""The only importer of the compiled module."""

from __future__ import annotations

from nlct._nlct import ffi, lib

__all__ = ["ffi", "lib", "text"]


def text(pointer: ffi.CData) -> str:
    """Copy a C string."""
    return bytes(ffi.string(pointer)).decode(errors="replace")
