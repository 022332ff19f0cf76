"""The tools that are measured, each in processes of its own inside the scratch namespace.

A Program stays: it is asked for one operation after another. A Command is started for each.
A new peer is a line in find().
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import util
from pathlib import Path
from typing import Callable, NamedTuple, Union

import nlct
from bench.worker import OPERATIONS

HERE = Path(__file__).resolve().parent
BUILT = HERE / "build"
# conntrack's exit code then.
NOTHING_DELETED = 1


class PeerError(Exception):
    """A tool did not do what it was asked to."""


class Program:
    """A program that answers each line with the seconds that it took."""

    starts = "once, before the work"

    def __init__(self, name: str, argv: Sequence[str], operations: Iterable[str]) -> None:
        self.name = name
        self.operations = frozenset(operations)
        self.argv = [str(word) for word in argv]
        started = time.perf_counter()
        # In a session of its own, so that Ctrl-C reaches the one who cleans up alone.
        self._process = subprocess.Popen(
            self.argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,
            cwd=HERE.parent,
        )
        self.hear()
        self.start_up = time.perf_counter() - started

    def tell(self, line: str) -> None:
        """Write a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")

    def hear(self) -> str:
        """Read a line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise PeerError(f"{self.name} ended with {self._process.wait()}")
        if line.startswith("error: "):
            raise PeerError(f"{self.name}: {line.strip()}")
        return line.strip()

    def ask(self, operation: str, *arguments: object) -> str:
        """Have an operation done; return what it says of it."""
        self.tell(" ".join(map(str, (operation, *arguments))))
        return self.hear()

    def run(self, operation: str, *arguments: object) -> float:
        """Have an operation done; return the seconds."""
        return float(self.ask(operation, *arguments).split()[0])

    def start(self) -> float:
        """Start another of it and end that; return the seconds until it was ready."""
        other = Program(self.name, self.argv, ())
        other.close()
        return other.start_up

    def close(self) -> None:
        """End it."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


Arguments = Callable[..., Sequence[str]]


class Command:
    """A command that is started for each operation.

    ``operations``: makes of an operation's arguments those of the command. ``idle``: arguments
    with which it does nothing. ``deletes``: operations that fail where nothing is to be deleted.
    """

    starts = "for each operation, counted in its times"

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        operations: Mapping[str, Arguments],
        idle: Sequence[str],
        deletes: Collection[str] = (),
    ) -> None:
        self.name = name
        self.operations = frozenset(operations)
        self._argv = list(argv)
        self._arguments = operations
        self._idle = idle
        self._deletes = deletes

    def run(self, operation: str, *arguments: object) -> float:
        """Do an operation; return the seconds."""
        fine = (0, NOTHING_DELETED) if operation in self._deletes else (0,)
        return self._timed(self._arguments[operation](*arguments), fine)

    def start(self) -> float:
        """Start it and have it do nothing; return the seconds."""
        return self._timed(self._idle, (0, 1))

    def _timed(self, arguments: Sequence[str], fine: tuple[int, ...]) -> float:
        argv = [*self._argv, *arguments]
        started = time.perf_counter()
        done = subprocess.run(
            argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False, text=True
        )
        seconds = time.perf_counter() - started
        if done.returncode not in fine:
            raise PeerError(f"{self.name} {' '.join(arguments)}: {done.stderr.strip()}")
        return seconds

    def close(self) -> None:
        """Nothing is left of it."""


Peer = Union[Program, Command]


class Missing(NamedTuple):
    """A peer that is not here, and why."""

    name: str
    reason: str


def worker(inside: Sequence[str], *, old: bool = False) -> Program:
    """Start nlct in a process of its own. ``old``: as on an old kernel."""
    name = "nlct as on an old kernel" if old else "nlct"
    argv = [*inside, sys.executable, "-m", "bench.worker", *["--old"] * old]
    return Program(name, argv, OPERATIONS)


def find(inside: Sequence[str], ovstest: str | None) -> tuple[dict[str, Peer], list[Missing]]:
    """Start every peer that is here, in the namespace that ``inside`` leads to."""
    here: dict[str, Peer] = {}
    missing: list[Missing] = []
    floor = [*inside, str(BUILT / "floor")]
    here["floor"] = Program("bare C loop", floor, ("dump", "zone_dump", "create"))
    if nlct.probe().zone_flush:
        here["kernel"] = Program("kernel's own flush", floor, ("flush_zone",))
    else:
        missing.append(Missing("the kernel's own flush", "this kernel would flush every zone"))
    here["nlct"] = worker(inside)
    here["old"] = worker(inside, old=True)
    if util.find_spec("click") and util.find_spec("rich"):
        here["cli"] = Command(
            "nlct (command)",
            [*inside, sys.executable, "-m", "nlct"],
            {"text": lambda path: ["dump", "--output", str(path)]},
            ["--version"],
        )
    else:
        missing.append(Missing("nlct (command)", "click and rich are not installed"))
    if shutil.which("conntrack"):
        here["conntrack"] = conntrack(inside)
    else:
        missing.append(Missing("conntrack", "the command is not installed"))
    if (BUILT / "nfct").exists():
        here["nfct"] = Program(
            "libnetfilter_conntrack",
            [*inside, str(BUILT / "nfct")],
            ("dump", "flush_zone", "create"),
        )
    else:
        missing.append(Missing("libnetfilter_conntrack", "its headers are not installed"))
    if util.find_spec("pyroute2"):
        argv = [*inside, sys.executable, "-m", "bench.pyroute"]
        here["pyroute2"] = Program("pyroute2", argv, ("dump",))
    else:
        missing.append(Missing("pyroute2", "the package is not installed"))
    if ovstest:
        here["ovs"] = open_vswitch("Open vSwitch", [*inside, ovstest])
        if (BUILT / "old.so").exists():
            preload = ["env", f"LD_PRELOAD={BUILT / 'old.so'}"]
            name = "Open vSwitch as on an old kernel"
            here["ovs-old"] = open_vswitch(name, [*inside, *preload, ovstest])
    else:
        missing.append(Missing("Open vSwitch", "no path to its ovstest was given (OVSTEST=...)"))
    return here, missing


def conntrack(inside: Sequence[str]) -> Command:
    """Debian's conntrack."""
    return Command(
        "conntrack",
        inside,
        {
            "flush_zone": lambda zone: ["conntrack", "-D", "-w", str(zone)],
            "zone_dump": lambda zone: ["conntrack", "-L", "-w", str(zone)],
            "dump": lambda: ["conntrack", "-L"],
            "text": lambda path: ["sh", "-c", 'exec conntrack -L >"$0"', str(path)],
            "delete": lambda address: ["conntrack", "-D", "-s", str(address)],
            "load_file": lambda path: ["conntrack", "-R", str(path)],
        },
        ["conntrack", "--version"],
        deletes=("flush_zone", "delete"),
    )


def open_vswitch(name: str, argv: Sequence[str]) -> Command:
    """Open vSwitch's own test of its netlink code."""
    test = [*argv, "test-netlink-conntrack"]
    return Command(
        name,
        test,
        {
            "flush_zone": lambda zone: ["flush", f"zone={zone}"],
            "zone_dump": lambda zone: ["dump", f"zone={zone}"],
            "dump": lambda: ["dump"],
        },
        ["--help"],
    )
