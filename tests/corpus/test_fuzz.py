"""Structure-aware fuzzing of qcow2 over the real service. `make fuzz` runs it at length; CI runs a slice by seeds.

An image is asked everything and must be answered with a named error or success, in bounded work, unwritten; then it
is used and repaired, which must end by name too. Where QEMU opens and reads what we read, the bytes must be equal;
what our repair calls clean QEMU must not call corrupt.
"""

import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Final

import pytest

from blockyard.base.errors import CATALOGUE
from tests.corpus.entry import MAIN, Entry
from tests.corpus.house import MEMORY, House, Outcome, cpu_bound, house
from tests.corpus.mutating import mutate
from tests.corpus.seeds import QEMU, SEEDS

EXAMPLES: Final = int(os.environ.get("BLOCKYARD_FUZZ_EXAMPLES", "108"))
FIRST: Final = int(os.environ.get("BLOCKYARD_FUZZ_FIRST", "0"))
"""Number of the first batch, for a run that goes on where another ended."""
BATCH: Final = 6
"""Examples of one test, of one seed image each."""
LOOKING: Final = ("guess", "info", "open", "map", "measure", "read", "check")
USING: Final = ("write", "use", "repair")
UNNAMED: Final = ("INTERNAL", "SERVICE_UNAVAILABLE", "")
"""Reasons that say that something of ours went wrong."""
QEMU_SECONDS: Final = 10
"""QEMU itself hangs on some images."""

pytestmark = [
    pytest.mark.fuzz,
    *(pytest.mark.peer(name) for name in QEMU),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
async def asked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with house(tmp_path_factory.mktemp("f")) as made:
        made.alone = True
        yield made


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("sound")
    result = {}
    for name, make in SEEDS.items():
        make(folder / name)
        result[name] = (folder / name).read_bytes()
    return result


def entry_of(data: bytes) -> Entry:
    def make(folder: Path) -> None:
        (folder / MAIN).write_bytes(data)

    return Entry("fuzzed", "fuzz", "", make)


@pytest.mark.parametrize("batch", range(FIRST, FIRST + max(1, EXAMPLES // BATCH)))
async def test_damaged_images_are_answered_by_name_and_read_as_qemu_reads_them(
    batch: int, asked: House, sound: dict[str, bytes]
):
    name = list(SEEDS)[batch % len(SEEDS)]
    folder = asked.root / "fuzzed"
    folder.mkdir(exist_ok=True)
    for number in range(BATCH):
        seed = batch * BATCH + number
        data = mutate(sound[name], Random(seed))
        (folder / MAIN).write_bytes(data)
        try:
            await judged(asked, entry_of(data), folder)
        except AssertionError as problem:
            kept = keep(data, seed)
            raise AssertionError(f"seed {seed} of {name}, kept as {kept}: {problem}") from problem


def keep(data: bytes, seed: int) -> Path:
    """Where a failing image is put for who has to look at it."""
    path = Path(os.environ.get("BLOCKYARD_FUZZ_KEEP", "/tmp")) / f"blockyard-fuzz-{seed}.qcow2"
    path.write_bytes(data)
    return path


async def judged(asked: House, entry: Entry, folder: Path) -> None:
    asked.content = None
    dirty = is_dirty(folder / MAIN)
    outcomes = await asked.ask(entry, folder, LOOKING)
    for outcome in outcomes:
        check(outcome, may_change=False)
    if asked.content is not None:
        same_as_qemu(asked.content, folder / MAIN)
    for outcome in await asked.ask(entry, folder, USING):
        check(outcome, may_change=outcome.operation != "write" or dirty)
        if outcome.operation == "repair" and not outcome.reason and not asked.report.corruptions:
            assert qemu_finds(folder / MAIN) == 0, "our repair said that it is clean"


def check(outcome: Outcome, may_change: bool) -> None:
    if outcome.reason:
        assert outcome.reason in CATALOGUE and outcome.reason not in UNNAMED, outcome
    assert outcome.cpu_s <= cpu_bound(), outcome
    assert outcome.memory <= MEMORY, outcome
    assert may_change or not outcome.changed, outcome


def is_dirty(path: Path) -> bool:
    """Opening it for writing repairs it then."""
    return bool(path.read_bytes()[79] & 1)


def opened_alone(path: Path) -> str:
    below = {"driver": "file", "filename": os.fspath(path)}
    return "json:" + json.dumps({"driver": "qcow2", "backing": None, "file": below})


def same_as_qemu(content: bytes, path: Path) -> None:
    """If QEMU can open and read all of it."""
    target = path.with_name("theirs")
    try:
        done = subprocess.run(
            ["qemu-img", "convert", "-U", "-O", "raw", opened_alone(path), target],
            capture_output=True, timeout=QEMU_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return
    if done.returncode == 0:
        theirs = target.read_bytes()
        length = min(len(theirs), len(content))
        assert length >= len(content) // 512 * 512
        assert content[:length] == theirs[:length], f"differs at {first_difference(content, theirs)}"


def first_difference(one: bytes, other: bytes) -> int:
    return next(at for at, (left, right) in enumerate(zip(one, other, strict=False)) if left != right)


def qemu_finds(path: Path) -> int:
    """Corruptions that qemu-img sees; 0 if it cannot look."""
    try:
        done = subprocess.run(
            ["qemu-img", "check", "-U", "--output=json", opened_alone(path)],
            capture_output=True, timeout=QEMU_SECONDS, check=False, text=True,
        )  # fmt: skip
        counted = int(json.loads(done.stdout).get("corruptions", 0))
        # A record without the disk's size is an error for QEMU; we take it as it is (docs/formats/qcow2.md).
        return max(0, counted - done.stderr.count("is incomplete"))
    except (subprocess.TimeoutExpired, json.JSONDecodeError):
        return 0
