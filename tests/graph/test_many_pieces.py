"""A request that falls into very many pieces, all of them known at once, leaves the loop to others in between."""

import asyncio
from pathlib import Path

from blockyard.node.graph import reading
from tests.corpus.images.tables import alternating
from tests.support.yard import yard


async def test_others_have_their_turns_while_a_read_goes_through_thousands_of_extents(tmp_path: Path):
    async with yard(tmp_path) as made:
        image = alternating()
        image.save(tmp_path / "disk")
        node = await made.open("qcow2", "top", "disk", read_only=True)
        await made.content("top")  # L2 tables are in memory now
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        pieces = node.driver.size // 512
        assert await made.content("top") == bytes(node.driver.size)
        task.cancel()
        assert turns >= pieces // reading.PIECES_AT_ONCE - 1
