"""A dirty bitmap equals a set of granules, whatever is done to it, and never under-reports."""

import hashlib
import os
import random
import sys
import time
import tracemalloc
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.base.errors import InvalidArgument
from blockyard.base.ranges import ByteRange
from blockyard.base.units import GIB, KIB, MIB, TIB
from blockyard.node.core.dirty import DirtyBitmap

EXAMPLES = int(os.environ.get("BLOCKYARD_FUZZ_EXAMPLES", "300"))


class Model:
    """The same thing as a plain set of granule numbers."""

    def __init__(self, size: int, granularity: int) -> None:
        self.size, self.granularity, self.dirty = size, granularity, set()

    @property
    def granules(self) -> int:
        return -(-self.size // self.granularity)

    def mark(self, offset: int, length: int) -> None:
        if length:
            self.size = max(self.size, offset + length)
            self.dirty |= set(range(offset // self.granularity, (offset + length - 1) // self.granularity + 1))

    def clear(self, offset: int, length: int) -> None:
        for granule in list(self.dirty):
            start, end = granule * self.granularity, min((granule + 1) * self.granularity, self.size)
            if offset <= start and end <= offset + length:
                self.dirty.remove(granule)

    def resize(self, size: int) -> None:
        self.size = size
        self.dirty = {granule for granule in self.dirty if granule < self.granules}

    def extents(self, offset: int, end: int) -> list[ByteRange]:
        found = []
        for _, run in groupby(enumerate(sorted(self.dirty)), lambda pair: pair[1] - pair[0]):
            members = [granule for _, granule in run]
            extent = ByteRange(members[0] * self.granularity, len(members) * self.granularity)
            cut = extent.intersection(ByteRange(offset, max(0, min(end, self.size) - offset)))
            if cut.length:
                found.append(cut)
        return found


def agree(bitmap: DirtyBitmap, model: Model) -> None:
    assert bitmap.size == model.size
    assert bitmap.count == len(model.dirty)
    assert list(bitmap.extents()) == model.extents(0, model.size)
    assert bitmap.dirty_bytes == sum(extent.length for extent in model.extents(0, model.size))


place = st.integers(0, 40 * 512 * 5)
operations = st.lists(
    st.tuples(st.sampled_from(["mark", "clear", "resize", "ask", "merge"]), place, place), max_size=40
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(size=place, granularity=st.sampled_from([512, 1024, 4096]), steps=operations)
def test_it_behaves_as_a_set_of_granules(size: int, granularity: int, steps):
    bitmap, model = DirtyBitmap(size, granularity), Model(size, granularity)
    for verb, first, second in steps:
        if verb == "mark":
            bitmap.mark(first, second)
            model.mark(first, second)
        elif verb == "clear":
            bitmap.clear(first, second)
            model.clear(first, second)
        elif verb == "resize":
            bitmap.resize(first)
            model.resize(first)
        elif verb == "merge":
            other = DirtyBitmap(model.size, 512 << second % 4)
            other.mark(first, second)
            other.resize(model.size)
            for extent in other.extents():
                model.mark(extent.offset, extent.length)
            bitmap.merge(other)
        else:
            expected = model.extents(first, first + second)
            assert list(bitmap.extents(first, first + second)) == expected
            assert bitmap.next_dirty(first, first + second) == (expected[0] if expected else None)
            if first < model.size:
                assert bitmap.is_dirty(first) == (first // granularity in model.dirty)
        agree(bitmap, model)
    twin = DirtyBitmap(model.size, granularity)
    twin.deserialize(bitmap.serialize())
    agree(twin, model)
    agree(bitmap.copy(), model)


def test_large_bitmaps_iterate_over_windows_as_over_one():
    numbers = random.Random(7)
    bitmap, model = DirtyBitmap(64 * GIB), Model(64 * GIB, 64 * KIB)
    for _ in range(2000):
        offset = numbers.randrange(64 * GIB - 512 * MIB)
        length = 1 << numbers.randrange(10, 24)
        bitmap.mark(offset, length)
        model.mark(offset, length)
    bitmap.mark(20 * GIB, 8 * GIB)
    model.mark(20 * GIB, 8 * GIB)
    agree(bitmap, model)


def test_a_run_over_many_windows_is_one_extent():
    bitmap = DirtyBitmap(TIB)
    bitmap.mark(1, TIB - 1)
    assert list(bitmap.extents()) == [ByteRange(0, TIB)]
    assert bitmap.next_dirty(5) == ByteRange(5, TIB - 5)
    assert bitmap.dirty_bytes == TIB


def test_bits_are_laid_out_as_in_qcow2():
    bitmap = DirtyBitmap(20 * 512, 512)
    bitmap.mark(0, 1)
    bitmap.mark(9 * 512, 1)
    bitmap.mark(19 * 512, 1)
    assert bitmap.serialize() == bytes([1, 2, 8])
    assert bitmap.serialize(1, 1) == bytes([2])


def test_stored_bits_past_the_end_are_ignored():
    bitmap = DirtyBitmap(20 * 512, 512)
    bitmap.deserialize(b"\xff" * 8)
    assert bitmap.count == 20
    bitmap.deserialize(b"\xff", start=2)
    assert bitmap.serialize() == bytes([255, 255, 15])


def test_a_partial_load_replaces_its_part_only():
    bitmap = DirtyBitmap(64 * 512, 512)
    bitmap.deserialize(b"\xff" * 8)
    bitmap.deserialize(b"\x00\x01", start=3)
    assert bitmap.serialize() == b"\xff\xff\xff\x00\x01\xff\xff\xff"


def test_a_clear_that_ends_inside_a_granule_leaves_it_dirty():
    bitmap = DirtyBitmap(10 * 512, 512)
    bitmap.mark(0, 5120)
    bitmap.clear(1, 1022)
    assert bitmap.count == 10
    bitmap.clear(1, 1023)
    assert list(bitmap.extents()) == [ByteRange(0, 512), ByteRange(1024, 4096)]


def test_the_last_cut_granule_can_be_cleared():
    bitmap = DirtyBitmap(1000, 512)
    bitmap.mark(999, 1)
    assert bitmap.dirty_bytes == 488
    bitmap.clear(512, 488)
    assert bitmap.count == 0


def test_a_mark_past_the_end_grows_rather_than_being_lost():
    bitmap = DirtyBitmap(512, 512)
    bitmap.mark(100 * 512, 1)
    assert bitmap.size == 100 * 512 + 1
    assert bitmap.is_dirty(100 * 512)


def test_an_empty_mark_changes_nothing():
    bitmap = DirtyBitmap(1024, 512)
    bitmap.mark(700, 0)
    bitmap.mark(5000, 0)
    assert (bitmap.count, bitmap.size) == (0, 1024)


def test_a_copy_is_independent():
    bitmap = DirtyBitmap(5120, 512)
    twin = bitmap.copy()
    twin.mark(0, 1)
    assert (bitmap.count, twin.count) == (0, 1)


def test_clearing_everything_leaves_nothing():
    bitmap = DirtyBitmap(5120, 512)
    bitmap.mark(0, 5120)
    bitmap.clear_all()
    assert bitmap.count == 0
    assert bitmap.next_dirty(0) is None


@pytest.mark.parametrize("granularity", [0, 256, 768, 128 * MIB, -512])
def test_a_granularity_that_cannot_be_is_refused(granularity: int):
    with pytest.raises(InvalidArgument) as refusal:
        DirtyBitmap(GIB, granularity)
    assert refusal.value.name == "granularity"


def test_a_bitmap_larger_than_the_bound_is_refused_before_memory_is_taken():
    with pytest.raises(InvalidArgument):
        DirtyBitmap(1 << 62, 512)


def test_a_bitmap_of_a_terabyte_takes_two_mebibytes():
    assert DirtyBitmap(TIB).serialized_size == 2 * MIB


def test_finding_the_last_granule_of_a_terabyte_takes_milliseconds():
    bitmap = DirtyBitmap(TIB)
    bitmap.mark(TIB - 1, 1)
    start = time.perf_counter()
    for _ in range(10):
        assert bitmap.next_dirty(0) is not None
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize(("coarse", "fine"), [(64 * KIB, 512), (64 * MIB, 512), (4096, 2048)])
def test_a_merge_across_granularities_covers_exactly_the_same_bytes(coarse: int, fine: int):
    size = 3 * GIB + 512
    numbers = random.Random(coarse)
    for target, source in ((coarse, fine), (fine, coarse)):
        merged, other = DirtyBitmap(size, target), DirtyBitmap(size + (0 if target == fine else GIB), source)
        expected = DirtyBitmap(size, target)
        for _ in range(50):
            offset = numbers.randrange(other.size - MIB)
            other.mark(offset, numbers.randrange(1, MIB))
        other.mark(other.size - 1, 1)
        for extent in other.extents(0, size):
            expected.mark(extent.offset, extent.length)
        merged.merge(other)
        assert merged.serialize() == expected.serialize()
        assert merged.count == expected.count


def test_what_lies_past_the_end_of_a_shorter_source_stays_clean():
    merged, other = DirtyBitmap(8192, 512), DirtyBitmap(700, 4096)
    other.mark(0, 1)
    merged.merge(other)
    assert list(merged.extents()) == [ByteRange(0, 1024)]


def test_a_bitmap_of_1_tib_at_64_kib_takes_at_most_2_5_mib():
    tracemalloc.start()
    try:
        bitmap = DirtyBitmap(TIB, 64 * KIB)
        for offset in range(0, TIB, GIB):
            bitmap.mark(offset, 1)
        assert bitmap.count == 1024
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 2.5 * MIB


def test_the_only_dirty_granule_of_1_tib_is_found_in_a_few_steps():
    bitmap = DirtyBitmap(TIB, 64 * KIB)
    bitmap.mark(TIB - 1, 1)
    steps = 0

    def count(frame, event, argument):
        nonlocal steps
        steps += event == "c_call"

    sys.setprofile(count)
    try:
        found = bitmap.next_dirty(0)
    finally:
        sys.setprofile(None)
    assert found == ByteRange(TIB - 64 * KIB, 64 * KIB)
    assert steps < 100  # of 16 Mi granules


def test_the_digest_is_of_the_bits_in_whole_words():
    bitmap = DirtyBitmap(20 * 512, 512)
    bitmap.mark(0, 1)
    assert bitmap.sha256() == hashlib.sha256(b"\1" + bytes(7)).hexdigest()
    assert DirtyBitmap(0, 512).sha256() == hashlib.sha256(bytes(8)).hexdigest()
