"""Flows by zone, mark, protocol and TCP state: counted by dumps, cut to the largest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from prometheus_client.core import Sample

from nlct._fields import FIELDS
from nlct.conntrack import Conntrack
from nlct.counts import GROUPS
from nlct.exporter.families import Families, sample

# By the name that count_by() knows them by, the column that they are.
BY = {"zone": "zone", "mark": "mark", "proto": "proto", "state": "tcp_state"}
# The value of a label for flows without the field, and for those that --top leaves out. Not "none":
# that is a state of TCP.
ABSENT, OTHER = "absent", "other"

# Flows by the values that they have in common.
Counts = Mapping[tuple[Any, ...], int]


class Breakdown(NamedTuple):
    """What flows are counted by: one to three of "zone", "mark", "proto" and "state"."""

    fields: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> Breakdown:
        """Read fields with commas between them: "zone", "zone,mark". ValueError for others."""
        if not isinstance(text, str):
            raise TypeError(f"by must be fields with commas between them, not {text!r}")
        fields = tuple(text.split(","))
        known = all(field in BY for field in fields)
        if not known or len(set(fields)) < len(fields) or len(fields) > GROUPS:
            raise ValueError(
                f"by must be up to {GROUPS} different ones of {', '.join(BY)}, "
                f"with commas between them, not {text!r}"
            )
        return cls(fields)

    @property
    def name(self) -> str:
        """The name of its family, without the prefix."""
        return "flows_by_" + "_".join(self.fields)

    def samples(self, counts: Counts, top: int, netns: str) -> list[Sample]:
        """Return the ``top`` largest counts, and the rest together as "other"."""
        largest = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
        said = [(tuple(map(_word, self.fields, key)), flows) for key, flows in largest[:top]]
        if largest[top:]:
            rest = sum(flows for _, flows in largest[top:])
            said.append(((OTHER,) * len(self.fields), rest))
        return [
            sample(self.name, flows, netns=netns, **dict(zip(self.fields, words)))
            for words, flows in said
        ]

    def add(self, families: Families, samples: Iterable[Sample]) -> None:
        """Add them."""
        families.extend(self.name, f"Flows by {', '.join(self.fields)}.", samples)


def count(ct: Conntrack, breakdowns: Sequence[Breakdown]) -> dict[Breakdown, Counts]:
    """Count by each of them, in as few dumps as that takes."""
    found: dict[Breakdown, Counts] = {}
    for fields, together in _dumps(breakdowns):
        counts = ct.count_by(*fields)
        for one in together:
            places = [fields.index(field) for field in one.fields]
            sums: Counter[tuple[Any, ...]] = Counter()
            for key, flows in counts.items():
                values = key if len(fields) > 1 else (key,)
                sums[tuple(values[place] for place in places)] += flows
            found[one] = sums
    return found


def _dumps(breakdowns: Iterable[Breakdown]) -> list[tuple[list[str], list[Breakdown]]]:
    """Return what each dump counts by: as many fields as one can, for several breakdowns."""
    dumps: list[tuple[list[str], list[Breakdown]]] = []
    for one in sorted(breakdowns, key=lambda each: -len(each.fields)):
        for fields, together in dumps:
            more = [field for field in one.fields if field not in fields]
            if len(fields) + len(more) <= GROUPS:
                fields.extend(more)
                together.append(one)
                break
        else:
            dumps.append((list(one.fields), [one]))
    return dumps


def _word(field: str, value: Any) -> str:
    return ABSENT if value is None else str(FIELDS[BY[field]].plain(value))
