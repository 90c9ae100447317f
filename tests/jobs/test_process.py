"""`blockyard-jobs` as a process: ready when it says so, stopped by SIGTERM in the middle of a job."""

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from blockyard.client import Client
from tests.support.real_services import House, node_service

SIZE = 4 << 20


@asynccontextmanager
async def jobs_process(folder: Path, *options: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The process, and the address it told."""
    ready, told = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "blockyard.jobs", "--listen", f"unix:{folder}/jobs.sock"),
        *("--node", f"unix:{folder}/node.sock", "--ready-fd", str(told)),
        *options,
        pass_fds=(told,),
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(told)
    try:
        line = await asyncio.to_thread(os.read, ready, 4096)
        yield process, line.decode().split()[-1] if line else ""
    finally:
        os.close(ready)
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_sigterm_in_the_middle_of_a_job_leaves_the_node_as_it_was(tmp_path):
    async with node_service(tmp_path) as (running, node), jobs_process(tmp_path) as (process, address):
        async with Client.connect(address) as client:
            yard = House(tmp_path, node, client, running)
            await yard.memory("a", random.Random(1).randbytes(SIZE))
            await yard.memory("t", SIZE)
            await yard.jobs.mirror("a", "t", job_id="m", speed_bytes_per_second=1)
            assert [item.spec.session_id for item in running.copies.all()] == ["m"]
            process.terminate()
            assert await process.wait() == 0
        assert running.copies.all() == []
        assert [item.node_name for item in await node.nodes.list()] == ["a", "t"]


async def test_a_killed_service_leaves_a_session_that_still_protects_its_backup(tmp_path):
    async with node_service(tmp_path) as (running, node):
        content = random.Random(1).randbytes(SIZE)
        async with jobs_process(tmp_path) as (process, address), Client.connect(address) as client:
            yard = House(tmp_path, node, client, running)
            await yard.memory("a", content)
            await yard.memory("t", SIZE)
            await yard.jobs.backup("a", "t", job_id="b", speed_bytes_per_second=1)
            process.kill()
            await process.wait()
        await node.data.write("a", 0, b"n" * SIZE)
        assert (await node.data.read("a", 0, SIZE)) == b"n" * SIZE
        async with jobs_process(tmp_path) as (_, address), Client.connect(address) as client:
            yard = House(tmp_path, node, client, running)
            await yard.jobs.backup("a", "t", job_id="b", speed_bytes_per_second=1)
            async for shown in yard.jobs.follow("b"):
                last = shown
            assert last.outcome == 1
        assert await yard.content("t") == content


async def test_wrong_options_end_with_status_two_and_name_the_option(tmp_path):
    for options, expected in (
        (("--node", "nowhere"), b"address"),
        (("--max-jobs", "0"), b"max_jobs"),
        (("--stop-seconds", "nan"), b"stop_seconds"),
        (("--no-such-option",), b"no-such-option"),
    ):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "blockyard.jobs", "--listen", f"unix:{tmp_path}/j.sock"),
            *options,
            env={**os.environ, "BLOCKYARD_NODE": f"unix:{tmp_path}/n.sock"},
            stderr=asyncio.subprocess.PIPE,
        )
        _, printed = await process.communicate()
        assert process.returncode == 2, printed
        assert expected in printed
