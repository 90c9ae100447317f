"""The four jobs on 1 GiB of random data beside qemu-storage-daemon's, from start to the end of the final flush.

Both have images of their own with equal content on the same file system, sources in the page cache, and take turns.
Ours goes the whole way: client, daemon, jobs service, node. The peer's time includes `blockdev-del` of what was
written, because only that flushes for certain.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.bench import images
from tests.bench.harness import Row, alternate, case, faster
from tests.bench.ours import Ours, daemon
from tests.bench.qsd import Qmp, storage_daemon

PEER = "qemu-storage-daemon"
PEERS = (PEER, "qemu-img")

Side = Callable[[], float]
"""One run: prepares, measures, tidies up; seconds."""


def compared(
    name: str,
    folder: Path,
    result: str,
    sides: tuple[Callable[[Path, Ours], Side], Callable[[Path, Qmp], Side]],
) -> list[Row]:
    """Both in folders of their own, in turns; `result` is the file that must equal the source afterwards."""
    with ExitStack() as stack:
        places = [folder / "ours", folder / "peer"]
        for place in places:
            place.mkdir()
            images.random_raw(place / "source.raw")
        running = stack.enter_context(daemon(places[0]))
        client = Ours(running.address)
        stack.callback(client.close)
        qmp = stack.enter_context(storage_daemon(places[1]))
        ours_s, peer_s = alternate(sides[0](places[0], client), sides[1](places[1], qmp))
    # A fast job that copied something else would be no achievement.
    images.qemu_img("compare", places[0] / "source.raw", places[0] / result)
    return [faster(name, ours_s, peer_s, PEER)]


def _copy(kind: str, format: str) -> tuple[Callable[[Path, Ours], Side], Callable[[Path, Qmp], Side]]:
    """Mirror or backup of a raw source to a fresh target."""

    def ours(place: Path, client: Ours) -> Side:
        def run() -> float:
            target = images.empty(place / f"target.{format}", format)
            images.warm(place / "source.raw")
            client.open("source", place / "source.raw", "raw")
            client.open("target", target, format)
            started = time.perf_counter()
            client.job(lambda jobs: getattr(jobs, kind)("source", "target"))
            elapsed = time.perf_counter() - started
            client.close_all()
            return elapsed

        return run

    def peer(place: Path, qmp: Qmp) -> Side:
        def run() -> float:
            target = images.empty(place / f"target.{format}", format)
            images.warm(place / "source.raw")
            qmp.open("source", place / "source.raw", "raw")
            qmp.open("target", target, format)
            started = time.perf_counter()
            qmp.job(f"blockdev-{kind}", device="source", target="target", sync="full")
            qmp.close("target")
            elapsed = time.perf_counter() - started
            qmp.close("source")
            return elapsed

        return run

    return ours, peer


def _chain(place: Path) -> tuple[Path, Path]:
    """A base image and a fresh overlay on it."""
    base = place / "base.qcow2"
    if not base.exists():
        images.qcow2_of(base, place / "source.raw")
    overlay = images.empty(place / "overlay.qcow2", "qcow2", backing=base)
    images.warm(base)
    return base, overlay


def _stream() -> tuple[Callable[[Path, Ours], Side], Callable[[Path, Qmp], Side]]:
    def ours(place: Path, client: Ours) -> Side:
        def run() -> float:
            base, overlay = _chain(place)
            client.open("base", base, "qcow2")
            client.open("top", overlay, "qcow2", "base")
            started = time.perf_counter()
            client.job(lambda jobs: jobs.stream("top"))
            elapsed = time.perf_counter() - started
            client.close_all()
            return elapsed

        return run

    def peer(place: Path, qmp: Qmp) -> Side:
        def run() -> float:
            base, overlay = _chain(place)
            qmp.open("base", base, "qcow2")
            qmp.open("top", overlay, "qcow2", "base")
            started = time.perf_counter()
            qmp.job("block-stream", device="top")
            qmp.close("top")
            elapsed = time.perf_counter() - started
            qmp.close("base")
            return elapsed

        return run

    return ours, peer


def _layers(place: Path) -> tuple[Path, Path, Path]:
    """An empty base, a middle layer with all the data, an empty top."""
    base = images.empty(place / "empty.qcow2", "qcow2")
    middle = place / "middle.qcow2"
    if not middle.exists():
        images.qcow2_of(middle, place / "source.raw")
        images.qemu_img("rebase", "-u", "-b", base.name, "-F", "qcow2", middle)
    top = images.empty(place / "top.qcow2", "qcow2", backing=middle)
    images.warm(middle)
    return base, middle, top


def _commit() -> tuple[Callable[[Path, Ours], Side], Callable[[Path, Qmp], Side]]:
    def ours(place: Path, client: Ours) -> Side:
        def run() -> float:
            base, middle, top = _layers(place)
            client.open("base", base, "qcow2")
            client.open("middle", middle, "qcow2", "base")
            client.open("top", top, "qcow2", "middle")
            started = time.perf_counter()
            client.job(lambda jobs: jobs.commit("top", top_node_name="middle", base_node_name="base"))
            elapsed = time.perf_counter() - started
            client.close_all()
            return elapsed

        return run

    def peer(place: Path, qmp: Qmp) -> Side:
        def run() -> float:
            base, middle, top = _layers(place)
            qmp.open("base", base, "qcow2")
            qmp.open("middle", middle, "qcow2", "base")
            qmp.open("top", top, "qcow2", "middle")
            started = time.perf_counter()
            qmp.job("block-commit", device="top", top_node="middle", base_node="base")
            qmp.close("top", "middle", "base")
            return time.perf_counter() - started

        return run

    return ours, peer


@case("job-mirror-raw-raw", PEERS)
def mirror(folder: Path) -> list[Row]:
    return compared("job-mirror-raw-raw", folder, "target.raw", _copy("mirror", "raw"))


@case("job-backup-raw-qcow2", PEERS)
def backup(folder: Path) -> list[Row]:
    return compared("job-backup-raw-qcow2", folder, "target.qcow2", _copy("backup", "qcow2"))


@case("job-stream", PEERS)
def stream(folder: Path) -> list[Row]:
    return compared("job-stream", folder, "overlay.qcow2", _stream())


@case("job-commit", PEERS)
def commit(folder: Path) -> list[Row]:
    return compared("job-commit", folder, "empty.qcow2", _commit())
