"""`blockyard catalogue` against a real node service that lost an image between two lives."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.client.definitions import file, memory, raw
from tests.support.command import Cli
from tests.support.node_calls import NodeHouse, node_house

MIB = 1 << 20


@pytest.fixture
async def second_life(tmp_path: Path) -> AsyncIterator[NodeHouse]:
    """Node `lost` misses its file, `above` misses `lost`, `good` is there."""
    options = {"state_directory": str(tmp_path / "state")}
    async with node_house(tmp_path, **options) as house:
        house.raw_file("lost.raw", MIB)
        await house.client.nodes.open(raw(file("lost.raw"), node_name="lost"))
        await house.client.nodes.open(raw("lost", node_name="above"))
        await house.client.nodes.open(memory(MIB, node_name="good"))
    (tmp_path / "images" / "lost.raw").rename(tmp_path / "images" / "away.raw")
    async with node_house(tmp_path, **options) as house:
        yield house


@pytest.fixture
def cli(second_life: NodeHouse, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> Cli:
    return Cli(f"unix:{tmp_path}/node.sock", capsysbinary)


async def test_the_list_says_what_is_not_there_and_why(cli: Cli):
    ran = await cli("catalogue", "list")
    lines = ran.out.splitlines()
    assert (ran.code, lines[0].split()) == (0, ["KIND", "NAME", "STATE"])
    assert lines[1].split(maxsplit=2) == ["node", "lost", "failed: no file 'lost.raw'"]
    assert "needs node 'lost'" in lines[2]
    assert lines[3].split() == ["node", "good", "there"]
    failed = await cli("catalogue", "list", "--failed", "--output", "jsonl")
    assert [(line["name"], line["reason"]) for line in failed.lines] == [
        ("lost", "FILE_NOT_FOUND"),
        ("above", "DEPENDENCY_NOT_RESTORED"),
    ]


async def test_restoring_says_what_is_in_the_way_or_what_is_there(cli: Cli, second_life: NodeHouse):
    refused = await cli("catalogue", "restore", "node", "above")
    assert refused.code == 4
    assert "blockyard catalogue restore node lost" in refused.err
    (second_life.folder / "away.raw").rename(second_life.folder / "lost.raw")
    ran = await cli("catalogue", "restore", "node", "above")
    assert ran.code == 0
    assert "there" in ran.out
    assert {"lost", "above"} <= set(second_life.graph.nodes)


async def test_what_is_forgotten_is_no_longer_listed(cli: Cli):
    ran = await cli("catalogue", "forget", "node", "lost")
    assert (ran.code, ran.out) == (0, "forgot node lost\n")
    assert [line["name"] for line in (await cli("catalogue", "list", "-f", "-o", "jsonl")).lines] == ["above"]
    assert (await cli("catalogue", "forget", "node", "lost")).code == 3
    assert (await cli("catalogue", "forget", "node", "good")).code == 4


async def test_a_service_without_a_catalogue_says_so(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]):
    async with node_house(tmp_path):
        ran = await Cli(f"unix:{tmp_path}/node.sock", capsysbinary)("catalogue", "list")
    assert ran.code == 4
    assert "--state-directory" in ran.err
