"""`python -m tests.bench [--case NAME ...]`: a table on the screen, and bench.json."""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from tests.bench.harness import WANTED, Case, Row, cases
from tests.support import peers

TIMEOUT_S: Final = 900
"""Of one case; all of them together take about ten minutes on two cores."""


def main() -> int:
    options = _options()
    known = cases()
    if options.one:
        Path(options.rows).write_text(json.dumps(_measure(known[options.one])))
        return 0
    if unknown := sorted(set(options.case) - set(known)):
        print(f"no case named {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table("case", "ours", "peer", "of", "unit", "ratio", "wanted", title="ratio above 1: ours is better")
    results, problems = [], 0
    for name in options.case or known:
        console.print(f"[dim]{name} ...[/dim]")
        rows, trouble = _in_own_process(known[name])
        problems += bool(trouble) and not trouble.startswith("skipped")
        if trouble:
            table.add_row(name, "", "", "", trouble, "", "")
        for row in rows:
            wanted = WANTED.get((row.case, row.peer_name))
            results.append({**row._asdict(), "wanted": wanted})
            verdict = "" if wanted is None else f"{wanted} {'ok' if row.ratio >= wanted else 'BELOW'}"
            figures = (f"{row.ours:.4g}", f"{row.peer:.4g}", row.peer_name, row.unit, f"{row.ratio:.2f}")
            table.add_row(row.case, *figures, verdict)
    console.print(table)
    machine = {"machine": platform.platform(), "python": platform.python_version()}
    Path("bench.json").write_text(json.dumps({**machine, "rows": results}, indent=1) + "\n")
    return 1 if problems else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--case", action="append", default=[], help="only this case; may be given several times")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--rows", help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(case: Case) -> list[Any]:
    with tempfile.TemporaryDirectory(prefix="blockyard-bench-") as folder:
        return [list(row) for row in case.run(Path(folder))]


def _in_own_process(case: Case) -> tuple[list[Row], str]:
    """The rows, and why there are none."""
    if missing := [reason for peer in case.peers if (reason := peers.missing(peer))]:
        return [], "skipped: " + "; ".join(missing)
    with tempfile.NamedTemporaryFile("r", suffix=".json") as rows:
        command = [sys.executable, "-m", "tests.bench", "--one", case.name, "--rows", rows.name]
        try:
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            return [], f"failed: no end within {TIMEOUT_S} s"
        if done.returncode:
            return [], "failed: " + (done.stderr.strip().splitlines() or ["without a word"])[-1]
        return [Row(*row) for row in json.load(rows)], ""


if __name__ == "__main__":
    sys.exit(main())
