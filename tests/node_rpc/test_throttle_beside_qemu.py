"""The same limits here and in qemu-storage-daemon, the same guest (fio over NBD): as many requests are granted."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from blockyard.client.definitions import null, throttle
from blockyard.node.core.throttle import ThrottleLimits
from blockyard.node.graph.throttling import ThrottleGroups
from tests.bench.qsd import Qmp, storage_daemon
from tests.support.node_calls import NodeHouse

SECONDS = 1
DEPTH = 16
"""As many as QEMU's NBD server takes from one client at a time (MAX_NBD_REQUESTS, nbd/server.c)."""
CASES: dict[str, tuple[dict[str, int], dict[str, str]]] = {
    "mean": ({"iops-total": 200}, {}),
    "burst": ({"iops-total": 50, "iops-total-max": 300}, {}),
    "long-burst": ({"iops-total": 50, "iops-total-max": 250, "iops-total-max-length": 5}, {}),
    "bytes": ({"bps-write": 1 << 20}, {"rw": "randwrite", "bs": "8k"}),
    "sides": ({"iops-read": 100, "iops-write": 300}, {"rw": "randrw"}),
    "iops-size": ({"iops-total": 200, "iops-size": 4096}, {"bs": "16k"}),
}
"""Limits under QEMU's names, and what the guest does if not 4 KiB reads."""


@contextmanager
def qemu(folder: Path) -> Iterator[str]:
    """QEMU with a group and an export for every case; its NBD socket.

    It answers reads of known zeroes without asking the throttle, so the nodes say that they hold data.
    """
    folder.mkdir()
    with storage_daemon(folder) as qmp:
        _set_up(qmp, folder)
        yield f"{folder}/nbd.sock"


def _set_up(qmp: Qmp, folder: Path) -> None:
    qmp("nbd-server-start", addr={"type": "unix", "data": {"path": f"{folder}/nbd.sock"}}, max_connections=100)
    for name, (limits, _) in CASES.items():
        qmp("object-add", qom_type="throttle-group", id=f"g-{name}", limits=limits)
        qmp("blockdev-add", driver="null-co", node_name=f"n-{name}", size=1 << 30, read_zeroes=False)
        qmp("blockdev-add", driver="throttle", node_name=f"t-{name}", throttle_group=f"g-{name}", file=f"n-{name}")
        qmp("block-export-add", type="nbd", id=name, name=name, node_name=f"t-{name}", writable=True)


async def ours(house: NodeHouse) -> str:
    """The same here."""
    groups: ThrottleGroups = house.graph.environment.throttling
    socket = f"{house.folder.parent}/nbd.sock"
    for name, (limits, _) in CASES.items():
        groups.create(name, ThrottleLimits.from_dict(dict(limits)))
        await house.client.nodes.open(throttle(null(1 << 30, read_zeroes=False), name, node_name=f"t-{name}"))
        await house.client.exports.add_nbd(f"t-{name}", name, writable=True, addresses=[f"unix:{socket}"])
    return socket


async def granted(socket: str, name: str) -> tuple[int, int]:
    """Reads and writes that a guest with DEPTH in flight gets done."""
    options = {"rw": "randread", "bs": "4k", **CASES[name][1]}
    process = await asyncio.create_subprocess_exec(
        *("fio", "--name=guest", "--ioengine=nbd", f"--uri=nbd+unix:///{name}?socket={socket}"),
        *(f"--iodepth={DEPTH}", "--time_based", f"--runtime={SECONDS}", "--output-format=json"),
        *(f"--{key}={value}" for key, value in options.items()),
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await process.communicate()
    assert process.returncode == 0
    (job,) = json.loads(told[told.index(b"{") :])["jobs"]
    return job["read"]["total_ios"], job["write"]["total_ios"]


@pytest.mark.peer("qemu-storage-daemon", "fio")
async def test_a_guest_gets_as_many_requests_as_from_qemu(house: NodeHouse, tmp_path: Path):
    with ExitStack() as leaving:
        theirs = leaving.enter_context(qemu(tmp_path / "qemu"))
        sockets = (await ours(house), theirs)
        counts = await asyncio.gather(*(granted(socket, name) for name in CASES for socket in sockets))
    for at, name in enumerate(CASES):
        found, expected = counts[2 * at], counts[2 * at + 1]
        # A quiet machine gives the same number to the request.
        assert found == pytest.approx(expected, rel=0.15, abs=5), (name, found, expected)
