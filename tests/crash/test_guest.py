"""What a guest may find after a crash: flushed values for certain, later ones perhaps, nothing else."""

import pytest

from tests.support.crash import Guest, History, Log
from tests.support.ground import DriverChild, Ground

SECTOR = 512


def sectors(*values: int) -> bytes:
    return b"".join(bytes([value]) * SECTOR for value in values)


@pytest.fixture
async def ground(tmp_path):
    ground = Ground(tmp_path)
    yield ground
    await ground.leave()


@pytest.fixture
async def log() -> Log:
    return Log()


@pytest.fixture
async def disk(ground: Ground) -> DriverChild:
    return await ground.open("memory", {"size": 4 * SECTOR})


@pytest.fixture
async def guest(log: Log, disk: DriverChild) -> Guest:
    return Guest(log, disk)


def wrong(log: Log, content: bytes, cut: int | None = None) -> list[str]:
    return History(log).problems(content, len(log) if cut is None else cut)


async def test_a_guest_that_did_nothing_finds_what_was_there(log: Log, disk: DriverChild):
    Guest(log, disk, initial=sectors(1, 2))
    assert not wrong(log, sectors(1, 2, 0, 0))
    assert wrong(log, sectors(1, 1, 0, 0)) == ["1 wrong sectors: sector 1 holds foreign or torn bytes"]


async def test_an_unflushed_write_may_be_there_or_not_sector_by_sector(log: Log, guest: Guest):
    await guest.write(0, sectors(5, 5))
    for first in (0, 5):
        for second in (0, 5):
            assert not wrong(log, sectors(first, second, 0, 0))
    assert wrong(log, sectors(0, 0, 5, 0))


async def test_a_write_cannot_be_found_before_it_began(log: Log, guest: Guest):
    await guest.write(0, sectors(5))
    assert "not begun" in wrong(log, sectors(5, 0, 0, 0), cut=1)[0]


async def test_a_flushed_write_must_be_there(log: Log, guest: Guest):
    await guest.write(0, sectors(5))
    await guest.flush()
    assert not wrong(log, sectors(5, 0, 0, 0))
    assert wrong(log, sectors(0, 0, 0, 0)) == ["1 wrong sectors: sector 0 holds zeroes"]


async def test_a_flush_that_was_not_acknowledged_promises_nothing(log: Log, guest: Guest):
    await guest.write(0, sectors(5))
    await guest.flush()
    assert not wrong(log, sectors(0, 0, 0, 0), cut=len(log) - 1)


async def test_a_value_that_was_superseded_and_flushed_may_not_come_back(log: Log, guest: Guest):
    await guest.write(0, sectors(5))
    await guest.flush()
    await guest.write(0, sectors(6))
    await guest.flush()
    assert "superseded" in wrong(log, sectors(5, 0, 0, 0))[0]
    assert not wrong(log, sectors(6, 0, 0, 0))


async def test_any_value_since_the_last_flush_may_be_found(log: Log, guest: Guest):
    for value in (5, 6, 7):
        await guest.write(0, sectors(value))
        if value == 5:
            await guest.flush()
    for value in (5, 6, 7):
        assert not wrong(log, sectors(value, 0, 0, 0))
    assert wrong(log, sectors(0, 0, 0, 0))


async def test_a_sector_that_is_torn_inside_is_wrong(log: Log, guest: Guest):
    await guest.write(0, sectors(5))
    assert "torn" in wrong(log, bytes([5]) * 100 + bytes(4 * SECTOR - 100))[0]


async def test_a_write_that_a_flush_overtook_is_not_certain(log: Log, guest: Guest):
    slow = guest.begin("write", 0, SECTOR, sectors(5))
    flush = guest.begin("flush")
    guest.acked(slow)
    guest.acked(flush)
    assert not wrong(log, sectors(0, 0, 0, 0))
    assert not wrong(log, sectors(5, 0, 0, 0))


async def test_of_two_writes_at_once_either_may_win(log: Log, guest: Guest):
    first = guest.begin("write", 0, SECTOR, sectors(5))
    second = guest.begin("write", 0, SECTOR, sectors(6))
    guest.acked(second)
    guest.acked(first)
    await guest.flush()
    assert not wrong(log, sectors(5, 0, 0, 0))
    assert not wrong(log, sectors(6, 0, 0, 0))
    assert wrong(log, sectors(0, 0, 0, 0))


async def test_flushed_zeroes_are_certain_and_flushed_discards_are_not(log: Log, guest: Guest):
    await guest.write(0, sectors(5, 6))
    await guest.zero(0, SECTOR)
    await guest.discard(SECTOR, SECTOR)
    await guest.flush()
    assert not wrong(log, sectors(0, 0, 0, 0))
    assert not wrong(log, sectors(0, 6, 0, 0))
    assert wrong(log, sectors(5, 6, 0, 0))


async def test_a_size_is_the_old_or_the_new_one_until_it_is_flushed(log: Log, guest: Guest):
    await guest.resize(8 * SECTOR)
    assert not wrong(log, bytes(4 * SECTOR))
    assert not wrong(log, bytes(8 * SECTOR))
    await guest.flush()
    assert "size" in wrong(log, bytes(4 * SECTOR))[0]
    assert not wrong(log, bytes(8 * SECTOR))


async def test_what_a_shrink_cut_off_does_not_come_back(log: Log, guest: Guest):
    await guest.write(0, sectors(1, 2, 3, 4))
    await guest.flush()
    await guest.resize(2 * SECTOR)
    await guest.resize(4 * SECTOR)
    assert not wrong(log, sectors(1, 2, 3, 4))
    await guest.flush()
    assert not wrong(log, sectors(1, 2, 0, 0))
    assert wrong(log, sectors(1, 2, 3, 4))


async def test_guests_have_separate_histories(log: Log, ground: Ground, guest: Guest):
    other = Guest(log, await ground.open("memory", {"size": SECTOR}), name="other")
    await other.write(0, sectors(9))
    assert not History(log, "other").problems(sectors(9), len(log))
    assert wrong(log, sectors(9, 0, 0, 0))


async def test_a_history_can_go_back_in_time(log: Log, guest: Guest):
    await guest.write(0, sectors(5))
    await guest.flush()
    history = History(log)
    assert history.problems(bytes(4 * SECTOR), len(log))
    assert not history.problems(bytes(4 * SECTOR), 2)
