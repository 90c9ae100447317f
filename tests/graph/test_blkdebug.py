"""qcow2 above a blkdebug node: its events, errors at each of them, breakpoints in the middle of writes."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.base.clock import VirtualClock
from blockyard.base.errors import (
    BlockError,
    InvalidArgument,
    IoError,
    NodeNotFound,
    OperationUnsupported,
    ResourceExists,
    ResourceNotFound,
)
from blockyard.base.units import KIB, MIB
from blockyard.node.core.injection import EVENTS, Effect
from blockyard.node.graph.debugging import Debugging, FaultOrder
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.status import block_status
from tests.support import peers
from tests.support.blkdebugged import SIZE, Guest, debugger, listen, make_image, opened
from tests.support.eventually import eventually
from tests.support.graphs import GraphGround, content

QCOW2 = (
    "l1_update", "l1_grow_alloc_table", "l1_grow_write_table", "l1_grow_activate_table",
    "l2_load", "l2_update", "l2_update_compressed", "l2_alloc_cow_read", "l2_alloc_write",
    "read_aio", "read_backing_aio", "read_compressed", "write_aio", "write_compressed", "cow_read", "cow_write",
    "refblock_load", "refblock_update_part", "refblock_alloc", "refblock_alloc_hookup",
    "refblock_alloc_write", "refblock_alloc_write_blocks", "refblock_alloc_write_table",
    "refblock_alloc_switch_table", "cluster_alloc", "cluster_alloc_bytes", "cluster_free",
    "flush_to_os", "flush_to_disk", "pwritev", "pwritev_done",
    "l1_shrink_write_table", "l1_shrink_free_l2_clusters",
)  # fmt: skip
"""What qcow2 and the request path emit in a guest's life. Opening and emptying an image, misaligned writes and
copies on read have tests of their own. Not emitted, as in QEMU 7.2: reftable_grow, reftable_update and
refblock_update; nor what there is not here: cluster_alloc_space, vmstate_load, vmstate_save."""

pytestmark = [pytest.mark.peer("qemu-img"), pytest.mark.peer("qemu-io")]


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[GraphGround]:
    ground = GraphGround(tmp_path)
    yield ground
    assert await ground.leave() == []


def corruptions(path: Path) -> int:
    result = peers.run("qemu-img", "check", "-U", "--output=json", "-f", "qcow2", path, check=False)
    found = json.loads(result.stdout)
    return int(found.get("corruptions", 0)) + int(found.get("check-errors", 0))


# --- events ---------------------------------------------------------------------------------------------------


async def test_a_guests_life_emits_every_event_that_qcow2_has(ground: GraphGround):
    model = make_image(ground.root)
    top, bug = await opened(ground, refcount_cache_size=2048)
    heard = listen(bug, EVENTS)
    guest = Guest(ground.use(top), model)
    await guest.live()
    assert guest.errors == []
    assert set(heard) == set(QCOW2)
    guest.check(await content(guest.user))


async def test_an_image_that_is_emptied_says_so(ground: GraphGround):
    make_image(ground.root)
    top, bug = await opened(ground)
    heard = listen(bug, ("empty_image_prepare",))
    await top.driver.make_empty()  # type: ignore[attr-defined]
    assert heard == ["empty_image_prepare"]


async def test_a_misaligned_write_is_read_around_in_qemus_steps(ground: GraphGround):
    await ground.memory("memory", MIB)
    bug = await ground.graph.open(NodeDefinition("blkdebug", "bug", {"align": 4096}, {"image": "memory"}))
    heard, user = listen(bug, EVENTS), ground.use(bug)
    await user.write(100, b"x" * 5000)
    assert heard == [
        "pwritev_rmw_head", "pwritev_rmw_tail", "pwritev_rmw_after_head", "pwritev_rmw_after_tail",
        "pwritev", "pwritev_done",
    ]  # fmt: skip
    heard.clear()
    await user.write(4096, b"x" * 100)
    assert heard == ["pwritev_rmw_tail", "pwritev_rmw_after_tail", "pwritev", "pwritev_done"]
    heard.clear()
    await user.zero(8192, 4096)
    assert heard == ["pwritev_zero", "pwritev_done"]
    assert await content(user, 0, 8192) == bytes(100) + b"x" * 5000 + bytes(3092)


async def test_a_copy_on_read_says_that_it_writes(ground: GraphGround):
    make_image(ground.root)
    top, bug = await opened(ground)
    heard = listen(bug, ("cor_write", "write_aio"))
    filter_ = await ground.graph.open(NodeDefinition("copy-on-read", "cor", children={"file": "top"}))
    assert await content(ground.use(filter_), 512 * KIB, 512) == b"\xbb" * 512
    assert heard == ["cor_write", "write_aio"]
    assert top.driver.lookup(512 * KIB, 512).kind == 0  # type: ignore[attr-defined]


async def test_a_raw_image_tells_of_its_reads_and_writes(ground: GraphGround):
    await ground.memory("memory", MIB)
    bug = await ground.graph.open(NodeDefinition("blkdebug", "bug", {}, {"image": "memory"}))
    user = ground.use(await ground.raw("raw", bug))
    heard = listen(bug, ("read_aio", "write_aio", "flush_to_os", "flush_to_disk"))
    await user.write(0, b"x")
    await content(user, 0, 1)
    await user.flush()
    assert heard == ["write_aio", "read_aio", "flush_to_os", "flush_to_disk"]


async def test_with_nothing_set_requests_go_inline_through_a_blkdebug_node(ground: GraphGround):
    make_image(ground.root)
    top, bug = await opened(ground)
    user = ground.use(top)
    await content(user)
    buffer = memoryview(bytearray(512))
    for offset in (0, 512 * KIB):
        assert user.read_now(offset, buffer)
    listen(bug, ("cow_read",))
    for offset in (0, 512 * KIB):
        assert not user.read_now(offset, buffer), "the data's and the backing file's reads have events"


# --- errors at every event --------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 0])
@pytest.mark.parametrize("event", [*QCOW2, "write", "read", "flush", "discard"])
async def test_an_error_at_any_event_is_told_and_leaves_a_sound_image(ground: GraphGround, event: str, times: int):
    model = make_image(ground.root)
    top, _ = await opened(ground, refcount_cache_size=2048)
    debugging = Debugging(ground.graph)
    debugging.inject("bug", FaultOrder(event, Effect(5), fault_id="it", times=times))
    guest = Guest(ground.use(top), model)
    await guest.live()
    (fault,) = debugging.faults()
    assert fault.fault.struck > 0
    # A file that cannot discard still has the image right, so nobody is told.
    assert guest.errors or event == "discard"
    assert all("injected" in str(error) for error in guest.errors[:1])
    debugging.withdraw("it")
    flushed = await guest.tried(guest.user.flush)
    ground.graph.release(guest.user)
    try:
        await ground.graph.close("top")
    except BlockError:
        assert not flushed
    await ground.graph.close("bug")
    assert corruptions(ground.root / "top.qcow2") == 0
    if flushed:
        again, _ = await opened(ground)
        guest.check(await content(ground.use(again)))


async def test_an_error_while_an_image_is_opened_leaves_nothing_open(ground: GraphGround):
    make_image(ground.root)
    with pytest.raises(IoError, match="injected"):
        await opened(ground, {"inject_error": [{"event": "reftable_load"}]})
    assert ground.graph.nodes == {}


async def test_block_status_may_fail_too(ground: GraphGround):
    await ground.memory("memory", MIB)
    rule = {"event": "none", "iotype": "block-status"}
    bug = await ground.graph.open(NodeDefinition("blkdebug", "bug", {"inject_error": [rule]}, {"image": "memory"}))
    with pytest.raises(IoError):
        await block_status(bug, 0, MIB)
    await content(ground.use(bug))


async def test_a_reader_sees_a_silent_corruption_of_what_was_written(ground: GraphGround):
    model = make_image(ground.root)
    top, _ = await opened(ground)
    debugging, user = Debugging(ground.graph), ground.use(top)
    debugging.inject("top", FaultOrder("write_aio", Effect(0, corrupt=True), times=1))
    await user.write(512 * KIB, b"\0" * 512)
    found = await content(user, 512 * KIB, 512)
    assert sum(byte.bit_count() for byte in found) == 1
    assert (await content(user))[: 512 * KIB] == model[: 512 * KIB]


async def test_a_delay_holds_a_guests_write_for_its_time(tmp_path: Path):
    clock = VirtualClock()
    ground = GraphGround(tmp_path, clock)
    make_image(tmp_path)
    top, _ = await opened(ground)
    debugging, user = Debugging(ground.graph), ground.use(top)
    debugging.inject("bug", FaultOrder("cow_write", Effect(0, delay_ns=3 * 10**9), times=1))
    sleepers = clock.sleepers
    writing = asyncio.create_task(user.write(512 * KIB + 1, b"x"))
    await eventually(lambda: clock.sleepers > sleepers)
    await clock.advance(2.9)
    assert not writing.done()
    await clock.advance(0.2)
    await writing
    assert await ground.leave() == []


# --- breakpoints ------------------------------------------------------------------------------------------------


async def test_writes_that_stopped_at_cow_write_go_on_in_the_order_in_which_they_came(ground: GraphGround):
    make_image(ground.root)
    top, bug = await opened(ground)
    debugging, user, ended = Debugging(ground.graph), ground.use(top), []
    debugging.set_breakpoint("bug", "cow_write", "here")

    async def write(number: int, offset: int, data: bytes) -> None:
        await user.write(offset, data)
        ended.append(number)

    async with asyncio.TaskGroup() as group:
        group.create_task(write(0, 512 * KIB + 10, b"a" * 10))
        await eventually(lambda: debugging.breakpoints()[0].state.suspended == 1)
        group.create_task(write(1, 640 * KIB + 10, b"b" * 10))
        await eventually(lambda: debugging.breakpoints()[0].state.suspended == 2)
        assert ended == []
        assert debugging.resume("here").state.suspended == 0
    assert ended == [0, 1]
    assert (await content(user, 512 * KIB, 30)) == b"\xbb" * 10 + b"a" * 10 + b"\xbb" * 10
    assert debugger(bug).listens


async def test_a_write_into_the_same_cluster_waits_for_the_one_that_stopped(ground: GraphGround):
    make_image(ground.root)
    top, _ = await opened(ground)
    debugging, user, ended = Debugging(ground.graph), ground.use(top), []
    debugging.set_breakpoint("bug", "cow_write", "here")

    async def write(number: int, offset: int, data: bytes) -> None:
        await user.write(offset, data)
        ended.append(number)

    async with asyncio.TaskGroup() as group:
        group.create_task(write(0, 512 * KIB, b"a" * 20))
        await eventually(lambda: debugging.breakpoints()[0].state.suspended == 1)
        group.create_task(write(1, 512 * KIB + 10, b"b" * 20))
        await eventually(lambda: len(list(top.tracker.edges())) == 1)
        debugging.remove_breakpoint("here")
    assert ended == [0, 1]
    assert await content(user, 512 * KIB, 40) == b"a" * 10 + b"b" * 20 + b"\xbb" * 10


@pytest.mark.parametrize("event", QCOW2)
async def test_a_request_that_is_cancelled_where_it_stopped_leaves_a_sound_image(ground: GraphGround, event: str):
    model = make_image(ground.root)
    top, bug = await opened(ground, refcount_cache_size=2048)
    debugger(bug).set_breakpoint("here", event, lambda state, gone: None)
    guest = Guest(ground.use(top), model)
    living = asyncio.create_task(guest.live())
    await eventually(lambda: debugger(bug).breakpoints()[0].suspended)
    living.cancel()
    # What must not be broken off goes on first, and its caller is told afterwards.
    debugger(bug).remove_breakpoint("here")
    await asyncio.gather(living, return_exceptions=True)
    assert living.cancelled()
    await guest.user.flush()
    guest.check(await content(guest.user))
    ground.graph.release(guest.user)
    await ground.graph.close("top")
    await ground.graph.close("bug")
    assert corruptions(ground.root / "top.qcow2") == 0


@pytest.mark.parametrize("end", ["close", "close_all", "end"])
async def test_closing_lets_everyone_go(ground: GraphGround, end: str):
    make_image(ground.root)
    top, _ = await opened(ground)
    debugging, user = Debugging(ground.graph), ground.use(top)
    for event in ("write_aio", "cow_write", "pwritev", "l2_update"):
        debugging.set_breakpoint("bug", event, event)
    writing = asyncio.create_task(user.write(512 * KIB + 10, b"x"))
    await eventually(lambda: sum(each.state.suspended for each in debugging.breakpoints()) == 1)
    if end == "end":
        debugging.end()
    elif end == "close_all":
        assert await ground.graph.close_all() == []
    else:
        ground.graph.release(user)
        await ground.graph.close("top")
    await asyncio.gather(writing)
    assert corruptions(ground.root / "top.qcow2") == 0


async def test_a_breakpoint_ends_with_its_node_and_watchers_are_told(ground: GraphGround):
    make_image(ground.root)
    await opened(ground)
    debugging = Debugging(ground.graph)
    debugging.set_breakpoint("top", "cow_write", "here")
    changes = debugging.watch()
    assert (await anext(changes)).kind == "initial"
    await ground.graph.close("top")
    await ground.graph.close("bug")
    change = await anext(changes)
    assert (change.kind, change.name) == ("removed", "here")
    assert debugging.breakpoints() == []
    await changes.aclose()  # type: ignore[attr-defined]


async def test_names_are_looked_for_in_the_whole_graph(ground: GraphGround):
    await ground.memory("plain", MIB)
    for name in ("one", "two"):
        image = NodeDefinition("memory", options={"size": MIB})
        await ground.graph.open(NodeDefinition("blkdebug", name, {}, {"image": image}))
    debugging = Debugging(ground.graph)
    debugging.set_breakpoint("one", "l2_load", "here")
    with pytest.raises(ResourceExists):
        debugging.set_breakpoint("two", "l2_load", "here")
    with pytest.raises(OperationUnsupported, match="no blkdebug node"):
        debugging.set_breakpoint("plain", "l2_load", "there")
    with pytest.raises(NodeNotFound):
        debugging.set_breakpoint("nobody", "l2_load", "there")
    with pytest.raises(InvalidArgument):
        debugging.set_breakpoint("two", "l2_load", "")
    first = debugging.inject("one", FaultOrder("read", Effect(5)))
    second = debugging.inject("two", FaultOrder("read", Effect(5)))
    assert first.fault.fault_id != second.fault.fault_id
    assert [each.node_name for each in debugging.faults()] == ["one", "two"]
    assert [each.node_name for each in debugging.faults("two")] == ["two"]
    with pytest.raises(ResourceExists):
        debugging.inject("two", FaultOrder("read", Effect(5), fault_id=first.fault.fault_id))
    debugging.withdraw(first.fault.fault_id)
    with pytest.raises(ResourceNotFound):
        debugging.withdraw(first.fault.fault_id)
    with pytest.raises(ResourceNotFound):
        debugging.resume("nowhere")


# --- limits -----------------------------------------------------------------------------------------------------


async def test_the_request_path_keeps_to_the_limits_of_a_blkdebug_node(ground: GraphGround):
    disk = await ground.strict(
        size=SIZE, alignment=4096, max_transfer=8192, zero_alignment=16384, max_zeroes=32768,
        discard_alignment=8192,
    )  # fmt: skip
    options = {
        "align": 4096, "max_transfer": 8192, "opt_write_zero": 16384, "max_write_zero": 32768,
        "opt_discard": 8192, "max_discard": 16384,
    }  # fmt: skip
    bug = await ground.graph.open(NodeDefinition("blkdebug", "bug", options, {"image": disk.name}))
    user = ground.use(bug)
    model = bytearray(await content(user, 0, MIB))
    for offset, length in ((100, 50_000), (4096, 4096), (70_001, 1)):
        await user.write(offset, b"w" * length)
        model[offset : offset + length] = b"w" * length
    await user.zero(5000, 200_000)
    model[5000:205_000] = bytes(200_000)
    await user.discard(300_001, 100_000)
    assert (await content(user, 0, 300_000)) == model[:300_000]
