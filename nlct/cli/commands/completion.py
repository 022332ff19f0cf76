"""``nlct completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from nlct.cli.app import Command
from nlct.cli.output import say
from nlct.cli.streams import require_output


@click.command("completion", cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Examples:
      eval "$(nlct completion bash)"                               in ~/.bashrc
      eval "$(nlct completion zsh)"                                in ~/.zshrc
      nlct completion fish > ~/.config/fish/completions/nlct.fish
    """
    script = get_completion_class(shell)
    assert script is not None
    require_output()
    say(script(ctx.find_root().command, {}, "nlct", "_NLCT_COMPLETE").source())
