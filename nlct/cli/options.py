"""What several commands take."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Callable, TypeVar

import click

from nlct.cli.places import Place
from nlct.errors import NotFoundError
from nlct.netns import NAMED, Identity, Netns

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Command = TypeVar("Command", bound=Callable[..., Any])
LAST_ZONE = 65535


def refuse_leading_zeros(text: str) -> None:
    """Refuse what conntrack(8) reads as octal."""
    if re.search(r"(^|-)0[0-9]", text):
        raise click.BadParameter(f"{text!r} has a leading zero, which other tools read as octal")


_NUMBER = "0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}"


def integer(text: str, high: int | None = None) -> int:
    """Read a number up to ``high``, hexadecimal after 0x."""
    refuse_leading_zeros(text)
    if re.fullmatch(_NUMBER, text) is None:
        raise click.BadParameter(f"{text!r} is not a number")
    value = int(text, 16 if text[:2] in ("0x", "0X") else 10)
    if high is not None and value > high:
        raise click.BadParameter(f"from 0 to {high}, not {value}")
    return value


def number_range(text: str, high: int, *, open_end: bool = False) -> range:
    """Read "7", "0x1f" or "10-20"; where the end may be open, also "10-"."""
    refuse_leading_zeros(text)
    match = re.fullmatch(rf"({_NUMBER})(?:(-)({_NUMBER}|))?", text)
    if match is None or (match[2] and not match[3] and not open_end):
        raise click.BadParameter(f"{text!r} is not a number (7) or a range (10-20)")
    first = integer(match[1])
    last = first
    if match[2]:
        last = integer(match[3]) if match[3] else high
    if max(first, last) > high:
        raise click.BadParameter(f"from 0 to {high}, not {max(first, last)}")
    if last < first:
        raise click.BadParameter(f"{text!r} begins after its end")
    return range(first, last + 1)


def split(texts: Iterable[str]) -> Iterator[str]:
    """Yield the items of lists with commas."""
    for text in texts:
        yield from text.split(",")


def zone_set(texts: Iterable[str]) -> frozenset[int]:
    """Read zones: numbers and ranges, and lists of them with commas."""
    return frozenset(zone for item in split(texts) for zone in number_range(item, LAST_ZONE))


def names_in(texts: Iterable[str], known: Collection[str]) -> tuple[str, ...]:
    """Read names, each at most once: one by one, and in lists with commas."""
    names = tuple(split(texts))
    for name in names:
        if name not in known:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(known)}")
    if len(set(names)) < len(names):
        raise click.BadParameter("it names one twice")
    return names


class Aliased(click.Option):
    """An option that is also known by names of conntrack(8), which --help does not list."""

    def __init__(self, names: Sequence[str], aliases: str = "", **attributes: Any) -> None:
        super().__init__(names, **attributes)
        self.aliases = aliases.split()

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Let the parser take all names."""
        listed = self.opts
        self.opts = [*listed, *self.aliases]
        super().add_to_parser(parser, ctx)
        self.opts = listed


class Once(Aliased):
    """An option that takes one value. Of several, click would silently take the last."""

    def __init__(self, names: Sequence[str], default: Any = None, **attributes: Any) -> None:
        some = () if default is None else (default,)
        super().__init__(names, multiple=True, default=some, **attributes)

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """Read the one value."""
        values = super().process_value(ctx, value)
        if values and len(values) > 1:
            raise click.BadParameter(f"it is given {len(values)} times", ctx, self)
        return values[0] if values else None


def number_option(
    names: str, low: int, high: int | None, help: str, **attributes: Any
) -> Callable[[Command], Command]:
    """Take one number."""
    return click.option(
        *names.split(),
        cls=Once,
        type=click.IntRange(low, high),
        metavar="N",
        show_default=True,
        help=help,
        **attributes,
    )


def seconds_option(
    name: str, low: float, high: float | None, help: str, **attributes: Any
) -> Callable[[Command], Command]:
    """Take a time in seconds, from ``low`` to ``high`` if there is one."""

    def check(
        _ctx: click.Context, _param: click.Parameter, given: tuple[float, ...]
    ) -> tuple[float, ...]:
        most = float("inf") if high is None else high
        may_be = f"{low:g} or more" if high is None else f"from {low:g} to {high:g}"
        for seconds in given:
            # Nor is it "nan".
            if not low <= seconds <= most:
                raise click.BadParameter(f"it is {may_be} seconds, not {seconds:g}")
        return given

    return click.option(
        name, cls=Once, type=float, metavar="SECONDS", callback=check, help=help, **attributes
    )


def _open(ctx: click.Context, spec: str) -> Netns:
    try:
        netns = Netns.open(spec)
    except NotFoundError as exc:
        raise click.BadParameter(f"there is no network namespace {spec!r}") from exc
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc
    ctx.call_on_close(netns.close)
    return netns


def open_places(
    ctx: click.Context, _param: click.Parameter, specs: tuple[str, ...]
) -> tuple[Place, ...]:
    """Open all network namespaces, until the command ends, before it works in any of them."""
    if not specs or ctx.resilient_parsing:
        return (Place(None),)
    known: dict[Identity, str] = {}
    places: list[Place] = []
    for spec in specs:
        netns = _open(ctx, spec)
        other = known.setdefault(netns.identity, spec)
        if len(known) == len(places):
            raise click.BadParameter(f"{other!r} and {spec!r} are the same network namespace")
        places.append(Place(netns, spec if len(specs) > 1 else None, spec))
    return tuple(places)


def netns_names(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[str | CompletionItem]:
    """Offer the names that ``ip netns`` shows."""
    names = sorted(os.listdir(NAMED)) if os.path.isdir(NAMED) else []
    return [name for name in names if name.startswith(incomplete)]


def files(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[str | CompletionItem]:
    """Let the shell offer files."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - slow to import

    return [CompletionItem(incomplete, type="file")]


def file_names(
    _ctx: click.Context, _param: click.Parameter, names: tuple[str, ...]
) -> tuple[str, ...]:
    """Refuse what is no name of a file to write to."""
    for name in names:
        # As an unset variable in a script leaves it.
        if not name:
            raise click.BadParameter("the name of the file is empty")
        if os.path.isdir(name):
            raise click.BadParameter(f"{name!r} is a directory")
    return names


def offer(names: Iterable[str]) -> Callable[..., list[str | CompletionItem]]:
    """Return a completion that offers these names behind every comma of a list."""

    def complete(
        _ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[str | CompletionItem]:
        before, comma, last = incomplete.rpartition(",")
        return [before + comma + name for name in names if name.startswith(last)]

    return complete


def netns_option(command: Command) -> Command:
    """Take --netns, any number of times."""
    return click.option(
        "--netns",
        "places",
        metavar="NAME",
        multiple=True,
        callback=open_places,
        shell_complete=netns_names,
        help="Work in this network namespace: a name as `ip netns` shows it, or a path such as "
        "/proc/PID/ns/net. May be repeated.",
    )(command)


def json_option(command: Command) -> Command:
    """Take --json."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON and nothing else on standard output."
    )(command)


def zone_option(command: Command) -> Command:
    """Take --zone, any number of times."""
    return click.option(
        "--zone",
        "-z",
        "zones",
        cls=Aliased,
        aliases="-w",
        metavar="ZONE[-ZONE]",
        multiple=True,
        callback=lambda _ctx, _param, texts: zone_set(texts) or None,
        help="Only this zone, 0 to 65535, or a range, as in 10-20. May be repeated.",
    )(command)


def zone_names(zones: Iterable[int]) -> str:
    """Say which zones: "zone 7", "zones 1-3, 9"."""
    runs: list[list[int]] = []
    for zone in sorted(zones):
        if runs and runs[-1][-1] == zone - 1:
            runs[-1] = [runs[-1][0], zone]
        else:
            runs.append([zone])
    if len(runs) > 8:
        return f"{len(set(zones)):,} zones"
    text = ", ".join("-".join(map(str, run)) for run in runs)
    return f"zones {text}" if "-" in text or "," in text else f"zone {text}"
