"""Grounds of the copy sessions' tests."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.gated import Gates
from tests.support.yard import Yard, yard


@pytest.fixture
def gates() -> Iterator[Gates]:
    made = Gates()
    with made.registered():
        yield made


@pytest.fixture
async def ground(tmp_path: Path, gates: Gates) -> AsyncIterator[Yard]:
    async with yard(tmp_path) as made:
        yield made
