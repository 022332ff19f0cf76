"""The command: make a call fail, and see what comes of it; as root or in a user namespace.

    make faults                       two minutes
    make faults MINUTES=30            longer
    make faults SECONDS=20            shorter
    python -m tests.faults "dump/recvmsg:2:ENOBUFS"    one case again

Each case is a scenario, a call, its number and how it fails; it runs in a child of its own. Exits
with 1 if anything was not as it must be, with 77 where it cannot run.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults import injector
from tests.faults.injector import Fault

if TYPE_CHECKING:
    from tests.faults.driver import Outcome

EXIT_MISSING = 77
# So many cases are named to be run again.
MOST_AGAIN = 5


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="faults", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cases", nargs="*", help="these alone, as they are printed")
    parser.add_argument("--minutes", type=float, default=2, help="how long")
    parser.add_argument("--seconds", type=float, help="the same")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--scenarios", default="", help="those alone, with commas between them")
    args = parser.parse_args(given)
    if args.seconds is None:
        args.seconds = 60 * args.minutes
    return args


def _run(args: argparse.Namespace) -> int:
    # Imported by the process that has the library.
    from tests.faults.driver import Missing  # noqa: PLC0415

    print(f"seed {args.seed}", flush=True)
    try:
        outcome = _again(args) if args.cases else _explore(args)
    except Missing as exc:
        print(f"MISSING: {exc}")
        return EXIT_MISSING
    print(outcome.summary())
    for text in outcome.violations:
        print(f"VIOLATION: {text}")
    if outcome.violations:
        print(f"failed with seed {args.seed}; again: {_how_again(args, outcome)}", flush=True)
        return 1
    print("all is as it must be", flush=True)
    return 0


def _how_again(args: argparse.Namespace, outcome: Outcome) -> str:
    """Return the command that repeats the cases that failed; where none is told, all of them."""
    # Each violation begins with its case.
    told = dict.fromkeys(text.partition(": ")[0] for text in outcome.violations)
    cases = [each for each in told if ":" in each] or args.cases
    some = cases[:MOST_AGAIN] or ["--seed", str(args.seed), "--seconds", str(args.seconds)]
    return f"python -m tests.faults {shlex.join(some)}"


def _again(args: argparse.Namespace) -> Outcome:
    """Run the cases that were given."""
    from tests.faults.driver import Driver  # noqa: PLC0415

    with Driver() as driver:
        for text in args.cases:
            scenario, _, fault = text.rpartition("/")
            print(driver.case(scenario, Fault.read(fault)))
    return driver.outcome


def _explore(args: argparse.Namespace) -> Outcome:
    """Run cases in several processes, each with namespaces of its own."""
    from tests.faults.child import Child  # noqa: PLC0415
    from tests.faults.driver import Driver, Outcome  # noqa: PLC0415

    chosen = args.scenarios.split(",") if args.scenarios else None
    until = time.monotonic() + args.seconds

    def explore(part: int) -> Outcome:
        with Driver(chosen) as driver:
            return driver.explore(args.seed, until, part, args.jobs)

    children = [Child(lambda part=part: explore(part)) for part in range(args.jobs)]
    outcome = Outcome([], {})
    for child in children:
        outcome.add(child.answer(2 * args.seconds + 600))
    return outcome


def main(given: Sequence[str] | None = None) -> int:
    """Start anew with the library, and run; return the exit code."""
    args = _arguments(given)
    if "LD_PRELOAD" in os.environ:
        return _run(args)
    with tempfile.TemporaryDirectory() as folder:
        try:
            library = injector.build(Path(folder))
        except FileNotFoundError as exc:
            print(f"MISSING: {exc.filename}, a C compiler")
            return EXIT_MISSING
        # What is freed is overwritten, so that whoever looks at it again notices.
        environment = {**os.environ, "LD_PRELOAD": str(library), "MALLOC_PERTURB_": "165"}
        command = [
            sys.executable,
            "-m",
            "tests.faults",
            *(sys.argv[1:] if given is None else given),
        ]
        child = os.spawnve(os.P_WAIT, sys.executable, command, environment)
        return child if child >= 0 else 128 - child


if __name__ == "__main__":
    sys.exit(main())
