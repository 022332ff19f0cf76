"""nlct: Linux connection tracking over netlink.

List, filter and flush conntrack entries, zone by zone, exactly and fast::

    import nlct

    with nlct.Conntrack() as ct:
        ct.flush_zone(7)
"""

from __future__ import annotations

from nlct.capabilities import Capabilities, probe
from nlct.conntrack import Conntrack, LoadResult
from nlct.enums import Proto, Status
from nlct.errors import (
    Error,
    ExistsError,
    InterruptedDumpError,
    InvalidRequestError,
    NotFoundError,
    OverrunError,
    PrivilegeError,
    TableFullError,
    UnsupportedError,
)
from nlct.filter import Filter
from nlct.flow import Flow, Tuple
from nlct.flush import FlushResult
from nlct.netns import Netns
from nlct.table import FlowTable

__version__ = "0.1.0"

__all__ = [
    "Capabilities",
    "Conntrack",
    "Error",
    "ExistsError",
    "Filter",
    "Flow",
    "FlowTable",
    "FlushResult",
    "InterruptedDumpError",
    "InvalidRequestError",
    "LoadResult",
    "Netns",
    "NotFoundError",
    "OverrunError",
    "PrivilegeError",
    "Proto",
    "Status",
    "TableFullError",
    "Tuple",
    "UnsupportedError",
    "probe",
]
