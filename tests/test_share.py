"""What tools/share makes: man pages of every command, and completion files that complete."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from nlct.cli.commands import cli

ROOT = Path(__file__).parents[1]
PAGES = "man/man1"
FILES = {
    "bash": "bash-completion/completions/nlct",
    "zsh": "zsh/site-functions/_nlct",
    "fish": "fish/vendor_completions.d/nlct.fish",
}


def run(*words: str | Path, **options: object) -> str:
    """Run a command that must succeed; return all that it prints."""
    done = subprocess.run(
        list(map(str, words)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
        **options,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, done.stdout
    return str(done.stdout)


def need(*tools: str) -> None:
    """Skip where one of them is missing."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"MISSING: {', '.join(missing)}")


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything, made once."""
    need("bash")
    folder = tmp_path_factory.mktemp("share")
    # click asks bash for its version, and says on standard error what it thinks of it.
    assert run(sys.executable, ROOT / "tools/share", folder, env=environment()) == ""
    return folder


def environment(**more: str) -> dict[str, str]:
    """Return the environment for a command, with this nlct."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", **more}


def commands(ctx: click.Context) -> Iterator[click.Context]:
    """Yield the contexts of a command and of all below it."""
    yield ctx
    if isinstance(ctx.command, click.Group):
        for name in ctx.command.list_commands(ctx):
            command = ctx.command.get_command(ctx, name)
            assert command is not None
            yield from commands(click.Context(command, parent=ctx, info_name=name))


COMMANDS = {
    ctx.command_path.replace(" ", "-"): ctx
    for ctx in commands(click.Context(cli, info_name="nlct"))
}


def test_each_command_has_a_page(share: Path) -> None:
    """And there is no other."""
    assert {path.stem for path in (share / PAGES).iterdir()} == COMMANDS.keys()


def test_each_page_names_every_option_and_command(share: Path) -> None:
    """Also those that --help leaves out."""
    need("man")
    for name, ctx in COMMANDS.items():
        page = share / PAGES / f"{name}.1"
        # A page as wide as any list in it.
        shown = run("man", "--warnings", "-l", page, env=environment(MANWIDTH="5000"))
        words = set(re.findall(r"[\w-]+", shown))
        wanted = {opt for param in ctx.command.get_params(ctx) for opt in param.opts}
        wanted = {opt for opt in wanted if opt.startswith("-")}
        wanted |= {alias for p in ctx.command.params for alias in getattr(p, "aliases", ())}
        if isinstance(ctx.command, click.Group):
            wanted |= {f"{name}-{below}" for below in ctx.command.list_commands(ctx)}
        assert wanted <= words, (name, wanted - words)


def test_no_formatter_complains(share: Path) -> None:
    """Neither groff, on pages of 80 columns, nor mandoc's checks."""
    need("man", "mandoc")
    pages = sorted((share / PAGES).iterdir())
    assert run("mandoc", "-T", "lint", "-W", "warning", *pages) == ""
    for page in pages:
        options = ["--warnings", "-Tutf8", "-Z", "-l"]
        done = subprocess.run(
            ["man", *options, page], capture_output=True, env=environment(MANWIDTH="80"), check=True
        )
        assert done.stderr == b"", done.stderr


@pytest.mark.parametrize("shell", FILES)
def test_a_shell_reads_its_file(shell: str, share: Path) -> None:
    """Without running nlct: it would not be found."""
    need(shell)
    run(shell, "-n", share / FILES[shell])


# What is typed, and some of what must be offered.
TYPED = {
    "nlct fl": {"flush"},
    "nlct expect ": {"list", "create", "delete", "events", "flush"},
    "nlct flush --strategy ": {"auto", "scan", "kernel"},
    "nlct delete --not-dpo": {"--not-dport"},
}
# How a shell is asked without a terminal. What shows them to a person is zsh's own there, and
# works on a terminal alone: it is replaced.
COMPLETE = {
    "bash": """
        source "$1"
        COMP_LINE=$2 COMP_POINT=${#2}
        read -ra COMP_WORDS <<<"$2"
        case $2 in *\\ ) COMP_WORDS+=("") ;; esac
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        spec=$(complete -p nlct)
        function=${spec##*-F } function=${function%% *}
        $function nlct "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\\n' "${COMPREPLY[@]}"
    """,
    "zsh": """
        compdef() { [[ $* == "_nlct_completion nlct" ]] }
        _describe() { print -rl -- ${completions_with_descriptions%%:*} }
        compadd() { print -rl -- $completions }
        source $1
        words=(${=2}) CURRENT=${#words}
        [[ $2 == *' ' ]] && words+=("") && CURRENT=$((CURRENT + 1))
        _nlct_completion
    """,
    "fish": """
        source $argv[1]
        complete --do-complete $argv[2]
    """,
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A search path on which this nlct is found."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "nlct").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m nlct "$@"\n')
    (folder / "nlct").chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize("shell", COMPLETE)
def test_a_shell_completes(shell: str, share: Path, path: str) -> None:
    """Commands, options, and the values that an option takes."""
    need(shell)
    for typed, wanted in TYPED.items():
        told = ["-c", COMPLETE[shell], *[shell] * (shell != "fish"), share / FILES[shell], typed]
        offered = run(shell, *told, env=environment(PATH=path))
        assert wanted <= {line.split("\t")[0] for line in offered.splitlines()}, (typed, offered)
