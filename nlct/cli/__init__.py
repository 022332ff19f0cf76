"""The command line. Needs click and rich, which ``pip install 'nlct[cli]'`` brings."""

from __future__ import annotations

import gc
import sys

from nlct.cli.streams import open_closed

# Which extra brings a module.
_EXTRA = {"click": "cli", "rich": "cli", "prometheus_client": "exporter"}


def main() -> None:
    """Run ``nlct``."""
    # Before anything that opens a file or a socket.
    open_closed()
    # Collecting what imports allocate finds nothing, and takes a tenth of a small command's time.
    gc.disable()
    try:
        # Late, so that a missing click is one clear line and not a traceback.
        from nlct.cli.commands import cli  # noqa: PLC0415

        cli.main(prog_name=cli.name)
    except ModuleNotFoundError as exc:
        extra = _EXTRA.get((exc.name or "").partition(".")[0])
        if extra is None:
            raise
        sys.exit(f"nlct: no module {exc.name!r}; this needs: pip install 'nlct[{extra}]'")
    except KeyboardInterrupt:
        sys.exit(130)
