"""Operations on images beside qemu-img: compressed copies, comparison, check of what they made.

Ours goes the whole way: client, daemon, jobs service, node. The content is text and code, as disks have it: QEMU's
compression makes a third of it.
"""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from blockyard.base.units import GIB, MIB
from tests.bench import images
from tests.bench.harness import Row, alternate, case, faster, more
from tests.bench.ours import Ours, daemon

PEERS: Final = ("qemu-img",)
COMPRESSED: Final = 512 * MIB


def _texts() -> Iterator[bytes]:
    """Source files of Python's library, again and again, each time with another line so that no two are alike."""
    files = sorted(Path(os.__file__).parent.rglob("*.py"))[:2000]
    contents = [path.read_bytes() for path in files]
    number = 0
    while True:
        for content in contents:
            number += 1
            yield b"# %d\n" % number + content


def text_raw(path: Path, size: int) -> Path:
    """A raw image of text."""
    texts, written = _texts(), 0
    with path.open("wb") as file:
        while written < size:
            piece = next(texts)[: size - written]
            written += file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return path


@case("compressed-write", PEERS)
def compressed_write(folder: Path) -> list[Row]:
    source = text_raw(folder / "source.raw", COMPRESSED)
    target, theirs = folder / "target.qcow2", folder / "theirs.qcow2"
    with ExitStack() as stack:
        running = stack.enter_context(daemon(folder))
        client = Ours(running.address)
        stack.callback(client.close)

        def ours() -> float:
            images.empty(target, "qcow2", COMPRESSED)
            images.warm(source)
            client.open("source", source, "raw")
            client.open("target", target, "qcow2")
            started = time.perf_counter()
            client.job(lambda jobs: jobs.backup("source", "target", compress=True))
            elapsed = time.perf_counter() - started
            client.close_all()
            return elapsed

        def peer() -> float:
            theirs.unlink(missing_ok=True)
            images.warm(source)
            started = time.perf_counter()
            images.qemu_img("convert", "-c", "-W", "-m", "8", "-f", "raw", "-O", "qcow2", source, theirs)
            with theirs.open("rb") as file:
                os.fsync(file.fileno())
            return time.perf_counter() - started

        times = alternate(ours, peer)
    images.qemu_img("compare", "-f", "raw", "-F", "qcow2", source, target)
    images.qemu_img("check", target)
    sizes = target.stat().st_size / MIB, theirs.stat().st_size / MIB
    return [
        faster("compressed-write", *times, "qemu-img"),
        faster("compressed-size", *sizes, "qemu-img", "MiB"),
    ]


@case("compare", PEERS)
def compare(folder: Path) -> list[Row]:
    source = images.random_raw(folder / "source.raw")
    copy = images.qcow2_of(folder / "copy.qcow2", source)
    with ExitStack() as stack:
        running = stack.enter_context(daemon(folder))
        client = Ours(running.address)
        stack.callback(client.close)
        client.open("source", source, "raw")
        client.open("copy", copy, "qcow2")

        def ours() -> float:
            images.warm(source, copy)
            started = time.perf_counter()
            assert client.operation(lambda operations: operations.compare("source", "copy")).identical
            return GIB / (time.perf_counter() - started) / MIB

        def peer() -> float:
            images.warm(source, copy)
            started = time.perf_counter()
            images.qemu_img("compare", "-U", "-f", "raw", "-F", "qcow2", source, copy)
            return GIB / (time.perf_counter() - started) / MIB

        return [more("compare", *alternate(ours, peer), "qemu-img", "MiB/s")]
