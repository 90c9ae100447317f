"""The replay finds planted mistakes, each by the kind of state that can show it, and nothing in a right writer."""

import random
from pathlib import Path

import pytest

from tests.support import peers
from tests.support.contract import DriverContract
from tests.support.crash import (
    Every,
    Guest,
    GuestContent,
    Log,
    Op,
    QemuCheck,
    Recorder,
    Report,
    budget,
    replay,
    surviving_barriers,
)
from tests.support.crash.mini import Mistake, Register, RegisterOracle, empty
from tests.support.ground import Ground

pytestmark = pytest.mark.crash
STORES = 12


class TestRecording(DriverContract):
    """The recorder is a driver like any other."""

    driver = "recording"
    discard_zeroes = True

    async def prepare(self, ground: Ground) -> None:
        recorder = Recorder()
        recorder.add("disk", bytes(self.size))
        self.registration = recorder.registered()
        self.registration.__enter__()

    @pytest.fixture(autouse=True)
    async def forget(self, ground: Ground):
        yield
        self.registration.__exit__(None, None, None)

    def options(self) -> dict[str, object]:
        return {"filename": "disk"}


@pytest.fixture
async def ground(tmp_path: Path):
    ground = Ground(tmp_path)
    yield ground
    await ground.leave()


async def stored(ground: Ground, mistake: Mistake, seed: int = 0) -> Log:
    recorder = Recorder(seed)
    recorder.add("register", empty())
    register = Register(recorder.log, await recorder.child(ground, "register"), mistake)
    for value in range(1, STORES + 1):
        await register.store(value)
    return recorder.log


def kinds(report: Report) -> set[str]:
    return {finding.state.kind for finding in report.findings}


async def test_a_right_writer_is_right_in_every_state(ground: Ground):
    report = replay(await stored(ground, Mistake.NONE), RegisterOracle(), budget(2000), workers=0)
    assert report.states > 100
    assert not report.findings, report


@pytest.mark.parametrize("mistake", [each for each in Mistake if each is not Mistake.NONE])
async def test_a_wrong_writer_is_found(ground: Ground, mistake: Mistake):
    report = replay(await stored(ground, mistake), RegisterOracle(), 1000, workers=0)
    assert report.findings, mistake


async def test_a_wrong_order_is_found_by_prefixes_and_a_missing_flush_only_by_what_got_lost(ground: Ground):
    wrong_order = replay(await stored(ground, Mistake.POINTER_FIRST), RegisterOracle(), 1000, workers=0)
    no_flush = replay(await stored(ground, Mistake.NO_FLUSH_BEFORE_POINTER), RegisterOracle(), 1000, workers=0)
    assert "prefix" in kinds(wrong_order)
    assert kinds(no_flush)
    assert "prefix" not in kinds(no_flush)


async def test_a_write_in_place_is_found_by_tearing_it(ground: Ground):
    report = replay(await stored(ground, Mistake.IN_PLACE), RegisterOracle(), 1000, workers=0)
    assert "torn" in kinds(report)


async def test_no_flush_of_a_right_writer_can_be_lost_unnoticed(ground: Ground):
    log = await stored(ground, Mistake.NONE)
    assert len(log.barriers()) == 2 * STORES
    assert surviving_barriers(log, RegisterOracle(), 200) == []


async def test_a_disk_that_ignores_every_flush_is_found(ground: Ground):
    log = (await stored(ground, Mistake.NONE)).without_barriers()
    report = replay(log, RegisterOracle(), 1000, workers=0)
    assert len(report.findings) > report.states / 5


async def test_worker_processes_find_what_one_process_finds(ground: Ground):
    log = await stored(ground, Mistake.NO_FLUSH_AT_END)
    alone = replay(log, RegisterOracle(), 300, workers=0)
    spread = replay(log, RegisterOracle(), 300, workers=2)
    assert {str(finding) for finding in spread.findings} == {str(finding) for finding in alone.findings}
    assert spread.states == alone.states
    assert spread.tally == alone.tally


async def test_a_report_names_the_state_and_what_is_wrong(ground: Ground):
    report = replay(await stored(ground, Mistake.NO_FLUSH_AT_END), RegisterOracle(), 300, workers=0)
    assert "possible are" in str(report)
    assert "applied" in str(report)


# --- with real images -----------------------------------------------------------------------------------------


def chunks(before: bytes, after: bytes, size: int = 4096) -> list[tuple[int, bytes]]:
    """Where two contents differ, in pieces."""
    before = before.ljust(len(after), b"\0")
    return [
        (start, after[start : start + size])
        for start in range(0, len(after), size)
        if before[start : start + size] != after[start : start + size]
    ]


def careless_rewrite(path: Path, log: Log) -> None:
    """QEMU writes to an image; the log has the differing pieces in a random order with one flush at the end."""
    peers.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", path, "4M")
    log.base["disk.qcow2"] = path.read_bytes()
    log.mark("guest", guest="guest", what="initial", size=4 << 20, data=b"")
    log.mark("guest", guest="guest", what="write", number=1, offset=0, length=1 << 20, data=b"\x5a" * (1 << 20))
    peers.run("qemu-io", "-f", "qcow2", "-c", "write -P 0x5a 0 1M", path)
    pieces = chunks(log.base["disk.qcow2"], path.read_bytes())
    random.Random(1).shuffle(pieces)
    for offset, data in pieces:
        log.append(Op.WRITE, "disk.qcow2", offset=offset, length=len(data), data=data)
    log.mark("guest", guest="guest", what="acked", number=1)
    log.mark("guest", guest="guest", what="flush", number=2, offset=0, length=0, data=b"")
    log.append(Op.FLUSH, "disk.qcow2", covers=len(log))
    log.mark("guest", guest="guest", what="acked", number=2)


@pytest.mark.peer("qemu-img")
@pytest.mark.peer("qemu-io")
async def test_an_image_whose_metadata_was_written_carelessly_is_found(tmp_path: Path):
    log = Log()
    careless_rewrite(tmp_path / "disk.qcow2", log)
    oracle = Every(QemuCheck("disk.qcow2"), GuestContent("disk.qcow2", readers=("qemu",)))
    report = replay(log, oracle, 120, workers=0)
    assert len(report.findings) > report.states / 10, report
    assert any("corruptions" in str(finding) for finding in report.findings)
    complete = [finding for finding in report.findings if finding.state.cut == len(log)]
    assert not complete, "the complete image is right"


@pytest.mark.peer("qemu-img")
async def test_a_raw_image_needs_no_order_and_loses_only_what_was_not_flushed(ground: Ground):
    recorder = Recorder(seed=5)
    recorder.add("disk.raw", bytes(1 << 20))
    guest = Guest(recorder.log, await recorder.child(ground, "disk.raw"))
    numbers = random.Random(5)
    for _ in range(40):
        await guest.write(numbers.randrange(0, 1000) * 512, 512 * numbers.randrange(1, 40))
        if numbers.random() < 0.2:
            await guest.flush()
    oracle = GuestContent("disk.raw", "raw")
    assert not replay(recorder.log, oracle, 80, workers=0).findings
    assert replay(recorder.log.without_barriers(), oracle, 80, workers=0).findings


async def test_files_that_appear_are_seen_only_after_the_directory_was_synced(ground: Ground):
    recorder = Recorder()
    recorder.add("old")
    recorder.create("new")
    file = await recorder.child(ground, "new")
    await file.write(0, b"x" * 512)
    await file.flush()
    recorder.log.rename("new", "old")
    recorder.log.sync_directory()
    recorder.log.mark("renamed")
    assert not replay(recorder.log, RenameOracle(), 100, workers=0).findings
    without = recorder.log.without_barrier(recorder.log.barriers()[-1])
    assert replay(without, RenameOracle(), 100, workers=0).findings


class RenameOracle:
    """`old` is empty or complete; complete for certain once that was told."""

    def problems(self, crash):
        content = (crash.directory / "old").read_bytes()
        allowed = {512} if crash.marks("renamed") else {0, 512}
        return [] if len(content) in allowed else [f"old has {len(content)} bytes"]
