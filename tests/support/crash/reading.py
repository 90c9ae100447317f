"""An image's guest content, read by QEMU and read by our own drivers."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path

from blockyard.node.drivers.qcow2 import Qcow2
from blockyard.node.drivers.qcow2.options import Qcow2Options
from blockyard.node.interface.child import Child
from blockyard.node.interface.driver import FormatDriver
from tests.support import peers
from tests.support.ground import DriverChild, Ground

MAX_CHAIN = 16


def read_by_qemu(path: Path, image_format: str, scratch: Path) -> bytes:
    """Through qemu-img, backing files included. Raises AssertionError with what it printed."""
    target = scratch / "converted.raw"
    try:
        # A relative name of a data file counts from where it runs.
        peers.run("qemu-img", "convert", "-f", image_format, "-O", "raw", path, target, cwd=path.parent)
        return target.read_bytes()
    finally:
        target.unlink(missing_ok=True)


def read_by_us(path: Path, image_format: str) -> bytes:
    """Through our drivers, backing files included, read-only. In a thread: the caller may have a loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _read_by_us(path, image_format)).result()


async def _read_by_us(path: Path, image_format: str) -> bytes:
    ground = Ground(path.parent, threads=1)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(ground.leave)
        return await (await open_chain(ground, path.name, image_format)).content()


async def open_chain(
    ground: Ground, name: str, image_format: str, read_only: bool = True, depth: int = 0
) -> DriverChild:
    """An image with everything that its headers name, over plain files."""
    assert depth < MAX_CHAIN, "the backing chain does not end"
    children: dict[str, Child] = {"file": await ground.open("file", {"filename": name}, read_only=read_only)}
    if image_format == "raw":
        return await ground.open("raw", {}, children, name="backing", read_only=read_only)
    if image_format == "qcow2":
        named = await Qcow2.named_files(Qcow2Options(follow_data_file=True), ground.context(children))
        for child, filename in named.items():
            place = {"filename": ground.storage.relative_to_image(name, filename)}
            children[child] = await ground.open("file", place, name=child, read_only=read_only)
    node = await ground.open(image_format, {}, children, name="backing", read_only=read_only)
    assert isinstance(node.driver, FormatDriver)
    reference = node.driver.backing()
    if reference is not None:
        below = ground.storage.relative_to_image(name, reference.filename)
        children["backing"] = await open_chain(ground, below, reference.format, True, depth + 1)
    return node
