"""The contract of the node port, kept by the tests' small node and by the gRPC adapter before a real node."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

import pytest

from blockyard.base.clock import SystemClock
from blockyard.base.errors import (
    BlockError,
    InvalidArgument,
    NodeNotFound,
    OwnerMismatch,
    ResourceBusy,
    ResourceExists,
    ResourceNotFound,
)
from blockyard.base.ranges import ByteRange
from blockyard.jobs.node.port import (
    CopyKind,
    CopyMode,
    FinishAction,
    NodePort,
    Order,
    Report,
    SessionRequest,
    SyncMode,
)
from blockyard.jobs.node.remote import RemoteNode
from blockyard.rpc.channel import open_channel
from tests.support.real_services import CLUSTER, House, node_service
from tests.support.small_node import GRANULE, SmallNode

SIZE = 64 * CLUSTER


class Ground(Protocol):
    """A node under test, and what a test does beside the port."""

    port: Callable[[int], NodePort]
    content: Callable[[str], Awaitable[bytes]]
    write: Callable[[int, bytes], Awaitable[None]]
    """A guest's write to `top`."""


class SmallGround:
    def __init__(self) -> None:
        self.world = SmallNode(SystemClock())
        granules = SIZE // GRANULE
        self.world.disk("base", granules, fill=b"b")
        self.world.disk("top", granules, backing="base")
        self.world.disk("target", granules)
        self.world.guest("vm", "top")

    def port(self, token: int) -> NodePort:
        return self.world.port(token)

    async def content(self, name: str) -> bytes:
        return self.world.disks[name].content

    async def write(self, offset: int, content: bytes) -> None:
        for start in range(0, len(content), GRANULE):
            self.world.guest_write("vm", (offset + start) // GRANULE, content[start : start + GRANULE])


@asynccontextmanager
async def small_ground(folder) -> AsyncIterator[Ground]:
    yield SmallGround()


@asynccontextmanager
async def real_ground(folder) -> AsyncIterator[Ground]:
    async with AsyncExitStack() as stack:
        running, client = await stack.enter_async_context(node_service(folder))
        house = House(folder, client, client, running)
        await house.image("base", SIZE)
        await house.write("base", 0, b"0123456789abcdef" * (SIZE // 16))
        await house.image("top", SIZE, below="base")
        await house.memory("target", SIZE)
        channel = await stack.enter_async_context(open_channel(house.node_address))

        guest = await stack.enter_async_context(client.data.session("top"))

        class RealGround:
            content = staticmethod(house.content)
            write = staticmethod(guest.write)

            @staticmethod
            def port(token: int) -> NodePort:
                return RemoteNode(channel, token)

        yield RealGround()


@pytest.fixture(params=[small_ground, real_ground], ids=["small", "real"])
async def ground(request, tmp_path) -> AsyncIterator[Ground]:
    async with request.param(tmp_path) as made:
        yield made


def mirror(session_id: str = "s", **options) -> SessionRequest:
    return SessionRequest(session_id, CopyKind.MIRROR, "top", "target", **options)


async def work_off(port: NodePort, session_id: str = "s", order_bytes: int = 1 << 20) -> list[Report]:
    reports = []
    async with port.run_copy(session_id) as stream:
        while not reports or reports[-1].remaining_bytes:
            await stream.send(Order(len(reports) + 1, order_bytes))
            reports.append(await stream.receive())
            assert len(reports) < 1000
    return reports


async def refused(call: Awaitable[object], kind: type[BlockError]) -> BlockError:
    with pytest.raises(kind) as caught:
        await call
    return caught.value


async def test_a_node_tells_its_size_and_what_shows_through_it(ground):
    port = ground.port(1)
    top, base = await port.get_node("top"), await port.get_node("base")
    assert (top.node_name, top.size_bytes, top.below) == ("top", SIZE, "base")
    assert base.below == ""
    await refused(port.get_node("nobody"), NodeNotFound)


async def test_a_new_session_has_everything_left_and_nothing_done(ground):
    session = await ground.port(1).create_session(mirror())
    assert session == await ground.port(1).get_session("s")
    assert (session.size_bytes, session.remaining_bytes, session.done_bytes) == (SIZE, SIZE, 0)
    assert session.finished is None
    assert session.filter_node_name
    assert session.granularity_bytes >= 4096
    assert [other.session_id for other in await ground.port(1).list_sessions()] == ["s"]


async def test_a_session_copies_by_orders_and_its_figures_add_up(ground):
    port = ground.port(1)
    await port.create_session(mirror())
    reports = await work_off(port)
    session = await port.get_session("s")
    assert sum(report.done_bytes for report in reports) == session.done_bytes == SIZE
    assert len(reports) >= SIZE // (1 << 20)
    assert [report.order_id for report in reports] == list(range(1, len(reports) + 1))
    assert not any(report.failed for report in reports)
    assert await ground.content("target") == await ground.content("top")


async def test_creating_twice_is_the_same_session_and_another_request_is_refused(ground):
    port = ground.port(1)
    await port.create_session(mirror())
    await work_off(port)
    again = await port.create_session(mirror())
    assert (again.remaining_bytes, again.done_bytes) == (0, SIZE)
    await refused(port.create_session(mirror(sync=SyncMode.TOP)), ResourceExists)


async def test_a_dry_run_makes_no_session(ground):
    port = ground.port(1)
    await port.create_session(mirror(), validate_only=True)
    await refused(port.get_session("s"), ResourceNotFound)
    assert list(await port.list_sessions()) == []
    missing = SessionRequest("s", CopyKind.MIRROR, "nobody", "target")
    await refused(port.create_session(missing, validate_only=True), NodeNotFound)


async def test_a_dropped_stream_ends_no_session(ground):
    port = ground.port(1)
    await port.create_session(mirror())
    async with port.run_copy("s") as stream:
        await stream.send(Order(1, 1 << 20))
        await stream.receive()
        await stream.send(Order(2, 1 << 20))
    session = await port.get_session("s")
    assert 0 < session.done_bytes < SIZE
    await work_off(port)
    assert await ground.content("target") == await ground.content("top")


async def test_an_older_incarnation_is_fenced_off(ground):
    old, new = ground.port(1), ground.port(2)
    await old.create_session(mirror())
    async with old.run_copy("s") as stream:
        await stream.send(Order(1, 1 << 20))
        await stream.receive()
        assert (await new.create_session(mirror())).done_bytes > 0
        await stream.send(Order(2, 1 << 20))
        await refused(stream.receive(), OwnerMismatch)
    await refused(old.create_session(mirror()), OwnerMismatch)
    await refused(old.set_copy_mode("s", CopyMode.WRITE_BLOCKING), OwnerMismatch)
    await refused(old.finish_session("s", FinishAction.ABORT), OwnerMismatch)
    await work_off(new)


async def test_orders_stay_in_their_range(ground):
    port = ground.port(1)
    await port.create_session(mirror())
    async with port.run_copy("s") as stream:
        await stream.send(Order(1, 64 << 20, ByteRange(SIZE // 2, SIZE // 2)))
        report = await stream.receive()
        await stream.send(Order(2, 64 << 20, ByteRange(SIZE // 2, SIZE // 2)))
        again = await stream.receive()
    assert (report.done_bytes, report.remaining_bytes) == (SIZE // 2, SIZE // 2)
    assert (again.done_bytes, again.remaining_bytes) == (0, SIZE // 2)


async def test_a_mirror_sees_the_guests_writes_and_an_order_waits_for_them(ground):
    port = ground.port(1)
    await port.create_session(mirror())
    await work_off(port)
    async with port.run_copy("s") as stream:
        await stream.send(Order(1, 1 << 20, wait_seconds=0.01))
        assert (await stream.receive()).done_bytes == 0
        await stream.send(Order(2, 1 << 20, wait_seconds=30))
        await ground.write(CLUSTER, b"n" * CLUSTER)
        report = await stream.receive()
        # The guest's write may be told in two parts.
        while report.remaining_bytes:
            await stream.send(Order(3, 1 << 20))
            report = await stream.receive()
        assert report.dirtied_bytes >= CLUSTER
    assert await ground.content("target") == await ground.content("top")


async def test_a_write_blocking_mirror_leaves_nothing_behind(ground):
    port = ground.port(1)
    await port.create_session(mirror())
    await work_off(port)
    await port.set_copy_mode("s", CopyMode.WRITE_BLOCKING)
    await ground.write(CLUSTER, b"n" * CLUSTER)
    assert (await port.get_session("s")).remaining_bytes == 0
    assert await ground.content("target") == await ground.content("top")
    await refused(port.set_copy_mode("s", CopyMode.BACKGROUND), InvalidArgument)


async def test_finishing_is_idempotent_and_frees_the_id(ground):
    port = ground.port(1)
    await port.create_session(mirror())
    await work_off(port)
    first = await port.finish_session("s", FinishAction.DETACH)
    assert first.finished is FinishAction.DETACH
    assert (await port.finish_session("s", FinishAction.DETACH)).finished is FinishAction.DETACH
    assert (await port.get_session("s")).finished is FinishAction.DETACH
    await refused(port.finish_session("s", FinishAction.ABORT), ResourceBusy)
    again = await port.create_session(mirror(sync=SyncMode.NONE))
    assert again.finished is None
    assert again.remaining_bytes == again.done_bytes == 0


async def test_finishing_copies_what_is_left_of_a_mirror(ground):
    port = ground.port(1)
    await port.create_session(mirror())
    await work_off(port)
    await ground.write(0, b"l" * CLUSTER)
    await port.finish_session("s", FinishAction.DETACH)
    assert await ground.content("target") == await ground.content("top")


async def test_an_aborted_session_lets_go_of_its_nodes(ground):
    port = ground.port(1)
    await port.create_session(mirror())
    assert (await port.finish_session("s", FinishAction.ABORT)).finished is FinishAction.ABORT
    await port.create_session(mirror("other"))


async def test_a_backup_keeps_the_instant(ground):
    port = ground.port(1)
    instant = await ground.content("top")
    session = await port.create_session(SessionRequest("s", CopyKind.BACKUP, "top", "target"))
    assert session.remaining_bytes == SIZE
    await ground.write(SIZE - CLUSTER, b"n" * CLUSTER)
    assert (await port.get_session("s")).remaining_bytes < SIZE
    await work_off(port)
    await port.finish_session("s", FinishAction.COMPLETE)
    assert await ground.content("target") == instant


async def test_a_backup_of_nothing_copies_only_what_the_guest_overwrites(ground):
    port = ground.port(1)
    await port.create_session(SessionRequest("s", CopyKind.BACKUP, "top", "target", sync=SyncMode.NONE))
    old = (await ground.content("top"))[:CLUSTER]
    await ground.write(0, b"n" * CLUSTER)
    assert (await ground.content("target"))[:CLUSTER] == old
    assert (await port.get_session("s")).done_bytes == CLUSTER


async def test_a_top_session_passes_over_what_the_layers_below_hold(ground):
    port = ground.port(1)
    await ground.write(CLUSTER, b"n" * CLUSTER)
    await port.create_session(mirror(sync=SyncMode.TOP))
    await work_off(port)
    session = await port.get_session("s")
    assert (session.copied_bytes, session.skipped_bytes) == (CLUSTER, SIZE - CLUSTER)


async def test_a_stream_empties_the_node_of_its_chain(ground):
    port = ground.port(1)
    before = await ground.content("top")
    await port.create_session(SessionRequest("s", CopyKind.STREAM, "top"))
    await work_off(port)
    await port.finish_session("s", FinishAction.COMPLETE)
    assert (await port.get_node("top")).below == ""
    assert await ground.content("top") == before


async def test_a_session_that_does_not_exist(ground):
    port = ground.port(1)
    await refused(port.get_session("nobody"), ResourceNotFound)
    await refused(port.finish_session("nobody", FinishAction.ABORT), ResourceNotFound)
    async with port.run_copy("nobody") as stream:
        await stream.send(Order(1, 1 << 20))
        await refused(stream.receive(), ResourceNotFound)
