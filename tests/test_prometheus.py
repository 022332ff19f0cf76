"""A real Prometheus scrapes the exporter: its rules are evaluated, and no panel stays empty."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="MISSING: prometheus_client, of nlct[exporter]")

from prometheus_client import CollectorRegistry

import nlct
from nlct.exporter import FlushCollector, Server, TableCollector
from nlct.fill import fill
from tests.support.metrics import CONTRIB, program

LONG = 60.0
CONFIGURATION = """
global: {{scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 250ms}}
rule_files: [{rules}]
scrape_configs:
  - job_name: nlct
    static_configs: [targets: ["{target}"]]
"""
# What Grafana puts in the place of variables.
VARIABLES = {"$netns": ".*", "$instance": ".*", "$__rate_interval": "10s"}


class Prometheus:
    """A server of our own. ``url``: where it answers."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, path: str, **parameters: str) -> Any:
        """Ask the HTTP API."""
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=LONG) as answer:
            found = json.load(answer)
        assert found["status"] == "success"
        return found["data"]

    def query(self, expression: str) -> list[Any]:
        """Evaluate an expression now."""
        return list(self.ask("query", query=expression)["result"])


@pytest.fixture
def prometheus(netns: nlct.Netns, ct: nlct.Conntrack, tmp_path: Path) -> Iterator[Prometheus]:
    """One that scrapes a process that flushes, four times a second."""
    found = program("prometheus")
    registry = CollectorRegistry()
    fill(ct, flows=100, zones=10)
    tables = TableCollector(
        f"/proc/self/fd/{netns.fileno()}", by=["zone", "proto", "state"], interval=1, mirror=True
    )
    with tables, FlushCollector() as flushes, Server(registry, "127.0.0.1", 0) as server:
        registry.register(tables)
        registry.register(flushes)
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        configuration = tmp_path / "prometheus.yml"
        rules, target = CONTRIB / "prometheus/nlct.rules.yml", f"127.0.0.1:{server.server_port}"
        configuration.write_text(CONFIGURATION.format(rules=rules, target=target))
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = "127.0.0.1:{1}".format(*free.getsockname())
        words = [found, f"--config.file={configuration}", f"--storage.tsdb.path={tmp_path}/data"]
        with open(tmp_path / "log", "wb") as log:
            started = subprocess.Popen(
                [*words, f"--web.listen-address={address}"], stdout=log, stderr=log, cwd=tmp_path
            )
        try:
            yield Prometheus(f"http://{address}")
        finally:
            started.kill()
            started.wait()
            server.shutdown()
            serving.join()


def expressions() -> dict[str, list[str]]:
    """The queries of the dashboard, by the title of their panel."""
    text = (CONTRIB / "grafana/nlct.json").read_text()
    panels = json.loads(text)["panels"]
    found = {
        panel["title"]: [target["expr"] for target in panel["targets"]]
        for panel in panels
        if panel["type"] != "row"
    }
    assert len(found) == sum(panel["type"] != "row" for panel in panels), "a title comes twice"
    return found


def put_in(expression: str) -> str:
    """Put values in the place of variables."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


# It takes longer than the rest together; `make test` has promtool judge metrics and rules.
@pytest.mark.exhaustive
def test_it_is_scraped_and_every_panel_has_data(prometheus: Prometheus, ct: nlct.Conntrack) -> None:
    """By each query of the dashboard, with the values that the table has."""
    ct.flush_zone(1, strategy="scan")
    with pytest.raises(nlct.UnsupportedError):
        ct.delete(nlct.Filter(mark=1), strategy="kernel")
    left = {
        f"{title}: {each}": put_in(each) for title, all_ in expressions().items() for each in all_
    }
    deadline = time.monotonic() + LONG
    while left:
        assert time.monotonic() < deadline, f"no answer to {left}"
        # Only what happens between two scrapes has a rate and a quantile.
        ct.flush_zone(1, strategy="scan")
        try:
            left = {name: each for name, each in left.items() if not _has_numbers(prometheus, each)}
        except OSError:
            # It is about to start.
            time.sleep(0.1)
    assert {each["value"][1] for each in prometheus.query("sum(nlct_flows_by_zone)")} == {"90"}
    assert {each["value"][1] for each in prometheus.query("nlct_entries")} == {"90"}
    ((fill_ratio,),) = [[each] for each in prometheus.query("nlct:table_fill:ratio")]
    assert float(fill_ratio["value"][1]) == pytest.approx(90 / ct.limit)
    groups = prometheus.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    written = (CONTRIB / "prometheus/nlct.rules.yml").read_text()
    assert len(rules) == len(re.findall(r"^ +- (?:alert|record):", written, re.MULTILINE)) > 5
    assert {rule["health"] for rule in rules} == {"ok"}
    # Nothing is wrong but what we did: a flush that failed.
    firing = {rule["name"] for rule in rules if rule.get("state") not in (None, "inactive")}
    assert firing <= {"ConntrackFlushesFail"}
    for label in ("instance", "netns"):
        assert prometheus.ask(f"label/{label}/values")


def _has_numbers(prometheus: Prometheus, expression: str) -> bool:
    """Tell if the answer has anything, and nothing that is not a number."""
    values = [each["value"][1] for each in prometheus.query(expression)]
    return bool(values) and "NaN" not in values
