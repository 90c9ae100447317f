"""Crash states as real files, fast: what is durable is written once as the cut advances, what a state adds is
undone.

States must come in order of their cuts, else everything is built anew. The files of a state stand under the names
they have in it, as hard links, in `Disk.view`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.crash.log import DIRECTORY, Entry, Log, Op
from tests.support.crash.states import State
from tests.support.crash.timeline import Timeline


class _Undo(NamedTuple):
    descriptor: int
    size: int
    offset: int
    content: bytes


class Disk:
    """The files of one log in one directory."""

    def __init__(self, log: Log, directory: Path) -> None:
        self._log = log
        self.timeline = Timeline(log)
        self.view = directory / "view"
        self._store = directory / "store"
        self.view.mkdir()
        self._store.mkdir()
        self._paths = {name: self._store / str(number) for number, name in enumerate(log.files())}
        self._descriptors = {
            name: os.open(path, os.O_RDWR | os.O_CREAT, 0o600) for name, path in self._paths.items()
        }
        self._shown: dict[str, str] = {}
        self._rebuild()

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    @contextmanager
    def at(self, state: State) -> Iterator[Path]:
        """The directory as the crash left it, until the block ends. Nobody may change the files meanwhile."""
        self._advance(state.cut)
        undo: list[_Undo] = []
        names = dict(self._names)
        try:
            for index in state.applied:
                entry = self._log.entries[index]
                if entry.file == DIRECTORY:
                    _change_names(names, entry)
                else:
                    self._apply_late(entry, state, undo)
            self._show(names)
            yield self.view
        finally:
            for step in reversed(undo):
                os.ftruncate(step.descriptor, step.size)
                os.pwrite(step.descriptor, step.content, step.offset)

    def _rebuild(self) -> None:
        for name, descriptor in self._descriptors.items():
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, self._log.base.get(name, b""), 0)
        self._names = {name: name for name in self._log.base}
        self._cut = 0
        self._durable = 0

    def _advance(self, cut: int) -> None:
        if cut < self._cut:
            self._rebuild()
        timeline = self.timeline
        while self._durable < len(timeline.by_durability):
            index = timeline.by_durability[self._durable]
            if timeline.durable_at[index] > cut:
                break
            entry = self._log.entries[index]
            if entry.file == DIRECTORY:
                _change_names(self._names, entry)
            else:
                # An overtaker is in place already and stays on top.
                for start, end in self._free_parts(entry, timeline.durable_at[index] - 1, entry.offset, entry.end):
                    _apply(self._descriptors[entry.file], entry, start, end)
            self._durable += 1
        self._cut = cut

    def _apply_late(self, entry: Entry, state: State, undo: list[_Undo]) -> None:
        start, end = entry.offset, entry.end
        if state.torn is not None and state.torn.index == entry.index:
            start, end = state.torn.start, state.torn.end
        descriptor = self._descriptors[entry.file]
        for low, high in self._free_parts(entry, state.cut, start, end):
            size = os.fstat(descriptor).st_size
            saved = size - low if entry.op is Op.TRUNCATE else high - low
            content = os.pread(descriptor, saved, low) if saved > 0 else b""
            undo.append(_Undo(descriptor, size, low, content))
            _apply(descriptor, entry, low, high)

    def _free_parts(self, entry: Entry, cut: int, start: int, end: int) -> list[tuple[int, int]]:
        """`[start, end)` without what durable, newer changes cover."""
        parts = [(start, end)]
        if entry.op is Op.TRUNCATE:
            return parts
        for shadow in self.timeline.shadows(entry, cut):
            if shadow.op is Op.TRUNCATE:
                parts = [(low, min(high, shadow.offset)) for low, high in parts]
            else:
                parts = [
                    piece
                    for low, high in parts
                    for piece in ((low, min(high, shadow.offset)), (max(low, shadow.end), high))
                ]
            parts = [(low, high) for low, high in parts if low < high]
        return parts

    def _show(self, names: dict[str, str]) -> None:
        """Make the view have exactly these names."""
        if names == self._shown:
            return
        for name in self._shown:
            (self.view / name).unlink()
        for name, file in names.items():
            (self.view / name).hardlink_to(self._paths[file])
        self._shown = dict(names)


def _change_names(names: dict[str, str], entry: Entry) -> None:
    if entry.op is Op.CREATE:
        names[entry.name] = entry.name
    elif entry.op is Op.RENAME:
        names[entry.target] = names.pop(entry.name)
    else:
        del names[entry.name]


def _apply(descriptor: int, entry: Entry, start: int, end: int) -> None:
    if entry.op is Op.TRUNCATE:
        os.ftruncate(descriptor, entry.offset)
    elif entry.op is Op.WRITE:
        os.pwrite(descriptor, entry.data[start - entry.offset : end - entry.offset], start)
    else:
        if entry.op is Op.DISCARD:
            end = min(end, os.fstat(descriptor).st_size)
        os.pwrite(descriptor, bytes(max(0, end - start)), start)
