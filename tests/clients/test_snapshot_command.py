"""`blockyard snapshot` and `client.snapshots`, at a real node service."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.client.definitions import NO_NODE, file, qcow2
from blockyard.client.snapshots import point_in_time
from blockyard.v1.control_pb2 import PointInTime
from tests.support.command import Cli
from tests.support.node_calls import NodeHouse, node_house

MIB = 1 << 20


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[NodeHouse]:
    async with node_house(tmp_path) as running:
        await running.client.images.create("disk", 8 * MIB, format="qcow2")
        await running.client.nodes.open(qcow2(file("disk"), backing=NO_NODE, node_name="disk"))
        await running.client.data.write("disk", 0, b"first")
        yield running


@pytest.fixture
def cli(house: NodeHouse, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> Cli:
    return Cli(f"unix:{tmp_path}/node.sock", capsysbinary)


async def test_a_snapshot_is_created_listed_and_shown(cli: Cli):
    assert (await cli("snapshot", "create", "disk", "one", "-o", "json")).json["id"] == "1"
    await cli("snapshot", "create", "disk", "two")
    listed = (await cli("snapshot", "list", "disk")).out.splitlines()
    assert [line.split()[:3] for line in listed[1:]] == [["1", "one", "8"], ["2", "two", "8"]]
    assert (await cli("snapshot", "show", "disk", "two", "-o", "json")).json["id"] == "2"
    assert (await cli("snapshot", "show", "disk", "none")).code != 0


async def test_a_disk_is_reverted_and_the_snapshot_deleted(cli: Cli, house: NodeHouse):
    await cli("snapshot", "create", "disk", "one")
    await house.client.data.write("disk", 0, b"other")
    assert (await cli("snapshot", "revert", "disk", "one")).out == "disk is as it was at one\n"
    assert await house.client.data.read("disk", 0, 5) == b"first"
    assert (await cli("snapshot", "delete", "disk", "--id", "1", "-o", "json")).json["name"] == "one"
    assert (await cli("snapshot", "delete", "disk", "one")).code != 0


async def test_a_snapshot_is_opened_as_a_node(cli: Cli, house: NodeHouse):
    await cli("snapshot", "create", "disk", "one")
    await house.client.data.write("disk", 0, b"other")
    assert (await cli("snapshot", "open", "disk", "one", "--name", "old")).code == 0
    assert await house.client.data.read("old", 0, 5) == b"first"


async def test_a_state_is_saved_and_loaded_and_a_failure_leaves_the_file(cli: Cli, tmp_path: Path):
    state, copy = tmp_path / "state", tmp_path / "copy"
    state.write_bytes(os.urandom(3 * MIB + 5))
    assert (await cli("snapshot", "save-state", "disk", str(state))).out == f"{3 * MIB + 5} bytes stored\n"
    assert (await cli("snapshot", "create", "disk", "one", "--vm-state", str(state))).code == 0
    assert (await cli("snapshot", "load-state", "disk", str(copy), "--snapshot", "one")).code == 0
    assert copy.read_bytes() == state.read_bytes()
    assert (await cli("snapshot", "load-state", "disk", str(copy), "--snapshot", "none")).code != 0
    assert copy.read_bytes() == state.read_bytes()


async def test_what_changed_and_what_is_allocated_is_listed(cli: Cli, house: NodeHouse):
    await cli("snapshot", "create", "disk", "one")
    await house.client.data.write("disk", 2 * MIB, b"x" * 65536)
    await house.client.data.write_zeroes("disk", 0, 65536)
    changed = (await cli("snapshot", "changed", "disk@one", "disk")).out.splitlines()
    assert [line.split() for line in changed[1:]] == [["0x0", "0x10000", "zero"], ["0x200000", "0x10000", "data"]]
    allocated = (await cli("snapshot", "allocated", "disk@one")).out.splitlines()
    assert [line.split()[0] for line in allocated[1:]] == ["0x0"]


async def test_overlays_are_put_above_several_disks(cli: Cli, house: NodeHouse):
    await house.client.images.create("other", MIB, format="qcow2")
    await house.client.nodes.open(qcow2(file("other"), backing=NO_NODE, node_name="other"))
    out = (await cli("snapshot", "overlay", "disk=top1", "other=top2")).out
    assert "guests were held for" in out
    assert (await house.client.nodes.get("disk")).read_only
    made = (await cli("snapshot", "overlay", "disk=top3", "-o", "json")).code
    assert made != 0  # it has an overlay already
    assert (await cli("snapshot", "overlay", "disk")).code != 0


def test_a_string_names_a_node_or_a_snapshot_of_it():
    assert point_in_time("disk") == PointInTime(node_name="disk")
    assert point_in_time("disk@a@b") == PointInTime(node_name="disk", snapshot="a@b")
