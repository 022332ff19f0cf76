"""Metrics for Prometheus. Needs prometheus_client, which ``pip install 'nlct[exporter]'`` brings.

Collectors that any process can register beside its own metrics::

    from prometheus_client import REGISTRY
    from nlct.exporter import FlushCollector, TableCollector

    REGISTRY.register(TableCollector())
    REGISTRY.register(FlushCollector())

A scrape never dumps a table. ``nlct exporter`` is this as a command.
"""

from nlct.exporter.flows import Breakdown
from nlct.exporter.flushes import FlushCollector
from nlct.exporter.mirrors import MirrorCollector
from nlct.exporter.server import Server
from nlct.exporter.tables import TableCollector

__all__ = ["Breakdown", "FlushCollector", "MirrorCollector", "Server", "TableCollector"]
