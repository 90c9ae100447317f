"""A real daemon for all tests of a module, and the command line and client on it."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.client import Client
from tests.support.command import Cli
from tests.support.daemon import Daemon, daemon


@pytest.fixture(scope="module")
async def yard() -> AsyncIterator[Daemon]:
    # Not pytest's own directory: its path may be too long for a socket.
    with tempfile.TemporaryDirectory(prefix="blockyard-") as directory:
        async with daemon(Path(directory)) as running:
            yield running


@pytest.fixture
async def client(yard: Daemon) -> AsyncIterator[Client]:
    async with Client.connect(yard.address) as connected:
        yield connected
        for job in await connected.jobs.list():
            await connected.jobs.dismiss(job.job_id, allow_missing=True)


@pytest.fixture
def cli(yard: Daemon, capsysbinary: pytest.CaptureFixture[bytes]) -> Cli:
    return Cli(yard.address, capsysbinary)
