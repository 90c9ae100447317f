"""Clients that lie, stall, vanish or flood: each costs itself its connection, and nobody else anything."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockyard.node.exports.nbd import NbdLimits
from blockyard.node.formats import nbd
from tests.support.nbd_peer import NbdPeer

GO = nbd.option(nbd.OPT_GO, nbd.info_query(nbd.InfoQuery("disk", ())))
FLAGS = nbd.CLIENT_FLAGS.pack(nbd.FLAG_C_FIXED_NEWSTYLE)
HANDSHAKE = FLAGS + nbd.option(nbd.OPT_STRUCTURED_REPLY) + GO


async def dropped(stage, data: bytes) -> bytes:
    """Send bytes and wait for the end; what the server said."""
    peer = await NbdPeer.connect(stage.address)
    peer.send(data)
    said = await peer.ended()
    await peer.close()
    await stage.until(lambda: not stage.server.clients())
    return said


async def test_silence_is_cut_after_the_handshake_time_and_not_before(stage):
    peer = await NbdPeer.connect(stage.address)
    await peer.greet()
    await stage.until(lambda: stage.clock.sleepers)
    await stage.clock.advance(9.9)
    assert len(stage.server.clients()) == 1
    await stage.clock.advance(0.2)
    assert await peer.ended() == b""
    assert "10 s" in stage.reports[0][1]["why"]


async def test_options_without_end_do_not_extend_the_handshake_time(stage):
    peer = await NbdPeer.connect(stage.address)
    await peer.greet()
    for _ in range(5):
        await peer.option(nbd.OPT_LIST)
        await stage.clock.advance(2.1)
    assert await peer.ended() == b""


async def test_a_client_in_transmission_may_be_silent_for_ever(stage):
    peer = await stage.open()
    await stage.clock.advance(100_000)
    assert (await peer.read(0, 512)).error == 0


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\nHost: disk\r\n\r\n", "client flags"),
        (nbd.CLIENT_FLAGS.pack(0xFFFFFFFF), "client flags"),
        (FLAGS + bytes(16), "option magic"),
        (FLAGS + nbd.OPTION.pack(nbd.OPTION_MAGIC, nbd.OPT_GO, 0xFFFFFFFF), "option length"),
        (FLAGS + nbd.OPTION.pack(nbd.OPTION_MAGIC, 77, 33 << 20), "option length"),
        (FLAGS + nbd.option(nbd.OPT_EXPORT_NAME, b"x" * 4097), "string length"),
        (FLAGS + nbd.option(nbd.OPT_EXPORT_NAME, b"nope"), "export name"),
        (FLAGS + nbd.option(nbd.OPT_EXPORT_NAME, b"\xff"), "UTF-8"),
        (nbd.CLIENT_FLAGS.pack(0) + nbd.option(nbd.OPT_LIST), "fixed newstyle"),
        (HANDSHAKE + bytes(28), "request magic"),
        (HANDSHAKE + GO + bytes(12), "request magic"),
        (HANDSHAKE + nbd.request(nbd.CMD_READ, 1, 0, 512) + b"\0" * 28, "request magic"),
        (HANDSHAKE + nbd.request(nbd.CMD_WRITE, 1, 0, (32 << 20) + 1), "write length"),
        (HANDSHAKE + nbd.request(nbd.CMD_WRITE, 1, 0, 0xFFFFFFFF), "write length"),
        (HANDSHAKE + nbd.request(nbd.CMD_WRITE, 1, 2**64 - 512, 0xFFFFFFFF), "write length"),
    ],
)
async def test_a_breach_of_the_protocol_ends_that_connection_alone(stage, data, why):
    witness = await stage.open()
    peer = await NbdPeer.connect(stage.address)
    peer.send(data)
    await peer.ended()
    await stage.until(lambda: len(stage.server.clients()) == 1)
    assert [kind for kind, _ in stage.reports] == ["nbd-client-dropped"]
    assert why in stage.reports[0][1]["why"]
    assert (await witness.read(0, 512)).error == 0
    assert stage.source.calls == []


async def test_requests_before_negotiation_are_no_options(stage):
    assert await dropped(stage, FLAGS + nbd.request(nbd.CMD_READ, 1, 0, 512)) == nbd.greeting(3)


async def test_a_disconnect_at_every_byte_of_a_handshake_leaves_nothing(stage):
    whole = HANDSHAKE + nbd.request(nbd.CMD_WRITE, 1, 0, 64, 0) + b"d" * 64
    for cut in range(len(whole)):
        peer = await NbdPeer.connect(stage.address)
        peer.send(whole[:cut])
        await peer.close()
    await stage.until(lambda: not stage.server.clients())
    assert stage.source.calls == []
    assert stage.server.exports()[0].clients == ()
    assert (await (await stage.open()).write(0, b"ok")).error == 0


@pytest.mark.parametrize("length", [4096, 300_000, 2 << 20, 20 << 20])
async def test_a_client_that_vanishes_in_the_middle_of_a_write_changes_nothing(stage_with, length):
    stage = await stage_with(size=32 << 20)
    peer = await stage.open()
    peer.request(nbd.CMD_WRITE, 1, 0, length, data=b"x" * (length - 1))
    await peer.writer.drain()
    await peer.close()
    await stage.until(lambda: not stage.server.clients())
    assert stage.source.calls == []
    assert stage.server._around.budget.used == 0
    assert "middle of a request" in stage.reports[0][1]["why"]


async def test_a_client_that_vanishes_with_requests_in_flight_frees_everything_when_they_end(stage):
    peer = await stage.open()
    stage.source.hold()
    for cookie in range(5):
        peer.request(nbd.CMD_WRITE, cookie, cookie * 4096, 4096, data=b"x" * 4096)
    peer.request(nbd.CMD_READ, 9, 0, 1 << 20)
    await stage.until(lambda: stage.source.awaited == 6)
    peer.writer.transport.abort()
    await stage.until(lambda: stage.server.clients() and stage.server.clients()[0].phase == "closed")
    assert stage.server._around.budget.used > 0
    stage.source.release()
    await stage.until(lambda: not stage.server.clients())
    assert stage.server._around.budget.used == 0
    assert len(stage.source.calls) == 5
    assert stage.server.exports()[0].clients == ()


async def test_who_stalls_in_a_large_write_is_dropped_when_others_need_the_memory(stage_with):
    stage = await stage_with(NbdLimits(total_bytes=4 << 20), size=32 << 20)
    staller, worker = await stage.open(), await stage.open()
    staller.request(nbd.CMD_WRITE, 1, 0, 4 << 20, data=b"x" * 1000)
    await stage.until(lambda: stage.server._around.budget.used)
    await stage.clock.advance(1000)
    assert len(stage.server.clients()) == 2
    worker.request(nbd.CMD_READ, 1, 0, 2 << 20)
    await stage.until(lambda: stage.server._around.budget.contended and stage.clock.sleepers)
    await stage.clock.advance(31)
    assert (await worker.reply()).error == 0
    assert await staller.ended() == b""
    assert "memory that others wait for" in stage.reports[0][1]["why"]


async def test_who_does_not_read_large_replies_is_dropped_when_others_need_the_memory(stage_with):
    stage = await stage_with(NbdLimits(total_bytes=8 << 20), size=32 << 20)
    deaf, worker = await stage.open(), await stage.open()
    deaf.reader._limit = 1024  # the test's own side stops reading its socket beyond this
    for cookie in range(2):
        deaf.request(nbd.CMD_READ, cookie, 0, 4 << 20)
    await stage.until(lambda: any(client.owes for client in stage.server._connections))
    assert stage.server._around.budget.used == 8 << 20
    worker.request(nbd.CMD_READ, 1, 0, 2 << 20)
    await stage.until(lambda: stage.server._around.budget.contended and stage.clock.sleepers)
    await stage.clock.advance(31)
    assert (await worker.reply()).error == 0
    assert "neither sends nor reads" in stage.reports[0][1]["why"]


async def test_two_hundred_silent_connections_do_not_stop_a_client(stage_with):
    stage = await stage_with(NbdLimits(connections=201))
    silent = [await NbdPeer.connect(stage.address) for _ in range(200)]
    peer = await stage.open()
    assert (await peer.read(0, 512)).error == 0
    await stage.clock.advance(11)
    await stage.until(lambda: len(stage.server.clients()) == 1)
    for connection in silent:
        await connection.close()


async def test_a_flood_of_list_options_is_answered_no_faster_than_it_is_read(stage):
    peer = await NbdPeer.connect(stage.address)
    await peer.greet()
    peer.reader._limit = 1024
    peer.send(nbd.option(nbd.OPT_LIST) * 100_000)
    for _ in range(200):
        await asyncio.sleep(0)
    [connection] = stage.server._connections
    assert connection._outbox.pending < 4 << 20


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=64),
            st.builds(
                nbd.request,
                st.integers(0, 9),
                st.integers(0, 3),
                st.integers(0, 2**64 - 1),
                st.integers(0, 2**32 - 1),
                st.integers(0, 31),
            ),
            st.builds(
                nbd.request, st.integers(0, 7), st.integers(0, 3), st.integers(0, 8192), st.integers(0, 8192)
            ),
        ),
        max_size=10,
    )
)
@pytest.mark.fuzz
async def test_any_bytes_in_transmission_are_survived(stage, parts):
    peer = await stage.open()
    peer.send(b"".join(parts))
    peer.writer.write_eof()
    await peer.ended()
    await peer.close()
    await stage.until(lambda: not stage.server.clients())
    assert not [kind for kind, _ in stage.reports if kind == "nbd-internal-error"]
    assert stage.server._around.budget.used == 0
