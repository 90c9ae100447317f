"""What an entry of the corpus is, and the answers that it may demand."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from tests.corpus.writer import Image

MAIN: Final = "image"
"""The file of every entry that is asked about; others beside it are its chain, its traps."""

OPERATIONS: Final = (
    "guess",
    "info",
    "chain",
    "alone",
    "open",
    "map",
    "measure",
    "read",
    "check",
    "write",
    "repair",
)
"""guess: info without a format. chain: info of the whole chain. alone: opened without its backing file, shown and
closed. open: read-only, backing files as headers say. map, measure and read: of the open node. write: opened for
writing and closed. repair: check with repair of everything."""
ON_A_NODE: Final = ("map", "measure", "read")
"""Not asked if opening was refused."""
ON_THE_IMAGE: Final = ("guess", "info", "chain", "alone", "open", "check", "write", "repair")
"""What looks into the image's own metadata when it begins."""


class Answer(NamedTuple):
    """A named error and what its fields must mention; or, with no reason, success."""

    reason: str = ""
    word: str = ""


SUCCESS: Final = Answer()
ENDLESS: Final = Answer("DEADLINE_PASSED")
"""More work than a second's, as the disk claims to hold that much: asked with a deadline, which ends it."""


@dataclass(frozen=True)
class Entry:
    """One adversarial image."""

    name: str
    kind: str
    """Its class of attack."""
    source: str
    """CVE, or whose limit it passes."""
    make: Callable[[Path], None]
    """Writes the image `MAIN`, and whatever goes with it, into an empty folder."""
    answers: Mapping[str, Answer] = field(default_factory=dict)
    """By operation; those that are left out must succeed."""
    format: str = "qcow2"
    mended_on_write: bool = False
    """Opening for writing repairs it: its dirty bit asks for that."""

    def answer(self, operation: str) -> Answer:
        return self.answers.get(operation, SUCCESS)


def refused(reason: str, word: str = "", *operations: str) -> dict[str, Answer]:
    """The same refusal of these operations, or of all that look into the image."""
    return dict.fromkeys(operations or ON_THE_IMAGE, Answer(reason, word))


def image(build: Callable[[], Image]) -> Callable[[Path], None]:
    """A maker that saves one image."""

    def make(folder: Path) -> None:
        build().save(folder / MAIN)

    return make


def blob(data: bytes, length: int | None = None) -> Callable[[Path], None]:
    """A maker of plain bytes, in a file of `length`."""

    def make(folder: Path) -> None:
        Image(bytearray(data), length=length).save(folder / MAIN)

    return make
