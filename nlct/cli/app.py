"""One door from what went wrong to one line on standard error and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

import nlct

PARTIAL = 1
NO_PRIVILEGE = 3
UNSUPPORTED = 4
# As a shell reports a program that the signal ended.
INTERRUPTED = 130
BROKEN_PIPE = 141


class Failure(click.ClickException):
    """Something failed: one line, and exit code 1."""

    exit_code = PARTIAL


class App(click.Group):
    """A group of commands that keeps our exit codes."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run, and exit."""

        def run() -> Any:
            return super(App, self).main(args, prog_name, complete_var, False, **extra)

        if not standalone_mode:
            return run()
        try:
            code = run() or 0
        except click.Abort:
            code = INTERRUPTED
        except click.UsageError as exc:
            command = "nlct" if exc.ctx is None else exc.ctx.command_path
            code = _complain(f"{exc.format_message()} ({command} --help tells more)", exc.exit_code)
        except click.ClickException as exc:
            code = _complain(exc.format_message(), exc.exit_code)
        except OSError as exc:
            code = _complain(_words(exc), _exit_code(exc))
        sys.exit(code)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command and write out what it printed."""
        try:
            try:
                result = super().invoke(ctx)
            except Exception:
                sys.stdout.flush()
                raise
            sys.stdout.flush()
        except KeyboardInterrupt:
            # Nor may a reader that does not read hold us now.
            _give_up_output()
            raise
        except BrokenPipeError:
            # A reader that has seen enough is no error worth a word.
            _give_up_output()
            raise click.exceptions.Exit(BROKEN_PIPE) from None
        except OSError:
            try:
                sys.stdout.flush()
            except OSError:
                _give_up_output()
            raise
        return result


def _exit_code(exc: OSError) -> int:
    # A file that may not be written is no matter of a capability.
    if isinstance(exc, nlct.PrivilegeError):
        return NO_PRIVILEGE
    return UNSUPPORTED if isinstance(exc, nlct.UnsupportedError) else PARTIAL


def _words(exc: OSError) -> str:
    words = exc.strerror or str(exc)
    return words if exc.filename is None else f"{exc.filename}: {words}"


def _complain(message: str, code: int) -> int:
    click.echo("nlct: " + " ".join(message.split()), err=True)
    return code


def _give_up_output() -> None:
    """Let the interpreter's last flush of standard output succeed."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
