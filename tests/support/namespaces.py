"""Network namespaces for tests, and where a thread is."""

from __future__ import annotations

import os

import pytest

import nlct


def scratch() -> nlct.Netns:
    """Make a namespace; skip where none may be made."""
    try:
        return nlct.Netns.scratch()
    except PermissionError as exc:
        pytest.skip(f"MISSING: no network namespace can be had here: {exc}")


def where_am_i() -> tuple[str, str]:
    """The namespaces of the calling thread."""
    return (
        os.readlink("/proc/thread-self/ns/net"),
        os.readlink("/proc/thread-self/ns/user"),
    )
