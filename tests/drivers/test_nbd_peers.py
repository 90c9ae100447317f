"""Driver `nbd` against the servers of the field."""

import random
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from blockyard.base.units import KIB, MIB
from blockyard.node.interface.flags import FUA, MAY_UNMAP
from blockyard.node.interface.mapping import MapKind
from tests.support.eventually import eventually
from tests.support.ground import Ground

SIZE = 8 * MIB


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a short name: a socket's path has 107 characters."""
    path = Path(tempfile.mkdtemp(prefix="by"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def ground(folder: Path) -> AsyncIterator[Ground]:
    ground = Ground(folder)
    yield ground
    await ground.leave()


@contextmanager
def running(command: list[str | Path]) -> Iterator[None]:
    process = subprocess.Popen(command)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def servers(folder: Path) -> dict[str, list[str | Path]]:
    sock, image = folder / "s", folder / "disk.raw"
    return {
        "qemu-nbd": ["qemu-nbd", "-t", "-k", sock, "-x", "disk", "-f", "raw", "--discard=unmap", "-e", "4", image],
        "nbdkit": ["nbdkit", "-f", "-U", sock, "-e", "disk", "file", image],
        "nbdkit without structured replies": [
            *("nbdkit", "-f", "-U", sock, "--no-sr", "-e", "disk", "file", image),
        ],
    }


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("qemu-nbd", marks=pytest.mark.peer("qemu-nbd")),
        pytest.param("nbdkit", marks=pytest.mark.peer("nbdkit")),
        pytest.param("nbdkit without structured replies", marks=pytest.mark.peer("nbdkit")),
    ],
)
async def test_a_server_of_the_field_keeps_the_bytes(folder: Path, ground: Ground, name: str):
    image, numbers = folder / "disk.raw", random.Random(5)
    image.write_bytes(bytes(SIZE))
    model = bytearray(SIZE)
    with running(servers(folder)[name]):
        await eventually((folder / "s").exists)
        node = await ground.open(
            "nbd", {"address": f"unix:{folder}/s", "export": "disk", "open_timeout_seconds": 20}
        )
        for _ in range(120):
            offset = numbers.randrange(0, SIZE - MIB, 512)
            length = numbers.choice((512, 4 * KIB, 64 * KIB, 300 * KIB))
            match numbers.randrange(4):
                case 0:
                    await node.zero(offset, length, numbers.choice((0, MAY_UNMAP)))
                    model[offset : offset + length] = bytes(length)
                case _:
                    data = numbers.randbytes(length)
                    await node.write(offset, data, numbers.choice((0, FUA)))
                    model[offset : offset + length] = data
        assert await node.content() == model
        position = 0
        while position < SIZE:
            mapping = await node.map(position, SIZE - position)
            if mapping.kind is MapKind.ZERO:
                assert not any(model[position : position + mapping.length])
            position += mapping.length
        await node.discard(0, MIB)
        await node.flush()
        await ground.close_all()
    assert image.read_bytes()[MIB:] == model[MIB:]
