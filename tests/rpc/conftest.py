"""A served echo and a channel to it, over a real unix socket."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from blockyard.rpc.address import Address
from blockyard.rpc.admission import Limits
from blockyard.rpc.channel import Channel, open_channel
from blockyard.rpc.server import Running, Service, serving
from tests.support.echo import NAME, Echo, Stub, add_echo


@dataclass
class Served:
    """The two sides of a connection."""

    echo: Echo
    running: Running
    channel: Channel
    stub: Stub
    address: Address


@pytest.fixture
def limits() -> Limits:
    return Limits()


@pytest.fixture
async def served(tmp_path: Path, limits: Limits) -> AsyncIterator[Served]:
    echo = Echo()
    address = Address.parse(f"unix:{tmp_path}/echo.sock")
    async with (
        serving([address], [Service(NAME, add_echo, echo)], limits=limits, grace_seconds=0.2) as running,
        open_channel(address) as channel,
    ):
        yield Served(echo, running, channel, Stub(channel), address)
