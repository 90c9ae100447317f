"""What goes to standard output: tables for people, JSON for programs.

Theory. A command hands over messages of the API together with how people want to see them; the chosen form
decides which of the two is used. Tables are plain aligned text, equal on a terminal and in a file. JSON is proto
JSON under the proto's own field names, with every field present, so that a script never meets a missing key.
Errors, remarks and progress go to standard error and never mix with it.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TextIO

from google.protobuf import json_format
from google.protobuf.message import Message

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""All but tab and newline (C0, DEL and C1 of ISO 6429)."""
MEASURED_ROWS: Final = 1000
"""Rows that decide the widths of a long table's columns; memory is bounded by them."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    title: str
    cell: Callable[[Any], str]
    right: bool = False


def to_plain(message: Any) -> Any:
    """A message as JSON has it; anything else as it is."""
    if not isinstance(message, Message):
        return message
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


class Output:
    """Prints results in one of the forms."""

    def __init__(self, form: str, sink: TextIO | None = None) -> None:
        self.form = form
        self._sink = sink or sys.stdout

    @property
    def for_people(self) -> bool:
        return self.form not in ("json", "jsonl")

    def one(self, message: Any, facts: Callable[[Any], Iterable[tuple[str, str]]]) -> None:
        """One object: as facts with a name each, or as JSON."""
        if not self.for_people:
            self._json(message)
            return
        known = [(name, value) for name, value in facts(message) if value]
        width = max((len(name) for name, _ in known), default=0)
        for name, value in known:
            self._line(f"{name:<{width}}  {shown(value)}")

    def single(self, message: Any, columns: Sequence[Column]) -> None:
        """One object that is best seen as a row of its table."""
        if self.for_people:
            self.many([message], columns)
        else:
            self._json(message)

    def blocks(self, messages: Sequence[Any], facts: Callable[[Any], Iterable[tuple[str, str]]]) -> None:
        """A few objects: as facts with an empty line between them, or as JSON."""
        if not self.for_people:
            self.many(messages, ())
            return
        for number, message in enumerate(messages):
            if number:
                self._line("")
            self.one(message, facts)

    def many(self, messages: Iterable[Any], columns: Sequence[Column]) -> None:
        """A list of objects: as a table, or as JSON."""
        with self.stream(columns) as add:
            for message in messages:
                add(message)

    @contextmanager
    def stream(self, columns: Sequence[Column]) -> Iterator[Callable[[Any], None]]:
        """Objects that come one by one, printed as they come; a table waits for its first rows to be measured."""
        writer = Table(columns, self._line) if self.for_people else Objects(self.form == "json", self._line)
        try:
            yield writer.add
        finally:
            writer.end()
            self._sink.flush()

    def live(self, message: Any, line: str) -> None:
        """One event of a watch, printed at once: a line for people, else one JSON object per line."""
        self._line(line if self.for_people else json.dumps(to_plain(message)))
        self._sink.flush()

    def text(self, text: str) -> None:
        """A picture or a page that has no other form."""
        self._line(text)

    def done(self, message: Any, remark: str) -> None:
        """The end of a command that has no result but its success."""
        if self.for_people:
            if remark:
                self._line(remark)
        else:
            self._json(message)

    def _json(self, message: Any) -> None:
        self._line(json.dumps(to_plain(message), indent=2 if self.form == "json" else None))

    def _line(self, text: str) -> None:
        self._sink.write(text + "\n")


class Table:
    """Aligned columns. The widths come from the first rows; a wider cell later pushes its own line only."""

    def __init__(self, columns: Sequence[Column], line: Callable[[str], None]) -> None:
        self._columns, self._line = columns, line
        self._held: list[list[str]] = [[column.title for column in columns]]
        self._widths: list[int] = []

    def add(self, message: Any) -> None:
        row = [column.cell(message) or "-" for column in self._columns]
        if self._widths:
            self._print(row)
            return
        self._held.append(row)
        if len(self._held) > MEASURED_ROWS:
            self.end()

    def end(self) -> None:
        if self._widths:
            return
        self._widths = [max(len(row[index]) for row in self._held) for index in range(len(self._columns))]
        for row in self._held:
            self._print(row)

    def _print(self, row: list[str]) -> None:
        cells = [
            shown(cell).rjust(width) if column.right else shown(cell).ljust(width)
            for cell, width, column in zip(row, self._widths, self._columns, strict=True)
        ]
        self._line("  ".join(cells).rstrip())


class Objects:
    """JSON objects: one array, or one a line."""

    def __init__(self, array: bool, line: Callable[[str], None]) -> None:
        self._array, self._line = array, line
        self._last = ""
        if array:
            line("[")

    def add(self, message: Any) -> None:
        if not self._array:
            self._line(json.dumps(to_plain(message)))
            return
        if self._last:
            self._line(self._last + ",")
        text = json.dumps(to_plain(message), indent=2)
        self._last = "  " + text.replace("\n", "\n  ")

    def end(self) -> None:
        if self._array:
            if self._last:
                self._line(self._last)
            self._line("]")


def shown(text: str) -> str:
    """Names out of images are hostile: a terminal would obey their control characters."""
    return _CONTROL.sub("\ufffd", text)


def first(items: Iterable[str], limit: int) -> str:
    """The first few of a list for a table's cell."""
    taken = list(islice(items, limit + 1))
    return ", ".join(taken[:limit]) + (" ..." if len(taken) > limit else "")
