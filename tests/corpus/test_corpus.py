"""Every adversarial image, over the real service: a named error or a bounded success, and no byte of it changed."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.corpus.catalogue import ENTRIES
from tests.corpus.entry import ENDLESS, Entry
from tests.corpus.house import MEMORY, House, Outcome, cpu_bound, house

REST_SECONDS = 0.1
"""CPU that the service may use in the moment after a deadline ended a call: it must have let go of the work."""


@pytest.fixture(scope="module")
async def asked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with house(tmp_path_factory.mktemp("c")) as made:
        # What the first calls import is not the image's cost.
        folder = made.root / "warm"
        folder.mkdir()
        warm = next(entry for entry in ENTRIES if entry.name == "refcount-65535-of-data")
        warm.make(folder)
        await made.ask(warm, folder)
        yield made


@contextmanager
def written(entry: Entry, root: Path) -> Iterator[Path]:
    """The image in a folder of its own, gone afterwards: some are large to write and none is needed twice."""
    folder = root / entry.name
    folder.mkdir()
    entry.make(folder)
    try:
        yield folder
    finally:
        for path in folder.iterdir():
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        folder.rmdir()


def faults(entry: Entry, outcome: Outcome) -> Iterator[str]:
    wanted = entry.answer(outcome.operation)
    if outcome.reason != wanted.reason or wanted.word not in outcome.message:
        yield f"wanted {wanted.reason or 'success'} {wanted.word!r}, got {outcome}"
    if outcome.cpu_s > (bound := cpu_bound()):
        yield f"more than {bound} s of CPU: {outcome}"
    if outcome.memory > MEMORY:
        yield f"more than {MEMORY >> 20} MiB: {outcome}"
    may_change = outcome.operation == "repair" or (outcome.operation == "write" and entry.mended_on_write)
    if outcome.changed and not may_change:
        yield f"the image was written to: {outcome}"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
async def test_an_image_is_answered_by_name_in_bounded_work_and_not_written_to(entry: Entry, asked: House):
    with written(entry, asked.root) as folder:
        outcomes = await asked.ask(entry, folder)
        found = [fault for outcome in outcomes for fault in faults(entry, outcome)]
        if ENDLESS in entry.answers.values() and (used := await asked.rest()) > REST_SECONDS:
            found.append(f"still at work after its deadline: {used:.2f} s")
    assert not found, "\n".join(found)
    assert not await asked.client.nodes.list(), "a refused image left nodes open"


def test_there_are_images_enough_in_classes_enough():
    kinds = Counter(entry.kind for entry in ENTRIES)
    assert len(ENTRIES) >= 80
    assert len(kinds) >= 15
    assert min(kinds.values()) >= 4


def test_a_catalogue_written_twice_is_the_same_bytes(tmp_path: Path):
    for number in (1, 2):
        for entry in ENTRIES[::7]:
            folder = tmp_path / str(number) / entry.name
            folder.mkdir(parents=True)
            entry.make(folder)
    for path in (tmp_path / "1").rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 26:
            assert path.read_bytes() == (tmp_path / "2" / path.relative_to(tmp_path / "1")).read_bytes()
