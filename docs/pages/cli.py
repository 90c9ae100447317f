"""`docs/cli.md`: the command line's own manual pages and exit codes."""

import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Final

from cyclopts import App
from rich.console import Console

from blockyard.cli.app import GROUPS, build
from blockyard.cli.exits import MEANINGS

WIDTH: Final = 96

INTRODUCTION: Final = """\
# The command line

Printed from the commands themselves by `make docs`; do not edit. `blockyard GROUP COMMAND --help` prints the same.

Results go to standard output, everything else to standard error. `--output json` prints one JSON document and
`--output jsonl` one object per line: the messages of the API with all their fields, 64-bit numbers as strings, as
proto JSON has them. Sizes in tables are rounded for people; JSON has bytes.

Progress is a live bar on a terminal and a line every two seconds elsewhere; `--quiet` leaves it out. Ctrl-C ends
the command, never a job: `blockyard job watch ID` takes a job up again.

`TRACEPARENT` and `TRACESTATE` in the environment (W3C Trace Context) go with every call, so that a script's trace
reaches the services.

## Exit codes

| code | meaning |
|---|---|
"""


def page() -> str:
    """The whole page."""
    codes = "".join(f"| {code.value} | {meaning} |\n" for code, meaning in MEANINGS.items())
    return INTRODUCTION + codes + "\n" + "\n".join(_sections())


def _sections() -> Iterator[str]:
    app = build()
    yield f"## blockyard\n\n```\n{_help([])}```\n"
    for group in GROUPS:
        yield f"## blockyard {group}\n\n{GROUPS[group]}\n"
        for words in _commands(app[group], [group]):
            yield f"### blockyard {' '.join(words)}\n\n```\n{_without_globals(_help(words))}```\n"


def _commands(app: App, words: list[str]) -> Iterator[list[str]]:
    """Every command below a group, those of groups inside it as well."""
    for name in app:
        if not name.startswith("-"):
            below = list(_commands(app[name], [*words, name]))
            yield from below or [[*words, name]]


def _help(words: list[str]) -> str:
    captured = io.StringIO()
    with redirect_stdout(captured):
        build().help_print(words, console=Console(file=captured, width=WIDTH, color_system=None))
    return captured.getvalue().rstrip() + "\n"


def _without_globals(text: str) -> str:
    # They are the same everywhere and stand once, at `node list`, where the first page points to.
    return (
        text
        if text.startswith("Usage: blockyard node list")
        else text.partition("Global options:")[0].rstrip() + "\n"
    )
