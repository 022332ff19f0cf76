"""Telling the child of a fork from its parent, also after forks by C code and with equal ids."""

from __future__ import annotations

import mmap
import os

# mmap.MADV_WIPEONFORK, which not every Python names.
_WIPE_ON_FORK = 18
# Forks on the way from the process that imported this to the one that asks.
_forks = 0


def _page() -> mmap.mmap | None:
    """Make a page that the kernel clears in a child; None where it does not know how (4.14)."""
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        page.madvise(_WIPE_ON_FORK)
    except OSError:
        return None
    page[0] = 1
    return page


# After so many forks the byte of that number is set. A child finds it cleared.
_marks = _page()


def _after_fork() -> None:
    global _forks  # noqa: PLW0603
    # The marks tell of forks by other libraries, too.
    if _marks is None:
        _forks += 1


os.register_at_fork(after_in_child=_after_fork)


def process() -> tuple[int, int]:
    """Return what tells this process from its parent and from its children.

    Not the process id alone: parent and child may both be number 1 of a pid namespace.
    """
    global _forks  # noqa: PLW0603
    while True:
        forks = _forks
        if _marks is None or _marks[forks % mmap.PAGESIZE]:
            return forks, os.getpid()
        # Threads that come here at the same time do the same.
        _marks[(forks + 1) % mmap.PAGESIZE] = 1
        _forks = forks + 1
