"""The tools that are measured, each in processes of its own inside the scratch namespace.

A Program stays and does one operation after another. A Command is started for each operation.
A new peer is a method of Peers with the peer's name.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib import util
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from typing import Any, Callable, NamedTuple, Union

import pytest

import nlct

HERE = Path(__file__).resolve().parent
BUILT = HERE / "build"
WORKERS = HERE / "py"
ROOT = Path(nlct.__file__).resolve().parent.parent


class PeerError(Exception):
    """A tool did not do what it was told."""


class Answer(NamedTuple):
    """How many seconds an operation took, and what else the tool says about it."""

    seconds: float
    notes: dict[str, Any]


def start(argv: Sequence[object], **options: Any) -> Popen[str]:
    """Start a process. From its second start on, Python finds bytecode, as if installed."""
    env = {**os.environ, "PYTHONPYCACHEPREFIX": str(BUILT / "bytecode")}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    return Popen(list(map(str, argv)), text=True, env={**env, **options.pop("env", {})}, **options)


class Program:
    """A program that answers each line with the seconds that it took, by its own clock.

    ``greeting``: its first line. ``start_up``: the seconds until then.
    """

    def __init__(self, argv: Sequence[object], env: Mapping[str, str] | None = None) -> None:
        self._argv = argv
        started = time.perf_counter()
        # In a session of its own: only the process that cleans up is to get Ctrl-C.
        pipes = {"stdin": PIPE, "stdout": PIPE, "bufsize": 1}
        self._process = start(argv, **pipes, start_new_session=True, env=env or {})
        self.greeting = self.hear()
        self.start_up = time.perf_counter() - started

    def tell(self, *words: object) -> None:
        """Write a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{' '.join(map(str, words))}\n")

    def hear(self) -> str:
        """Read a line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line or line.startswith("error: "):
            how = line.strip() or f"ended with {self._process.wait()}"
            raise PeerError(f"{' '.join(map(str, self._argv))}: {how}")
        return line.strip()

    def run(self, operation: str, *arguments: object) -> Answer:
        """Let it do an operation."""
        self.tell(operation, *arguments)
        return self.answer()

    def answer(self) -> Answer:
        """Wait for the end of the operation that it was told last."""
        said = json.loads(self.hear())
        return Answer(said.pop("seconds"), said) if isinstance(said, dict) else Answer(said, {})

    def close(self) -> None:
        """End it."""
        try:
            self._process.communicate(timeout=5)
        except TimeoutExpired:
            self._process.kill()
            self._process.communicate()


class Command:
    """A command that is started for each operation, and timed from its start to its end.

    ``operations``: turns an operation's arguments into the command's; "start" does nothing.
    ``fine``: the exit codes of success.
    """

    def __init__(
        self,
        argv: Sequence[object],
        operations: Mapping[str, Callable[..., Sequence[object]]],
        fine: Sequence[int] = (0,),
    ) -> None:
        self._argv, self._operations, self._fine = list(argv), operations, fine

    def run(self, operation: str, *arguments: object) -> Answer:
        """Do an operation."""
        argv = [*self._argv, *self._operations[operation](*arguments)]
        started = time.perf_counter()
        process = start(argv, stdout=DEVNULL, stderr=PIPE)
        _, said = process.communicate()
        seconds = time.perf_counter() - started
        if process.returncode not in self._fine:
            raise PeerError(f"{' '.join(map(str, argv))}: {said.strip()}")
        return Answer(seconds, {})

    def close(self) -> None:
        """Nothing is left of it."""


Peer = Union[Program, Command]


def python_of(root: Path) -> str:
    """Return the Python that runs a checkout of nlct."""
    own = root / ".venv/bin/python"
    return str(own) if root != ROOT and own.exists() else sys.executable


class Peers:
    """The peers that are installed, each started when it is first needed.

    ``inside``: the command that runs another one in the namespace. ``old``: another checkout of
    nlct; its peers have the names of ours with "@old" behind.
    """

    def __init__(self, inside: Sequence[str], ovstest: str | None, old: Path | None) -> None:
        self._inside, self._ovstest = list(inside), ovstest
        self._roots = {"": ROOT, "old": (old or ROOT).resolve()}
        self._started: dict[str, Peer] = {}
        self._stack = ExitStack()
        self.close = self._stack.close

    def get(self, name: str) -> Peer:
        """Return a peer; skip if it is not installed."""
        if name not in self._started:
            peer = self.make(name)
            self._stack.callback(peer.close)
            self._started[name] = peer
        return self._started[name]

    def make(self, name: str, *flags: str) -> Any:
        """Start a peer, which the caller closes."""
        kind, _, version = name.partition("@")
        roots = [self._roots[version]] if kind.startswith("nlct") else []
        return getattr(self, kind.replace("-", "_"))(*roots, *flags)

    def floor(self) -> Peer:
        """The bare C loops."""
        return Program([*self._inside, BUILT / "floor"])

    def loop_on_old_kernel(self) -> Peer:
        """A bare C loop that flushes as Open vSwitch does on an old kernel."""
        return self.floor()

    def listener(self) -> Peer:
        """A bare C loop that receives events."""
        return Program([*self._inside, BUILT / "listener"])

    def connect(self) -> Peer:
        """A program that makes new connections."""
        return Program([*self._inside, BUILT / "connect"])

    def kernel(self) -> Peer:
        """The kernel's own flush, requested by a bare C program."""
        if not nlct.probe().zone_flush:
            pytest.skip("MISSING: a zone flush of the kernel's own")
        return self.floor()

    def neighbour(self) -> Peer:
        """A program that does small things meanwhile."""
        return Program([*self._inside, BUILT / "neighbour"])

    def nlct(self, root: Path, *flags: str) -> Peer:
        """The library. Raises PeerError if another one is imported."""
        path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
        argv = [*self._inside, python_of(root), WORKERS / "nlct_worker.py", *flags]
        worker = Program(argv, {"PYTHONPATH": path})
        came = Path(worker.greeting.partition(" ")[2]).resolve()
        if root not in came.parents:
            worker.close()
            raise PeerError(f"{came} was imported, and nothing of {root}")
        return worker

    def nlct_on_old_kernel(self, root: Path) -> Peer:
        """The library as on an old kernel."""
        return self.nlct(root, "--old-kernel")

    def nlct_one_cpu(self, root: Path) -> Peer:
        """The library with one processor."""
        return self.nlct(root, "--one-cpu")

    def nlct_command(self, root: Path) -> Peer:
        """The command line, and the import, of an installed nlct."""
        installed = root == ROOT or python_of(root) != sys.executable
        if not installed or not (util.find_spec("click") and util.find_spec("rich")):
            pytest.skip("MISSING: an installed nlct, with click and rich")
        command = ["-m", "nlct"]
        return Command(
            [*self._inside, python_of(root), "-I"],
            {
                "start": lambda: [*command, "--version"],
                "text": lambda path, *how: [*command, "dump", *how, "--output", path],
                "load": lambda path: [*command, "load", path],
                "flush": lambda: [*command, "flush", "--zone", 7],
                "count": lambda: [*command, "count"],
                "dump": lambda: [*command, "dump"],
                "import": lambda: ["-c", "import nlct"],
            },
        )

    def python(self) -> Peer:
        """A Python that imports what nlct needs, and does nothing."""
        python = [*self._inside, sys.executable, "-I", "-c"]
        imports = {"start": lambda: ["pass"], "import": lambda modules: [f"import {modules}"]}
        return Command(python, imports)

    def conntrack(self) -> Peer:
        """Debian's conntrack."""
        if not shutil.which("conntrack"):
            pytest.skip("MISSING: conntrack")
        return Command(
            self._inside,
            {
                "start": lambda: ["conntrack", "--version"],
                "flush_zone": lambda zone: ["conntrack", "-D", "-w", zone],
                "zone_dump": lambda zone: ["conntrack", "-L", "-w", zone],
                "dump": lambda: ["conntrack", "-L"],
                "text": lambda path: ["sh", "-c", 'exec conntrack -L >"$0"', path],
                "delete": lambda address: ["conntrack", "-D", "-s", address],
                "create": lambda path: ["conntrack", "-R", path],
                "load": lambda path: ["conntrack", "-R", path],
            },
            # 1 says that nothing was deleted; the caller looks at the table.
            fine=(0, 1),
        )

    def nfct(self) -> Peer:
        """libnetfilter_conntrack."""
        if not (BUILT / "nfct").exists():
            pytest.skip("MISSING: the headers of libnetfilter_conntrack")
        return Program([*self._inside, BUILT / "nfct"])

    def pyroute2(self) -> Peer:
        """pyroute2."""
        if not util.find_spec("pyroute2"):
            pytest.skip("MISSING: pyroute2")
        return Program([*self._inside, sys.executable, WORKERS / "pyroute2_worker.py"])

    def ovs(self, *preload: str) -> Peer:
        """Open vSwitch's own test of its netlink code."""
        if not self._ovstest:
            pytest.skip("MISSING: Open vSwitch's ovstest (OVSTEST=...)")
        test = "test-netlink-conntrack"
        return Command(
            [*self._inside, *preload, self._ovstest],
            {
                "start": lambda: ["--help"],
                "flush_zone": lambda zone: [test, "flush", f"zone={zone}"],
                "zone_dump": lambda zone: [test, "dump", f"zone={zone}"],
                "dump": lambda: [test, "dump"],
            },
        )

    def ovs_on_old_kernel(self) -> Peer:
        """The same as on an old kernel."""
        if not (BUILT / "old.so").exists():
            pytest.skip("MISSING: bench/build/old.so")
        return self.ovs("env", f"LD_PRELOAD={BUILT / 'old.so'}")
