"""Exports and clients come and go: limits, deletion, stop, and what operators see."""

import asyncio
import socket
from pathlib import Path

import pytest

from blockyard.base.errors import (
    AddressUnavailable,
    InvalidArgument,
    LimitReached,
    NodeInUse,
    ResourceExists,
    ResourceNotFound,
    ShuttingDown,
)
from blockyard.node.exports.nbd import ExportConfig, NbdLimits, Phase
from blockyard.node.formats import nbd
from tests.support.export_source import MemorySource
from tests.support.nbd_peer import NbdPeer


async def test_several_exports_are_served_at_several_addresses(stage, tmp_path):
    other = MemorySource(8192)
    await stage.server.add_export(ExportConfig("other", writable=True), other)
    [tcp] = await stage.server.start(("127.0.0.1", 0))
    await stage.server.start(tmp_path / "second.sock")
    assert stage.server.addresses == [stage.address, tcp, tmp_path / "second.sock"]
    for address in stage.server.addresses:
        peer = await NbdPeer.open(address, "other")
        assert peer.size == 8192
        assert (await peer.write(0, str(address).encode())).error == 0
        await peer.close()
    assert other.content.startswith(str(tmp_path / "second.sock").encode())
    assert not stage.source.calls


async def test_two_clients_of_one_export_see_each_others_writes(stage):
    one, two = await stage.open(), await stage.open()
    await one.write(0, b"from one")
    assert (await two.read(0, 8)).data == b"from one"


async def test_a_name_is_served_once(stage):
    with pytest.raises(ResourceExists):
        await stage.server.add_export(ExportConfig("disk"), stage.source)


async def test_an_export_with_a_bitmap_that_is_not_there_is_refused(stage):
    with pytest.raises(ResourceNotFound, match="no bitmap named 'b9'"):
        await stage.server.add_export(ExportConfig("x", bitmaps=("b9",)), stage.source)


@pytest.mark.parametrize(
    "config",
    [
        ExportConfig("x" * 4097),
        ExportConfig("x", description="\u20ac" * 2000),
        ExportConfig("a\0b"),
        ExportConfig("x", max_connections=0),
        ExportConfig("x", bitmaps=("b", "b")),
    ],
)
async def test_a_configuration_that_the_protocol_cannot_carry_is_refused(stage, config):
    with pytest.raises(InvalidArgument):
        await stage.server.add_export(config, stage.source)


async def test_there_are_at_most_so_many_exports(stage_with):
    stage = await stage_with(NbdLimits(exports=1))
    with pytest.raises(LimitReached):
        await stage.server.add_export(ExportConfig("x"), stage.source)


async def test_an_export_with_clients_is_not_deleted_softly(stage):
    peer = await stage.open()
    with pytest.raises(NodeInUse, match="1 NBD client"):
        await stage.server.remove_export("disk")
    assert (await peer.read(0, 512)).error == 0


async def test_an_export_without_clients_is_deleted_and_unknown_afterwards(stage):
    peer = await stage.open()
    await peer.close()
    await stage.until(lambda: not stage.server.clients())
    await stage.server.remove_export("disk")
    late = await NbdPeer.connect(stage.address)
    await late.greet()
    replies = await late.option(nbd.OPT_GO, nbd.info_query(nbd.InfoQuery("disk", ())))
    assert replies[-1][0] == nbd.REP_ERR_UNKNOWN
    with pytest.raises(ResourceNotFound):
        await stage.server.remove_export("disk")


async def test_deleting_hard_drops_the_clients_and_waits_for_what_is_in_flight(stage):
    peer, bystander = await stage.open(), await NbdPeer.connect(stage.address)
    stage.source.hold()
    peer.request(nbd.CMD_WRITE, 1, 0, 512, data=b"w" * 512)
    await stage.until(lambda: stage.source.awaited)
    removal = asyncio.create_task(stage.server.remove_export("disk", hard=True))
    assert await peer.ended() == b""
    assert not removal.done()
    stage.source.release()
    await removal
    assert stage.source.content[:512] == b"w" * 512
    assert stage.source.awaited == 0
    assert len(stage.server.clients()) == 1
    await bystander.greet()


async def test_stop_drops_everyone_removes_the_socket_and_may_be_repeated(stage):
    peer, silent = await stage.open(), await NbdPeer.connect(stage.address)
    await silent.greet()
    await asyncio.gather(stage.server.stop(), stage.server.stop())
    await stage.server.stop()
    assert await peer.ended() == b""
    assert await silent.ended() == b""
    assert not stage.address.exists()
    assert stage.server.clients() == []
    with pytest.raises(ShuttingDown):
        await stage.server.add_export(ExportConfig("x"), stage.source)
    with pytest.raises(ShuttingDown):
        await stage.server.start(("127.0.0.1", 0))


async def test_stop_waits_for_requests_in_flight(stage):
    peer = await stage.open()
    stage.source.hold()
    peer.request(nbd.CMD_FLUSH, 1)
    await stage.until(lambda: stage.source.awaited)
    stop = asyncio.create_task(stage.server.stop())
    assert await peer.ended() == b""
    assert not stop.done()
    stage.source.release()
    await stop
    assert stage.source.calls == [("flush", 0, 0, 0)]


async def test_a_clients_goodbye_waits_for_its_requests(stage):
    peer = await stage.open()
    stage.source.hold()
    peer.request(nbd.CMD_FLUSH, 1)
    peer.request(nbd.CMD_DISC, 2)
    await stage.until(lambda: any(client.phase is Phase.CLOSING for client in stage.server.clients()))
    stage.source.release()
    assert (await peer.reply()).cookie == 1
    assert await peer.ended() == b""
    await stage.until(lambda: not stage.server.clients())
    assert stage.reports == []


async def test_operators_see_clients_and_what_they_did(stage):
    peer = await stage.open()
    await peer.write(0, bytes(8192))
    await peer.read(0, 4096)
    [tcp] = await stage.server.start(("127.0.0.1", 0))
    silent = await NbdPeer.connect(tcp)
    await silent.greet()
    await stage.until(lambda: len(stage.server.clients()) == 2)
    [info] = stage.server.exports()
    assert (info.config.name, info.node_name, info.size_bytes, info.read_only) == (
        "disk",
        "memory0",
        4 << 20,
        False,
    )
    [client] = info.clients
    assert (client.export, client.phase, client.address) == ("disk", Phase.SERVING, "")
    assert (client.requests, client.bytes_written, client.bytes_read, client.in_flight) == (2, 8192, 4096, 0)
    [other] = [client for client in stage.server.clients() if client.phase is Phase.NEGOTIATING]
    assert other.address.startswith("127.0.0.1:")


async def test_a_full_export_refuses_the_next_client_and_takes_one_when_there_is_room(stage_with):
    stage = await stage_with(config=ExportConfig("disk", writable=True, max_connections=1))
    first = await stage.open()
    second = await NbdPeer.connect(stage.address)
    await second.greet()
    query = nbd.info_query(nbd.InfoQuery("disk", ()))
    assert (await second.option(nbd.OPT_GO, query))[-1][0] == nbd.REP_ERR_POLICY
    await first.close()
    await stage.until(lambda: len(stage.server.clients()) == 1)
    assert (await second.option(nbd.OPT_GO, query))[-1][0] == nbd.REP_ACK


async def test_one_connection_too_many_is_closed_at_once(stage_with):
    stage = await stage_with(NbdLimits(connections=3))
    peers = [await stage.open() for _ in range(3)]
    extra = await NbdPeer.connect(stage.address)
    assert await extra.ended() == b""
    assert [kind for kind, _ in stage.reports] == ["nbd-client-refused"]
    assert (await peers[2].read(0, 512)).error == 0


async def test_no_more_requests_are_taken_than_may_be_in_flight(stage_with):
    stage = await stage_with(NbdLimits(requests_in_flight=4))
    peer = await stage.open()
    stage.source.hold()
    for cookie in range(100):
        peer.request(nbd.CMD_READ, cookie, 0, 512)
    await stage.until(lambda: stage.source.awaited == 4)
    for _ in range(50):
        await asyncio.sleep(0)
    assert stage.source.awaited == 4
    stage.source.release()
    assert len({(await peer.reply()).cookie for _ in range(100)}) == 100


async def test_a_client_holds_no_more_memory_than_it_may(stage_with):
    stage = await stage_with(NbdLimits(client_bytes=3 << 20), size=32 << 20)
    peer = await stage.open()
    stage.source.hold()
    for cookie in range(8):
        peer.request(nbd.CMD_READ, cookie, 0, 1 << 20)
    await stage.until(lambda: stage.source.awaited == 3)
    for _ in range(50):
        await asyncio.sleep(0)
    assert stage.source.awaited == 3
    stage.source.release()
    for _ in range(8):
        assert len((await peer.reply()).data) == 1 << 20


async def test_clients_share_the_servers_memory_and_none_waits_for_ever(stage_with):
    stage = await stage_with(NbdLimits(total_bytes=4 << 20), size=32 << 20)
    peers = [await stage.open() for _ in range(4)]
    stage.source.hold()
    for peer in peers:
        for cookie in range(4):
            peer.request(nbd.CMD_READ, cookie, 0, 2 << 20)
    await stage.until(lambda: stage.source.awaited == 2)
    stage.source.release()
    for peer in peers:
        for _ in range(4):
            assert len((await peer.reply()).data) == 2 << 20


async def test_a_client_that_does_not_read_its_replies_is_not_served_further(stage):
    slow, quick = await stage.open(), await stage.open()
    slow.reader._limit = 1024  # the test's own side stops reading its socket beyond this
    for cookie in range(2000):
        slow.request(nbd.CMD_READ, cookie, 0, 65536)
    for _ in range(300):
        assert (await quick.read(0, 4096)).error == 0
    served = min(client.requests for client in stage.server.clients() if client.bytes_read != 300 * 4096)
    assert served < 100


async def test_a_flood_of_requests_leaves_the_loop_to_others(stage):
    flood, other = await stage.open(), await stage.open()
    flood.send(nbd.request(nbd.CMD_CACHE, 1, 0, 0) * 200_000)
    turns = 0
    while turns < 20:
        assert (await other.read(0, 512)).error == 0
        turns += 1


async def test_a_unix_socket_is_for_its_owner_only(stage):
    assert stage.address.stat().st_mode & 0o777 == 0o600


async def test_the_socket_of_a_dead_server_is_replaced(stage, tmp_path):
    path = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    await stage.server.start(path)
    assert (await NbdPeer.open(path, "disk")).size == 4 << 20


async def test_the_socket_of_a_living_server_is_left_alone(stage_with, stage):
    other = await stage_with()
    with pytest.raises(AddressUnavailable, match="another server"):
        await other.server.start(stage.address)
    assert (await stage.open()).size == 4 << 20


async def test_a_file_that_is_no_socket_is_left_alone(stage, tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(AddressUnavailable, match="no socket"):
        await stage.server.start(path)
    assert path.read_text() == "data"


@pytest.mark.parametrize("path", ["x" * 200, "no/such/folder/s"])
async def test_a_path_that_cannot_be_bound_is_an_error_with_its_name(stage, tmp_path, path):
    with pytest.raises(AddressUnavailable, match="unix:"):
        await stage.server.start(tmp_path / path)


async def test_a_port_that_is_taken_is_an_error(stage):
    [(host, port)] = await stage.server.start(("127.0.0.1", 0))
    with pytest.raises(AddressUnavailable, match=str(port)):
        await stage.server.start((host, port))


async def test_a_name_that_does_not_resolve_is_an_error(stage):
    with pytest.raises(AddressUnavailable):
        await stage.server.start(("no-such-host.invalid", 0))


async def test_a_socket_file_that_someone_replaced_is_not_removed(stage):
    stage.address.unlink()
    stage.address.write_text("not ours")
    await stage.server.stop()
    assert Path(stage.address).read_text() == "not ours"


async def test_an_address_can_end_and_its_clients_stay(stage):
    peer = await stage.open()
    await stage.server.end(stage.address)
    await stage.server.end(stage.address)
    assert stage.server.addresses == []
    assert not stage.address.exists()
    assert (await peer.read(0, 512)).error == 0
