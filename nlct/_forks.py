"""Telling the child of a fork from its parent, also where both have the same process id."""

from __future__ import annotations

import os

# Forks on the way from the process that imported this to the one that asks.
_forks = 0


def _after_fork() -> None:
    global _forks  # noqa: PLW0603
    _forks += 1


os.register_at_fork(after_in_child=_after_fork)


def process() -> tuple[int, int]:
    """Return what tells this process from its parent and from its children.

    The count of forks, since a process and its child may both be number 1 of a pid namespace; the
    process id, since a library may fork without a word to Python.
    """
    return _forks, os.getpid()
