"""Any limits a driver may have: the path splits, pads and bounces, and the bytes are those of a plain array.

The driver asserts its limits; the register knows what every read may show.
"""

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from blockyard.base.units import KIB
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.node import Node
from blockyard.node.graph.requests import populate
from blockyard.node.interface.flags import DetectZeroes
from tests.support.graphs import GraphGround, content
from tests.support.linear import Mix, Register, Storm

EXAMPLES = int(os.environ.get("BLOCKYARD_FUZZ_EXAMPLES", "6"))
SEEDS = range(EXAMPLES * 3)
SIZE = 128 * KIB

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(max(120, EXAMPLES * 20))]


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[GraphGround]:
    ground = GraphGround(tmp_path)
    yield ground
    assert await ground.leave() == []


def limits(numbers: random.Random) -> dict[str, Any]:
    """Options of a strict disk: powers of two where that is promised, anything elsewhere."""
    alignment = numbers.choice((1, 1, 512, 1024, 4096, 16384, 65536))
    return {
        "alignment": alignment,
        "memory_alignment": numbers.choice((1, 1, 2, 512, 4096, 65536)),
        "max_transfer": numbers.choice((0, 0, max(4096, alignment * 3), alignment + 5000, 70_000 + alignment)),
        "zero_alignment": numbers.choice((1, 512, 3 * 512, 5000, 8192, 24 * KIB, 65536)),
        "max_zeroes": numbers.choice((0, 0, 700, 20_000, 100_000)),
        "discard_alignment": numbers.choice((1, 512, 3 * 512, 7000, 24 * KIB)),
        "max_discard": numbers.choice((0, 0, 900, 30_000)),
        "can_zero": numbers.random() < 0.8,
        "inline": numbers.choice((0, 0.5, 1)),
        "seed": numbers.randrange(1000),
        "detect_zeroes": numbers.choice(list(DetectZeroes)),
    }


async def storm(user_of: GraphGround, node: Node, seed: int, below: bytes = b"") -> None:
    user = user_of.use(node)
    mix = Mix(cancel=0.1, zeroes=0.2, compressed=0.1, largest=90_000)
    await Storm(user, Register(user.size, await content(user), below), seed, mix).run(rounds=3, requests=20)
    assert not node.tracker.requests and not node.tracker.serialising


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_disk_alone_and_under_raw_and_filters(ground: GraphGround, seed: int):
    numbers = random.Random(seed)
    node = await ground.strict("disk", size=SIZE, **limits(numbers))
    if numbers.random() < 0.7:
        children = {"file": "disk", "target": "disk"}
        await ground.graph.open(NodeDefinition("mirror-top", "filter", children=children))
        node = ground.graph.get("filter")
    if numbers.random() < 0.7:
        # The window begins where the disk's alignment allows, and its end is nobody's multiple.
        options = {"offset": 65536, "size": 65000} if numbers.random() < 0.5 else {}
        node = await ground.raw("raw", node, **options)
    await storm(ground, node, seed)


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_format_on_one_disk_with_its_backing_on_another(ground: GraphGround, seed: int):
    numbers = random.Random(seed)
    base = await ground.strict("base", size=65536, **limits(numbers) | {"detect_zeroes": DetectZeroes.OFF})
    below = numbers.randbytes(65536)
    await ground.use(base, "fill").write(0, below)
    cluster = numbers.choice((512, 4096, 65536))
    top = await ground.toycow(
        await ground.strict("disk", **limits(numbers)),
        base,
        size=SIZE,
        cluster=cluster,
        alignment=numbers.choice((1, 512)),
        seed=seed,
    )
    await populate(top, 4096 * numbers.randrange(8), 4096 * numbers.randrange(1, 8))
    assert await content(ground.use(top, "look")) == below + bytes(SIZE - 65536)
    await storm(ground, top, seed, below)


@pytest.mark.parametrize("seed", SEEDS)
async def test_copy_on_read_and_preallocation_on_such_disks(ground: GraphGround, seed: int):
    numbers = random.Random(seed)
    base = await ground.strict("base", size=65536, **limits(numbers) | {"detect_zeroes": DetectZeroes.OFF})
    below = numbers.randbytes(65536)
    await ground.use(base, "fill").write(0, below)
    disk = limits(numbers) | {"detect_zeroes": DetectZeroes.OFF}
    await ground.strict("disk", **disk)
    ahead = {"prealloc_align": 65536, "prealloc_size": 100_000}
    await ground.graph.open(NodeDefinition("preallocate", "ahead", ahead, {"file": "disk"}))
    top = await ground.toycow(ground.graph.get("ahead"), base, "top", size=SIZE, seed=seed)
    cor = await ground.graph.open(NodeDefinition("copy-on-read", "cor", children={"file": top.name}))
    await storm(ground, cor, seed, below)
