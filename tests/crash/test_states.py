"""Which states a crash may leave: durability, selections, tears, and files that equal them byte for byte."""

import random
from pathlib import Path

import pytest

from tests.support.crash import Log, Op, State, Tear, Timeline, states
from tests.support.crash.disk import Disk


def simple_log() -> Log:
    log = Log()
    log.base["a"] = bytes(2048)
    log.append(Op.WRITE, "a", offset=0, length=1024, data=b"1" * 1024)
    log.append(Op.WRITE, "a", offset=1024, length=512, data=b"2" * 512)
    log.append(Op.FLUSH, "a", covers=1)
    log.mark("told")
    log.append(Op.WRITE, "a", offset=0, length=512, data=b"3" * 512)
    return log


def test_a_flush_makes_durable_what_was_complete_when_it_began():
    timeline = Timeline(simple_log())
    assert timeline.volatile(2) == [0, 1]
    assert timeline.volatile(3) == [1]
    assert timeline.volatile(5) == [1, 4]


def test_a_change_in_flight_when_a_flush_began_is_not_covered():
    log = simple_log()
    log.append(Op.FLUSH, "a", covers=5, missing=frozenset({1}))
    assert Timeline(log).volatile(len(log)) == [1]


def test_a_flush_of_one_file_says_nothing_of_another():
    log = simple_log()
    log.append(Op.WRITE, "b", offset=0, length=512, data=b"x" * 512)
    log.append(Op.FLUSH, "a", covers=len(log))
    assert [log.entries[index].file for index in Timeline(log).volatile(len(log))] == ["b"]


def test_a_fua_write_is_durable_alone():
    log = simple_log()
    log.append(Op.FLUSH, "a", only=4)
    assert Timeline(log).volatile(len(log)) == [1]


def test_cuts_come_after_the_marks_that_follow_a_change():
    assert Timeline(simple_log()).cuts() == [1, 2, 4, 5]


def test_only_flushes_that_had_something_to_do_are_barriers():
    log = simple_log()
    log.append(Op.FLUSH, "a", covers=5)
    log.append(Op.FLUSH, "a", covers=6)
    assert log.barriers() == [2, 5]


def test_a_history_without_a_barrier_leaves_its_changes_volatile():
    log = simple_log().without_barrier(2)
    assert Timeline(log).volatile(5) == [0, 1, 4]


def test_the_same_seed_makes_the_same_states_and_another_makes_others():
    log = random_log(random.Random(1), 60)
    assert states(log, 200, seed=3) == states(log, 200, seed=3)
    assert states(log, 200, seed=3) != states(log, 200, seed=4)


def test_states_are_different_within_the_budget_and_ordered():
    found = states(random_log(random.Random(2), 60), 300, seed=1)
    assert len(found) == len(set(found)) == 300
    assert [state.cut for state in found] == sorted(state.cut for state in found)
    assert {state.kind for state in found} == {"prefix", "lost", "only", "without", "subset", "shuffled", "torn"}


def test_every_prefix_is_tried_when_the_budget_allows():
    log = random_log(random.Random(3), 40)
    timeline = Timeline(log)
    prefixes = {state.cut for state in states(log, 5000) if state.applied == tuple(timeline.volatile(state.cut))}
    assert prefixes == set(timeline.cuts())


def test_a_tear_falls_on_a_sector_boundary_inside_its_write():
    log = random_log(random.Random(4), 60)
    torn = [state.torn for state in states(log, 2000) if state.torn]
    assert torn
    for tear in torn:
        entry = log.entries[tear.index]
        assert entry.offset <= tear.start < tear.end <= entry.end
        assert (tear.start, tear.end) != (entry.offset, entry.end)
        assert {tear.start % 512, tear.end % 512} & {0}


def test_changes_of_the_directory_arrive_in_their_order():
    log = Log()
    log.create("a")
    log.rename("a", "b")
    log.create("c")
    for state in states(log, 100):
        assert list(state.applied) == list(range(len(state.applied)))


def test_an_empty_log_has_no_states():
    assert states(Log(), 100) == []


# --- files against a model ----------------------------------------------------------------------------------


def random_log(numbers: random.Random, steps: int, with_names: bool = False) -> Log:
    log = Log()
    log.base["a"], log.base["b"] = numbers.randbytes(5000), b""
    names = ["a", "b"]
    for _ in range(steps):
        file = numbers.choice(["a", "b"])
        offset, length = numbers.randrange(6000), numbers.randrange(1, 3000)
        match numbers.randrange(9):
            case 0 | 1 | 2 | 3:
                index = log.append(Op.WRITE, file, offset=offset, length=length, data=numbers.randbytes(length))
                if numbers.random() < 0.2:
                    log.append(Op.FLUSH, file, only=index)
            case 4:
                log.append(Op.ZERO, file, offset=offset, length=length)
            case 5:
                log.append(Op.DISCARD, file, offset=offset, length=length)
            case 6:
                log.append(Op.TRUNCATE, file, offset=offset)
            case 7 if with_names:
                old = numbers.choice(names)
                new = f"name{len(log)}"
                log.rename(old, new)
                names[names.index(old)] = new
                if numbers.random() < 0.3:
                    log.sync_directory()
            case _:
                covers = numbers.randrange(len(log) + 1)
                missing = frozenset(index for index in range(covers) if numbers.random() < 0.1)
                log.append(Op.FLUSH, file, covers=covers, missing=missing)
    return log


def brute_force(log: Log, state: State) -> dict[str, bytes]:
    """The same state built from nothing, in memory."""
    timeline = Timeline(log)
    contents = {name: bytearray(content) for name, content in log.base.items()}
    names = {name: name for name in log.base}
    durable = [index for index in timeline.by_durability if timeline.durable_at[index] <= state.cut]
    for index in [*durable, *state.applied]:
        entry = log.entries[index]
        if entry.op is Op.RENAME:
            names[entry.target] = names.pop(entry.name)
            continue
        content = contents[entry.file]
        start, end, data = entry.offset, entry.end, entry.data or bytes(entry.length)
        if state.torn and state.torn.index == index:
            start, end = state.torn.start, state.torn.end
            data = data[start - entry.offset : end - entry.offset]
        if entry.op is Op.DISCARD:
            end = min(end, len(content))
            data = bytes(max(0, end - start))
        if entry.op is Op.TRUNCATE:
            del content[start:]
        if data or entry.op is Op.TRUNCATE:
            content.extend(bytes(max(0, start - len(content))))
            content[start : start + len(data)] = data
    return {name: bytes(contents[file]) for name, file in names.items()}


def without_overtaking(log: Log) -> Log:
    """Flushes cover everything before them, so that the model need not know shadows."""
    twin = Log()
    twin.base = log.base
    for entry in log.entries:
        facts = {
            "offset": entry.offset,
            "length": entry.length,
            "data": entry.data,
            "name": entry.name,
            "target": entry.target,
        }
        if entry.op is Op.FLUSH:
            facts = {"covers": len(twin)}
        twin.append(entry.op, entry.file, **facts)
    return twin


@pytest.mark.parametrize("seed", range(6))
def test_files_on_disk_equal_the_state_byte_for_byte(tmp_path: Path, seed: int):
    log = without_overtaking(random_log(random.Random(seed), 60, with_names=True))
    disk = Disk(log, tmp_path)
    for state in states(log, 200, seed):
        with disk.at(state) as directory:
            found = {path.name: path.read_bytes() for path in directory.iterdir()}
        assert found == brute_force(log, state), state
    disk.close()


def test_states_may_be_asked_for_in_any_order(tmp_path: Path):
    log = without_overtaking(random_log(random.Random(9), 50))
    chosen = states(log, 60)
    random.Random(1).shuffle(chosen)
    disk = Disk(log, tmp_path)
    for state in chosen:
        with disk.at(state) as directory:
            found = {path.name: path.read_bytes() for path in directory.iterdir()}
        assert found == brute_force(log, state), state
    disk.close()


def test_an_older_change_that_arrives_late_does_not_undo_a_durable_newer_one(tmp_path: Path):
    log = Log()
    log.base["a"] = bytes(3072)
    log.append(Op.WRITE, "a", offset=0, length=3072, data=b"o" * 3072)
    log.append(Op.WRITE, "a", offset=1024, length=1024, data=b"n" * 1024)
    log.append(Op.FLUSH, "a", only=1)
    disk = Disk(log, tmp_path)
    expected = {(): bytes(1024) + b"n" * 1024 + bytes(1024), (0,): b"o" * 1024 + b"n" * 1024 + b"o" * 1024}
    for applied, content in expected.items():
        with disk.at(State(3, applied)) as directory:
            assert (directory / "a").read_bytes() == content
    with disk.at(State(3, (0,), Tear(0, 0, 1536))) as directory:
        assert (directory / "a").read_bytes() == b"o" * 1024 + b"n" * 1024 + bytes(1024)
    disk.close()


def test_a_late_flush_of_an_older_change_leaves_the_newer_one_on_top(tmp_path: Path):
    log = Log()
    log.base["a"] = bytes(512)
    log.append(Op.WRITE, "a", offset=0, length=512, data=b"o" * 512)
    log.append(Op.WRITE, "a", offset=0, length=512, data=b"n" * 512)
    log.append(Op.FLUSH, "a", only=1)
    log.append(Op.FLUSH, "a", covers=3)
    disk = Disk(log, tmp_path)
    with disk.at(State(4, ())) as directory:
        assert (directory / "a").read_bytes() == b"n" * 512
    disk.close()
