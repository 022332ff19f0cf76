"""nlct: Linux connection tracking over netlink.

List, filter and flush conntrack entries, zone by zone, exactly and fast::

    with nlct.Conntrack() as ct:
        ct.flush_zone(7)
"""

from nlct.capabilities import Capabilities, probe
from nlct.conntrack import Conntrack
from nlct.enums import DccpState, EventKind, ExpectFlags, Proto, SctpState, Status, TcpState
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
from nlct.events import Event, Events
from nlct.expect import Expectation, ExpectationEvent, ExpectationEvents, Expectations
from nlct.filter import ALL, Filter
from nlct.flow import Flow, Tuple
from nlct.flusher import Flusher
from nlct.load import LoadResult
from nlct.mirror import Mirror, MirrorState
from nlct.netns import Netns
from nlct.observers import Flushed, Observation, observe
from nlct.result import FlushResult
from nlct.saved import read_flows
from nlct.stats import ExpectationCounters, FlowCounters, Stats
from nlct.stream import Overrun
from nlct.table import FlowTable
from nlct.update import UpdateResult
from nlct.zero import Zeroing

__version__ = "0.1.0"
__all__ = [
    "ALL",
    "Capabilities",
    "Conntrack",
    "DccpState",
    "Error",
    "Event",
    "EventKind",
    "Events",
    "ExistsError",
    "ExpectFlags",
    "Expectation",
    "ExpectationCounters",
    "ExpectationEvent",
    "ExpectationEvents",
    "Expectations",
    "Filter",
    "Flow",
    "FlowCounters",
    "FlowTable",
    "FlushResult",
    "Flushed",
    "Flusher",
    "InterruptedDumpError",
    "InvalidRequestError",
    "LoadResult",
    "Mirror",
    "MirrorState",
    "Netns",
    "NotFoundError",
    "Observation",
    "Overrun",
    "OverrunError",
    "PrivilegeError",
    "Proto",
    "SctpState",
    "Stats",
    "Status",
    "TableFullError",
    "TcpState",
    "Tuple",
    "UnsupportedError",
    "UpdateResult",
    "Zeroing",
    "observe",
    "probe",
    "read_flows",
]
