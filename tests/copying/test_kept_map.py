"""The map in a file: what another process finds of it, and when it is to be believed."""

import pytest

from blockyard.base.ranges import ByteRange
from blockyard.node.copying.kept_map import KeptMap
from blockyard.node.core.dirty import DirtyBitmap

GRANULE = 65536
SIZE = 100 * GRANULE + 512


@pytest.fixture
def kept(tmp_path):
    return KeptMap.create(tmp_path / "m.map", SIZE, GRANULE)


def found(kept: KeptMap) -> KeptMap:
    """As a process finds it after this one was killed: nothing was closed."""
    opened = KeptMap.open(kept.path)
    assert opened is not None
    assert opened[1]
    return opened[0]


def test_every_mark_and_figure_is_there_without_closing(kept):
    kept.left.mark(0, SIZE)
    kept.left.clear(GRANULE, 3 * GRANULE)
    kept.tell(7, 8, 9, 10)
    again = found(kept)
    assert list(again.left.extents()) == [ByteRange(0, GRANULE), ByteRange(4 * GRANULE, SIZE - 4 * GRANULE)]
    assert again.left.count == 98
    assert again.figures == (7, 8, 9, 10)
    again.left.clear_all()
    assert found(again).left.count == 0


def test_what_is_unsettled_is_left_after_a_kill_and_what_was_settled_is_not(kept):
    kept.unsettle(0, GRANULE)
    kept.unsettle(5 * GRANULE, 2 * GRANULE)
    kept.settle(0, GRANULE)
    again = found(kept)
    again.put_back()
    assert list(again.left.extents()) == [ByteRange(5 * GRANULE, 2 * GRANULE)]


def test_a_checkpoint_settles_what_came_before_it_only(kept):
    kept.unsettle(0, GRANULE)
    kept.begin_checkpoint()
    kept.unsettle(GRANULE, GRANULE)
    kept.end_checkpoint()
    assert not kept.is_unsettled(0, GRANULE)
    assert kept.is_unsettled(GRANULE, 2 * GRANULE)


def test_a_checkpoint_that_failed_settles_nothing(kept):
    kept.unsettle(0, GRANULE)
    kept.begin_checkpoint()
    kept.abandon_checkpoint()
    assert kept.is_unsettled(0, GRANULE)


def test_a_copy_is_torn_where_a_guest_was_let_at_what_was_not_settled(kept):
    kept.unsettle(0, GRANULE)
    assert not found(kept).is_torn()
    kept.exposed.mark(0, 512)
    assert found(kept).is_torn()
    kept.begin_checkpoint()
    kept.end_checkpoint()
    assert not found(kept).is_torn()


def test_another_boot_is_believed_only_after_a_close_in_good_order(kept, monkeypatch):
    monkeypatch.setattr("blockyard.node.copying.kept_map.this_boot", lambda: "another")
    assert KeptMap.open(kept.path)[1] is False
    kept = KeptMap.create(kept.path, SIZE, GRANULE)
    kept.left.mark(0, GRANULE)
    kept.close_whole()
    monkeypatch.setattr("blockyard.node.copying.kept_map.this_boot", lambda: "a third")
    again, believed = KeptMap.open(kept.path)
    assert believed
    assert again.left.count == 1
    # From now on it is this boot's, and a cut of the power makes it worthless.
    monkeypatch.setattr("blockyard.node.copying.kept_map.this_boot", lambda: "a fourth")
    assert KeptMap.open(kept.path)[1] is False


def test_where_there_is_no_boot_id_nothing_is_believed(kept, monkeypatch):
    monkeypatch.setattr("blockyard.node.copying.kept_map.this_boot", lambda: "")
    KeptMap.create(kept.path, SIZE, GRANULE)
    assert KeptMap.open(kept.path)[1] is False


@pytest.mark.parametrize("content", [b"", b"BYCOPY01", b"x" * 5000, b"BYCOPY01" + bytes(8000)])
def test_a_file_that_is_no_map_is_none(content, tmp_path):
    (tmp_path / "m.map").write_bytes(content)
    assert KeptMap.open(tmp_path / "m.map") is None
    assert KeptMap.open(tmp_path / "missing") is None


def test_a_map_of_something_that_grew_goes_on_in_memory_and_is_not_believed(kept):
    kept.left.mark(0, GRANULE)
    kept.left.mark(SIZE + 10 * GRANULE, GRANULE)
    kept.unsettle(SIZE + 10 * GRANULE, GRANULE)
    assert kept.left.count == 3
    assert kept.left.size == SIZE + 11 * GRANULE
    assert KeptMap.open(kept.path)[1] is False


def test_the_bits_go_on_when_the_file_is_gone(kept):
    kept.left.mark(0, 5 * GRANULE)
    kept.remove()
    assert not kept.path.exists()
    kept.left.clear(0, GRANULE)
    other = DirtyBitmap(SIZE, GRANULE)
    other.merge(kept.left)
    assert other.count == 4
