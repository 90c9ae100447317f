"""Copy sessions over `kill -9` of a real node: the map, the filter, the point in time, and each end."""

import os
import random
import signal
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from blockyard.base.errors import BlockError, OwnerMismatch
from blockyard.base.ranges import ByteRange
from blockyard.client import Client
from blockyard.client.definitions import file, qcow2, raw
from blockyard.jobs.node.port import (
    CopyKind,
    CopyMode,
    FinishAction,
    Order,
    SessionRequest,
    SyncMode,
)
from blockyard.jobs.node.remote import RemoteNode
from blockyard.rpc.channel import open_channel
from tests.support import peers
from tests.support.processes import Service, node_of, running

MIB = 1 << 20
SIZE = 8 * MIB
GRANULE = 65536


class Yard:
    """A node that can be killed, and the port that jobs use."""

    def __init__(self, node: Service, client: Client, channel) -> None:
        self.node = node
        self.client = client
        self.channel = channel
        self.images = Path(node.folder) / "images"

    def port(self, token: int = 1) -> RemoteNode:
        return RemoteNode(self.channel, token)

    async def disk(self, name: str, format: str, content: bytes = b"", below: str = "") -> None:
        if format == "raw":
            (self.images / f"{name}.raw").write_bytes(content or bytes(SIZE))
            await self.client.nodes.open(raw(file(f"{name}.raw"), node_name=name))
            return
        await self.client.images.create(f"{name}.qcow2", SIZE, format="qcow2")
        more = {"backing": below} if below else {}
        await self.client.nodes.open(qcow2(file(f"{name}.qcow2"), node_name=name, **more))
        if content:
            await self.client.data.write(name, 0, content)
        await self.client.data.flush(name)

    async def content(self, name: str) -> bytes:
        return bytes(await self.client.data.read(name, 0, SIZE))

    async def kill(self) -> None:
        await self.node.kill()
        await self.node.start()

    async def copy(self, session_id: str, max_bytes: int, token: int = 1, within: ByteRange | None = None) -> None:
        async with self.port(token).run_copy(session_id) as stream:
            await stream.send(Order(1, max_bytes, within))
            report = await stream.receive()
            assert not report.failed, report


@asynccontextmanager
async def yard(folder: Path):
    node = node_of(folder)
    async with running(node) as (client,):
        channel = open_channel(node.address)
        try:
            yield Yard(node, client, channel)
        finally:
            await channel.close()


def mirror(target: str = "t", **more) -> SessionRequest:
    return SessionRequest("s", CopyKind.MIRROR, "a", target, **more)


def backup(**more) -> SessionRequest:
    return SessionRequest("s", CopyKind.BACKUP, "a", "t", **more)


CONTENT = random.Random(1).randbytes(SIZE)


@pytest.mark.parametrize("format", ["raw", "qcow2"])
async def test_a_mirror_goes_on_and_hears_of_writes_before_and_after_the_kill(format, tmp_path):
    async with yard(tmp_path) as here:
        await here.disk("a", "raw", CONTENT)
        await here.disk("t", format)
        await here.port().create_session(mirror())
        await here.copy("s", 2 * MIB)
        before = await here.port().get_session("s")
        await here.client.data.write("a", 0, b"x" * 4096)
        await here.kill()
        after = await here.port().get_session("s")
        assert after.filter_node_name == before.filter_node_name
        # Raw: nothing but what the guest wrote. qcow2: what was not flushed is copied again, no more.
        again = after.remaining_bytes - before.remaining_bytes
        assert again == GRANULE if format == "raw" else again <= 2 * MIB
        assert after.copied_bytes == before.copied_bytes
        await here.client.data.write("a", 3 * MIB, b"y" * 4096)
        await here.copy("s", 64 * MIB)
        await here.client.data.write("a", SIZE - 4096, b"z" * 4096)
        await here.kill()
        ended = await here.port().finish_session("s", FinishAction.DETACH)
        assert ended.finished is FinishAction.DETACH
        expected = bytearray(CONTENT)
        expected[:4096], expected[3 * MIB : 3 * MIB + 4096], expected[-4096:] = (
            b"x" * 4096,
            b"y" * 4096,
            b"z" * 4096,
        )
        assert await here.content("t") == expected
        assert await here.content("a") == expected


async def test_a_raw_mirror_that_was_done_is_done_after_a_kill(tmp_path):
    async with yard(tmp_path) as here:
        await here.disk("a", "raw", CONTENT)
        await here.disk("t", "raw")
        await here.port().create_session(mirror())
        await here.copy("s", 64 * MIB)
        await here.kill()
        assert (await here.port().get_session("s")).remaining_bytes == 0
        # The detach leaves the guest where it is, so the node has no other change to keep.
        await here.port().finish_session("s", FinishAction.DETACH)
        await here.kill()
        assert (await here.port().finish_session("s", FinishAction.DETACH)).finished is FinishAction.DETACH
        with pytest.raises(BlockError):
            await here.port().finish_session("s", FinishAction.PIVOT)
        assert list((here.node.folder / "node-state" / "sessions").iterdir()) == []


async def test_a_pivot_is_there_after_a_kill_with_its_answer(tmp_path):
    async with yard(tmp_path) as here:
        await here.disk("a", "raw", CONTENT)
        await here.disk("t", "raw")
        await here.client.exports.add_nbd("a", "disk", writable=True)
        await here.port().create_session(mirror())
        await here.copy("s", 64 * MIB)
        done = await here.port().finish_session("s", FinishAction.PIVOT)
        await here.kill()
        assert await here.port().finish_session("s", FinishAction.PIVOT) == done
        (export,) = await here.client.exports.list()
        assert export.node_name == "t"


async def test_write_blocking_and_its_mode_outlive_a_kill(tmp_path):
    async with yard(tmp_path) as here:
        await here.disk("a", "raw", CONTENT)
        await here.disk("t", "raw")
        await here.port().create_session(mirror())
        await here.port().set_copy_mode("s", CopyMode.WRITE_BLOCKING)
        await here.copy("s", 64 * MIB)
        await here.kill()
        await here.client.data.write("a", 0, b"w" * GRANULE)
        assert (here.images / "t.raw").read_bytes() == b"w" * GRANULE + CONTENT[GRANULE:]
        assert (await here.port().get_session("s")).remaining_bytes == 0


@pytest.mark.parametrize("format", ["raw", "qcow2"])
async def test_a_backup_keeps_its_instant_over_a_kill(format, tmp_path):
    async with yard(tmp_path) as here:
        await here.disk("a", format, CONTENT)
        await here.disk("t", "raw")
        await here.port().create_session(backup())
        await here.copy("s", 1 * MIB)
        await here.client.data.write("a", 0, b"x" * 65536)
        await here.client.data.write("a", 4 * MIB, b"y" * 4096)
        await here.kill()
        await here.client.data.write("a", 5 * MIB, b"z" * 4096)
        await here.client.data.write("a", 4 * MIB + 4096, b"y" * 4096)
        session = await here.port().get_session("s")
        assert not session.snapshot_broken
        await here.copy("s", 64 * MIB)
        await here.port().finish_session("s", FinishAction.COMPLETE)
        assert await here.content("t") == CONTENT


async def test_a_backup_whose_old_data_a_kill_undid_says_so_and_lets_guests_go_on(tmp_path):
    async with yard(tmp_path) as here:
        await here.disk("a", "raw", CONTENT)
        await here.disk("t", "qcow2")
        await here.port().create_session(backup())
        # Copied before it is overwritten, into mappings that nobody has flushed.
        await here.client.data.write("a", 0, b"x" * 65536)
        await here.kill()
        assert (await here.port().get_session("s")).snapshot_broken
        async with here.port().run_copy("s") as stream:
            await stream.send(Order(1, MIB))
            assert (await stream.receive()).reason == "POINT_IN_TIME_LOST"
        with pytest.raises(BlockError, match="point in time"):
            await here.port().finish_session("s", FinishAction.COMPLETE)
        await here.client.data.write("a", 0, b"y" * 65536)
        await here.port().finish_session("s", FinishAction.ABORT)


async def test_a_backup_into_a_format_goes_on_when_only_settled_data_was_overwritten(tmp_path):
    async with yard(tmp_path) as here:
        await here.disk("a", "raw", CONTENT)
        await here.disk("t", "qcow2")
        await here.port().create_session(backup())
        await here.copy("s", 1 * MIB)
        await here.kill()
        await here.client.data.write("a", 7 * MIB, b"x" * 65536)
        await here.copy("s", 64 * MIB)
        await here.port().finish_session("s", FinishAction.COMPLETE)
        assert await here.content("t") == CONTENT
        peers.run("qemu-img", "check", "-q", "-U", here.images / "t.qcow2")


async def test_a_stream_goes_on_and_shortens_the_chain(tmp_path):
    async with yard(tmp_path) as here:
        await here.disk("base", "qcow2", CONTENT)
        await here.disk("top", "qcow2", below="base")
        await here.client.data.write("top", MIB, b"t" * MIB)
        await here.client.data.flush("top")
        expected = await here.content("top")
        await here.port().create_session(SessionRequest("s", CopyKind.STREAM, "top"))
        await here.copy("s", 2 * MIB)
        await here.kill()
        # What was copied and not flushed was lost with the process.
        session = await here.port().get_session("s")
        assert session.remaining_bytes >= SIZE - MIB
        await here.copy("s", 64 * MIB)
        await here.port().finish_session("s", FinishAction.COMPLETE)
        await here.kill()
        assert (await here.port().finish_session("s", FinishAction.COMPLETE)).finished is FinishAction.COMPLETE
        state = await here.client.nodes.get("top")
        assert [child.name for child in state.children] == ["file"]
        assert await here.content("top") == expected


async def test_a_commit_goes_on(tmp_path):
    async with yard(tmp_path) as here:
        await here.disk("base", "qcow2")
        await here.disk("mid", "qcow2", CONTENT, below="base")
        await here.disk("top", "qcow2", below="mid")
        await here.client.data.write("top", MIB, b"t" * MIB)
        await here.client.data.flush("top")
        expected = await here.content("top")
        await here.port().create_session(SessionRequest("s", CopyKind.COMMIT, "mid", "base"))
        await here.copy("s", 2 * MIB)
        await here.kill()
        await here.copy("s", 64 * MIB)
        await here.port().finish_session("s", FinishAction.COMPLETE)
        assert await here.content("top") == expected
        state = await here.client.nodes.get("top")
        assert [child.node_name for child in state.children if child.name == "backing"] == ["base"]


async def test_an_active_commit_goes_on_to_its_pivot(tmp_path):
    async with yard(tmp_path) as here:
        await here.disk("base", "qcow2", CONTENT)
        await here.disk("top", "qcow2", below="base")
        await here.client.data.write("top", MIB, b"t" * MIB)
        await here.client.data.flush("top")
        expected = await here.content("top")
        await here.client.exports.add_nbd("top", "disk", writable=True)
        await here.port().create_session(SessionRequest("s", CopyKind.MIRROR, "top", "base"))
        await here.copy("s", MIB)
        await here.kill()
        await here.copy("s", 64 * MIB)
        await here.port().finish_session("s", FinishAction.PIVOT)
        await here.kill()
        (export,) = await here.client.exports.list()
        assert export.node_name == "base"
        assert await here.content("base") == expected


async def test_a_node_that_is_asked_to_end_believes_its_maps_in_any_boot(tmp_path):
    async with yard(tmp_path) as here:
        await here.disk("a", "qcow2", CONTENT)
        await here.disk("t", "qcow2")
        await here.port().create_session(backup())
        await here.copy("s", 2 * MIB)
        await here.client.data.write("a", 4 * MIB, b"y" * 4096)
        before = await here.port().get_session("s")
        assert await here.node.terminate() == 0
        _another_boot(here)
        await here.node.start()
        after = await here.port().get_session("s")
        assert (after.remaining_bytes, after.snapshot_broken) == (before.remaining_bytes, False)
        await here.copy("s", 64 * MIB)
        await here.port().finish_session("s", FinishAction.COMPLETE)
        assert await here.content("t") == CONTENT


def _another_boot(here: Yard) -> None:
    """What a map looks like to a kernel that did not write it."""
    (path,) = (here.node.folder / "node-state" / "sessions").glob("*.map")
    with path.open("r+b") as opened:
        opened.seek(8)
        opened.write(b"0" * 36)


async def test_after_a_power_cut_a_mirror_copies_everything_and_a_backup_is_broken(tmp_path):
    async with yard(tmp_path) as here:
        await here.disk("a", "raw", CONTENT)
        await here.disk("t", "raw")
        for request in (mirror(), backup()):
            await here.port().create_session(request)
            await here.copy("s", 64 * MIB)
            await here.node.kill()
            _another_boot(here)
            await here.node.start()
            session = await here.port().get_session("s")
            if request.kind is CopyKind.MIRROR:
                assert session.remaining_bytes == SIZE
            assert session.snapshot_broken is (request.kind is CopyKind.BACKUP)
            await here.port().finish_session("s", FinishAction.ABORT)


async def test_a_newer_owner_is_remembered_over_a_kill(tmp_path):
    async with yard(tmp_path) as here:
        await here.disk("a", "raw", CONTENT)
        await here.disk("t", "raw")
        await here.port(1).create_session(mirror())
        await here.port(7).adopt_session("s")
        await here.kill()
        with pytest.raises(OwnerMismatch):
            await here.port(6).finish_session("s", FinishAction.PIVOT)
        await here.port(7).finish_session("s", FinishAction.DETACH)
        await here.kill()
        with pytest.raises(OwnerMismatch):
            await here.port(6).create_session(mirror())


async def test_an_aborted_session_is_gone_after_a_kill_and_its_id_is_free(tmp_path):
    async with yard(tmp_path) as here:
        await here.disk("a", "raw", CONTENT)
        await here.disk("t", "raw")
        before = [node.node_name for node in await here.client.nodes.list()]
        await here.port().create_session(mirror(sync=SyncMode.FULL))
        await here.port().finish_session("s", FinishAction.ABORT)
        await here.kill()
        assert list(await here.port().list_sessions()) == []
        assert [node.node_name for node in await here.client.nodes.list()] == before
        await here.port().create_session(backup())


async def test_a_guest_writes_on_while_its_node_is_killed_again_and_again(tmp_path):
    chance = random.Random(5)
    async with yard(tmp_path) as here:
        await here.disk("a", "raw", CONTENT)
        await here.disk("t", "qcow2")
        await here.port().create_session(mirror())
        for _ in range(6):
            for _ in range(20):
                offset = chance.randrange(SIZE // 512) * 512
                data = chance.randbytes(min(chance.choice((512, 4096, 70000)) // 512 * 512, SIZE - offset))
                await here.client.data.write("a", offset, data)
                if chance.random() < 0.3:
                    await here.copy("s", chance.choice((65536, MIB)))
            os.kill(here.node.process.pid, signal.SIGKILL)
            await here.node.ended()
            await here.node.start()
        await here.port().finish_session("s", FinishAction.DETACH)
        assert await here.content("t") == await here.content("a")
        peers.run("qemu-img", "check", "-q", "-U", here.images / "t.qcow2")
