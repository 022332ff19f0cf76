"""Runs the command: in this process, as one of its own, on a terminal."""

from __future__ import annotations

import inspect
import os
import pty
import re
import select
import subprocess
import sys

from click.testing import CliRunner, Result

from nlct.cli.commands import cli

NLCT = (sys.executable, "-m", "nlct")
# Before click 8.2 the two outputs are one unless it is told.
APART = "mix_stderr" in inspect.signature(CliRunner).parameters


def nlct_(*args: str, given: str | None = None) -> Result:
    """Run a command in this process, with no terminal anywhere; ``given`` is its input."""
    return CliRunner(**({"mix_stderr": False} if APART else {})).invoke(cli, args, input=given)


def process(*args: str, **options: object) -> subprocess.Popen[bytes]:
    """Start a command as a process of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    return subprocess.Popen([*NLCT, *args], **{**pipes, **options})  # type: ignore[call-overload]


def in_shell(redirections: str, *args: str, **options: object) -> tuple[int, str, str]:
    """Run a command with a shell's redirections; return its exit code and what it printed."""
    words = ("sh", "-c", f'exec "$@" {redirections}', "sh", *NLCT, *args)
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        **options,  # type: ignore[call-overload]
    )
    return done.returncode, done.stdout, done.stderr


def at_terminal(*args: str, answer: bytes = b"", pipeline: str = "") -> tuple[int, str]:
    """Run a command on a terminal of its own; answer its question.

    ``pipeline``: what a shell finds behind the command, such as "| cat".
    """
    words = [*NLCT, *args]
    if pipeline:
        words = ["sh", "-c", f'"$@" {pipeline}', "sh", *words]
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", COLUMNS="80")
        os.execvp(words[0], words)
    output = b""
    answered = False
    try:
        while True:
            readable, _, _ = select.select([terminal], [], [], 10)
            output += os.read(terminal, 65536) if readable else b""
            # Again where nothing comes of it: Ctrl-C may hit the moment before it begins to read.
            if b"[y/N]" in output and (not answered or not readable):
                answered = os.write(terminal, answer) > 0
    except OSError:
        # So a terminal says that nobody is left at the other end.
        pass
    os.close(terminal)
    status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status), output.decode()


def refused(result: Result, code: int) -> str:
    """The one line that a command ended with, having printed nothing else."""
    assert (result.exit_code, result.stdout) == (code, "")
    assert re.fullmatch(r"nlct: [^\n]+\n", result.stderr), result.stderr
    return result.stderr
