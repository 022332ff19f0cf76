"""What flows have only where a sysctl or a rule says so."""

from __future__ import annotations

from collections.abc import Iterable

from nlct._dump import dump
from nlct._ffi import lib
from nlct._handle import Handle
from nlct.errors import Error
from nlct.filter import Filter
from nlct.table import Columns, column_set

_SYSCTLS = {
    **dict.fromkeys(
        ("packets_orig", "bytes_orig", "packets_reply", "bytes_reply"),
        ("nf_conntrack_acct", "counters"),
    ),
    **dict.fromkeys(("timestamp_start", "timestamp_stop"), ("nf_conntrack_timestamp", "times")),
}
# Whatever they are: its first bit is clear, or it is set.
_HAS_LABELS = Filter(labels=[(0, 1), (1, 1)])
_NO_LABELS = (
    "no flow has labels: only those that are made while a rule uses labels have them "
    "(nft: ct label set, iptables: -m connlabel)"
)


def missing(handle: Handle, fields: Iterable[str]) -> dict[str, str]:
    """Say which of these fields flows do not get here, see Conntrack.missing()."""
    found: dict[str, str] = {}
    for field in sorted(column_set(fields) or ()):
        if field in _SYSCTLS:
            sysctl, what = _SYSCTLS[field]
            if _is_off(handle, sysctl):
                found[field] = (
                    f"{sysctl} is 0, so new flows have no {what}: "
                    f"sysctl -w net.netfilter.{sysctl}=1"
                )
        elif field == "labels" and not _any_labels(handle):
            found[field] = _NO_LABELS
    return found


def _is_off(handle: Handle, sysctl: str) -> bool:
    try:
        return handle.read_number(f"/proc/sys/net/netfilter/{sysctl}") == 0
    except Error:
        # Nobody knows.
        return False


def _any_labels(handle: Handle) -> bool:
    """Look for the first flow that has labels, whatever they are."""
    collector = Columns(frozenset(("labels",)), 1)
    with dump(handle, _HAS_LABELS) as made:
        for _ in made.steps(collector.sink):
            if lib.nlct_columns_count(collector.sink[0]):
                return True
    return False
