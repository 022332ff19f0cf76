"""Telling the child of a fork from its parent, also after forks by C code and with equal ids."""

from __future__ import annotations

import mmap
import os

# mmap.MADV_WIPEONFORK, which not every Python names.
_WIPE_ON_FORK = 18
# Forks on the way from the process that imported this to the one that asks.
_forks = 0


def _marked() -> mmap.mmap | None:
    """Make a page that the kernel clears in a child; None where it does not know how (4.14)."""
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        page.madvise(_WIPE_ON_FORK)
    except OSError:
        return None
    page[0] = 1
    return page


_page = _marked()


def _after_fork() -> None:
    global _forks  # noqa: PLW0603
    if _page is not None and _page[0]:
        return
    _forks += 1
    if _page is not None:
        _page[0] = 1


# The page tells of forks by other libraries, too.
os.register_at_fork(after_in_child=_after_fork)


def process() -> tuple[int, int]:
    """Return what tells this process from its parent and from its children.

    Not the process id alone: parent and child may both be number 1 of a pid namespace.
    """
    if _page is not None and not _page[0]:
        _after_fork()
    return _forks, os.getpid()
