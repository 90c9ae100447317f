"""qcow2 images for tests: made by QEMU or by us, damaged at will, opened through our driver, judged by QEMU."""

import json
import random
import struct
from pathlib import Path
from typing import Any

from blockyard.base.units import MIB
from blockyard.node.drivers.qcow2 import Qcow2
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.interface.child import Child
from tests.support import peers
from tests.support.ground import DriverChild, Ground


def qemu_create(path: Path, size: int, *options: str, backing: Path | None = None, fmt: str = "qcow2") -> None:
    extra: list[str | Path] = ["-o", ",".join(options)] if options else []
    if backing is not None:
        extra += ["-b", backing.name, "-F", fmt]
    peers.run("qemu-img", "create", "-q", "-f", "qcow2", *extra, path, str(size))


def qemu_write(path: Path, *commands: str) -> None:
    peers.run("qemu-io", *(part for command in commands for part in ("-c", command)), path)


def qemu_content(path: Path) -> bytes:
    raw = path.with_suffix(".converted")
    peers.run("qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", path, raw)
    try:
        return raw.read_bytes()
    finally:
        raw.unlink()


def qemu_check(path: Path) -> dict[str, Any]:
    """Counts as QEMU prints them; counts that it leaves out are 0."""
    result = peers.run("qemu-img", "check", "-U", "--output=json", "-f", "qcow2", path, check=False)
    found = json.loads(result.stdout)
    names = ("corruptions", "leaks", "check-errors", "allocated-clusters", "compressed-clusters")
    return {**dict.fromkeys((*names, "fragmented-clusters"), 0), **found}


def assert_clean(path: Path) -> None:
    result = peers.run("qemu-img", "check", "-U", "-f", "qcow2", path, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


async def opened(
    ground: Ground, name: str, backing: Child | None = None, read_only: bool = False, **options: object
) -> DriverChild:
    """An image of the ground, through our driver."""
    children: dict[str, Child] = {"file": await ground.open("file", {"filename": name}, read_only=read_only)}
    if backing is not None:
        children["backing"] = backing
    return await ground.open("qcow2", options, children, name="top", read_only=read_only)


async def created(ground: Ground, name: str, size: int, **options: object) -> None:
    """An image made by our driver."""
    (ground.root / name).touch()
    file = await ground.open("file", {"filename": name})
    await ground.create("qcow2", {"size": size, **options}, {"file": file})
    await ground.close(file)


def driver_of(node: DriverChild) -> Qcow2:
    assert isinstance(node.driver, Qcow2)
    return node.driver


async def shake(node: DriverChild, model: bytearray, seed: int, steps: int = 60) -> None:
    """Random writes, zeroes, discards and flushes on a node and on a byte array alike."""
    numbers = random.Random(seed)
    unit = node.limits.discard_alignment
    for _ in range(steps):
        length = min(len(model), numbers.choice((512, 4096, 70_144, 300_032)))
        offset = numbers.randrange(0, len(model) - length + 1, 512)
        operation = numbers.choice(("write", "write", "write", "zero", "unmap", "discard", "flush"))
        if operation == "write":
            data = numbers.randbytes(length)
            await node.write(offset, data)
            model[offset : offset + length] = data
        elif operation in ("zero", "unmap"):
            await node.zero(offset, length, 4 if operation == "unmap" else 0)
            model[offset : offset + length] = bytes(length)
        elif operation == "discard":
            await node.discard(offset, length)
            start, end = -(-offset // unit) * unit, (offset + length) // unit * unit
            if end > start:
                model[start:end] = await node.content(start, end - start)
        else:
            await node.flush()


class Surgeon:
    """Changes fields of an image file by their meaning."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = bytearray(path.read_bytes())
        self.header = hdr.decode_fixed(self.data, "x")

    def get(self, offset: int) -> int:
        return int(struct.unpack_from(">Q", self.data, offset)[0])

    def put(self, offset: int, value: int, form: str = ">Q") -> None:
        struct.pack_into(form, self.data, offset, value)

    @property
    def l2(self) -> int:
        """Where the first L2 table is."""
        return self.get(self.header.l1_table_offset) & 0x00FFFFFFFFFFFE00

    @property
    def refcounts(self) -> int:
        """Where the first refcount block is."""
        return self.get(self.header.refcount_table_offset)

    def save(self) -> None:
        self.path.write_bytes(self.data)


def filled_image(place: Path, name: str = "disk", filled: str = "512k") -> Path:
    path = place / name
    qemu_create(path, MIB, "cluster_size=4k")
    qemu_write(path, f"write -P 1 0 {filled}")
    return path
