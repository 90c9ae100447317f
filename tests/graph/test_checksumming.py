"""The checksum of a content: the same in every format, of a snapshot too; and the scrub that finds what changed."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from blockyard.base.errors import (
    FileExists,
    FormatMismatch,
    ImageCorrupt,
    InvalidArgument,
    OperationUnsupported,
    PermissionConflict,
    ResourceNotFound,
)
from blockyard.base.units import KIB, MIB
from blockyard.node.formats import checksums
from blockyard.node.graph import internal_snapshots
from blockyard.node.graph.checksumming import Checksum, checksum, scrub
from blockyard.node.interface.internal_snapshots import SnapshotWish
from blockyard.node.interface.operations import untold
from tests.formats.test_checksums import plainly
from tests.support import peers
from tests.support.yard import Yard, random_bytes, yard

TIB = 1 << 40


def content(seed: int, size: int = 4 * MIB + 512) -> bytes:
    """Data and zeroes by turns, with an end inside a chunk."""
    numbers = random.Random(seed)
    parts = [numbers.choice((bytes(70_000), numbers.randbytes(70_000))) for _ in range(size // 70_000 + 1)]
    return b"".join(parts)[:size]


def expected(data: bytes, chunk: int) -> bytes:
    """By the definition."""
    hashes = [checksums.hash_chunk(data[at : at + chunk].ljust(chunk, b"\0")) for at in range(0, len(data), chunk)]
    return checksums.root_hash(len(data), chunk, plainly(hashes))


async def of(place: Yard, name: str, **options: Any) -> Checksum:
    return await checksum(place.graph, place.graph.get(name), untold, **options)


@pytest.mark.parametrize("chunk", (4 * KIB, 64 * KIB, 1 * MIB, 8 * MIB))
async def test_it_is_what_its_definition_says(chunk: int, tmp_path: Path):
    async with yard(tmp_path) as place:
        data = content(1)
        place.raw_file("a.raw", data)
        await place.open("raw", "a", "a.raw", read_only=True)
        found = await of(place, "a", chunk=chunk)
        assert found.root == expected(data, chunk)
        assert (found.shape.size, found.file_bytes) == (len(data), 0)


@pytest.mark.peer("qemu-img")
@pytest.mark.parametrize("options", ([], ["-c"], ["-o", "cluster_size=4k"], ["-o", "cluster_size=2M"]))
async def test_equal_content_in_other_formats_has_an_equal_checksum(options: list[str], tmp_path: Path):
    async with yard(tmp_path) as place:
        data = content(2)
        place.raw_file("a.raw", data)
        convert = ("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options)
        peers.run(*convert, tmp_path / "a.raw", tmp_path / "b.qcow2")
        await place.open("qcow2", "b", "b.qcow2", read_only=True)
        assert (await of(place, "b")).root == expected(data, 64 * KIB)


async def test_what_is_not_allocated_costs_nothing(tmp_path: Path):
    async with yard(tmp_path) as place:
        await place.create_qcow2("a.qcow2", TIB)
        await place.open("qcow2", "a", "a.qcow2")
        user = place.use("a")
        await user.write(512 << 30, b"x" * 65_536)
        place.graph.release(user)
        found = await of(place, "a", filename="a.sums")
        assert (found.hashed_bytes, found.zero_chunks) == (65_536, TIB // 65_536 - 1)
        assert (tmp_path / "a.sums").stat().st_size == found.file_bytes < 300
        assert (await scrub(place.graph, place.graph.get("a"), "a.sums", untold)).damaged == 0


async def test_zeroes_that_are_stored_count_as_those_that_are_not(tmp_path: Path):
    async with yard(tmp_path) as place:
        place.raw_file("a.raw", b"\0" * MIB)
        place.raw_file("b.raw", MIB)
        roots = set()
        for name in ("a", "b"):
            await place.open("raw", name, f"{name}.raw", read_only=True)
            roots.add((await of(place, name, filename=f"{name}.sums")).root)
        assert len(roots) == 1
        assert (tmp_path / "a.sums").read_bytes() == (tmp_path / "b.sums").read_bytes()


async def test_a_snapshot_is_summed_up_beside_a_guest_that_writes(tmp_path: Path):
    async with yard(tmp_path) as place:
        await place.create_qcow2("a.qcow2", 4 * MIB)
        node = await place.open("qcow2", "a", "a.qcow2")
        user = place.use("a")
        data = content(3, 4 * MIB)
        await user.write(0, data)
        await internal_snapshots.create(place.graph, node, SnapshotWish("one", 0))
        await user.write(MIB, b"y" * MIB)
        found = await of(place, "a", snapshot="one", filename="one.sums")
        assert found.root == expected(data, 64 * KIB)
        await user.write(2 * MIB, b"z" * MIB)
        assert not (await scrub(place.graph, node, "one.sums", untold, snapshot="one")).damages
        place.graph.release(user)
        damaged = await scrub(place.graph, node, "one.sums", untold)
        assert [(each.offset, each.length) for each in damaged.damages] == [(MIB, 2 * MIB)]
        with pytest.raises(ResourceNotFound):
            await of(place, "a", snapshot="two")


async def test_nobody_may_write_meanwhile(tmp_path: Path):
    async with yard(tmp_path) as place:
        place.raw_file("a.raw", content(1))
        await place.open("raw", "a", "a.raw")
        user = place.use("a")
        summing = asyncio.ensure_future(of(place, "a"))
        with pytest.raises(PermissionConflict):
            await summing
        place.graph.release(user)
        assert (await of(place, "a")).root


async def test_the_scrub_finds_each_chunk_that_changed_and_says_who_holds_it(tmp_path: Path):
    async with yard(tmp_path) as place:
        data = content(4)
        path = place.raw_file("a.raw", data)
        await place.open("raw", "a", "a.raw", read_only=True)
        summed = await of(place, "a", filename="a.sums")
        places = (0, 200_000, 200_100, len(data) - 1)
        with path.open("r+b") as file:
            for at in places:
                file.seek(at)
                file.write(bytes([data[at] ^ 1]))
        found = await scrub(place.graph, place.graph.get("a"), "a.sums", untold)
        chunks = sorted({at // 65_536 for at in places})
        assert [(each.offset // 65_536, each.kind, each.layer) for each in found.damages] == [
            (number, "changed", "a") for number in chunks
        ]
        assert found.damages[-1].length == len(data) % 65_536
        assert found.damages[1].host_offset == found.damages[1].offset
        assert (found.expected, found.checked) == (summed.root, len(data))
        assert found.found not in (b"", summed.root)


async def test_what_cannot_be_read_is_told_and_the_rest_is_judged(tmp_path: Path):
    """A compressed cluster whose stream is broken."""
    async with yard(tmp_path) as place:
        data = random_bytes(1, 4096) * 256
        place.raw_file("a.raw", data)
        convert = ("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c")
        peers.run(*convert, tmp_path / "a.raw", tmp_path / "b.qcow2")
        node = await place.open("qcow2", "b", "b.qcow2", read_only=True)
        await of(place, "b", filename="b.sums")
        await place.graph.close("b")
        image = bytearray((tmp_path / "b.qcow2").read_bytes())
        l1 = int.from_bytes(image[40:48], "big")
        l2 = int.from_bytes(image[l1 : l1 + 8], "big") & 0x00FFFFFFFFFFFE00
        entry = int.from_bytes(image[l2 + 5 * 8 : l2 + 6 * 8], "big")
        at = entry & ((1 << 54) - 1)
        image[at : at + 1000] = b"\xff" * 1000
        (tmp_path / "b.qcow2").write_bytes(image)
        node = await place.open("qcow2", "b", "b.qcow2", read_only=True)
        found = await scrub(place.graph, node, "b.sums", untold)
        assert [(each.offset, each.length, each.kind) for each in found.damages] == [
            (5 * 65_536, 65_536, "unreadable")
        ]
        assert "compressed cluster" in found.damages[0].why
        assert found.found == b""


async def test_files_that_are_no_hashes_of_this_disk_are_refused(tmp_path: Path):
    async with yard(tmp_path) as place:
        place.raw_file("a.raw", content(1))
        place.raw_file("b.raw", content(1, MIB))
        for name in ("a", "b"):
            await place.open("raw", name, f"{name}.raw", read_only=True)
        await of(place, "a", filename="a.sums")
        with pytest.raises(InvalidArgument) as other:
            await scrub(place.graph, place.graph.get("b"), "a.sums", untold)
        assert other.value.name == "filename"
        with pytest.raises(FormatMismatch):
            await scrub(place.graph, place.graph.get("a"), "b.raw", untold)
        broken = bytearray((tmp_path / "a.sums").read_bytes())
        broken[100] ^= 1
        (tmp_path / "a.sums").write_bytes(broken)
        with pytest.raises(ImageCorrupt):
            await scrub(place.graph, place.graph.get("a"), "a.sums", untold)


async def test_what_cannot_be_asked_leaves_no_file(tmp_path: Path):
    async with yard(tmp_path) as place:
        place.raw_file("a.raw", content(1))
        await place.open("raw", "a", "a.raw", read_only=True)
        for chunk in (1, 4095, 2048, 32 * MIB, -4096):
            with pytest.raises(InvalidArgument):
                await of(place, "a", chunk=chunk, filename="a.sums")
        with pytest.raises(OperationUnsupported):
            await of(place, "a", snapshot="one", filename="a.sums")
        with pytest.raises(FileExists):
            await of(place, "a", filename="a.raw")
        task = asyncio.ensure_future(of(place, "a", filename="a.sums"))
        for _ in range(12):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.raw"]
        assert place.graph.get("a").holders() == []
