"""A sampled request shows a span in every layer it passes; others show and cost nothing."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.base.units import MIB
from blockyard.node.interface import tracing
from tests.support.spans import Spans
from tests.support.yard import Yard, yard


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Yard]:
    async with yard(tmp_path) as made:
        await made.create_qcow2("a.qcow2", MIB)
        await made.open("qcow2", "a", "a.qcow2")
        yield made


async def test_a_sampled_read_shows_the_format_and_the_file_below(ground: Yard) -> None:
    user = ground.use("a")
    await user.write(0, b"x" * 4096)
    spans = Spans()
    token = tracing.active.set(spans)
    try:
        assert not user.read_now(0, memoryview(bytearray(4096)))
        await user.read(0, memoryview(bytearray(4096)))
    finally:
        tracing.active.reset(token)
    assert spans.seen == ["blk.read qcow2", "  blk.read file"]
    assert user.read_now(0, memoryview(bytearray(4096)))
    ground.graph.release(user)


async def test_a_sampled_write_shows_the_format_and_the_file_below(ground: Yard) -> None:
    user = ground.use("a")
    await user.write(0, b"x" * 4096)
    spans = Spans()
    token = tracing.active.set(spans)
    try:
        await user.write(0, b"y" * 4096)
    finally:
        tracing.active.reset(token)
    assert spans.seen == ["blk.write qcow2", "  blk.write file"]
    ground.graph.release(user)
