"""The only importer of the compiled module."""

from __future__ import annotations

import errno
import os
from typing import Any, Callable

from nlct._nlct import ffi, lib

__all__ = ["NO_SINK", "descriptor", "ffi", "lib", "new_sink", "slot", "text"]


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
    return slot("struct nlct_fd *", lib.nlct_fd_close, {"fd": -1})


def new_sink(make: Callable[..., int], *arguments: Any) -> ffi.CData:
    """Make a sink, for as long as the ``struct nlct_sink **`` that is returned lives."""
    sink = slot("struct nlct_sink **", lib.nlct_sink_free)
    rc = make(sink, *arguments)
    if rc == -errno.ENOMEM:
        raise MemoryError
    if rc < 0:
        raise ValueError(f"a sink cannot be made of this: {os.strerror(-rc)}")
    return sink


# For a dump that feeds none.
NO_SINK = ffi.new("struct nlct_sink **")
