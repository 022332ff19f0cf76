"""nlct: Linux connection tracking over netlink.

List, filter and flush conntrack entries, zone by zone, exactly and fast::

    with nlct.Conntrack() as ct:
        ct.flush_zone(7)
"""

from importlib import import_module

__version__ = "0.1.0"

# What each module hands on. It is loaded at first use; type checkers read __init__.pyi.
_NAMES = {
    "capabilities": "Capabilities probe",
    "conntrack": "Conntrack",
    "enums": "DccpState Proto SctpState Status TcpState",
    "errors": "Error ExistsError InterruptedDumpError InvalidRequestError NotFoundError "
    "OverrunError PrivilegeError TableFullError UnsupportedError",
    "filter": "ALL Filter",
    "flow": "Flow Tuple",
    "flush": "FlushResult",
    "flusher": "Flusher",
    "load": "LoadResult",
    "netns": "Netns",
    "table": "FlowTable",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> object:
    module = name if name in _NAMES else _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = import_module(f"{__name__}.{module}")
    return value if name == module else globals().setdefault(name, getattr(value, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
