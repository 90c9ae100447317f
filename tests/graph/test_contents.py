"""Whether two nodes show the same: as qemu-img compare says, and without reading what need not be read."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from blockyard.base.errors import InvalidArgument, RangeOutside
from blockyard.base.units import KIB, MIB
from blockyard.node.graph.contents import Comparison, compare
from blockyard.node.interface.operations import untold
from tests.support import peers
from tests.support.qcow2_images import qemu_create, qemu_write
from tests.support.yard import Yard, random_bytes, yard

TIB = 1 << 40


async def compared(place: Yard, first: str, second: str, **options: Any) -> Comparison:
    """Two image files by their names: *.raw or *.qcow2."""
    for name in (first, second):
        if name not in place.graph.nodes:
            await place.open(name.rpartition(".")[2], name, name, read_only=True)
    return await compare(place.graph.get(first), place.graph.get(second), untold, **options)


def qemu_says(place: Yard, first: str, second: str, *options: str) -> tuple[bool, int]:
    """Identical, and where they differ (-1: it does not say)."""
    told = peers.run(
        "qemu-img", "compare", "-U", *options, "-f", first.rpartition(".")[2], "-F", second.rpartition(".")[2],
        place.folder / first, place.folder / second, check=False,
    )  # fmt: skip
    assert told.returncode in (0, 1), told.stderr
    at = re.search(r"[Oo]ffset (\d+)", told.stdout)
    return told.returncode == 0, int(at[1]) if at else -1


async def test_equal_content_in_other_formats_is_identical_but_not_strictly(tmp_path: Path):
    async with yard(tmp_path) as place:
        place.raw_file("a.raw", random_bytes(1, 4096) * 256 + bytes(MIB))
        peers.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", tmp_path / "a.raw", tmp_path / "b.qcow2")
        assert (await compared(place, "a.raw", "b.qcow2")).difference == ""
        strict = await compared(place, "a.raw", "b.qcow2", strict=True)
        assert (strict.difference, strict.offset) == ("allocation", 0)
        assert qemu_says(place, "a.raw", "b.qcow2") == (True, -1)
        assert qemu_says(place, "a.raw", "b.qcow2", "-s") == (False, 0)


@pytest.mark.peer("qemu-img")
@pytest.mark.parametrize("seed", range(6))
async def test_the_first_difference_is_where_qemu_finds_it(seed: int, tmp_path: Path):
    numbers = random.Random(seed)
    async with yard(tmp_path) as place:
        base = bytearray(numbers.randbytes(MIB) + bytes(MIB) + numbers.randbytes(MIB))
        place.raw_file("a.raw", bytes(base))
        at = numbers.randrange(len(base))
        base[at] ^= 0xFF
        place.raw_file("changed.raw", bytes(base))
        peers.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", tmp_path / "changed.raw", tmp_path / "b.qcow2")
        found = await compared(place, "a.raw", "b.qcow2")
        assert (found.difference, found.offset) == ("content", at)
        same, theirs = qemu_says(place, "a.raw", "b.qcow2")
        # QEMU tells the sector, or the extent that it found not to be empty.
        assert not same and theirs <= at


@pytest.mark.peer("qemu-img")
@pytest.mark.parametrize(("rest", "identical"), [(bytes(MIB), True), (bytes(MIB - 512) + b"\1" * 512, False)])
async def test_what_the_longer_has_more_must_be_zeroes(rest: bytes, identical: bool, tmp_path: Path):
    async with yard(tmp_path) as place:
        content = random_bytes(1, MIB)
        place.raw_file("a.raw", content)
        place.raw_file("b.raw", content + rest)
        for pair in (("a.raw", "b.raw"), ("b.raw", "a.raw")):
            found = await compared(place, *pair)
            assert (found.difference == "") is identical
            assert found.offset == (-1 if identical else 2 * MIB - 512)
            assert qemu_says(place, *pair)[0] is identical
            assert (await compared(place, *pair, strict=True)).difference == "size"
            assert not qemu_says(place, *pair, "-s")[0]


@pytest.mark.peer("qemu-img")
async def test_strictly_a_zero_is_not_a_hole(tmp_path: Path):
    async with yard(tmp_path) as place:
        for name in ("a", "b", "c"):
            qemu_create(tmp_path / f"{name}.qcow2", MIB)
        qemu_write(tmp_path / "b.qcow2", "write -z 128k 64k")
        for second, identical in (("b.qcow2", False), ("c.qcow2", True)):
            assert (await compared(place, "a.qcow2", second)).difference == ""
            strict = await compared(place, "a.qcow2", second, strict=True)
            assert (strict.difference == "") is identical
            assert qemu_says(place, "a.qcow2", second, "-s")[0] is identical
        assert (await compared(place, "a.qcow2", "b.qcow2", strict=True)).offset == 128 * KIB


async def test_a_terabyte_of_nothing_is_compared_at_once(tmp_path: Path):
    async with yard(tmp_path) as place:
        await place.create_qcow2("a.qcow2", TIB)
        (tmp_path / "b.raw").touch()
        with (tmp_path / "b.raw").open("wb") as file:
            file.truncate(TIB)
        found = await compared(place, "a.qcow2", "b.raw")
        assert (found.difference, found.compared) == ("", 0)


async def test_layers_that_two_chains_share_are_not_read(tmp_path: Path):
    async with yard(tmp_path) as place:
        place.raw_file("base.raw", random_bytes(1, 4 * MIB))
        base = await place.open("raw", "base", "base.raw", read_only=True)
        for name in ("a", "b"):
            await place.create_qcow2(f"{name}.qcow2", 4 * MIB)
            await place.open("qcow2", name, f"{name}.qcow2", backing="base")
        user = place.use("a")
        await user.write(MIB, b"z" * 65_536)
        place.graph.release(user)
        found = await compare(place.graph.get("a"), place.graph.get("b"), untold)
        assert (found.difference, found.offset) == ("content", MIB)
        assert found.compared == 65_536
        alike = await compare(place.graph.get("a"), place.graph.get("b"), untold, offset=2 * MIB)
        assert (alike.difference, alike.compared) == ("", 0)
        assert base.driver.size == 4 * MIB


async def test_a_range_outside_is_refused(tmp_path: Path):
    async with yard(tmp_path) as place:
        place.raw_file("a.raw", MIB)
        with pytest.raises(RangeOutside):
            await compared(place, "a.raw", "a.raw", offset=MIB, length=1)
        with pytest.raises(InvalidArgument):
            await compared(place, "a.raw", "a.raw", offset=-1)


@pytest.mark.peer("qemu-img")
@pytest.mark.parametrize("options", ([], ["-o", "cluster_size=4k"], ["-o", "compat=0.10"], ["-c"]))
async def test_what_is_where_is_mapped_as_qemu_maps_it(options: list[str], tmp_path: Path):
    """`qemu-img map` in both directions: the same runs of data and zeroes."""
    async with yard(tmp_path) as place:
        numbers = random.Random(7)
        content = b"".join(numbers.choice((bytes(65_536), numbers.randbytes(65_536))) for _ in range(64))
        place.raw_file("a.raw", content)
        peers.run(
            "qemu-img", "convert", "-O", "qcow2", *options, "-f", "raw", tmp_path / "a.raw", tmp_path / "b.qcow2"
        )
        node = await place.open("qcow2", "b", "b.qcow2")
        user = place.use(node.name, writable=False)
        mine = [(each.offset, each.length, each.zero) for each in await user.block_status(0, len(content))]
        place.graph.release(user)
        told = peers.run("qemu-img", "map", "-U", "--output=json", "-f", "qcow2", tmp_path / "b.qcow2").stdout
        assert merged(mine) == merged([(each["start"], each["length"], each["zero"]) for each in json.loads(told)])


def merged(runs: list[tuple[int, int, bool]]) -> list[tuple[int, int, bool]]:
    result: list[tuple[int, int, bool]] = []
    for offset, length, zero in runs:
        if result and result[-1][2] == zero:
            result[-1] = (result[-1][0], result[-1][1] + length, zero)
        else:
            result.append((offset, length, zero))
    return result
