"""What this process holds: what malloc(3) gave it, and what is resident."""

from __future__ import annotations

import ctypes


class _Mallinfo(ctypes.Structure):
    """What mallinfo2(3) of glibc returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


_mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
if _mallinfo is not None:
    _mallinfo.restype = _Mallinfo

# Does the C library say what is allocated?
TELLS = _mallinfo is not None


def allocated() -> int:
    """Return the bytes that are allocated with malloc(3); 0 where the C library does not say."""
    if _mallinfo is None:
        return 0
    info = _mallinfo()
    return int(info.uordblks + info.hblkhd)


def resident() -> int:
    """Return the memory of this process in KiB, to the page; statm lags behind by many pages."""
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Anonymous:"))
