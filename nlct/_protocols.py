"""Names of protocols in /etc/protocols, beyond those of Proto."""

from __future__ import annotations

FILE = "/etc/protocols"


def numbered(name: str) -> int | None:
    """Return the number that the file gives a name or an alias, in upper or lower case; or None.

    The file is read at each call. Raises OSError if it cannot be read.
    """
    wanted = name.lower()
    with open(FILE, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            names = line.lower().partition("#")[0].split()
            if len(names) > 1 and names[1].isdecimal() and wanted in (names[0], *names[2:]):
                return int(names[1])
    return None
