"""What type checkers say of arguments: wrong ones are found before anything runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each line by itself; mypy must refuse those that end with a number sign, and no other.
CALLS = """
Filter(zone=7)
Filter(zone={1, 2})
Filter(zone=range(10, 20))
Filter(zone=slice(1, None), family="ipv4")
Filter(family=socket.AF_INET6)
Filter(src="10.0.0.0/8", proto="udp", dport={53, 5353})
Filter(src=ipaddress.ip_address("10.0.0.1"), dst=[ipaddress.ip_network("fd00::/16"), "::1"])
Filter(reply_src={"10.0.0.1"}, reply_dst=(host for host in ("10.0.0.1",)))
Filter(sport=slice(1024, None), reply_sport=range(5), reply_dport=[1, range(2, 5)])
Filter(proto=["tcp", 17, nlct.Proto.SCTP], state="established")
Filter(state=[nlct.TcpState.CLOSE, "listen", 3])
Filter(mark=1, icmp_type=8, icmp_code=0, icmp_id=[1])
Filter(mark=(1, 3))
Filter(mark=[(0x10, 0xFF), 7, range(5)])
Filter(status=nlct.Status.ASSURED | nlct.Status.SEEN_REPLY, status_none="confirmed")
Filter(status=["assured", (2, 6)], status_none=[nlct.Status.DYING, 4])
Filter(labels=1 << 127, helper="ftp")
Filter(labels=[1, (0, 2)], helper=["ftp", "sip"])
Filter(timeout=range(60), id=7, bytes_orig=slice(1000, None), packets_reply=0)
Filter(snat=True, dnat=False, any_nat=["10.0.0.0/8"])
Filter(snat="198.51.100.1")
Filter(zone=None, src=None)
~Filter(zone=7) & Filter(mark=1) | nlct.ALL
Filter(src=1.5) #
Filter(src=10) #
Filter(src=b"1.2.3.4") #
Filter(src=[None]) #
Filter(dport="banana") #
Filter(dport=["53"]) #
Filter(dport=5.0) #
Filter(zone="7") #
Filter(zone=[None]) #
Filter(zones=7) #
Filter(family=2.5) #
Filter(mark="1/3") #
Filter(mark=[(1, "3")]) #
Filter(labels=1.5) #
Filter(snat=("10.0.0.1", 8.5)) #
Filter(status=1.0) #
Filter(helper=7) #
Filter(snat=1.5) #
Filter(zone=7) & {"mark": 1} #
Tuple("10.0.0.1", "10.0.0.2", "udp", 1, 2, zone=5)
Tuple("10.0.0.1", proto=1, icmp_id=1, icmp_type=8, icmp_code=0)
Tuple(1, 2) #
Tuple("10.0.0.1", sport="53") #
Flow(pair, reply=None, zone=7, timeout=60, mark=1, status=nlct.Status.ASSURED)
Flow(pair, tcp_state="established", labels=None, helper="ftp", master=pair, bytes_orig=5)
Flow(pair, unknown={99: b""}, helper_info=b"", secctx="x")
Flow("10.0.0.1") #
Flow(pair, colour=7) #
Flow(pair, labels="5") #
Flow(pair, helper=7) #
ct.update(flow, mark=7, timeout=600, tcp_state="close", labels=1)
ct.update(flow, mark=None) #
ct.update(flow, labels=None) #
ct.update(flow, use=1) #
ct.update_all(Filter(zone=7), mark=(1, 3), labels=1, status=2, timeout=60, helper="ftp")
ct.update_all(Filter(zone=7), labels="bulk", status=["assured"])
ct.update_all(Filter(zone=7), mark="1") #
ct.update_all(Filter(zone=7), status=["assured", 7.5]) #
ct.update_all() #
ct.delete_flows([flow])
ct.delete_flows(table)
ct.delete_flows(flow for flow in ct.dump())
ct.delete_flows(flow) #
ct.delete_flows([pair]) #
Filter(zone=7).matches(flow) is True
Filter(zone=7).matches(pair) #
ct.flush_zone(7)
ct.flush_zones({1, 2, 3})
ct.flush_zone("7") #
ct.flush_zones(None) #
nlct.FlowTable({"family": b"\\2", "zone": array.array("H", [7])}, {"zone": bytearray(b"\\1")})
nlct.FlowTable({"family": [2]}) #
table.arrow(columns=["src"], addresses="bytes", enums="dictionary")
table.arrow(enums="words") #
table["dport"].numpy() == table[7:].schema["dport"]
table[7.5] #
ct.load(table)
ct.load([flow])
ct.load(table.arrow())
ct.load([pair]) #
nlct.FlowTable.from_arrow(table.arrow())
nlct.FlowTable.from_arrow([flow]) #
table.to_polars(columns=["src"], enums="dictionary")
table.to_pandas(addresses="words") #
"""

BEFORE = """
import array, ipaddress, socket
import nlct
from nlct import Filter, Flow, Tuple

def calls(ct: nlct.Conntrack, pair: Tuple, flow: Flow, table: nlct.FlowTable) -> None:
"""


def test_arguments_are_typed(tmp_path: Path) -> None:
    """As strictly as mypy can."""
    mypy = pytest.importorskip("mypy.api", reason="MISSING: mypy")
    lines = CALLS.strip().splitlines()
    file = tmp_path / "calls.py"
    file.write_text(BEFORE + "".join(f"    {line}\n" for line in lines))
    config = f"--config-file={ROOT / 'pyproject.toml'}"
    cache = f"--cache-dir={ROOT / '.mypy_cache'}"
    out, problems, _ = mypy.run([config, cache, "--no-error-summary", str(file)])
    assert problems == ""
    found = {int(number) for number in re.findall(r"calls\.py:(\d+): error", out)}
    first = BEFORE.count("\n") + 1
    refused = [line for number, line in enumerate(lines, first) if number in found]
    assert refused == [line for line in lines if line.endswith("#")], out
