"""A mirror of 1 GiB of random data between two processes over NBD on loopback, beside qemu-storage-daemon's.

On each side one process has the source and runs the job, and another of the same kind exports the target.
"""

import time
from contextlib import ExitStack
from pathlib import Path

from blockyard.client.definitions import nbd
from tests.bench import images
from tests.bench.harness import Row, alternate, case, faster
from tests.bench.jobs import PEER, PEERS, Side
from tests.bench.ours import Ours, daemon
from tests.bench.qsd import Qmp, storage_daemon

NAME = "job-mirror-nbd-target"
PORT = 10901


def _ours(place: Path, source: Ours, target: Ours) -> Side:
    def run() -> float:
        images.warm(place / "source.raw")
        target.open("disk", images.empty(place / "target" / "target.raw", "raw"), "raw")
        port = target.export("disk", "disk")
        source.open("source", place / "source.raw", "raw")
        source.add(nbd(f"127.0.0.1:{port}", "disk", node_name="remote"))
        started = time.perf_counter()
        source.job(lambda jobs: jobs.mirror("source", "remote"))
        elapsed = time.perf_counter() - started
        source.close_all()
        target.withdraw("disk")
        target.close_all()
        return elapsed

    return run


def _peer(place: Path, source: Qmp, target: Qmp) -> Side:
    address = {"type": "inet", "host": "127.0.0.1", "port": str(PORT)}
    target("nbd-server-start", addr={"type": "inet", "data": {"host": "127.0.0.1", "port": str(PORT)}})

    def run() -> float:
        images.warm(place / "source.raw")
        target.open("disk", images.empty(place / "target" / "target.raw", "raw"), "raw")
        target("block-export-add", id="disk", type="nbd", node_name="disk", name="disk", writable=True)
        source.open("source", place / "source.raw", "raw")
        source("blockdev-add", node_name="remote", driver="nbd", server=address, export="disk")
        started = time.perf_counter()
        source.job("blockdev-mirror", device="source", target="remote", sync="full")
        source("blockdev-del", node_name="remote")
        elapsed = time.perf_counter() - started
        source.close("source")
        target("block-export-del", id="disk", mode="hard")
        while target("query-block-exports"):
            time.sleep(0.001)
        target.close("disk")
        return elapsed

    return run


@case(NAME, PEERS)
def mirror(folder: Path) -> list[Row]:
    with ExitStack() as stack:
        places = [folder / "ours", folder / "peer"]
        for place in places:
            (place / "target").mkdir(parents=True)
            images.random_raw(place / "source.raw")
        clients = []
        for where, arguments in ((places[0], ()), (places[0] / "target", ("--nbd", "127.0.0.1:0"))):
            client = Ours(stack.enter_context(daemon(where, *arguments)).address)
            stack.callback(client.close)
            clients.append(client)
        daemons = [stack.enter_context(storage_daemon(where)) for where in (places[1], places[1] / "target")]
        ours_s, peer_s = alternate(_ours(places[0], *clients), _peer(places[1], *daemons))
    images.qemu_img("compare", places[0] / "source.raw", places[0] / "target" / "target.raw")
    return [faster(NAME, ours_s, peer_s, PEER)]
