"""Driver `nbd`: an export of another server, through lost connections and lying servers."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from blockyard.base.clock import VirtualClock
from blockyard.base.errors import (
    FileReadOnly,
    InvalidArgument,
    IoError,
    MissingOption,
    NoSpace,
    PeerUnavailable,
    ProtocolViolation,
    ResourceNotFound,
)
from blockyard.base.units import KIB, MIB
from blockyard.node.drivers.nbd import session as sessions
from blockyard.node.drivers.nbd import unflushed
from blockyard.node.formats import nbd
from blockyard.node.interface.flags import FUA, MAY_UNMAP, NO_FALLBACK
from blockyard.node.interface.mapping import MapKind
from tests.support.contract import DriverContract
from tests.support.export_source import MemorySource
from tests.support.ground import DriverChild, Ground
from tests.support.nbd_stage import ForgetfulSource, NbdStage, ScriptedServer


class TestNbd(DriverContract):
    driver = "nbd"
    grows_by_writing = False
    stage: NbdStage

    @pytest.fixture(autouse=True)
    async def server(self, tmp_path: Path) -> AsyncIterator[None]:
        self.stage = NbdStage(tmp_path / "s", MemorySource(self.size))
        await self.stage.start()
        yield
        await self.stage.stop()

    @pytest.fixture
    async def ground(self, server: None, tmp_path: Path) -> AsyncIterator[Ground]:
        ground = Ground(tmp_path)
        yield ground
        await ground.leave()

    def options(self) -> dict[str, object]:
        return self.stage.options

    async def test_a_flush_reaches_the_server(self, ground: Ground):
        node = await self.node(ground)
        await node.write(0, b"x" * 4096)
        await node.flush()
        assert [name for name, *_ in self.stage.source.calls] == ["write", "flush"]

    async def test_a_write_that_must_be_durable_carries_the_flag(self, ground: Ground):
        await (await self.node(ground)).write(0, b"x" * 4096, FUA)
        assert self.stage.source.calls == [("write", 0, 4096, FUA)]

    async def test_zeroes_may_become_holes_only_where_the_caller_and_the_node_let_them(self, ground: Ground):
        node = await self.node(ground)
        for flags in (0, MAY_UNMAP):
            await node.zero(0, 64 * KIB, flags)
        assert [flags & MAY_UNMAP for _, _, _, flags in self.stage.source.calls] == [0, MAY_UNMAP]

    async def test_zeroes_that_must_be_fast_are_left_to_the_caller_where_they_are_not(self, ground: Ground):
        node = await self.node(ground)
        self.stage.source.fast_zero = False
        assert not await node.driver.zero(0, 64 * KIB, NO_FALLBACK)
        self.stage.source.fast_zero = True
        assert await node.driver.zero(0, 64 * KIB, NO_FALLBACK)

    async def test_holes_are_told(self, ground: Ground):
        node = await self.node(ground)
        await node.write(64 * KIB, b"x" * 4096)
        kinds = [(await node.map(at, 64 * KIB)).kind for at in (0, 64 * KIB)]
        assert kinds == [MapKind.ZERO, MapKind.DATA]

    async def test_a_full_disk_is_told_as_such(self, ground: Ground):
        node = await self.node(ground)
        self.stage.source.failure = NoSpace("there", "write")
        with pytest.raises(NoSpace):
            await node.write(0, b"x")

    async def test_an_error_of_the_server_is_told_with_its_words_and_its_address(self, ground: Ground):
        node = await self.node(ground)
        self.stage.source.failure = IoError("there", "read", 5, "the disk is on fire")
        with pytest.raises(IoError, match="on fire") as refusal:
            await node.content(0, 512)
        assert refusal.value.errno == 5 and str(self.stage.path) in str(refusal.value)

    async def test_a_read_only_export_opens_for_reading_only(self, ground: Ground):
        await self.stage.stop()
        self.stage.writable = False
        await self.stage.start()
        with pytest.raises(FileReadOnly):
            await self.node(ground)
        assert (await self.node(ground, read_only=True)).size == self.size

    async def test_a_name_that_the_server_does_not_know_is_told_as_such(self, ground: Ground):
        with pytest.raises(ResourceNotFound, match="'other'"):
            await self.node(ground, export="other")

    async def test_many_large_and_small_requests_at_once_are_not_mixed_up(self, ground: Ground):
        node = await self.node(ground)
        lengths = itertools.cycle((512, 300_000, 4096, 70_000))
        places = [(at * 10_000 % (self.size - 300_000), next(lengths)) for at in range(100)]
        content = self.pattern(node, self.size)
        await node.write(0, content[: self.size])
        found = await asyncio.gather(*(node.content(at, length) for at, length in places))
        assert found == [content[at : at + length] for at, length in places]

    @pytest.mark.parametrize(
        "address", ["unix:", "unix:relative", "host:0", "host:99999", "host:x", ":1", "a/b:1", "[::1"]
    )
    async def test_an_address_that_is_none_is_refused(self, ground: Ground, address: str):
        with pytest.raises(InvalidArgument):
            await self.node(ground, address=address)

    async def test_an_address_must_be_given(self, ground: Ground):
        with pytest.raises(MissingOption):
            await ground.open("nbd", {})

    @pytest.mark.parametrize("name", ["reconnect_delay_seconds", "open_timeout_seconds"])
    async def test_a_delay_beyond_a_day_is_refused(self, ground: Ground, name: str):
        with pytest.raises(InvalidArgument):
            await self.node(ground, **{name: 86_401})


# --- connections come and go --------------------------------------------------------------------------------


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    ground = Ground(tmp_path)
    ground.clock = VirtualClock()
    yield ground
    await ground.leave()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[NbdStage]:
    stage = NbdStage(tmp_path / "s", ForgetfulSource(MIB))
    await stage.start()
    yield stage
    await stage.stop()


async def opened(ground: Ground, stage: NbdStage, **changed: object) -> DriverChild:
    return await ground.open("nbd", {**stage.options, **changed})


async def passing(ground: Ground, work: Awaitable[object], step: float = 0.1) -> object:
    """The work's result; time goes on while it is awaited."""
    doing = asyncio.ensure_future(work)
    while not doing.done():
        await ground.clock.advance(step)
    return await doing


async def crash(stage: NbdStage) -> None:
    """The server is gone with all it had not flushed."""
    await stage.stop()
    stage.source.crash()


async def test_a_request_waits_for_a_server_that_comes_back(ground: Ground, stage: NbdStage):
    node = await opened(ground, stage, reconnect_delay_seconds=60)
    await stage.stop()
    write = asyncio.ensure_future(node.write(0, b"later"))
    await ground.clock.advance(3)
    assert not write.done()
    await stage.start()
    await passing(ground, write)
    assert stage.source.content[:5] == b"later"


async def test_requests_in_flight_when_the_connection_is_lost_are_sent_again(ground: Ground, stage: NbdStage):
    node = await opened(ground, stage, reconnect_delay_seconds=60)
    stage.source.hold()
    write = asyncio.ensure_future(node.write(4096, b"again"))
    while not stage.source.awaited:
        await asyncio.sleep(0)
    stopping = asyncio.ensure_future(stage.stop())
    await asyncio.sleep(0)
    stage.source.release()
    await stopping
    stage.source.content[:] = bytes(MIB)
    await stage.start()
    await passing(ground, write)
    assert stage.source.content[4096:4101] == b"again"


async def test_a_flush_covers_what_a_crashed_server_had_acknowledged(ground: Ground, stage: NbdStage):
    node = await opened(ground, stage, reconnect_delay_seconds=60)
    await node.write(0, b"one")
    await node.flush()
    await node.write(0, b"two")
    await node.zero(512 * KIB, 64 * KIB, MAY_UNMAP)
    await node.write(512 * KIB, b"three")
    await crash(stage)
    assert stage.source.content[:3] == b"one"
    await stage.start()
    await passing(ground, node.flush())
    await crash(stage)
    assert stage.source.content[:3] == b"two"
    assert stage.source.content[512 * KIB :][:5] == b"three"


async def test_what_was_flushed_is_not_sent_again(ground: Ground, stage: NbdStage):
    node = await opened(ground, stage, reconnect_delay_seconds=60)
    await node.write(0, b"one")
    await node.flush()
    await crash(stage)
    stage.source.calls.clear()
    await stage.start()
    await passing(ground, node.flush())
    assert [name for name, *_ in stage.source.calls] == ["flush"]


async def test_without_a_delay_requests_fail_at_once_and_work_again_when_the_server_is_back(
    ground: Ground, stage: NbdStage
):
    node = await opened(ground, stage)
    await node.write(0, b"kept")
    await crash(stage)
    with pytest.raises(IoError, match="no connection to unix:"):
        await passing(ground, node.content(0, 4))
    await stage.start()
    await passing(ground, _until(lambda: node.driver._session._live is not None))
    assert await node.content(0, 4) == b"kept"


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


async def test_requests_wait_no_longer_than_they_were_told_to(ground: Ground, stage: NbdStage):
    node = await opened(ground, stage, reconnect_delay_seconds=5)
    await stage.stop()
    began_ns = ground.clock.monotonic_ns()
    with pytest.raises(IoError, match="no connection"):
        await passing(ground, node.content(0, 4))
    assert ground.clock.monotonic_ns() - began_ns >= 5e9


async def test_a_server_that_is_back_with_another_size_is_not_used(ground: Ground, stage: NbdStage):
    node = await opened(ground, stage, reconnect_delay_seconds=5)
    await stage.stop()
    stage.source = ForgetfulSource(2 * MIB)
    await stage.start()
    with pytest.raises(IoError, match="open it again"):
        await passing(ground, node.content(0, 4), step=1)


async def test_opening_waits_for_a_server_that_is_being_started(ground: Ground, tmp_path: Path):
    stage = NbdStage(tmp_path / "s", MemorySource(MIB))
    opening = asyncio.ensure_future(opened(ground, stage, open_timeout_seconds=30))
    await ground.clock.advance(2)
    await stage.start()
    node = await passing(ground, opening)
    assert node.size == MIB
    await ground.close_all()
    await stage.stop()


async def test_opening_fails_when_nobody_answers(ground: Ground, tmp_path: Path):
    with pytest.raises(PeerUnavailable, match="NBD"):
        await ground.open("nbd", {"address": f"unix:{tmp_path}/nobody"})


async def test_a_closed_node_tries_no_more(ground: Ground, stage: NbdStage):
    node = await opened(ground, stage, reconnect_delay_seconds=60)
    await stage.stop()
    read = asyncio.ensure_future(node.content(0, 4))
    await ground.clock.advance(1)
    await ground.close_all()
    with pytest.raises(IoError):
        await read
    assert not ground.clock.sleepers


async def test_much_that_was_not_flushed_makes_the_session_flush(
    ground: Ground, stage: NbdStage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sessions, "FLUSH_BYTES", 256 * KIB)
    node = await opened(ground, stage)
    for at in range(8):
        await node.write(at * 64 * KIB, bytes(64 * KIB))
    await _until(lambda: ("flush", 0, 0, 0) in stage.source.calls)
    assert node.driver._session._unflushed.bytes < 8 * 64 * KIB


async def test_a_server_that_cannot_flush_gets_no_more_to_lose(
    ground: Ground, stage: NbdStage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sessions, "FLUSH_BYTES", 64 * KIB)
    monkeypatch.setattr(sessions, "MAX_BYTES", 256 * KIB)

    async def refuse() -> None:
        raise IoError("there", "flush", 5, "never")

    monkeypatch.setattr(stage.source, "flush", refuse)
    node = await opened(ground, stage)
    with pytest.raises(IoError, match="never"):
        for at in range(8):
            await node.write(at * 64 * KIB, bytes(64 * KIB))


def test_what_is_kept_is_counted_and_forgotten_in_order():
    kept = unflushed.Unflushed()
    kept.add(nbd.CMD_WRITE, 0, 3, 0, b"one")
    mark = kept.mark()
    kept.add(nbd.CMD_TRIM, 0, 3, 0, None)
    kept.settle(mark)
    assert [entry.kind for entry in kept.entries()] == [nbd.CMD_TRIM]
    assert kept.bytes == unflushed.ENTRY_BYTES


# --- servers that lie ---------------------------------------------------------------------------------------


@pytest.fixture
async def liar(tmp_path: Path) -> AsyncIterator[ScriptedServer]:
    server = ScriptedServer(tmp_path / "liar")
    await server.start()
    yield server
    await server.stop()


async def agree(
    liar: ScriptedServer,
    size: int = MIB,
    flags: int = nbd.FLAG_HAS_FLAGS,
    structured: bool = True,
    block: nbd.BlockSize | None = None,
) -> None:
    """A handshake as it should be."""
    await liar.arrived.wait()
    liar.writer.write(nbd.greeting(nbd.FLAG_FIXED_NEWSTYLE | nbd.FLAG_NO_ZEROES))
    await liar.reader.readexactly(4)
    while True:
        _, kind, length = nbd.OPTION.unpack(await liar.reader.readexactly(nbd.OPTION.size))
        await liar.reader.readexactly(length)
        if kind == nbd.OPT_GO:
            liar.writer.write(nbd.option_reply(kind, nbd.REP_INFO, nbd.info_export(size, flags)))
            if block is not None:
                liar.writer.write(nbd.option_reply(kind, nbd.REP_INFO, nbd.info_block_size(block)))
            liar.writer.write(nbd.option_reply(kind, nbd.REP_ACK))
            return
        if not structured:
            liar.writer.write(nbd.option_reply(kind, nbd.REP_ERR_UNSUP))
            continue
        if kind == nbd.OPT_SET_META_CONTEXT:
            liar.writer.write(
                nbd.option_reply(kind, nbd.REP_META_CONTEXT, nbd.meta_context(7, nbd.BASE_ALLOCATION))
            )
        liar.writer.write(nbd.option_reply(kind, nbd.REP_ACK))


async def node_of(ground: Ground, liar: ScriptedServer, structured: bool = True) -> DriverChild:
    node, _ = await asyncio.gather(ground.open("nbd", liar.options), agree(liar, structured=structured))
    return node


async def answered(node: DriverChild, liar: ScriptedServer, *replies: Callable[[int], bytes]) -> bytes:
    """A read of 8 KiB at 4096 that is answered so."""
    buffer = bytearray(b"\xaa" * 8192)
    read = asyncio.ensure_future(node.driver.read(4096, memoryview(buffer)))
    request = nbd.parse_request(await liar.reader.readexactly(nbd.REQUEST.size))
    for reply in replies:
        liar.writer.write(reply(request.cookie))
    await read
    return bytes(buffer)


def data(offset: int, content: bytes, done: bool = True) -> Callable[[int], bytes]:
    return lambda cookie: nbd.chunk(nbd.REPLY_TYPE_OFFSET_DATA, cookie, offset.to_bytes(8, "big") + content, done)


def hole(offset: int, length: int, done: bool = True) -> Callable[[int], bytes]:
    payload = offset.to_bytes(8, "big") + length.to_bytes(4, "big")
    return lambda cookie: nbd.chunk(nbd.REPLY_TYPE_OFFSET_HOLE, cookie, payload, done)


async def test_chunks_may_come_in_any_order(ground: Ground, liar: ScriptedServer):
    node = await node_of(ground, liar)
    found = await answered(node, liar, data(8192, b"b" * 4096, done=False), data(4096, b"a" * 4096))
    assert found == b"a" * 4096 + b"b" * 4096


async def test_a_hole_reads_as_zeroes(ground: Ground, liar: ScriptedServer):
    node = await node_of(ground, liar)
    found = await answered(node, liar, hole(4096, 4096, done=False), data(8192, b"b" * 4096))
    assert found == bytes(4096) + b"b" * 4096


async def test_a_read_never_shows_what_was_in_the_buffer(ground: Ground, liar: ScriptedServer):
    node = await node_of(ground, liar)
    found = await answered(node, liar, data(4096, b"a" * 4096, done=False), data(4096, b"a" * 4096))
    assert found == b"a" * 4096 + bytes(4096)


LIES: dict[str, tuple[Callable[[int], bytes], ...]] = {
    "data before the range": (data(0, b"x" * 4096),),
    "data past the range": (data(8192, b"x" * 8192),),
    "data of no length": (data(4096, b""),),
    "a hole past the range": (hole(4096, 1 << 31),),
    "less than was asked": (data(4096, b"x" * 4096),),
    "nothing": (lambda cookie: nbd.chunk(nbd.REPLY_TYPE_NONE, cookie),),
    "another cookie": (lambda cookie: nbd.chunk(nbd.REPLY_TYPE_NONE, cookie + 1),),
    "a simple reply": (nbd.simple_reply,),
    "an unknown chunk": (lambda cookie: nbd.chunk(77, cookie, b"x"),),
    "a huge small chunk": (
        lambda cookie: nbd.CHUNK.pack(nbd.STRUCTURED_REPLY_MAGIC, 1, nbd.REPLY_TYPE_ERROR, cookie, 0xFFFFFFFF),
    ),
    "block status": (lambda cookie: nbd.block_status_chunk(cookie, 7, [(8192, 0)], True),),
    "a magic that is none": (lambda cookie: b"\xff" * 32,),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_ends_the_connection_and_the_request(ground: Ground, liar: ScriptedServer, lie: str):
    node = await node_of(ground, liar)
    with pytest.raises(IoError, match="no connection"):
        await answered(node, liar, *LIES[lie])


async def test_a_server_that_hangs_up_in_the_middle_of_a_reply_ends_the_request(
    ground: Ground, liar: ScriptedServer
):
    node = await node_of(ground, liar)
    read = asyncio.ensure_future(node.content(0, 8192))
    await liar.reader.readexactly(nbd.REQUEST.size)
    liar.writer.write(nbd.CHUNK.pack(nbd.STRUCTURED_REPLY_MAGIC, 1, nbd.REPLY_TYPE_NONE, 1, 0)[:10])
    liar.writer.close()
    with pytest.raises(IoError, match="no connection"):
        await read


async def test_a_structured_reply_that_was_not_agreed_on_ends_the_connection(ground: Ground, liar: ScriptedServer):
    node = await node_of(ground, liar, structured=False)
    with pytest.raises(IoError, match="no connection"):
        await answered(node, liar, data(4096, b"x" * 8192))


async def test_a_server_of_simple_replies_is_read(ground: Ground, liar: ScriptedServer):
    node = await node_of(ground, liar, structured=False)
    found = await answered(node, liar, lambda cookie: nbd.simple_reply(cookie) + b"y" * 8192)
    assert found == b"y" * 8192
    assert (await node.map(0, MIB)).kind is MapKind.DATA


async def test_an_error_beside_data_fails_the_read_and_leaves_the_connection(ground: Ground, liar: ScriptedServer):
    node = await node_of(ground, liar)
    with pytest.raises(IoError, match="bad sector"):
        await answered(
            node,
            liar,
            data(4096, b"x" * 4096, done=False),
            lambda cookie: nbd.error_chunk(cookie, nbd.EIO, "bad sector"),
        )
    assert await answered(node, liar, data(4096, b"z" * 8192)) == b"z" * 8192


async def test_a_reader_who_gave_up_finds_nothing_in_his_buffer(ground: Ground, liar: ScriptedServer):
    node = await node_of(ground, liar)
    buffer = bytearray(b"\xaa" * (512 * KIB))
    read = asyncio.ensure_future(node.driver.read(0, memoryview(buffer)))
    request = nbd.parse_request(await liar.reader.readexactly(nbd.REQUEST.size))
    reply = data(0, b"x" * len(buffer))(request.cookie)
    liar.writer.write(reply[: len(reply) // 2])
    await _until(lambda: node.driver._session._live._direct is not None)
    read.cancel()
    with pytest.raises(asyncio.CancelledError):
        await read
    before = bytes(buffer)
    liar.writer.write(reply[len(reply) // 2 :])
    assert await answered(node, liar, data(4096, b"z" * 8192)) == b"z" * 8192
    assert bytes(buffer) == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 1 << 63},
        {"flags": 0},
        {"block": nbd.BlockSize(3, 4096, MIB)},
        {"block": nbd.BlockSize(1 << 20, 1 << 20, 1 << 25)},
        {"block": nbd.BlockSize(4096, 4096, 512)},
        {"size": 1000, "block": nbd.BlockSize(512, 4096, MIB)},
    ],
)
async def test_an_export_that_cannot_be_is_refused(ground: Ground, liar: ScriptedServer, wrong: dict[str, object]):
    opening = asyncio.ensure_future(ground.open("nbd", liar.options))
    await agree(liar, **wrong)
    with pytest.raises(ProtocolViolation):
        await opening


@pytest.mark.parametrize(
    "greeting",
    [
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n",
        nbd.greeting(0),
        nbd.greeting(3) + nbd.OPTION_REPLY.pack(nbd.OPTION_REPLY_MAGIC, 8, nbd.REP_ACK, 0xFFFFFFFF),
        nbd.greeting(3) + nbd.option_reply(nbd.OPT_GO, nbd.REP_ACK),
        nbd.greeting(3) + nbd.option_reply(8, nbd.REP_ACK) + nbd.option_reply(10, nbd.REP_INFO) * 100,
    ],
)
async def test_a_server_that_does_not_speak_the_protocol_is_told_from_one_that_is_away(
    ground: Ground, liar: ScriptedServer, greeting: bytes
):
    opening = asyncio.ensure_future(ground.open("nbd", liar.options))
    await liar.arrived.wait()
    liar.writer.write(greeting)
    with pytest.raises(ProtocolViolation):
        await opening


async def test_a_server_that_says_nothing_is_given_up(ground: Ground, liar: ScriptedServer):
    opening = asyncio.ensure_future(ground.open("nbd", liar.options))
    await liar.arrived.wait()
    with pytest.raises(PeerUnavailable, match="no answer within"):
        await passing(ground, opening, step=1)


async def test_a_server_that_wants_tls_is_told_as_such(ground: Ground, liar: ScriptedServer):
    opening = asyncio.ensure_future(ground.open("nbd", liar.options))
    await liar.arrived.wait()
    liar.writer.write(nbd.greeting(3))
    for option in (nbd.OPT_STRUCTURED_REPLY, nbd.OPT_GO):
        liar.writer.write(nbd.option_reply(option, nbd.REP_ERR_TLS_REQD))
    with pytest.raises(PeerUnavailable, match="TLS"):
        await opening
