"""Tables: columns by name, frames of other libraries, pickles, and tables out of Arrow."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
from typing import Any

import pytest

import nlct
from nlct import FlowTable, Proto
from nlct.table import COLUMNS
from tests.support.flows import menagerie, populate

pytest.importorskip("nanoarrow", reason="MISSING: nanoarrow")
numpy = pytest.importorskip("numpy", reason="MISSING: numpy")
pandas = pytest.importorskip("pandas", reason="MISSING: pandas")
polars = pytest.importorskip("polars", reason="MISSING: polars")
pa = pytest.importorskip("pyarrow", reason="MISSING: pyarrow")

EXTRAS = {"numpy": "numpy", "pandas": "pandas", "polars": "polars", "pyarrow": "parquet"}


@pytest.fixture(scope="module")
def table() -> FlowTable:
    """A table without a kernel: both families, with ports and without, masters and labels."""
    flows = list(menagerie())
    child = flows[0].replace(master=flows[1].orig, labels=1 << 127 | 1, helper="ftp", secctx="x:y")
    return FlowTable.from_flows(
        [*flows, child.replace(unknown={99: b"\0\1"}, bytes_orig=2**64 - 1)]
    )


def said(table: FlowTable) -> list[dict[str, Any]]:
    """What the flows of a table say."""
    return [flow.to_dict() for flow in table]


# Columns ------------------------------------------------------------------------------------------


def test_a_column_has_the_values_of_the_flows(table: FlowTable) -> None:
    """Row by row, in slices and in all; absent is None and, in NumPy, masked."""
    ports = table["dport"]
    assert list(ports) == [flow.orig.dport for flow in table]
    assert (len(ports), ports[0], ports[2], ports[-1]) == (len(table), 53, None, 53)
    assert list(ports[1:3]) == [80, None]
    assert (53 in ports, ports.count(None), ports.index(80)) == (True, 12, 1)
    assert "dport" in repr(ports)
    array = ports.numpy()
    assert (array.dtype, array[0], array[2]) == (numpy.uint16, 53, numpy.ma.masked)
    assert array.mask.sum() == 12
    assert (array == 53).sum() == sum(flow.orig.dport == 53 for flow in table)
    assert list(numpy.asarray(ports)) == list(ports)
    assert list(numpy.array(ports, copy=True)) == list(ports)
    assert list(pandas.Series(ports)) == list(ports)
    assert table["proto"][0] is Proto.UDP
    for name in COLUMNS:
        assert list(numpy.asarray(table[name])) == list(table[name])


def test_an_array_is_not_copied() -> None:
    """Where each row has a number, the array is the column's memory."""
    marks = bytearray(8)
    array = FlowTable({"family": bytes(2), "mark": marks})["mark"].numpy()
    marks[4] = 7
    assert (list(array), array.dtype) == ([0, 7], numpy.uint32)


def test_a_column_that_no_flow_has_is_absent(table: FlowTable) -> None:
    """It is not an error, since which columns there are depends on the flows; a typo is."""
    assert "dccp_role" not in table
    assert set(table["dccp_role"]) == {None}
    assert table["dccp_role"].numpy().mask.all()
    assert list(FlowTable.from_flows([])["dport"]) == []
    assert list(FlowTable({"family": b"\2\2"})["zone"]) == [0, 0]
    with pytest.raises(KeyError, match="'sorce'"):
        table["sorce"]


def test_a_column_that_nobody_asked_for_is_unknown(ct: nlct.Conntrack) -> None:
    """What a dump left out is not absent: a part of the table and a pickle know that too."""
    populate(ct, [3])
    table = ct.table(columns=["dport", "labels"])
    for one in (table, table[1:4], pickle.loads(pickle.dumps(table))):
        assert (set(one["zone"]), set(one["labels"])) == ({3}, {None})
        with pytest.raises(KeyError, match="without 'src'"):
            one["src"]


def test_a_column_is_not_compared(table: FlowTable) -> None:
    """Neither of the two that a comparison might mean is done by mistake."""
    with pytest.raises(TypeError, match="numpy"):
        table["dport"] == 53  # noqa: B015
    with pytest.raises(IndexError, match="1000"):
        table["dport"][1000]


# Frames -------------------------------------------------------------------------------------------


def test_the_schema_is_that_of_arrow(table: FlowTable) -> None:
    """Names and types, as pyarrow prints them."""
    schema = pa.schema(table)
    assert table.schema == dict(zip(schema.names, map(str, schema.types)))
    every = FlowTable(dict.fromkeys(COLUMNS, b""))
    schema = pa.schema(every)
    assert every.schema == dict(zip(schema.names, map(str, schema.types)))


def test_frames_hold_the_table(table: FlowTable) -> None:
    """Absent values are absent in them, and 64 bits are whole."""
    frame = table.to_pandas()
    assert list(frame.columns) == list(table.names)
    assert frame["bytes_orig"].isna().sum() == len(table) - 1
    assert frame["bytes_orig"].iloc[-1] == 2**64 - 1
    assert table.to_polars()["dport"].to_list() == list(table["dport"])
    for made in (table.to_pandas, table.to_polars):
        assert list(made(columns=["zone", "src"]).columns) == ["zone", "src"]
        assert "cat" in str(made(enums="dictionary").dtypes).lower() or made == table.to_pandas
        with pytest.raises(ValueError, match="enums"):
            made(enums="words")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", EXTRAS)
def test_what_is_missing_is_named(
    table: FlowTable, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """With what to install."""
    monkeypatch.setitem(sys.modules, name, None)
    call = {
        "numpy": table["zone"].numpy,
        "pandas": table.to_pandas,
        "polars": table.to_polars,
        "pyarrow": lambda: FlowTable.from_arrow(table),
    }[name]
    with pytest.raises(ImportError, match=rf"pip install .*{EXTRAS[name]}"):
        call()
    # Whatever a frame needs, its own extra brings.
    monkeypatch.setitem(sys.modules, "nanoarrow", None)
    for frame in ("pandas", "polars"):
        with pytest.raises(ImportError, match=rf"nlct\[{frame}\]"):
            getattr(table, f"to_{frame}")()


# Pickles ------------------------------------------------------------------------------------------


def test_a_table_pickles(table: FlowTable) -> None:
    """By every protocol, whole, in part and empty; by the latest one without a copy too."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for one in (table, table[3:5], table[3:3], FlowTable.from_flows([])):
            again = pickle.loads(pickle.dumps(one, protocol))
            assert (said(again), again.names) == (said(one), one.names)
    memory: list[pickle.PickleBuffer] = []
    packed = pickle.dumps(table, 5, buffer_callback=memory.append)
    assert len(packed) < table.nbytes / 2
    assert said(pickle.loads(packed, buffers=memory)) == said(table)


def test_a_table_goes_to_another_process(table: FlowTable) -> None:
    """And comes back."""
    code = "import pickle, sys; pickle.dump(pickle.load(sys.stdin.buffer), sys.stdout.buffer)"
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(table), stdout=subprocess.PIPE, check=True
    )
    assert said(pickle.loads(done.stdout)) == said(table)


def test_a_pickle_is_checked(table: FlowTable) -> None:
    """What would lead the core out of its memory is refused."""
    made, (columns, valid, heap, wanted) = table.__reduce_ex__(2)
    assert said(made(columns, valid, heap, wanted)) == said(table)
    for wrong in (
        ({**columns, "mark": b"\0\0"}, valid, heap, wanted),
        ({**columns, "sorce": b""}, valid, heap, wanted),
        (columns, {**valid, "dport": b"\1"}, heap, wanted),
        (columns, valid, heap[:-1], wanted),
    ):
        with pytest.raises(ValueError, match=r"column|valid"):
            made(*wrong)


# Out of Arrow -------------------------------------------------------------------------------------


def test_every_choice_is_read(table: FlowTable) -> None:
    """What arrow() makes by any of its choices, and what other libraries make of that."""
    for stream in (
        table,
        table.arrow(columns=COLUMNS),
        table.arrow(enums="dictionary"),
        table.arrow(enums="numbers", addresses="bytes"),
        table.arrow(columns=[name for name in reversed(table.names) if name != "family"]),
        pa.table(table).to_reader(max_chunksize=7),
        pa.table(table.arrow(enums="dictionary")).to_reader(max_chunksize=7),
        table.to_pandas(),
        table.to_pandas(enums="dictionary"),
        table.to_polars(enums="dictionary"),
        polars.concat([one.to_polars(columns=COLUMNS) for one in (table[:9], table[9:])]),
    ):
        again = FlowTable.from_arrow(stream)
        assert (said(again), again.names) == (said(table), table.names)
    assert said(FlowTable.from_arrow(pa.table(table)[3:])) == said(table[3:])
    assert len(FlowTable.from_arrow(table[:0])) == 0


def test_widths_and_nulls() -> None:
    """Integers of any width and timestamps of any unit are read; values under a null are not."""
    stream = pa.table(
        {
            "src": pa.array(["::1", None], pa.large_string()),
            "zone": pa.array([7, None], pa.int64()),
            "labels": pa.array([[5, 5], None], pa.large_list(pa.int16())),
            "timestamp_start": pa.array([1, None], pa.timestamp("s")),
            "proto": pa.array(["47", "47"]),
            "mark": pa.Array.from_buffers(
                pa.uint32(), 2, [pa.py_buffer(b"\1"), pa.py_buffer(b"\7\0\0\0\xff\0\0\0")]
            ),
            "helper": pa.nulls(2),
        }
    )
    made = FlowTable.from_arrow(stream)
    assert list(made["src"]) == [nlct.Tuple(src="::1").src, None]
    assert list(made["zone"]) == [7, 0]
    assert list(made["labels"]) == [1 << 5, None]
    assert list(made["timestamp_start"]) == [10**9, None]
    assert list(made["proto"]) == [47, 47]
    assert (list(made["mark"]), bytes(made.column("mark"))) == ([7, None], b"\7" + bytes(7))
    assert "helper" not in made
    assert bytes(made.column("family")) == b"\x0a\0"


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("sorce", ["::1"], "'sorce' must be one of family"),
        ("dport", [53.5], "53.5"),
        ("dport", [float("inf")], "must be integers"),
        ("bytes_orig", [2.0**53], 'below 9007199254740992 only .*dtype_backend="pyarrow"'),
        ("dport", [True], "must be integers, not bool"),
        ("dport", [65536], "65536 not in range"),
        ("zone", [-1], "-1 not in range"),
        ("bytes_orig", ["5"], "must be integers"),
        ("src", ["10.0.0"], "must have IPv4 or IPv6 addresses, not '10.0.0'"),
        ("src", ["fe80::1%lo"], "fe80::1%lo"),
        ("src", ["::1\0"], "must have IPv4"),
        ("src", ["::1"], "of the flow's family, in row 0"),
        ("src", pa.array([bytes(16)], pa.binary(16)), None),
        ("src", pa.array([b"\1" * 16], pa.binary(16)), "of the flow's family, in row 0"),
        ("src", pa.array([b"\1\2\3\4"]), "must be text or 16 bytes each, not binary"),
        ("proto", ["tpc"], "must not have 'tpc'"),
        ("proto", [256], "256 not in range"),
        ("family", [3], "must be ipv4 or ipv6: 2 or 10"),
        ("labels", [[128]], "from 0 to 127, not 128"),
        ("labels", pa.array([[5, None]]), "null in a list"),
        ("labels", [7], "must be lists of integers"),
        ("helper", ["0123456789abcdef"], "helper must be of up to 15 bytes"),
        ("helper", [7], "must be text"),
        ("unknown", ["text"], "must be bytes"),
        ("timestamp_start", pa.array([-1], pa.timestamp("ns")), "-1 not in range"),
        ("timestamp_start", pa.array([10**12], pa.timestamp("s")), "timestamp_start"),
    ],
)
def test_what_is_wrong_is_named(column: str, values: Any, message: str | None) -> None:
    """The column and the value, before anything is made."""
    stream = pa.table({"family": pa.array(["ipv4"]), column: values})
    if message is None:
        assert len(FlowTable.from_arrow(stream)) == 1
        return
    with pytest.raises(ValueError, match=message) as failure:
        FlowTable.from_arrow(stream)
    assert column in str(failure.value)


def test_frames_of_numpy_types_are_read(table: FlowTable) -> None:
    """The index of a frame is no column unless it is a field; whole floats are integers."""
    table = table[:-1]  # The last has 64 bits, which are no floats.
    frame = pa.table(table).to_pandas()
    assert str(frame["dport"].dtype) == "float64"
    some = [flow for flow in said(table) if flow["zone"] == table["zone"][0]]
    assert 0 < len(some) < len(table)
    chosen = frame[frame.zone == table["zone"][0]]
    for one in (chosen, chosen.rename_axis("row"), chosen.set_index("zone")):
        assert said(FlowTable.from_arrow(one)) == some
    odd = pa.table(table).replace_schema_metadata({b"pandas": b'{"index_columns": 7}'})
    assert len(FlowTable.from_arrow(odd)) == len(table)


def test_what_is_no_table() -> None:
    """Not Arrow at all, a column twice, and arrays that lead out of their memory."""
    with pytest.raises(TypeError, match="__arrow_c_stream__"):
        FlowTable.from_arrow([7])  # type: ignore[arg-type]
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([1])], names=["zone", "zone"])
    with pytest.raises(ValueError, match="twice"):
        FlowTable.from_arrow(twice)
    offsets = pa.py_buffer(struct.pack("=3i", 0, 2**30, 3))
    broken = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"::1")])
    with pytest.raises(ValueError, match="offset"):
        FlowTable.from_arrow(pa.table({"src": broken}))


def test_load_takes_what_speaks_arrow(ct: nlct.Conntrack) -> None:
    """The same flows are there afterwards; nothing is sent of a table that is wrong."""
    populate(ct)
    table = ct.table()
    there = {(flow.orig, flow.zone, flow.mark) for flow in table}
    for stream in (pa.table(table), table.to_polars(), table.to_pandas(enums="dictionary")):
        ct.flush_all()
        assert ct.load(stream).created == len(table)
        assert {(flow.orig, flow.zone, flow.mark) for flow in ct.dump()} == there
    ct.flush_all()
    wrong = table.to_polars().with_columns(dport=polars.lit(70000))
    with pytest.raises(ValueError, match="dport"):
        ct.load(wrong)
    assert ct.count() == 0
