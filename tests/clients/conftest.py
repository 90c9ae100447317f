"""Clients meet the services in memory."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.client import Client
from tests.support.command import Cli
from tests.support.fake_services import FakeServices, fake_services


@pytest.fixture
async def fakes(tmp_path: Path) -> AsyncIterator[FakeServices]:
    async with fake_services(tmp_path) as running:
        yield running


@pytest.fixture
async def client(fakes: FakeServices) -> AsyncIterator[Client]:
    async with Client.connect(fakes.address) as connected:
        yield connected


@pytest.fixture
def cli(fakes: FakeServices, capsysbinary: pytest.CaptureFixture[bytes]) -> Cli:
    return Cli(fakes.address, capsysbinary)
