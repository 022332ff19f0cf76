"""``python -m nlct``."""

from __future__ import annotations

from nlct.cli import main

if __name__ == "__main__":
    main()
