"""`blockyard node watch`, `drain` and `undrain` against a real node service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from blockyard.base.errors import InvalidArgument, ResourceNotFound
from blockyard.cli.exits import Exit
from blockyard.client.definitions import memory
from tests.support.command import Cli
from tests.support.node_calls import NodeHouse, node_house

MIB = 1 << 20


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[NodeHouse]:
    async with node_house(tmp_path) as made:
        await made.client.nodes.open(memory(MIB, node_name="disk"))
        yield made


@pytest.fixture
def cli(house: NodeHouse, capsysbinary: pytest.CaptureFixture[bytes]) -> Cli:
    return Cli(f"unix:{house.folder.parent}/node.sock", capsysbinary)


class Watching:
    """A watch that runs, and what it has printed."""

    def __init__(self, cli: Cli, captured: pytest.CaptureFixture[bytes], *tokens: str) -> None:
        self._captured = captured
        self._task = asyncio.create_task(cli("node", "watch", *tokens))
        self.printed = ""

    async def until(self, text: str) -> None:
        while text not in self.printed:
            assert not self._task.done()
            await asyncio.sleep(0.001)
            self.printed += self._captured.readouterr().out.decode()

    async def end(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


async def test_changes_of_nodes_and_attachments_and_events_are_lines(
    cli: Cli, house: NodeHouse, capsysbinary: pytest.CaptureFixture[bytes]
):
    client = house.client
    watching = Watching(cli, capsysbinary)
    await watching.until("initial node disk: memory, 1 MiB, rw\n")
    await client.attachments.create("cd", "disk", removable=True)
    await watching.until("added attachment cd: node disk, tray closed, ok\n")
    await watching.until("modified node disk: memory, 1 MiB, rw, used by attachment cd\n")
    await client.attachments.open_tray("cd")
    await watching.until("event tray-moved of node disk: attachment=cd, tray_open=true\n")
    await client.attachments.remove("cd")
    await watching.until("modified attachment cd: node none, tray open, ok\n")
    await client.nodes.close("disk")
    await watching.until("removed node disk: ")
    await watching.end()


async def test_a_watch_of_one_node_is_json_lines_and_goes_on_after_a_revision(
    cli: Cli, house: NodeHouse, capsysbinary: pytest.CaptureFixture[bytes]
):
    client = house.client
    since = (await client.nodes.graph()).revision
    await client.nodes.open(memory(MIB, node_name="other"))
    await client.nodes.open(memory(MIB, node_name="second"))
    watching = Watching(cli, capsysbinary, "second", "--since", str(since), "--output", "jsonl")
    await watching.until('"CHANGE_TYPE_ADDED"')
    await watching.end()
    assert "INITIAL" not in watching.printed and '"other"' not in watching.printed


async def test_a_drain_holds_requests_until_it_is_let_go(cli: Cli, house: NodeHouse):
    drain_id = (await cli("node", "drain", "disk", "--lease", "60s")).out.strip()
    assert (await house.client.nodes.get("disk")).quiesce_counter == 1
    write = asyncio.create_task(house.client.data.write("disk", 0, b"x"))
    assert (await cli("node", "undrain", drain_id)).out == "requests go on\n"
    assert await write == 1
    assert (await cli("node", "undrain", "nothing")).code == Exit.NOT_FOUND


async def test_a_drain_by_the_client_has_its_bounds_and_names_what_is_not_there(house: NodeHouse):
    with pytest.raises(InvalidArgument):
        await house.client.nodes.drain("disk", lease=61)
    with pytest.raises(ResourceNotFound):
        await house.client.nodes.undrain("nothing")
    assert await house.client.nodes.undrain(await house.client.nodes.drain("disk"))
