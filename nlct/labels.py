"""Names of labels, as conntrack(8) and iptables read them from connlabel.conf.

A line of the file is a number from 0 to 127 and a name, and a # begins a comment.
"""

from __future__ import annotations

import re

PATH = "/etc/xtables/connlabel.conf"
MOST = 127

_LINE = re.compile(r"\s*(0[xX][0-9a-fA-F]+|[0-9]+)\s+([^#]*[^#\s])\s*(?:#.*)?")


def read(path: str | None = None) -> dict[str, int]:
    """Read the number of each name; ``path``: another file than PATH.

    Lines that give no number from 0 to 127 a name are skipped, as conntrack(8) does.
    Raises OSError if the file cannot be read, and ValueError if a name has two numbers.
    """
    path = PATH if path is None else path
    found: dict[str, int] = {}
    with open(path, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            match = _LINE.fullmatch(line.rstrip("\n"))
            if match is None:
                continue
            label = int(match[1], 16 if match[1][:2] in ("0x", "0X") else 10)
            if label <= MOST and found.setdefault(match[2], label) != label:
                raise ValueError(f"{path} gives {match[2]!r} two numbers")
    return found


def number(name: str, path: str | None = None) -> int:
    """Return the number of a label, 0 to 127; ``path``: another file than PATH.

    Raises ValueError, which names the file, if it cannot be read or does not have the name.
    """
    path = PATH if path is None else path
    try:
        known = read(path)
    except OSError as exc:
        raise ValueError(
            f"labels must be numbers where {path} cannot be read ({exc.strerror}), not {name!r}"
        ) from None
    if name not in known:
        raise ValueError(f"labels must be numbers or names in {path}, not {name!r}")
    return known[name]
