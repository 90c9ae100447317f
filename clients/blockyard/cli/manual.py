"""How `--help` looks: a manual page in plain text, the same on a terminal and in a file.

Paragraphs are filled to the width; indented lines (examples) are kept as they stand, ready to be copied. Must not
know any command.
"""

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

WIDEST: Final = 100
"""Longer lines are hard to read, however wide the terminal."""

LABELS: Final = 26
"""Where descriptions begin."""


class Manual:
    """A help formatter for cyclopts."""

    def render_usage(self, console: "Console", options: "ConsoleOptions", usage: Any) -> None:
        """The first line."""
        text = _text(usage).strip()
        if text:
            _write(console, text if text.startswith("Usage:") else f"Usage: {text}")
            _write(console, "")

    def render_description(self, console: "Console", options: "ConsoleOptions", description: Any) -> None:
        """What it does, and examples."""
        text = _text(description).strip("\n")
        if text:
            for line in filled(text, _width(console)):
                _write(console, line)

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: "HelpPanel") -> None:
        """A list of commands or options."""
        if not panel.entries:
            return
        _write(console, f"{panel.title}:")
        for entry in panel.entries:
            for line in _entry(entry, _width(console)):
                _write(console, line)
        _write(console, "")


def filled(text: str, width: int) -> Iterator[str]:
    """Paragraphs filled to the width; lines that are indented, or end a paragraph with a colon, kept."""
    paragraph: list[str] = []
    for line in [*text.rstrip().splitlines(), ""]:
        if line and not line.startswith(" "):
            paragraph.append(line)
            continue
        yield from textwrap.wrap(" ".join(paragraph), width, break_long_words=False, break_on_hyphens=False)
        paragraph = []
        yield line


def _entry(entry: "HelpEntry", width: int) -> Iterator[str]:
    label = ", ".join(entry.display_labels_with_metavar)
    words = [_text(entry.description)]
    if entry.choices:
        words.append(f"[{' | '.join(entry.choices)}]")
    if entry.env_var:
        words.append(f"[${', $'.join(entry.env_var)}]")
    if entry.required:
        words.append("[required]")
    lines = textwrap.wrap(
        " ".join(" ".join(words).split()), width - LABELS, break_long_words=False, break_on_hyphens=False
    )
    if len(label) + 4 > LABELS or not lines:
        yield f"  {label}"
    else:
        yield f"  {label:<{LABELS - 2}}{lines.pop(0)}"
    for line in lines:
        yield " " * LABELS + line


def _text(renderable: Any) -> str:
    # Help texts come wrapped in objects of rich; rendered very wide they are the text again.
    if renderable is None:
        return ""
    if isinstance(renderable, str):
        return renderable
    if hasattr(renderable, "plain"):
        return str(renderable.plain)
    from rich.console import Console

    console = Console(width=10_000, no_color=True, highlight=False, markup=False, force_terminal=False)
    with console.capture() as captured:
        console.print(renderable, end="")
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _width(console: "Console") -> int:
    return max(60, min(console.width, WIDEST))


def _write(console: "Console", line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
