"""Serving: addresses, health, reflection, channelz, and how it ends."""

import asyncio
import os
import signal
import socket
import stat
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from blockyard.base.errors import InvalidArgument, PeerUnavailable, ShuttingDown
from blockyard.rpc import stopping
from blockyard.rpc.address import Address
from blockyard.rpc.channel import open_channel
from blockyard.rpc.reflection import NAMES
from blockyard.rpc.server import Service, serving, until_stopped
from tests.support.echo import NAME, Echo, Stub, add_echo, text

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def echo_service() -> Service:
    return Service(NAME, add_echo, Echo())


async def test_a_free_port_is_reported_as_bound() -> None:
    for text_address in ("127.0.0.1:0", "[::1]:0"):
        async with serving([Address.parse(text_address)], [echo_service()]) as running:
            (address,) = running.addresses
            assert address.port != 0
            async with open_channel(address) as channel:
                assert (await Stub(channel).unary(text("hello"))).value == "hello"


async def test_a_socket_is_private_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "b.sock"
    async with serving([Address.parse(f"unix:{path}")], [echo_service()]):
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert not path.exists()


async def test_several_addresses_serve_the_same(tmp_path: Path) -> None:
    addresses = [Address.parse(f"unix:{tmp_path}/{name}") for name in "ab"]
    async with serving(addresses, [echo_service()]):
        for address in addresses:
            async with open_channel(address) as channel:
                assert (await Stub(channel).unary(text("x"))).value == "x"


async def test_a_socket_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "b.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving([Address.parse(f"unix:{path}")], [echo_service()]):
        pass


async def test_a_socket_that_is_served_is_not_taken_over(tmp_path: Path) -> None:
    address = Address.parse(f"unix:{tmp_path}/b.sock")
    async with serving([address], [echo_service()]):
        with pytest.raises(PeerUnavailable, match="another process serves there"):
            async with serving([address], [echo_service()]):
                pass
        async with open_channel(address) as channel:
            assert (await Stub(channel).unary(text("still"))).value == "still"


async def test_a_file_in_the_way_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(PeerUnavailable, match="no socket"):
        async with serving([Address.parse(f"unix:{path}")], [echo_service()]):
            pass
    assert path.read_text() == "data"


async def test_a_port_in_use_is_told_with_the_address() -> None:
    async with serving([Address.parse("127.0.0.1:0")], [echo_service()]) as running:
        with pytest.raises(PeerUnavailable) as caught:
            async with serving(running.addresses, [echo_service()]):
                pass
    assert caught.value.address == str(running.addresses[0])


async def test_no_address_is_an_error() -> None:
    with pytest.raises(InvalidArgument):
        async with serving([], [echo_service()]):
            pass


async def test_health_is_kept_by_service(served) -> None:
    stub = health_pb2_grpc.HealthStub(served.channel)
    for name in ("", NAME):
        assert (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status == SERVING


async def test_health_says_not_serving_before_the_drain_and_calls_get_their_grace(tmp_path: Path) -> None:
    address = Address.parse(f"unix:{tmp_path}/b.sock")
    echo = Echo()
    stop = asyncio.Event()

    async def server() -> None:
        async with serving([address], [Service(NAME, add_echo, echo)], grace_seconds=30):
            await stop.wait()

    serving_task = asyncio.create_task(server())
    async with open_channel(address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service=NAME), wait_for_ready=True
        )
        assert (await watch.read()).status == SERVING
        call = asyncio.ensure_future(_awaited(Stub(channel).unary(text("wait"))))
        await echo.arrived.wait()
        stop.set()
        assert (await watch.read()).status == NOT_SERVING
        with pytest.raises(ShuttingDown):
            await watch.read()
        assert not call.done()
        echo.gate.set()
        assert (await call).value == "wait"
    await serving_task


async def test_a_stop_ends_watches_at_once_with_the_reason(tmp_path: Path) -> None:
    address = Address.parse(f"unix:{tmp_path}/b.sock")
    async with open_channel(address) as channel:
        async with serving([address], [echo_service()], grace_seconds=30):
            watch = Stub(channel).watch(text("one wait"))
            assert (await watch.read()).value == "one"
        with pytest.raises(ShuttingDown):
            await watch.read()


async def test_a_stop_lets_a_reply_that_is_on_its_way_arrive_before_the_reason(tmp_path: Path) -> None:
    address = Address.parse(f"unix:{tmp_path}/b.sock")
    async with open_channel(address) as channel:
        async with serving([address], [echo_service()], grace_seconds=30) as running:
            watch = Stub(channel).watch(text("endless"))
            while not running.admission.writing:
                await asyncio.sleep(0)
            reading = asyncio.create_task(_read_to_the_end(watch))
        with pytest.raises(ShuttingDown):
            await reading


async def _read_to_the_end(watch: Any) -> None:
    while await watch.read() is not grpc.aio.EOF:
        pass


async def test_a_call_that_outlives_the_grace_is_cut_off(tmp_path: Path) -> None:
    address = Address.parse(f"unix:{tmp_path}/b.sock")
    echo = Echo()
    async with open_channel(address) as channel:
        async with serving([address], [Service(NAME, add_echo, echo)], grace_seconds=0.05):
            call = Stub(channel).unary(text("wait"))
            await echo.arrived.wait()
        with pytest.raises(PeerUnavailable):
            await call


@pytest.mark.parametrize("version", NAMES)
async def test_reflection_lists_and_describes(served, version) -> None:
    ask = served.channel.stream_stream(
        f"/{version}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    call = ask()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = {each.name for each in (await call.read()).list_services_response.service}
    assert {NAME, "grpc.health.v1.Health", *NAMES} <= listed
    await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=version))
    files = (await call.read()).file_descriptor_response.file_descriptor_proto
    described = [descriptor_pb2.FileDescriptorProto.FromString(each) for each in files]
    assert any(each.package == version.rpartition(".")[0] for each in described)
    await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health.Check"))
    assert (await call.read()).file_descriptor_response.file_descriptor_proto
    await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health.No"))
    assert (await call.read()).error_response.error_message
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_channelz_is_there_when_asked_for(tmp_path: Path) -> None:
    address = Address.parse(f"unix:{tmp_path}/b.sock")
    async with serving([address], [echo_service()], with_channelz=True), open_channel(address) as channel:
        stub = channelz_pb2_grpc.ChannelzStub(channel)
        assert (await stub.GetServers(channelz_pb2.GetServersRequest())).end


async def test_sigterm_ends_the_wait() -> None:
    waiting = asyncio.create_task(until_stopped())
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGTERM)
    await waiting


async def test_a_signal_that_came_during_the_start_is_not_lost() -> None:
    stopping.catch()
    os.kill(os.getpid(), signal.SIGINT)
    await until_stopped()


async def _awaited(call):
    return await call
