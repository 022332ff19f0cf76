"""Show which flows a filter hits, before they are deleted; then delete those and no others.

    python which-flows.py proto=udp dport=53,5353 src=10.0.0.0/8
    python which-flows.py --delete zone=7

The names are those of nlct.Filter; values with commas between them are alternatives.
"""

from __future__ import annotations

import argparse
from collections import Counter
from enum import Enum

import nlct

FIELDS = ("zone", "proto", "tcp_state", "dport", "src", "dst", "reply_src", "mark")
VALUES, SAMPLE = 5, 5


def parsed(words: list[str]) -> nlct.Filter:
    """Make a filter of NAME=VALUE,VALUE."""
    fields: dict[str, set[int | str]] = {}
    for word in words:
        name, _, text = word.partition("=")
        fields[name] = {int(one) if one.isdigit() else one for one in text.split(",")}
    return nlct.Filter(**fields)  # type: ignore[arg-type]  # it says by itself what is wrong


def word(value: object) -> str:
    """Return a value as it is printed."""
    return value.name.lower() if isinstance(value, Enum) else "-" if value is None else str(value)


def summary(flows: nlct.FlowTable) -> list[str]:
    """Return a line for each field, with its most frequent values."""
    lines = []
    for name in FIELDS:
        counts = Counter(flows[name])
        often = [f"{word(value)} ({count:,})" for value, count in counts.most_common(VALUES)]
        more = f", and {len(counts) - VALUES:,} more" if len(counts) > VALUES else ""
        lines.append(f"{name:>10}  {', '.join(often)}{more}")
    return lines


def main() -> None:
    """Look, ask, delete."""
    parser = argparse.ArgumentParser(description="Show which flows a filter hits.")
    parser.add_argument("filter", nargs="+", metavar="NAME=VALUE")
    parser.add_argument("--delete", action="store_true", help="delete them, once you said yes")
    args = parser.parse_args()
    try:
        wanted = parsed(args.filter)
    except (TypeError, ValueError) as exc:
        parser.error(str(exc))
    with nlct.Conntrack() as ct:
        flows = ct.table(wanted)
        print(f"{len(flows):,} of {ct.count():,} flows match")
        if len(flows) == 0:
            return
        print(*summary(flows), sep="\n")
        step = max(1, len(flows) // SAMPLE)
        sample = [flows[row] for row in range(0, len(flows), step)][:SAMPLE]
        print("for example:", *sample, sep="\n  ")
        if args.delete and input("delete these? [y/N] ") == "y":
            result = ct.delete_flows(flows)
            print(f"{result.deleted:,} deleted, {result.already_gone:,} were gone already")


if __name__ == "__main__":
    main()
