"""Finding one flow, of which perhaps only tuple and zone are known."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator

from nlct import _reasons
from nlct._fields import TUPLE_FIELDS
from nlct._handle import Handle
from nlct.errors import InvalidRequestError, NotFoundError
from nlct.flow import Flow, Tuple, flows_from, to_c


def request(handle: Handle, key: Flow, operation: str) -> Flow:
    """Ask the kernel for the flow with this original tuple and zone. Raises NotFoundError."""
    row, _data = to_c(key)
    with _reasons.explained(key):
        return next(flows_from(*handle.get(row, operation)))


def find_tuple(handle: Handle, tuple: Tuple, zone: int | None) -> Flow:
    """Find the flow with this tuple, original or reply; see Conntrack.get()."""
    operation = "get a flow"
    key = Flow(tuple, zone=zone)
    if zone is not None or tuple.zone is not None:
        return find(handle, key, operation)[0]
    found = request(handle, key, operation)
    if not _is_named(found, tuple):
        raise NotFoundError(errno.ENOENT, operation)
    return found


def find(handle: Handle, flow: Flow, operation: str) -> tuple[Flow, Flow]:
    """Find a flow, and what leads the kernel to it: original tuple and zone of a Flow.

    What the flow does not say may be either way; of several that fit the first is taken.
    Raises NotFoundError.
    """
    fitting = None
    for found, name in _candidates(handle, flow, operation):
        if flow.id not in (None, found.id) or not _is_named(found, flow.orig):
            continue
        if _is_alike(found, flow):
            return found, name
        fitting = fitting or (found, name)
    if fitting is None:
        raise NotFoundError(errno.ENOENT, operation)
    return fitting


def find_new(handle: Handle, flow: Flow) -> Flow | None:
    """Find a flow that was just created, None if it is gone; it may have lost its ports."""
    for found, _ in _candidates(handle, flow, "look at a new flow"):
        if _is_named(found, flow.orig, but_for=_reasons.PORTS):
            return found
    return None


def has_reply(found: Flow, flow: Flow) -> bool:
    """Tell if the reply that a flow holds is the tuple beside its original one."""
    orig, reply = found.orig, found.reply
    if reply is None or flow.reply is None:
        return False
    ways = ((orig, reply), (reply, orig))
    return any(_has(one, flow.orig) and _has(other, flow.reply) for one, other in ways)


def _candidates(handle: Handle, flow: Flow, operation: str) -> Iterator[tuple[Flow, Flow]]:
    """Yield flows of this zone that its tuples lead to, each with what did.

    A zone that holds for one direction does not count when the flow is asked for by the tuple
    of the other, and one tuple may lead to a flow of another zone.
    """
    for name, is_reply in _names(flow):
        try:
            found = request(handle, name, operation)
        except NotFoundError:
            continue
        except InvalidRequestError:
            # The reply of a translated flow need not be whole.
            if is_reply:
                continue
            raise
        if found.zone == flow.zone:
            yield found, name


def _names(flow: Flow) -> Iterator[tuple[Flow, bool]]:
    """Yield what may lead the kernel to a flow, and whether that is its reply tuple."""
    for one, is_reply in ((flow.orig, False), (flow.reply, True)):
        if one is None or (is_reply and one.family is None):
            continue
        plain = one if one.zone is None else one.replace(zone=None)
        for zone in (flow.zone, 0) if flow.zone else (0,):
            yield Flow(plain, zone=zone), is_reply


def _is_named(found: Flow, tuple: Tuple, but_for: Iterable[str] = ()) -> bool:
    """Tell if this is the flow's original tuple or reply: the kernel ignores some fields."""
    return any(one is not None and _has(one, tuple, but_for) for one in (found.orig, found.reply))


def _has(one: Tuple, tuple: Tuple, but_for: Iterable[str] = ()) -> bool:
    if tuple == one:
        return True
    names = [name for name in TUPLE_FIELDS if name not in but_for]
    return all(getattr(tuple, name) in (None, getattr(one, name)) for name in names)


def _is_alike(found: Flow, flow: Flow) -> bool:
    """Tell if its zone applies to the direction that ``flow`` says, or that says none."""
    said, its = ([one.orig.zone, one.reply and one.reply.zone] for one in (flow, found))
    if not _has(found.orig, flow.orig):
        its.reverse()
    return said in ([None, None], its)
