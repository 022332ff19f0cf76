"""What every test may use: a scratch network namespace of its own, and its conntrack table."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import nlct


@pytest.fixture
def netns() -> Iterator[nlct.Netns]:
    """A scratch network namespace; without root it comes with a user namespace."""
    try:
        scratch = nlct.Netns.scratch()
    except PermissionError as exc:
        pytest.skip(f"MISSING: no network namespace can be had here: {exc}")
    with scratch:
        yield scratch


@pytest.fixture
def ct(netns: nlct.Netns) -> Iterator[nlct.Conntrack]:
    """The empty table of a scratch namespace."""
    with nlct.Conntrack(netns) as conntrack:
        yield conntrack
