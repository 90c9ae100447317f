"""Judges of a crash state. An oracle is any picklable object with `problems(crash) -> list[str]`.

An oracle is made again in each worker process, so its class must live in a module that can be imported by name
(under `tests/support`), not in a test file.
"""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from tests.support import peers
from tests.support.crash.guest import History
from tests.support.crash.log import Entry, Log, Op
from tests.support.crash.reading import read_by_qemu, read_by_us
from tests.support.crash.states import State

# Exit codes of qemu-img check (its manual page).
CLEAN: Final = 0
LEAKS: Final = 3
DIRTY_BIT: Final = 1
"""First incompatible feature bit of qcow2 (docs/interop/qcow2.txt)."""
_INCOMPATIBLE_OFFSET: Final = 72


@dataclass(slots=True)
class Crash:
    """One state on disk. Files in `directory` are not to be changed: `copy` gives a place for that."""

    directory: Path
    scratch: Path
    log: Log
    state: State
    tally: Counter[str] = field(default_factory=Counter)
    """Counts that the report sums up: outcomes that are no problem."""

    @property
    def cut(self) -> int:
        return self.state.cut

    def marks(self, kind: str) -> list[Entry]:
        """What the world had been told before the crash."""
        return [entry for entry in self.log.entries[: self.cut] if entry.op is Op.MARK and entry.name == kind]

    def copy(self) -> Path:
        """A directory with copies of all files, to repair, reopen and crash again. Gone after this state."""
        place = self.scratch / "copy"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.directory, place)
        return place


class Oracle(Protocol):
    """Says what is wrong with a state; nothing wrong is an empty list."""

    def problems(self, crash: Crash) -> list[str]: ...


class Every:
    """All of several oracles."""

    def __init__(self, *oracles: Oracle) -> None:
        self._oracles: Sequence[Oracle] = oracles

    def problems(self, crash: Crash) -> list[str]:
        return [problem for oracle in self._oracles for problem in oracle.problems(crash)]


class QemuCheck:
    """`qemu-img check` calls the image clean or leaking.

    Or, if `dirty_allowed`, its dirty bit says that a repair is due, and the repair succeeds.
    """

    def __init__(self, image: str, image_format: str = "qcow2", dirty_allowed: bool = False) -> None:
        self._image = image
        self._format = image_format
        self._dirty_allowed = dirty_allowed

    def problems(self, crash: Crash) -> list[str]:
        path = crash.directory / self._image
        command = ("qemu-img", "check", "-f", self._format, "--output=json", path)
        result = peers.run(*command, check=False, cwd=crash.directory)
        if result.returncode in (CLEAN, LEAKS):
            crash.tally["clean" if result.returncode == CLEAN else "leaks"] += 1
            return []
        if self._dirty_allowed and _is_dirty(path):
            return self._repaired(crash)
        return [f"qemu-img check of {self._image}: {_summary(result.stdout, result.stderr)}"]

    def _repaired(self, crash: Crash) -> list[str]:
        crash.tally["dirty"] += 1
        path = crash.copy() / self._image
        repair = peers.run("qemu-img", "check", "-r", "all", "-f", self._format, path, check=False, cwd=path.parent)
        again = peers.run("qemu-img", "check", "-f", self._format, path, check=False, cwd=path.parent)
        if again.returncode == CLEAN:
            return []
        return [f"dirty {self._image} cannot be repaired: {repair.stdout}{repair.stderr}{again.stdout}"]


class GuestContent:
    """The guest sees every flushed sector, and elsewhere only values it wrote; by QEMU and by us alike."""

    def __init__(
        self,
        image: str,
        image_format: str = "qcow2",
        guest: str = "guest",
        readers: Sequence[str] = ("qemu", "us"),
    ) -> None:
        assert set(readers) <= {"qemu", "us"}
        self._image = image
        self._format = image_format
        self._guest = guest
        self._readers = tuple(readers)
        self._history: tuple[Log, History] | None = None

    def problems(self, crash: Crash) -> list[str]:
        if self._history is None or self._history[0] is not crash.log:
            self._history = (crash.log, History(crash.log, self._guest))
        found: list[str] = []
        for reader in self._readers:
            try:
                content = self._read(reader, crash)
            except Exception as problem:
                found.append(f"{self._image} cannot be read by {reader}: {problem}")
                continue
            found += [
                f"{self._image} read by {reader}: {problem}"
                for problem in self._history[1].problems(content, crash.cut)
            ]
        return found

    def _read(self, reader: str, crash: Crash) -> bytes:
        path = crash.directory / self._image
        if reader == "qemu":
            return read_by_qemu(path, self._format, crash.scratch)
        return read_by_us(path, self._format)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_history": None}


def _is_dirty(path: Path) -> bool:
    with path.open("rb") as file:
        header = file.read(_INCOMPATIBLE_OFFSET + 8)
    return bool(int.from_bytes(header[_INCOMPATIBLE_OFFSET:], "big") & DIRTY_BIT)


def _summary(printed: str, complaints: str) -> str:
    try:
        facts = json.loads(printed)
    except ValueError:
        return (printed + complaints).strip()
    counts = {name: facts[name] for name in ("corruptions", "check-errors", "leaks") if facts.get(name)}
    return f"{counts} {complaints.strip()[:400]}"
