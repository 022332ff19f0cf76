"""pyroute2 in a process of its own.

"dump" iterates over the whole table and looks at nothing, which is kind to it: an attribute is
decoded when it is looked at, or with the rest of its flow.
"""

from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket
from serve import serve


def dump() -> None:
    with NFCTSocket() as socket:
        for _ in socket.dump():
            pass


serve({"dump": lambda: dump})
