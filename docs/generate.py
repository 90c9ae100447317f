"""Print the pages that are made from the code (`make docs`), or say which are stale (`--check`).

A page is a function that gives its whole text. To add one: write `docs/pages/NAME.py` with `page()`, or let the
code that owns the tables give it, and add a line to PAGES. `tests/architecture` proves that every page is fresh.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from blockyard.jobs.lifecycle import table
from docs.pages import cli, drivers, errors, options

DOCS: Final = Path(__file__).resolve().parent

PAGES: Final[dict[str, Callable[[], str]]] = {
    "errors.md": errors.page,
    "cli.md": cli.page,
    "options.md": options.page,
    "drivers.md": drivers.page,
    "job-states.md": table.markdown,
}
"""File in `docs/` -> its text."""


def stale() -> list[str]:
    """Pages that differ from what would be printed now."""
    return [name for name, page in PAGES.items() if _present(DOCS / name) != page()]


def _present(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def main() -> int:
    """Write all pages, or report stale ones."""
    if "--check" in sys.argv[1:]:
        differing = stale()
        for name in differing:
            sys.stderr.write(f"stale: docs/{name}; run `make docs`\n")
        return bool(differing)
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
