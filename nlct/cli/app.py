"""One door from an error to one line on standard error and an exit code."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Callable

import click

from nlct.cli.output import STANDARD_OUTPUT, named, note
from nlct.cli.streams import give_up, has_output
from nlct.errors import Error, PrivilegeError, UnsupportedError

PARTIAL = 1
NO_PRIVILEGE = 3
UNSUPPORTED = 4
# Where a context keeps the order of the options.
_GIVEN = f"{__name__}.given"
# As a shell reports a program that the signal ended.
INTERRUPTED = 130
BROKEN_PIPE = 141


class Failure(click.ClickException):
    """Something failed: one line, and exit code 1."""

    exit_code = PARTIAL


class Shown(click.Option):
    """An option that shows a text and does nothing else.

    click's own --help and --version load gettext and locale, to translate what is in English only.
    """

    def __init__(
        self, names: Sequence[str], show: Callable[[click.Context], str], **attributes: Any
    ) -> None:
        def print_and_exit(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
            if wanted and not ctx.resilient_parsing:
                click.echo(show(ctx), color=ctx.color)
                ctx.exit()

        flag: dict[str, Any] = {"is_flag": True, "is_eager": True, "expose_value": False}
        super().__init__(names, **flag, callback=print_and_exit, **attributes)


_HELP = Shown(["-h", "--help"], click.Context.get_help, help="Show this message and exit.")


class _Named(click.Command):
    """Its usage errors name the command; --help is our own."""

    def get_help_option(self, ctx: click.Context) -> click.Option:  # noqa: ARG002
        """Return --help."""
        return _HELP

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; --help and --version are printed here."""
        with _told(ctx):
            return super().parse_args(ctx, args)


class Command(_Named):
    """A command. ``given(ctx)`` tells in which order it was given its options."""

    def make_parser(self, ctx: click.Context) -> Any:
        """Make click's parser, and keep what it says of the order."""
        parser = super().make_parser(ctx)
        parse = parser.parse_args

        def parse_args(args: list[str]) -> Any:
            values, rest, ctx.meta[_GIVEN] = parse(args)
            return values, rest, ctx.meta[_GIVEN]

        setattr(parser, "parse_args", parse_args)  # noqa: B010 - to mypy it is a method
        return parser

    def invoke(self, ctx: click.Context) -> Any:
        """Run, now that everything is loaded."""
        if not gc.isenabled():
            gc.freeze()
            gc.enable()
        return super().invoke(ctx)


def given(ctx: click.Context) -> list[click.Parameter]:
    """Return the options in the order in which they were given, each as often as it was."""
    return list(ctx.meta[_GIVEN])


class Modules(Mapping[str, click.Command]):
    """Commands by name, each loaded from the module of its name when it is looked up."""

    def __init__(self, package: str, names: Sequence[str]) -> None:
        self._package = package
        self._names = names

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._names:
            raise KeyError(name)
        command: click.Command = import_module(f"{self._package}.{name}").command
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Group(_Named, click.Group):
    """A group of commands."""


class App(Group):
    """The group of all commands, which keeps our exit codes."""

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
        except (click.ClickException, OSError) as exc:
            code = complain(exc)
        _flush_or_give_up()
        sys.exit(code)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command and write out what it printed."""
        try:
            try:
                result = super().invoke(ctx)
            except Exception:
                # The error is printed after this, and matters more than whether this succeeds.
                _flush_or_give_up()
                raise
            with named(STANDARD_OUTPUT):
                sys.stdout.flush()
        except KeyboardInterrupt:
            # A reader that does not read must not hold us now.
            give_up(sys.stdout)
            raise
        except BrokenPipeError:
            # A reader that has seen enough is no error.
            give_up(sys.stdout)
            raise click.exceptions.Exit(BROKEN_PIPE) from None
        return result


@contextmanager
def _told(ctx: click.Context) -> Iterator[None]:
    """Add the command to a usage error, and the name of standard output to its failure."""
    try:
        yield
    except click.UsageError as exc:
        exc.ctx = exc.ctx or ctx
        raise
    except Error:
        raise
    except OSError as exc:
        # The error of a file has a name already, and that of a missing output says what it is.
        if exc.filename is None and has_output():
            exc.filename = STANDARD_OUTPUT
        raise


def _flush_or_give_up() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        give_up(sys.stdout)


def complain(exc: click.ClickException | OSError, where: str | None = None) -> int:
    """Say in one line what went wrong, and in which namespace; return the exit code."""
    place = "" if where is None else f"{where}: "
    note("nlct: " + " ".join(f"{place}{_words(exc)}".split()))
    return _exit_code(exc)


def _words(exc: click.ClickException | OSError) -> str:
    if isinstance(exc, click.UsageError):
        command = "nlct" if exc.ctx is None else exc.ctx.command_path
        return f"{exc.format_message()} (see {command} --help)"
    if isinstance(exc, click.ClickException):
        return exc.format_message()
    words = exc.strerror or str(exc)
    return words if exc.filename is None else f"{exc.filename}: {words}"


def _exit_code(exc: click.ClickException | OSError) -> int:
    if isinstance(exc, click.ClickException):
        return exc.exit_code
    # A file that may not be written raises a plain OSError: no capability is missing.
    if isinstance(exc, PrivilegeError):
        return NO_PRIVILEGE
    return UNSUPPORTED if isinstance(exc, UnsupportedError) else PARTIAL
