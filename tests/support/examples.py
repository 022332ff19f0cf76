"""How much of what could be tried a test tries: which parameters, and which random examples.

Of the examples, the profile of Hypothesis decides:

"few"   a few, the same each time: `make test`, and on other kernels
"many"  more than half of what the test says, the same each time: `.ci/run`
"new"   as many as the test says, new ones each time: `make check`

What decides about a change always draws the same, so that no change fails by another's bad luck.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest
from hypothesis import settings


def register() -> None:
    """Make the profiles known, and use "few" until --hypothesis-profile says otherwise."""
    # max_examples: of a hundred examples that a test asks for, so many.
    settings.register_profile("few", derandomize=True, deadline=None, max_examples=20)
    settings.register_profile("many", derandomize=True, deadline=None, max_examples=60)
    settings.register_profile("new", deadline=None, max_examples=100, print_blob=True)
    settings.load_profile("few")


def examples(number: int) -> settings:
    """Settings for so many examples, fewer where the profile says so."""
    return settings(max_examples=max(number * settings().max_examples // 100, 3))


def telling(values: Iterable[Any], few: Collection[Any]) -> list[Any]:
    """Parameters: a telling few for `make test`, and the rest for `make check`."""
    every = list(values)
    assert all(each in every for each in few), "the few are not among them"
    rest = pytest.mark.exhaustive
    return [each if each in few else pytest.param(each, marks=rest) for each in every]
