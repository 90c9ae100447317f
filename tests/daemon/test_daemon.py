"""The three services in one process on one address."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import fields
from pathlib import Path

import pytest

from blockyard.base.errors import NodeNotFound
from blockyard.daemon import app
from blockyard.daemon.config import COMMON, SERVICES, SHARED, WIRING, DaemonConfig, own_fields, part
from blockyard.jobs.config import JobsConfig
from blockyard.node.config import NodeConfig
from blockyard.rpc.address import Address
from blockyard.rpc.channel import Channel, open_channel
from blockyard.rpc.config import parse
from blockyard.rpc.health import check
from blockyard.rpc.telemetry import trace_of
from blockyard.rpc.trace_context import TraceContext
from blockyard.v1 import (
    data_pb2,
    data_pb2_grpc,
    drivers_pb2,
    job_pb2,
    job_pb2_grpc,
    node_pb2,
    node_pb2_grpc,
    stats_pb2,
    stats_pb2_grpc,
)

READY_CPU_SECONDS = 1.5
IDLE_KIB = 120 * 1024


def memory_node(name: str, size: int = 1 << 20) -> node_pb2.OpenNodeRequest:
    options = drivers_pb2.MemoryOptions(size=size)
    return node_pb2.OpenNodeRequest(definition=drivers_pb2.NodeDefinition(node_name=name, memory=options))


@pytest.fixture
async def channel(tmp_path: Path) -> AsyncIterator[Channel]:
    config = DaemonConfig(
        listen=(f"unix:{tmp_path}/b.sock",), storage_roots=(str(tmp_path),), gather_seconds=0.1, grace_seconds=0.5
    )
    async with app.serving(config) as running, open_channel(running.addresses[0]) as channel:
        yield channel


async def test_one_address_answers_for_all_three_services(channel) -> None:
    await node_pb2_grpc.NodeServiceStub(channel).OpenNode(memory_node("disk"))
    data = data_pb2_grpc.DataServiceStub(channel)
    await data.WriteZeroes(data_pb2.WriteZeroesRequest(node_name="disk", offset_bytes=0, length_bytes=4096))
    jobs = await job_pb2_grpc.JobServiceStub(channel).ListJobs(job_pb2.ListJobsRequest())
    assert not jobs.jobs
    stats = stats_pb2_grpc.StatsServiceStub(channel)

    async for told in stats.WatchStats(stats_pb2.WatchStatsRequest()):
        if any(account.node_name == "disk" and account.operations for account in told.stats):
            break
    (source,) = (await stats.ListSources(stats_pb2.ListSourcesRequest())).sources
    assert source.connected and not told.stale


async def test_the_public_address_tells_the_health_of_single_nodes(channel, tmp_path: Path) -> None:
    await node_pb2_grpc.NodeServiceStub(channel).OpenNode(memory_node("disk"))
    address = Address.parse(f"unix:{tmp_path}/b.sock")
    assert await asyncio.to_thread(check, address, name="node/disk") == "SERVING"
    assert "nobody" in await asyncio.to_thread(check, address, name="node/nobody")


async def test_errors_of_a_service_come_through_as_they_are(channel) -> None:
    with pytest.raises(NodeNotFound) as caught:
        await node_pb2_grpc.NodeServiceStub(channel).GetNode(node_pb2.GetNodeRequest(node_name="nowhere"))
    assert caught.value.node_name == "nowhere"


def test_every_option_belongs_to_one_service_and_is_explained(capsys) -> None:
    own = [item.name for config_class in SERVICES for item in own_fields(config_class)]
    assert sorted(own) == sorted([*set(own), *SHARED])
    assert {item.name for item in fields(DaemonConfig)} == COMMON | set(own)
    assert parse(DaemonConfig, "blockyardd", ["--help"]) is None
    manual = capsys.readouterr().out
    for name in own:
        assert f"--{name.replace('_', '-')}" in manual.replace("--no-", "--"), name
    assert "Directories that hold images" in manual


def test_a_service_gets_its_own_options_and_the_common_ones() -> None:
    config = parse(
        DaemonConfig, "blockyardd", ["--max-jobs", "3", "--storage-roots", "/images", "--log-level", "error"]
    )
    node = part(config, NodeConfig, listen=("unix:/n",))
    jobs = part(config, JobsConfig, listen=("unix:/j",), node="unix:/n")
    assert (node.storage_roots, node.log_level, node.listen) == (("/images",), "error", ("unix:/n",))
    assert (jobs.max_jobs, jobs.node) == (3, "unix:/n")
    assert "node" in WIRING


class Process:
    """A daemon as a process of its own."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        self.address = f"unix:{folder}/b.sock"
        read_end, write_end = os.pipe()
        self.private = folder / "private"
        self.private.mkdir()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "blockyard.daemon", "--listen", self.address, "--ready-fd", str(write_end)),
                *("--storage-roots", str(folder), *options),
            ],
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=[write_end],
            env=os.environ | {"TMPDIR": str(self.private)} | environment,
        )
        os.close(write_end)
        with os.fdopen(read_end) as ready:
            self.told = ready.readline()

    def stop(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=30)
        return errors


@pytest.fixture
def short_tmp(tmp_path_factory) -> Path:
    # A socket's path holds 107 bytes; the private sockets lie two folders deeper.
    return tmp_path_factory.mktemp("d")


def test_a_daemon_says_that_it_is_ready_and_leaves_nothing_behind(short_tmp: Path) -> None:
    daemon = Process(short_tmp)
    assert daemon.told == f"ready {daemon.address}\n"
    (private,) = daemon.private.iterdir()
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    errors = daemon.stop()
    assert daemon.process.returncode == 0, errors
    assert f"blockyardd: ready {daemon.address}" in errors and "Traceback" not in errors
    assert not list(daemon.private.iterdir()) and not (short_tmp / "b.sock").exists()


def test_a_daemon_is_quick_to_start_and_small_when_idle(short_tmp: Path) -> None:
    daemon = Process(short_tmp)
    # Processor time, so that a busy machine does not count.
    ticks = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    seconds = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    resident = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    daemon.stop()
    assert seconds < READY_CPU_SECONDS
    assert resident < IDLE_KIB


def test_wrong_options_end_the_daemon_with_the_reason(short_tmp: Path) -> None:
    daemon = Process(short_tmp, "--max-jobs", "0")
    _, errors = daemon.process.communicate(timeout=30)
    assert daemon.process.returncode == 2
    assert "max_jobs: expected 1 or more, found 0" in errors


async def test_a_trace_names_the_service_that_did_the_work(short_tmp: Path) -> None:
    spans = short_tmp / "spans"
    daemon = Process(short_tmp, OTEL_TRACES_EXPORTER="file", BLOCKYARD_TRACE_FILE=str(spans))
    caller = TraceContext("ab" * 16, "cd" * 8, True)
    async with open_channel(daemon.address) as channel:
        with trace_of(caller):
            await node_pb2_grpc.NodeServiceStub(channel).OpenNode(memory_node("disk"))
            await job_pb2_grpc.JobServiceStub(channel).ListJobs(job_pb2.ListJobsRequest())
    await asyncio.to_thread(daemon.stop)
    records = [json.loads(line) for line in spans.read_text().splitlines()]
    ours = {record["name"]: record for record in records if record["trace_id"] == caller.trace_id}
    assert ours["blockyard.v1.NodeService/OpenNode"]["service"] == "blockyard-node"
    assert ours["blockyard.v1.JobService/ListJobs"]["service"] == "blockyard-jobs"
    assert ours["blockyard.v1.NodeService/OpenNode"]["parent_id"] == caller.span_id
