"""`blockyard image amend, rebase, compare` against a real node service: on open nodes and on image files."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.cli.exits import Exit
from blockyard.client.definitions import file, qcow2
from tests.support.command import Cli
from tests.support.node_calls import NodeHouse, node_house

MIB = 1 << 20


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[NodeHouse]:
    async with node_house(tmp_path) as made:
        await made.client.images.create("a.qcow2", 2 * MIB, format="qcow2")
        made.raw_file("old.raw", b"o" * MIB)
        made.raw_file("new.raw", b"o" * (MIB // 2) + b"n" * (MIB // 2))
        await made.client.images.create("top.qcow2", format="qcow2", backing_file="old.raw", backing_format="raw")
        yield made


@pytest.fixture
def cli(house: NodeHouse, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> Cli:
    return Cli(f"unix:{tmp_path}/node.sock", capsysbinary)


async def test_an_image_file_is_amended_and_closed_again(cli: Cli, house: NodeHouse):
    ran = await cli("image", "amend", "a.qcow2", "--format", "qcow2", "--set", "compat=0.10")
    assert (ran.code, ran.out) == (0, "amended a.qcow2\n")
    (info,) = await house.client.images.info("a.qcow2")
    assert info.format_specific["compat"].string_value == "0.10"
    assert house.graph.nodes == {}


async def test_an_open_node_is_amended_after_a_look(cli: Cli, house: NodeHouse):
    await house.client.nodes.open(qcow2(file("a.qcow2"), node_name="a"))
    ran = await cli("image", "amend", "a", "--set", "refcount_bits=3", "--dry-run")
    assert ran.code == Exit.USAGE and "a power of two from 1 to 64" in ran.err
    ran = await cli("image", "amend", "a", "--set", "refcount_bits=8", "--set", "lazy_refcounts=true", "-o", "json")
    assert ran.json["format_specific"]["refcount-bits"] == {"int_value": "8"}


async def test_an_image_file_is_rebased_onto_another_file(cli: Cli, house: NodeHouse):
    ran = await cli("image", "rebase", "top.qcow2", "new.raw", "--format", "qcow2", "--backing-format", "raw")
    assert (ran.code, ran.out) == (0, "rebased top.qcow2; 512 KiB copied\n")
    assert house.graph.nodes == {}
    (info,) = await house.client.images.info("top.qcow2")
    assert info.backing_file == "new.raw"
    ran = await cli("image", "rebase", "top.qcow2", "--format", "qcow2")
    assert (ran.code, ran.out) == (0, "rebased top.qcow2; 512 KiB copied\n")
    assert (
        await cli("image", "compare", "top.qcow2", "old.raw", "--format", "qcow2", "--second-format", "raw")
    ).code == 0


async def test_a_backing_file_that_was_moved_is_named_without_copying(cli: Cli, house: NodeHouse):
    (house.folder / "old.raw").rename(house.folder / "moved.raw")
    words = ("image", "rebase", "top.qcow2", "moved.raw", "--format", "qcow2", "--backing-format", "raw")
    assert (await cli(*words)).code != 0
    assert (await cli(*words, "--unsafe")).code == 0
    (info,) = await house.client.images.info("top.qcow2")
    assert info.backing_file == "moved.raw"


async def test_a_comparison_ends_with_what_it_found(cli: Cli):
    ran = await cli("image", "compare", "old.raw", "new.raw", "--format", "raw")
    assert ran.code == Exit.FAILED
    assert "they differ in  content" in ran.out and f"{MIB // 2:#x} ({MIB // 2})" in ran.out
    ran = await cli("image", "compare", "old.raw", "new.raw", "--format", "raw", "--length", "512K")
    assert ran.code == 0 and "identical   yes" in ran.out


async def test_a_disk_is_summed_up_scrubbed_and_found_damaged(cli: Cli, house: NodeHouse):
    ran = await cli("image", "checksum", "new.raw", "--format", "raw", "--keep", "new.sums")
    assert ran.code == 0 and ran.out.startswith("checksum ") and "of hashes" in ran.out
    assert (await cli("image", "scrub", "new.raw", "new.sums", "--format", "raw")).code == 0
    with (house.folder / "new.raw").open("r+b") as image:
        image.seek(70_000)
        image.write(b"X")
    ran = await cli("image", "scrub", "new.raw", "new.sums", "--format", "raw")
    assert ran.code == Exit.FAILED
    assert "0x10000 +0x10000" in ran.out and "changed" in ran.out
    assert "65536 bytes are not what they were" in ran.err


async def test_an_image_file_is_compacted(cli: Cli, house: NodeHouse):
    await house.client.nodes.open(qcow2(file("a.qcow2"), node_name="a"))
    await house.client.data.write("a", 0, b"x" * 2 * MIB)
    await house.client.data.discard("a", 0, MIB)
    await house.client.nodes.close("a")
    ran = await cli("image", "compact", "a.qcow2", "--format", "qcow2", "-o", "json")
    assert int(ran.json["after_bytes"]) < int(ran.json["before_bytes"])
    assert house.graph.nodes == {}


async def test_an_image_is_measured_before_it_is_there(cli: Cli):
    ran = await cli("image", "measure", "--size", "1T", "-o", "json")
    assert int(ran.json["fully_allocated_bytes"]) > 1 << 40
    ran = await cli("image", "measure", "--size", "1G", "--cluster-size", "2M")
    assert ran.code == 0 and ran.out.startswith("required")


async def test_an_open_node_is_checked_under_its_name(cli: Cli, house: NodeHouse):
    await house.client.nodes.open(qcow2(file("a.qcow2"), node_name="a"))
    ran = await cli("image", "check", "a")
    assert ran.code == 0 and ran.out.startswith("errors")
    assert (await cli("image", "check", "a", "--repair", "all")).code == 0
    assert (await cli("image", "check", "nobody")).code == Exit.NOT_FOUND


async def test_an_image_with_a_data_file_is_created_mapped_and_opened(cli: Cli, house: NodeHouse):
    create = ("image", "create", "m.qcow2", "--format", "qcow2", "--size", "1M", "--extended-l2")
    ran = await cli(*create, "--data-file", "m.raw", "--data-file-raw", "-o", "json")
    assert ran.json["format_specific"]["data-file"] == {"string_value": "m.raw"}
    ran = await cli("image", "map", "m.qcow2", "--format", "qcow2")
    assert ran.code != 0 and "data_file" in ran.err
    ran = await cli("image", "map", "m.qcow2", "--format", "qcow2", "--follow-data-file", "-o", "json")
    assert sum(int(extent["length_bytes"]) for extent in ran.json) == MIB
    settings = ("--set", "follow_data_file=true", "--set", "overlap_checks.inactive_l2=true")
    assert (await cli("node", "open", "m.qcow2", "--format", "qcow2", "--name", "m", *settings)).code == 0
    assert '"inactive_l2": true' in (await house.client.nodes.get("m")).full_open_options
