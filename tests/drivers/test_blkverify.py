"""Driver `blkverify`: the contract, and every way in which two copies can differ."""

import errno
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.base.errors import CopiesDiffer, InvalidArgument, IoError, OperationUnsupported
from blockyard.node.drivers.blkverify import BlkverifyDriver
from blockyard.node.interface.child import Child
from blockyard.node.interface.flags import NO_FALLBACK, Role
from blockyard.node.interface.mapping import MapKind
from blockyard.node.interface.permissions import ALL, CONSISTENT_READ, RESIZE, WRITE, WRITE_UNCHANGED, Permissions
from tests.drivers.test_quorum import House, Moody
from tests.support.contract import DriverContract
from tests.support.ground import DriverChild, Ground

SIZE = 1 << 20


class TestBlkverify(DriverContract):
    driver = "blkverify"
    discard_zeroes = True

    async def prepare(self, ground: Ground) -> None:
        for name in ("test", "raw"):
            (ground.root / name).write_bytes(bytes(self.size))

    async def children(self, ground: Ground, read_only: bool) -> dict[str, Child]:
        return {
            name: await ground.open("file", {"filename": name}, name=name, read_only=read_only)
            for name in ("test", "raw")
        }


class Pair(House):
    """A blkverify node over two moody children."""

    async def node(self, test_size: int = SIZE, raw_size: int = SIZE, read_only: bool = False) -> DriverChild:
        self.children = [
            Moody(await self.ground.open("memory", {"size": size}, name=name), name)
            for name, size in (("test", test_size), ("raw", raw_size))
        ]
        return await self.ground.open(
            "blkverify",
            {},
            {child.name: child for child in self.children},
            read_only=read_only,
            report=lambda kind, details: self.events.append((kind, details)),
        )


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    ground = Ground(tmp_path)
    yield Pair(ground)
    await ground.leave()


async def test_the_first_byte_that_differs_is_named_to_the_caller_and_to_watchers(pair: Pair):
    node = await pair.node()
    await node.write(0, b"same" * 1000)
    await pair.children[0].write(2001, b"X")
    await pair.children[0].write(3000, b"X")
    with pytest.raises(CopiesDiffer) as failure:
        await node.content(1000, 2500)
    assert failure.value.offset == 2001 and failure.value.operation == "read"
    assert failure.value.detail == "test has 0x58, raw has 0x61"
    assert pair.events == [
        (
            "blkverify-mismatch",
            {
                "type": "read",
                "offset_bytes": "1000",
                "length_bytes": "2500",
                "first_difference_bytes": "2001",
                "detail": "test has 0x58, raw has 0x61",
            },
        )
    ]
    assert await node.content(0, 2001) == b"same" * 500 + b"s"


async def test_an_inline_read_is_compared_too(pair: Pair):
    node = await pair.node()
    into = memoryview(bytearray(512))
    assert node.read_now(0, into)
    await pair.children[1].write(100, b"x")
    assert not node.read_now(0, into)
    assert not node.write_now(0, b"x")


@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("operation", ["read", "write", "zero"])
async def test_what_only_one_of_them_can_do_is_a_difference(pair: Pair, operation: str, who: int):
    node = await pair.node()
    pair.fail(who, operation)
    request = {"read": lambda: node.content(512, 512), "write": lambda: node.write(512, b"x")}
    with pytest.raises(CopiesDiffer) as failure:
        await request.get(operation, lambda: node.zero(512, 512))()
    assert failure.value.offset == 512
    assert f"{('test', 'raw')[who]} failed" in failure.value.detail and "succeeded" in failure.value.detail


async def test_what_both_fail_to_do_alike_fails_alike(pair: Pair):
    node = await pair.node()
    for at in (0, 1):
        pair.fail(at, "write", errno.ENOSPC)
    with pytest.raises(IoError):
        await node.write(0, b"x")
    pair.fail(1, "write", errno.EIO)
    with pytest.raises(CopiesDiffer):
        await node.write(0, b"x")


async def test_only_the_image_under_test_is_flushed(pair: Pair):
    node = await pair.node()
    await node.flush()
    assert [child.asked for child in pair.children] == [["flush"], []]
    pair.fail(0, "flush")
    with pytest.raises(IoError):
        await node.flush()


async def test_the_size_is_that_of_the_image_under_test_and_the_raw_copy_may_be_longer(pair: Pair):
    node = await pair.node(SIZE - 512, SIZE)
    assert node.size == SIZE - 512
    with pytest.raises(InvalidArgument) as refusal:
        await pair.node(SIZE, SIZE - 512)
    assert refusal.value.name == "raw"


async def test_both_are_resized(pair: Pair):
    node = await pair.node()
    for size in (2 * SIZE, SIZE // 2):
        await node.truncate(size)
        assert [child.size for child in pair.children] == [size, size] and node.size == size
    pair.fail(0, "truncate")
    with pytest.raises(IoError):
        await node.truncate(SIZE)
    assert pair.children[1].size >= pair.children[0].size


async def test_zeroes_are_promised_to_nobody(pair: Pair):
    node = await pair.node()
    with pytest.raises(OperationUnsupported):
        await node.driver.zero(0, 4096, NO_FALLBACK)
    assert all("zero" not in child.asked for child in pair.children)


async def test_block_status_is_that_of_the_image_under_test(pair: Pair):
    node = await pair.node()
    await node.write(64 << 10, b"x" * (64 << 10))
    first = await node.map(0, SIZE)
    assert (first.kind, first.length) == (MapKind.ZERO, 64 << 10)
    second = await node.map(64 << 10, SIZE - (64 << 10))
    assert (second.kind, second.length) == (MapKind.DATA, 64 << 10)


async def test_nobody_else_may_write_either_of_them(pair: Pair):
    driver = (await pair.node()).driver
    assert isinstance(driver, BlkverifyDriver)
    above = Permissions(CONSISTENT_READ | WRITE, ALL)
    kept = CONSISTENT_READ | WRITE_UNCHANGED
    assert driver.child_permissions("test", Role.FILTERED, above, writable=True) == Permissions(above.used, kept)
    assert driver.child_permissions("raw", Role.FILE, above, writable=True) == Permissions(
        above.used | RESIZE, kept
    )
