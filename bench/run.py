"""The command: measure every case beside its peers, and write RESULTS.md and the pictures.

    make bench                          all of it, into bench/
    make bench SAMPLES=25               shorter
    make bench CASES=storm,zone         these alone; the rest of the results stays as it is
    make bench OVSTEST=/path/of/ovstest with Open vSwitch's own code as a peer
    make bench QUICK=1                  small, into a temporary directory: does all of it run?

What a case measures stands at its head, in bench/cases/; a new one is a module there.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from bench import machine
from bench.cases import CASES
from bench.lab import Lab
from bench.peers import Missing, Peer, Program, find, worker
from bench.report import Section, Store
from bench.scale import FULL, QUICK, Scale
from nlct.cli.signals import stoppable


@dataclasses.dataclass
class Bench:
    """What a case works with."""

    lab: Lab
    scale: Scale
    peers: dict[str, Peer]
    missing: list[Missing]

    def able(self, operation: str, *keys: str) -> Iterator[Peer]:
        """Yield the peers, of these, that are here and know an operation."""
        for key in keys:
            if key in self.peers and operation in self.peers[key].operations:
                yield self.peers[key]

    @contextmanager
    def fresh_worker(self) -> Iterator[Program]:
        """A process of nlct that has done nothing yet."""
        fresh = worker(self.lab.inside)
        try:
            yield fresh
        finally:
            fresh.close()


def measure(case: ModuleType, name: str, bench: Bench) -> Section:
    """Run one case."""
    about = (case.__doc__ or "").strip()
    section = Section(name, about.partition("\n")[0].rstrip("."), about.partition("\n")[2])
    started = time.monotonic()
    print(f"{name}: {section.title}", file=sys.stderr, flush=True)
    case.run(bench, section)
    print(f"  {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return section


def run(scale: Scale, cases: Sequence[str], folder: Path, ovstest: str | None) -> int:
    """Run cases and write what they found, each as soon as it is there."""
    store = Store(folder, list(CASES))
    failures = 0
    with ExitStack() as stack:
        stack.enter_context(stoppable())
        stack.enter_context(machine.kept(scale.room(cases)))
        here = {"machine": machine.describe()}
        here["versions"] = ", ".join(f"{n} {v}" for n, v in machine.versions().items())
        lab = Lab()
        stack.callback(lab.close)
        found, missing = find(lab.inside, ovstest)
        for peer in found.values():
            stack.callback(peer.close)
        for absent in missing:
            print(f"not here: {absent.name}: {absent.reason}", file=sys.stderr)
        bench = Bench(lab, scale, found, missing)
        for name in cases:
            try:
                store.add(measure(CASES[name], name, bench), scale)
            except Exception:
                # What the others measure is worth as much; the exit code tells.
                traceback.print_exc()
                failures += 1
            store.write(here, [f"{absent.name}: {absent.reason}" for absent in missing])
    if find_spec("matplotlib"):
        from bench.pictures import draw  # noqa: PLC0415

        draw(store.sections.values(), folder / "pictures")
    else:
        print("no pictures: matplotlib is not installed", file=sys.stderr)
    print(f"written: {folder / 'RESULTS.md'}", file=sys.stderr)
    return 1 if failures else 0


def keep_bytecode() -> None:
    """Have each Python start as an installed one does: with bytecode from its first start on."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(Path(__file__).parent / "build/bytecode")


def main() -> int:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", default="", help=f"of {', '.join(CASES)}; all by default")
    parser.add_argument("--samples", type=int, help="of each flush of a zone")
    parser.add_argument("--flows", type=int, help="in the table")
    parser.add_argument("--zones", type=int, help="that they are in")
    parser.add_argument("--limit", type=float, help="seconds that a table may take")
    parser.add_argument("--ovstest", help="path of Open vSwitch's ovstest")
    parser.add_argument("--quick", action="store_true", help="small, into a temporary directory")
    parser.add_argument("--to", type=Path, help="directory to write into, bench/ by default")
    options = parser.parse_args()
    cases = [name for name in options.cases.split(",") if name] or list(CASES)
    unknown = [name for name in cases if name not in CASES]
    if unknown:
        parser.error(f"no case {', '.join(unknown)}: there are {', '.join(CASES)}")
    if os.geteuid() != 0:
        parser.error("it takes root, to enter namespaces and to make room in the table")
    if options.ovstest and not os.access(options.ovstest, os.X_OK):
        parser.error(f"no program: {options.ovstest}")
    given = {
        name: value
        for name, value in vars(options).items()
        if name in ("samples", "flows", "zones", "limit") and value is not None
    }
    keep_bytecode()
    scale = dataclasses.replace(QUICK if options.quick else FULL, **given)
    scale = dataclasses.replace(scale, few=min(scale.few, scale.samples))
    folder = options.to or Path(__file__).parent
    if options.quick and not options.to:
        folder = Path(tempfile.mkdtemp(prefix="nlct-bench-"))
    return run(scale, cases, folder, options.ovstest)


if __name__ == "__main__":
    sys.exit(main())
