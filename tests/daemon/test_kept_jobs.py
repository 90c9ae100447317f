"""The whole daemon, killed and ended, goes on with its jobs: one state directory for all that it keeps."""

import os
import signal
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from blockyard.client import Client
from blockyard.client.definitions import file, raw
from blockyard.v1 import job_pb2 as job
from tests.support.daemon import daemon

SIZE = 4 << 20


@asynccontextmanager
async def living(folder: Path):
    options = ["--state-directory", str(folder / "state")]
    async with daemon(folder, options=options) as running, Client.connect(running.address) as client:
        yield running, client


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_daemon_goes_on_with_its_mirror_and_its_backup(number: int, tmp_path: Path):
    content = os.urandom(SIZE)
    async with living(tmp_path) as (running, client):
        for name in ("a", "t", "c", "u"):
            (tmp_path / "images" / f"{name}.raw").write_bytes(content if name in "ac" else bytes(SIZE))
            await client.nodes.open(raw(file(f"{name}.raw"), node_name=name))
        await client.jobs.mirror("a", "t", job_id="m")
        await client.jobs.wait("m", "ready")
        await client.jobs.backup("c", "u", job_id="b", speed_bytes_per_second=1)
        await client.data.write("c", 0, b"x" * 65536)
        running.process.send_signal(number)
        await running.process.wait()
    async with living(tmp_path) as (_, client):
        assert [each.job_id for each in await client.jobs.list()] == ["b", "m"]
        await client.data.write("a", 0, b"y" * 65536)
        await client.data.write("c", 65536, b"z" * 65536)
        await client.jobs.set_speed("b", 0)
        await client.jobs.wait("m", "ready")
        await client.jobs.complete("m", "detach")
        for job_id in ("b", "m"):
            assert (await client.jobs.wait(job_id)).outcome == job.JOB_OUTCOME_SUCCEEDED
        assert await client.data.read("u", 0, SIZE) == content
        assert await client.data.read("t", 0, SIZE) == b"y" * 65536 + content[65536:]
