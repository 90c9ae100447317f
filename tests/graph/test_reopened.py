"""A node whose driver was opened again: what changes around it afterwards must reach the new driver."""

from pathlib import Path

from blockyard.base.units import KIB, MIB
from blockyard.node.graph import modes, surgery
from tests.support.yard import random_bytes, yard


async def test_a_reopened_overlay_fills_around_small_writes_from_the_backing_it_got_later(tmp_path: Path) -> None:
    async with yard(tmp_path) as ground:
        base_bytes = random_bytes(1, MIB)
        ground.raw_file("base.raw", base_bytes)
        await ground.open("raw", "base", "base.raw")
        await ground.create_qcow2("top.qcow2", MIB)
        top = await ground.open("qcow2", "top", "top.qcow2", read_only=True)
        await modes.set_writable(ground.graph, top, True)
        await surgery.insert_overlay(ground.graph, ground.graph.get("base"), top)
        user = ground.use("top")
        await user.write(100 * KIB, b"new")
        ground.graph.release(user)
        expected = bytearray(base_bytes)
        expected[100 * KIB : 100 * KIB + 3] = b"new"
        assert await ground.content("top") == bytes(expected)
