"""Requests over a real socket: what each does to the node, and how it is answered."""

import errno

import pytest

from blockyard.base.errors import InternalError, IoError, NoSpace
from blockyard.node.exports.nbd import ExportConfig
from blockyard.node.formats import nbd
from blockyard.node.interface.flags import FUA, MAY_UNMAP, NO_FALLBACK
from tests.exports.conftest import SIZE
from tests.support.export_source import CLUSTER, MemorySource

BOTH_FORMS = pytest.mark.parametrize("structured", [True, False], ids=["structured", "simple"])
BOTH_WAYS = pytest.mark.parametrize("inline", [True, False], ids=["inline", "awaited"])


@BOTH_FORMS
@BOTH_WAYS
@pytest.mark.parametrize("length", [1, 511, 4096, 262_144, 1 << 20, (1 << 20) + 1, 3_000_001])
async def test_what_is_written_is_read_back(stage, structured, inline, length):
    stage.source.inline = inline
    peer = await stage.open(structured)
    data = bytes(index % 251 for index in range(length))
    assert (await peer.write(1000, data)).error == 0
    assert stage.source.content[1000 : 1000 + length] == data
    reply = await peer.read(1000, length, nbd.CMD_FLAG_DF if structured else 0)
    assert reply.data == data
    assert reply.chunks == (1 if structured else 0)


@BOTH_FORMS
@BOTH_WAYS
async def test_a_thousand_pipelined_requests_are_all_answered_once(stage, structured, inline):
    stage.source.inline = inline
    peer = await stage.open(structured)
    for cookie in range(1000):
        if cookie % 3:
            peer.request(nbd.CMD_READ, cookie, cookie * 64, 64)
        else:
            peer.request(nbd.CMD_WRITE, cookie, cookie * 64, 64, data=bytes([cookie % 256]) * 64)
    replies = [await peer.reply() for _ in range(1000)]
    assert sorted(reply.cookie for reply in replies) == list(range(1000))
    assert all(reply.error == 0 for reply in replies)
    for cookie in range(0, 1000, 3):
        assert stage.source.content[cookie * 64] == cookie % 256


async def test_large_writes_and_reads_mixed_with_small_ones_keep_their_data(stage_with):
    stage = await stage_with(size=40 << 20)
    peer = await stage.open()
    pieces = {0: 20 << 20, 21 << 20: 3, 22 << 20: 5 << 20, 28 << 20: 1 << 20, 30 << 20: 77_777, 31 << 20: 8 << 20}
    for cookie, (offset, length) in enumerate(pieces.items()):
        peer.request(nbd.CMD_WRITE, cookie, offset, length, data=bytes([cookie + 1]) * length)
    assert sorted([(await peer.reply()).cookie for _ in pieces]) == list(range(6))
    for cookie, (offset, length) in enumerate(pieces.items()):
        peer.request(nbd.CMD_READ, cookie, offset, length)
    for _ in pieces:
        reply = await peer.reply()
        assert reply.data == bytes([reply.cookie + 1]) * list(pieces.values())[reply.cookie]


async def test_a_request_that_waits_does_not_hold_up_the_others(stage):
    peer = await stage.open()
    stage.source.hold()
    peer.request(nbd.CMD_READ, 1, 0, 4096)
    await stage.until(lambda: stage.source.awaited == 1)
    stage.source.inline = True
    peer.request(nbd.CMD_READ, 2, 0, 4096)
    assert (await peer.reply()).cookie == 2
    stage.source.release()
    assert (await peer.reply()).cookie == 1


async def test_fua_reaches_the_node_and_plain_writes_do_not_carry_it(stage):
    peer = await stage.open()
    await peer.write(0, b"a" * 512, nbd.CMD_FLAG_FUA)
    await peer.write(512, b"b" * 512)
    assert stage.source.calls == [("write", 0, 512, FUA), ("write", 512, 512, 0)]


async def test_a_writethrough_export_makes_every_change_durable(stage_with):
    stage = await stage_with(config=ExportConfig("disk", writable=True, writethrough=True))
    peer = await stage.open()
    await peer.write(0, b"a" * 512)
    await peer.ask(nbd.CMD_WRITE_ZEROES, 0, 4096)
    await peer.ask(nbd.CMD_TRIM, 0, 4096)
    flags = [(call[0], call[3] & FUA) for call in stage.source.calls]
    assert flags == [("write", FUA), ("zero", FUA), ("discard", 0), ("flush", 0)]


async def test_flush_reaches_the_node(stage):
    peer = await stage.open()
    assert (await peer.ask(nbd.CMD_FLUSH)).error == 0
    assert stage.source.calls == [("flush", 0, 0, 0)]


async def test_a_durable_trim_is_flushed(stage):
    peer = await stage.open()
    assert (await peer.ask(nbd.CMD_TRIM, 4096, 8192, nbd.CMD_FLAG_FUA)).error == 0
    assert stage.source.calls == [("discard", 4096, 8192, 0), ("flush", 0, 0, 0)]


@pytest.mark.parametrize(
    ("sent", "given"),
    [
        (0, MAY_UNMAP),
        (nbd.CMD_FLAG_NO_HOLE, 0),
        (nbd.CMD_FLAG_FAST_ZERO, MAY_UNMAP | NO_FALLBACK),
        (nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_FUA, NO_FALLBACK | FUA),
    ],
)
async def test_write_zeroes_carries_its_flags(stage, sent, given):
    peer = await stage.open()
    assert (await peer.ask(nbd.CMD_WRITE_ZEROES, 4096, 8192, sent)).error == 0
    assert stage.source.calls == [("zero", 4096, 8192, given)]


async def test_a_fast_zero_that_would_be_slow_is_refused_and_changes_nothing(stage):
    stage.source.fast_zero = False
    peer = await stage.open()
    assert (await peer.ask(nbd.CMD_WRITE_ZEROES, 0, 4096, nbd.CMD_FLAG_FAST_ZERO)).error == nbd.ENOTSUP
    assert stage.source.calls == []
    assert (await peer.ask(nbd.CMD_WRITE_ZEROES, 0, 4096)).error == 0


async def test_cache_reads_and_answers_without_data(stage):
    peer = await stage.open()
    reply = await peer.ask(nbd.CMD_CACHE, 0, 3 << 20)
    assert (reply.error, reply.data) == (0, b"")


@pytest.mark.parametrize("kind", [nbd.CMD_READ, nbd.CMD_WRITE, nbd.CMD_TRIM, nbd.CMD_CACHE, nbd.CMD_WRITE_ZEROES])
@BOTH_FORMS
async def test_a_request_of_no_length_succeeds_and_does_nothing(stage, structured, kind):
    peer = await stage.open(structured)
    assert (await peer.ask(kind, 512, 0)).error == 0
    assert stage.source.calls == []


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (nbd.CMD_READ, nbd.EINVAL),
        (nbd.CMD_WRITE, nbd.ENOSPC),
        (nbd.CMD_TRIM, nbd.EINVAL),
        (nbd.CMD_CACHE, nbd.EINVAL),
        (nbd.CMD_WRITE_ZEROES, nbd.ENOSPC),
        (nbd.CMD_BLOCK_STATUS, nbd.EINVAL),
    ],
)
@pytest.mark.parametrize("offset", [SIZE - 511, SIZE, 2**63 - 256, 2**64 - 512])
async def test_a_range_past_the_end_or_wrapped_is_refused_and_the_client_goes_on(stage, kind, error, offset):
    peer = await stage.open(contexts=("base:allocation",))
    reply = await peer.ask(kind, offset, 512, data=bytes(512) if kind == nbd.CMD_WRITE else b"")
    assert reply.error == error
    assert str(SIZE) in reply.text
    assert (await peer.read(0, 512)).error == 0


@pytest.mark.parametrize("kind", [nbd.CMD_WRITE, nbd.CMD_TRIM, nbd.CMD_WRITE_ZEROES])
async def test_a_read_only_export_permits_no_change(stage_with, kind):
    stage = await stage_with(config=ExportConfig("disk"))
    peer = await stage.open()
    assert peer.flags & nbd.FLAG_READ_ONLY
    assert (await peer.ask(kind, 0, 512, data=bytes(512) if kind == nbd.CMD_WRITE else b"")).error == nbd.EPERM
    assert (await peer.read(0, 512)).error == 0
    assert stage.source.calls == []


async def test_the_payload_of_a_large_refused_write_is_skipped_to_its_end(stage_with):
    stage = await stage_with(config=ExportConfig("disk"), size=16 << 20)
    peer = await stage.open()
    reply = await peer.write(0, nbd.request(nbd.CMD_DISC, 9) * 500_000)
    assert reply.error == nbd.EPERM
    assert (await peer.read(0, 512)).error == 0


@pytest.mark.parametrize("kind", [8, 99, 65535])
async def test_an_unknown_command_is_refused_and_the_client_goes_on(stage, kind):
    peer = await stage.open()
    assert (await peer.ask(kind, 0, 512)).error == nbd.EINVAL
    assert (await peer.read(0, 512)).error == 0


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        (nbd.CMD_READ, nbd.CMD_FLAG_NO_HOLE),
        (nbd.CMD_WRITE, nbd.CMD_FLAG_DF),
        (nbd.CMD_TRIM, nbd.CMD_FLAG_FAST_ZERO),
        (nbd.CMD_FLUSH, 1 << 15),
        (nbd.CMD_WRITE_ZEROES, nbd.CMD_FLAG_REQ_ONE),
    ],
)
async def test_a_flag_that_does_not_belong_to_the_command_is_refused(stage, kind, flags):
    peer = await stage.open()
    reply = await peer.ask(kind, 0, 512, flags, bytes(512) if kind == nbd.CMD_WRITE else b"")
    assert reply.error == nbd.EINVAL
    assert stage.source.calls == []


async def test_fua_is_accepted_with_every_command(stage):
    peer = await stage.open(contexts=("base:allocation",))
    for kind in (nbd.CMD_READ, nbd.CMD_FLUSH, nbd.CMD_TRIM, nbd.CMD_CACHE, nbd.CMD_BLOCK_STATUS):
        assert (await peer.ask(kind, 0, 4096, nbd.CMD_FLAG_FUA)).error == 0


async def test_a_read_longer_than_the_maximum_is_refused(stage_with):
    stage = await stage_with(size=64 << 20)
    peer = await stage.open()
    assert (await peer.read(0, (32 << 20) + 1)).error == nbd.EINVAL
    assert len((await peer.read(0, 32 << 20)).data) == 32 << 20


@BOTH_FORMS
@BOTH_WAYS
@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (NoSpace("memory0", "write"), nbd.ENOSPC),
        (IoError("memory0", "write", errno.EIO, "bad"), nbd.EIO),
        (IoError("memory0", "write", errno.EDQUOT, "quota"), nbd.ENOSPC),
        (IoError("memory0", "write", errno.EROFS, "read-only"), nbd.EPERM),
        (InternalError("odd"), nbd.EIO),
    ],
    ids=["no-space", "io", "quota", "rofs", "internal"],
)
async def test_errors_of_the_node_become_errors_of_the_protocol(stage, structured, inline, failure, error):
    peer = await stage.open(structured)
    stage.source.inline, stage.source.failure = inline, failure
    for reply in (await peer.write(0, bytes(512)), await peer.read(0, 512)):
        assert reply.error == error
        assert reply.text == (str(failure) if structured else "")
    stage.source.failure = None
    assert (await peer.read(0, 512)).error == 0


async def test_a_bug_behind_the_export_is_a_disk_error_for_the_guest_and_a_report_for_people(stage):
    peer = await stage.open()
    stage.source.content = None
    assert (await peer.read(0, 512)).error == nbd.EIO
    assert [kind for kind, _ in stage.reports] == ["nbd-internal-error"]


async def test_block_status_tells_holes_data_and_merges_neighbours(stage):
    peer = await stage.open(contexts=("base:allocation",))
    await peer.write(CLUSTER, bytes(2 * CLUSTER))
    reply = await peer.ask(nbd.CMD_BLOCK_STATUS, 0, SIZE)
    hole = nbd.STATE_HOLE | nbd.STATE_ZERO
    assert reply.statuses == {0: [(CLUSTER, hole), (2 * CLUSTER, 0), (SIZE - 3 * CLUSTER, hole)]}


async def test_block_status_of_one_extent_does_not_pass_the_request(stage):
    peer = await stage.open(contexts=("base:allocation",))
    await peer.write(0, bytes(2 * CLUSTER))
    reply = await peer.ask(nbd.CMD_BLOCK_STATUS, 100, 1000, nbd.CMD_FLAG_REQ_ONE)
    assert reply.statuses == {0: [(1000, 0)]}


async def test_block_status_tells_each_context_in_a_chunk_of_its_own(stage_with):
    source = MemorySource(SIZE)
    source.add_bitmap("b0")
    source.add_bitmap("hidden")
    config = ExportConfig("disk", writable=True, bitmaps=("b0",), allocation_depth=True)
    stage = await stage_with(config=config, source=source)
    source.backed = 2 * CLUSTER
    names = ("qemu:dirty-bitmap:b0", "base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:hidden")
    peer = await stage.open(contexts=names)
    await peer.write(CLUSTER, bytes(2 * CLUSTER))
    reply = await peer.ask(nbd.CMD_BLOCK_STATUS, 0, 4 * CLUSTER)
    hole = nbd.STATE_HOLE | nbd.STATE_ZERO
    assert sorted(reply.statuses.values()) == [
        [(CLUSTER, 0), (CLUSTER, 2), (CLUSTER, 1), (CLUSTER, 0)],
        [(CLUSTER, 0), (2 * CLUSTER, nbd.STATE_DIRTY), (CLUSTER, 0)],
        [(CLUSTER, hole), (2 * CLUSTER, 0), (CLUSTER, hole)],
    ]


@BOTH_FORMS
async def test_block_status_without_a_context_is_refused(stage, structured):
    peer = await stage.open(structured)
    assert (await peer.ask(nbd.CMD_BLOCK_STATUS, 0, 4096)).error == nbd.EINVAL


async def test_a_very_fragmented_status_is_answered_in_bounded_parts(stage_with):
    clusters = 20_000
    source = MemorySource(clusters * CLUSTER)
    source.allocated[::2] = b"\1" * (clusters // 2)
    stage = await stage_with(source=source)
    peer = await stage.open(contexts=("base:allocation",))
    offset = replies = 0
    while offset < source.size:
        extents = (await peer.ask(nbd.CMD_BLOCK_STATUS, offset, source.size - offset)).statuses[0]
        offset += sum(length for length, _ in extents)
        replies += 1
    assert offset == source.size
    assert replies == 3


async def test_a_node_that_shrank_is_not_written_behind_its_new_end(stage):
    peer = await stage.open()
    await stage.source.truncate(1 << 20)
    assert (await peer.write(1 << 20, bytes(512))).error == nbd.ENOSPC
    assert (await peer.read(1 << 20, 512)).error == nbd.EINVAL
    assert (await peer.write(0, bytes(512))).error == 0
