"""`blockyard completion`: scripts for the shells."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from blockyard.cli.app import build, sub_app
from blockyard.cli.exits import Exit
from blockyard.cli.running import CommandFailed

app = sub_app("completion")

Shell = Literal["bash", "zsh", "fish"]


@app.command
def bash() -> None:
    """Print the completion script for bash.

    For example:
      source <(blockyard completion bash)
    """
    _print("bash")


@app.command
def zsh() -> None:
    """Print the completion script for zsh.

    For example:
      blockyard completion zsh > ~/.zfunc/_blockyard
    """
    _print("zsh")


@app.command
def fish() -> None:
    """Print the completion script for fish.

    For example:
      blockyard completion fish > ~/.config/fish/completions/blockyard.fish
    """
    _print("fish")


@app.command
def install(
    shell: Shell | None = None, /, *, path: Annotated[Path | None, Parameter(metavar="FILE")] = None
) -> None:
    """Write the completion script where the shell finds it, and tell the shell in its start-up file.

    Examples:
      blockyard --install-completion
      blockyard completion install zsh

    Parameters
    ----------
    shell
        bash, zsh or fish; the one that runs if it is left out.
    path
        Write the script there instead, and leave the start-up file alone.
    """
    try:
        written = build().install_completion(shell=shell, output=path, add_to_startup=path is None)
    except (RuntimeError, ValueError, OSError) as error:
        raise CommandFailed(
            Exit.FAILED, f"cannot install: {error}", "Name the shell: bash, zsh or fish."
        ) from error
    print(f"completion is in {written}; it works in the next shell")


def _print(shell: Shell) -> None:
    print(build().generate_completion(shell=shell))
