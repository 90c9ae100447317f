"""What O_DIRECT asks of requests, as reads show it, and a real file without the page cache under the graph."""

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.base.errors import InvalidArgument
from blockyard.base.units import KIB
from blockyard.node.drivers.file.syscalls import SAFE_ALIGNMENT, DirectLimits, probed_limits
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.node import Node
from blockyard.node.interface.flags import FUA, NO_FALLBACK, DetectZeroes
from tests.support.graphs import GraphGround, content
from tests.support.linear import Mix, Register, Storm


@pytest.mark.parametrize("offset", [512, 4096, 65536])
@pytest.mark.parametrize("memory", [512, 2048, 4096])
def test_alignments_of_offsets_and_of_memory_are_found_apart(offset: int, memory: int):
    found = probed_limits(lambda place, length: not length % offset and not place % memory)
    assert found == DirectLimits(memory=memory, offset=offset)


def test_an_answer_that_says_nothing_gives_the_safe_value():
    assert probed_limits(lambda place, length: True) == DirectLimits(SAFE_ALIGNMENT, SAFE_ALIGNMENT)


def test_what_takes_nothing_gets_the_largest():
    assert probed_limits(lambda place, length: False) == DirectLimits(65536, 65536)


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[GraphGround]:
    ground = GraphGround(tmp_path)
    yield ground
    assert await ground.leave() == []


async def direct(ground: GraphGround, size: int, mode: DetectZeroes = DetectZeroes.OFF) -> Node:
    options = ground.file("direct.img", size).options
    try:
        definition = NodeDefinition("file", "direct", options, direct=True, detect_zeroes=mode)
        return await ground.graph.open(definition)
    except InvalidArgument as refusal:
        pytest.skip(f"this file system has no O_DIRECT: {refusal}")


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [256 * KIB, 100_000])
async def test_a_storm_on_a_real_file_shows_the_bytes_of_a_plain_one(ground: GraphGround, seed: int, size: int):
    node = await direct(ground, size, random.Random(seed).choice(list(DetectZeroes)))
    user = ground.use(await ground.raw("top", node))
    mix = Mix(zeroes=0.2, discard=0, largest=60_000)
    await Storm(user, Register(size, bytes(size)), seed, mix).run(rounds=2)
    assert user.size == size == (ground.root / "direct.img").stat().st_size


@pytest.mark.parametrize("offset", [0, 99_990])
@pytest.mark.parametrize("flags", [0, FUA])
async def test_a_write_up_to_an_odd_end_does_not_move_it(ground: GraphGround, offset: int, flags: int):
    node = await direct(ground, 100_000)
    user = ground.use(node)
    data = os.urandom(100_000 - offset)
    await user.write(offset, data, flags)
    assert user.size == 100_000 == (ground.root / "direct.img").stat().st_size
    assert await content(user) == bytes(offset) + data
    await user.flush()
    assert (ground.root / "direct.img").read_bytes() == bytes(offset) + data


async def test_a_format_on_it_grows_it_by_what_it_wrote(ground: GraphGround):
    node = await direct(ground, 0)
    top = await ground.toycow(node, size=64 * KIB, cluster=4096)
    user = ground.use(top)
    await user.write(5, b"x" * 20_000)
    assert (await content(user))[5:20_005] == b"x" * 20_000


async def test_zeroes_of_any_range_are_made_or_written(ground: GraphGround):
    user = ground.use(await direct(ground, 64 * KIB))
    await user.write(0, b"x" * 64 * KIB)
    await user.zero(1000, 40_000)
    await user.zero(48 * KIB, 4096, NO_FALLBACK)
    expected = b"x" * 1000 + bytes(40_000) + b"x" * (48 * KIB - 41_000) + bytes(4096) + b"x" * 12 * KIB
    assert await content(user) == expected
