"""`blockyard attachment` and `client.attachments` against a real node service."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.cli.exits import Exit
from blockyard.client.definitions import memory
from tests.support.command import Cli
from tests.support.node_calls import NodeHouse, node_house

MIB = 1 << 20


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[NodeHouse]:
    async with node_house(tmp_path) as made:
        await made.client.nodes.open(memory(MIB, node_name="disk"))
        await made.client.nodes.open(memory(MIB, node_name="other"))
        yield made


@pytest.fixture
def cli(house: NodeHouse, capsysbinary: pytest.CaptureFixture[bytes]) -> Cli:
    return Cli(f"unix:{house.folder.parent}/node.sock", capsysbinary)


async def test_an_attachment_is_made_shown_changed_and_deleted(cli: Cli):
    ran = await cli(
        "attachment", "create", "vda", "disk", "--writable", "--on-write-error", "stop", "--write-cache", "off",
        "--logical-block-size", "4K", "--label", "vm=one",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    for line in (
        "node            disk",
        "mode            read-write",
        "medium          fixed",
        "state           ok",
        "block size      4096 logical, 4096 physical",
        "write cache     off",
        "on read error   report",
        "on write error  stop",
        "labels          vm=one",
    ):
        assert line in ran.out.splitlines()
    assert (await cli("attachment", "list")).out == (
        "ATTACHMENT  NODE  MODE  MEDIUM  STATE  USED BY\nvda         disk  rw    fixed   ok     -\n"
    )
    changed = (await cli("attachment", "update", "vda", "--write-cache", "on", "-o", "json")).json
    assert changed["write_cache"] is True and changed["on_write_error"] == "ON_ERROR_STOP"
    assert (await cli("attachment", "show", "vda", "-o", "json")).json == changed
    assert (await cli("attachment", "reset", "vda")).code == 0
    assert (await cli("attachment", "delete", "vda")).out == "deleted attachment vda\n"
    assert (await cli("attachment", "show", "vda")).code == Exit.NOT_FOUND


async def test_a_drive_is_moved_by_commands(cli: Cli):
    assert (await cli("attachment", "create", "cd", "--removable")).code == 0
    ran = await cli("attachment", "insert", "cd", "disk")
    assert ran.code == Exit.PRECONDITION and "tray closed, no medium" in ran.err
    assert "tray open" in (await cli("attachment", "open-tray", "cd")).out
    assert "disk" in (await cli("attachment", "insert", "cd", "disk")).out
    assert "tray closed" in (await cli("attachment", "close-tray", "cd")).out
    assert "tray closed, locked" in (await cli("attachment", "lock", "cd")).out
    ran = await cli("attachment", "open-tray", "cd")
    assert ran.code == Exit.PRECONDITION and "is locked by its guest" in ran.err
    assert "locked, eject requested" in (await cli("attachment", "list")).out
    assert "other" in (await cli("attachment", "change", "cd", "other", "--force")).out
    await cli("attachment", "lock", "cd")
    assert "locked" not in (await cli("attachment", "unlock", "cd")).out
    await cli("attachment", "open-tray", "cd")
    assert "other" not in (await cli("attachment", "remove", "cd")).out


async def test_an_export_serves_an_attachment(cli: Cli, house: NodeHouse):
    await cli("attachment", "create", "vda", "disk", "--writable")
    listen = f"unix:{house.folder.parent}/nbd.sock"
    ran = await cli("export", "add", "--attachment", "vda", "--writable", "--listen", listen)
    assert "attachment  vda" in ran.out and "export      vda" in ran.out
    assert "export/vda" in (await cli("attachment", "list")).out
    ran = await cli("attachment", "delete", "vda")
    assert ran.code == Exit.PRECONDITION and "export/vda uses it" in ran.err


@pytest.mark.parametrize(
    ("tokens", "code"),
    [
        (("create", "vda"), Exit.USAGE),
        (("create", "vda", "disk", "--label", "novalue"), Exit.USAGE),
        (("create", "vda", "disk", "--logical-block-size", "1000"), Exit.USAGE),
        (("create", "vda", "nobody"), Exit.NOT_FOUND),
        (("update", "nobody", "--write-cache", "on"), Exit.NOT_FOUND),
        (("delete", "nobody"), Exit.NOT_FOUND),
        (("reset", "nobody"), Exit.NOT_FOUND),
    ],
)
async def test_what_is_wrong_has_its_exit_code(cli: Cli, tokens: tuple[str, ...], code: Exit):
    assert (await cli("attachment", *tokens)).code == code


async def test_an_update_of_nothing_shows_it(house: NodeHouse):
    made = await house.client.attachments.create("vda", "disk")
    assert await house.client.attachments.update("vda") == made
