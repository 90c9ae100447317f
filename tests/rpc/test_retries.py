"""The table of calls that a channel repeats is what the protos say."""

from pathlib import Path

import pytest
from google.protobuf import descriptor_pool

from blockyard.base.errors import PeerUnavailable
from blockyard.rpc.channel import open_channel
from blockyard.rpc.retries import IDEMPOTENT
from blockyard.rpc.server import Service, serving
from blockyard.v1 import (
    bitmap_pb2,
    control_pb2,
    copy_pb2,
    data_pb2,
    debug_pb2,
    export_pb2,
    job_pb2,
    node_pb2,
    stats_pb2,
)
from tests.support.echo import NAME, Echo, Stub, add_echo, text

READING = ("Get", "List", "Query", "Describe", "Parse", "Probe", "Measure")


def unary_methods(service: str):
    described = descriptor_pool.Default().FindServiceByName(f"blockyard.v1.{service}")
    return {each.name for each in described.methods if not each.server_streaming and not each.client_streaming}


@pytest.mark.parametrize("service", IDEMPOTENT)
def test_the_table_lists_every_unary_read_and_nothing_else(service) -> None:
    assert set(IDEMPOTENT[service]) == {name for name in unary_methods(service) if name.startswith(READING)}


def test_every_service_is_in_the_table_but_the_one_that_moves_data() -> None:
    files = [module.DESCRIPTOR for module in (bitmap_pb2, control_pb2, copy_pb2, data_pb2, debug_pb2)]
    files += [module.DESCRIPTOR for module in (export_pb2, job_pb2, node_pb2, stats_pb2)]
    names = {name for file in files for name in file.services_by_name}
    assert names - {"DataService"} == set(IDEMPOTENT)


async def test_a_channel_finds_a_server_that_comes_back(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/b.sock"
    async with open_channel(address) as channel:
        stub = Stub(channel)
        with pytest.raises(PeerUnavailable) as caught:
            await stub.unary(text("x"))
        assert caught.value.address == address
        async with serving([channel.address], [Service(NAME, add_echo, Echo())]):
            assert (await stub.unary(text("x"), wait_for_ready=True, timeout=10)).value == "x"
