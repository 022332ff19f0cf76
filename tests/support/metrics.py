"""Metrics as a scrape returns them, and Prometheus' own programs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

ROOT = Path(__file__).parent.parent.parent
CONTRIB = ROOT / "contrib"

# A sample by its name and its labels, in their order.
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(text: str) -> Samples:
    """Read the text of a scrape; no series may come twice."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found, f"{key} came twice"
            found[key] = sample.value
    return found


def scrape(*collectors: Collector) -> Samples:
    """Collect, as text and back."""
    return read("".join(generate_latest(each).decode() for each in collectors))  # type: ignore[arg-type]


def named(samples: Samples, name: str) -> dict[tuple[str, ...], float]:
    """The samples of a name, by the values of their labels without ``netns``."""
    return {
        tuple(value for label, value in labels if label != "netns"): found
        for (each, labels), found in samples.items()
        if each == name
    }


def program(name: str) -> str:
    """Find one of Prometheus' programs, which tools/bootstrap unpacks; skip without."""
    found = shutil.which(name) or shutil.which(name, path=str(ROOT / "build/tools/usr/bin"))
    if found is None:
        pytest.skip(f"MISSING: {name}, which tools/bootstrap check brings")
    return found


def promtool(*args: str, given: str = "") -> None:
    """Run promtool, which must find nothing to say against it."""
    done = subprocess.run(
        [program("promtool"), *args],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, ""), (done.stdout, done.stderr)
