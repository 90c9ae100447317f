"""Image files over the API: create, look, guess, check, measure."""

import json
from pathlib import Path

import pytest

from blockyard.base.errors import (
    BackingDenied,
    BackingLoop,
    BackingMissing,
    DataFileDenied,
    DriverUnknown,
    FileBusy,
    FileExists,
    FileNotFound,
    FormatMismatch,
    InvalidArgument,
    MissingOption,
    OperationUnsupported,
    PathDenied,
    RequestIdReused,
    SizeTooLarge,
    UnknownOption,
)
from blockyard.client.definitions import file, qcow2, raw
from blockyard.v1 import node_pb2 as node
from blockyard.v1 import types_pb2 as types
from tests.support import peers
from tests.support.node_calls import NodeHouse, node_house

MIB = 1 << 20


async def test_a_raw_image_has_its_size_and_nothing_allocated(house: NodeHouse):
    info = await house.client.images.create("a.raw", 5 * MIB)
    assert (info.filename, info.format, info.size_bytes) == ("a.raw", "raw", 5 * MIB)
    assert (house.folder / "a.raw").stat().st_size == 5 * MIB
    assert info.allocated_bytes < MIB


async def test_raw_preallocation_reserves_space(house: NodeHouse):
    await house.client.images.create("a.raw", MIB, preallocation="falloc")
    assert (house.folder / "a.raw").stat().st_blocks * 512 >= MIB


@pytest.mark.peer("qemu-img")
async def test_a_qcow2_image_is_what_was_asked_for(house: NodeHouse):
    info = await house.client.images.create(
        "a.qcow2", 64 * MIB, format="qcow2", cluster_size_bytes=4096, refcount_bits=8, compression_type="zstd"
    )
    assert (info.format, info.size_bytes, info.cluster_size_bytes) == ("qcow2", 64 * MIB, 4096)
    assert info.format_specific["compression-type"].string_value == "zstd"
    told = json.loads(peers.run("qemu-img", "info", "--output=json", house.folder / "a.qcow2").stdout)
    assert told["virtual-size"] == 64 * MIB
    assert told["cluster-size"] == 4096
    assert told["format-specific"]["data"]["refcount-bits"] == 8
    peers.run("qemu-img", "check", house.folder / "a.qcow2")


async def test_an_overlay_without_a_size_takes_its_backing_files(house: NodeHouse):
    await house.client.images.create("base.raw", 3 * MIB)
    info = await house.client.images.create(
        "top.qcow2", format="qcow2", backing_file="base.raw", backing_format="raw"
    )
    assert (info.size_bytes, info.backing_file, info.backing_format) == (3 * MIB, "base.raw", "raw")


async def test_a_backing_file_needs_its_format(house: NodeHouse):
    with pytest.raises(InvalidArgument) as refused:
        await house.client.images.create("top.qcow2", MIB, format="qcow2", backing_file="base.raw")
    assert refused.value.name == "backing_format"


async def test_a_size_cannot_be_taken_from_a_backing_file_that_is_missing(house: NodeHouse):
    with pytest.raises(BackingMissing) as refused:
        await house.client.images.create("t.qcow2", format="qcow2", backing_file="no", backing_format="raw")
    assert refused.value.backing == "no"
    assert not (house.folder / "t.qcow2").exists()


async def test_a_backing_file_outside_the_roots_cannot_be_named(house: NodeHouse):
    for name in ("../../etc/passwd", "/etc/passwd", "nbd:unix:/tmp/x"):
        with pytest.raises(PathDenied):
            await house.client.images.create(
                "t.qcow2", MIB, format="qcow2", backing_file=name, backing_format="raw"
            )


async def test_an_existing_file_is_not_overwritten_unless_asked(house: NodeHouse):
    house.raw_file("a.raw", b"precious")
    with pytest.raises(FileExists):
        await house.client.images.create("a.raw", MIB)
    assert (house.folder / "a.raw").read_bytes() == b"precious"
    await house.client.images.create("a.raw", MIB, overwrite=True)
    assert (house.folder / "a.raw").stat().st_size == MIB


async def test_an_open_image_is_not_overwritten(house: NodeHouse):
    await house.client.images.create("a.raw", MIB)
    await house.client.nodes.open(raw(file("a.raw"), node_name="a"))
    with pytest.raises(FileBusy):
        await house.client.images.create("a.raw", 2 * MIB, overwrite=True)
    assert (house.folder / "a.raw").stat().st_size == MIB


@pytest.mark.parametrize("path", ["../out.raw", "/etc/out.raw", ".", "a/../../b", "x" * 5000, "link/x.raw"])
async def test_no_path_leads_outside_the_roots(house: NodeHouse, path: str):
    (house.folder / "link").symlink_to("/tmp")
    with pytest.raises(PathDenied):
        await house.client.images.create(path, MIB)
    with pytest.raises(PathDenied):
        await house.client.images.info(path, format="raw")


async def test_a_format_must_be_named_to_create(house: NodeHouse):
    with pytest.raises(MissingOption):
        await house.nodes.CreateImage(node.CreateImageRequest(filename="a", size_bytes=1))


async def test_an_unknown_driver_and_an_unknown_option_are_named(house: NodeHouse):
    with pytest.raises(DriverUnknown) as unknown:
        await house.client.images.create("a.img", MIB, format="vhdz")
    assert unknown.value.driver == "vhdz"
    with pytest.raises(UnknownOption) as option:
        await house.client.images.create("a.img", MIB, format="file", nokow=True)
    assert option.value.option == "nokow"
    assert not (house.folder / "a.img").exists()


async def test_a_driver_that_makes_no_images_says_so(house: NodeHouse):
    with pytest.raises(OperationUnsupported):
        await house.client.images.create("a.img", MIB, format="memory")


@pytest.mark.parametrize("size", [-1, -(2**63)])
async def test_a_negative_size_is_refused(house: NodeHouse, size: int):
    for format_ in ("raw", "qcow2"):
        with pytest.raises(InvalidArgument):
            await house.client.images.create("a.img", size, format=format_)
    assert not (house.folder / "a.img").exists()


async def test_a_size_that_no_table_can_map_is_refused(house: NodeHouse):
    with pytest.raises((SizeTooLarge, InvalidArgument)):
        await house.client.images.create("a.img", (2**63) - 512, format="qcow2", cluster_size_bytes=512)
    assert not (house.folder / "a.img").exists()


async def test_a_failed_creation_leaves_no_file(house: NodeHouse):
    with pytest.raises(InvalidArgument):
        await house.client.images.create("a.qcow2", MIB, format="qcow2", cluster_size_bytes=777)
    assert list(house.folder.iterdir()) == []


async def test_validate_only_checks_everything_and_creates_nothing(house: NodeHouse):
    house.raw_file("there.raw", b"x")
    create = house.client.images.create
    await create("a.qcow2", MIB, format="qcow2", validate_only=True)
    await create("a.raw", MIB, validate_only=True)
    with pytest.raises(InvalidArgument):
        await create("a.qcow2", MIB, format="qcow2", cluster_size_bytes=777, validate_only=True)
    with pytest.raises(FileExists):
        await create("there.raw", MIB, validate_only=True)
    with pytest.raises(FileNotFound):
        await create("nowhere/a.raw", MIB, validate_only=True)
    assert [path.name for path in house.folder.iterdir()] == ["there.raw"]


async def test_a_repeated_creation_with_one_request_id_happens_once(house: NodeHouse):
    create = house.client.images.create
    first = await create("a.raw", MIB, request_id="b9a2")
    assert await create("a.raw", MIB, request_id="b9a2") == first
    with pytest.raises(RequestIdReused):
        await create("a.raw", 2 * MIB, request_id="b9a2")


# --- looking ---------------------------------------------------------------------------------------------


async def test_info_opens_nothing_but_the_one_file(house: NodeHouse):
    await house.client.images.create("top.qcow2", MIB, format="qcow2", backing_file="gone", backing_format="raw")
    (info,) = await house.client.images.info("top.qcow2", format="qcow2")
    assert info.backing_file == "gone"
    assert house.graph.nodes == {}


async def test_info_follows_the_chain_when_asked(house: NodeHouse):
    await house.client.images.create("base.raw", MIB)
    for name, below, format_ in (("mid", "base.raw", "raw"), ("top", "mid", "qcow2")):
        await house.client.images.create(name, format="qcow2", backing_file=below, backing_format=format_)
    found = await house.client.images.info("top", backing_chain=True)
    assert [(info.filename, info.format) for info in found] == [
        ("top", "qcow2"),
        ("mid", "qcow2"),
        ("base.raw", "raw"),
    ]


async def test_info_ends_on_a_chain_that_comes_back_to_itself(house: NodeHouse):
    await house.client.images.create("a", MIB, format="qcow2", backing_file="a", backing_format="qcow2")
    await house.client.images.create("b", MIB, format="qcow2", backing_file="c", backing_format="qcow2")
    await house.client.images.create("c", MIB, format="qcow2", backing_file="b", backing_format="qcow2")
    for name in ("a", "b"):
        with pytest.raises(BackingLoop):
            await house.client.images.info(name, backing_chain=True)


async def test_info_of_a_chain_respects_the_gate(tmp_path: Path):
    async with node_house(tmp_path, follow_backing=False) as house:
        await house.client.images.create("a", MIB, format="qcow2", backing_file="b", backing_format="raw")
        with pytest.raises(BackingDenied):
            await house.client.images.info("a", backing_chain=True)


async def test_info_of_a_missing_or_wrong_file_says_which(house: NodeHouse):
    with pytest.raises(FileNotFound):
        await house.client.images.info("nothing.raw")
    house.raw_file("a.raw", b"plain")
    with pytest.raises(FormatMismatch):
        await house.client.images.info("a.raw", format="qcow2")


async def test_info_of_an_image_in_use_works(house: NodeHouse):
    await house.client.images.create("a.qcow2", MIB, format="qcow2")
    await house.client.nodes.open(qcow2(file("a.qcow2"), node_name="a"))
    (info,) = await house.client.images.info("a.qcow2")
    assert info.size_bytes == MIB


async def test_probing_ranks_guesses(house: NodeHouse):
    await house.client.images.create("a.qcow2", MIB, format="qcow2")
    house.raw_file("a.raw", b"QFI")
    guesses = await house.client.images.probe("a.qcow2")
    assert [(guess.driver, guess.score) for guess in guesses] == [("qcow2", 100), ("raw", 1)]
    assert [guess.driver for guess in await house.client.images.probe("a.raw")] == ["raw"]


async def test_an_empty_file_is_raw(house: NodeHouse):
    house.raw_file("empty", b"")
    (info,) = await house.client.images.info("empty")
    assert (info.format, info.size_bytes) == ("raw", 0)


# --- check -----------------------------------------------------------------------------------------------


async def test_a_fresh_image_is_clean(house: NodeHouse):
    await house.client.images.create("a.qcow2", MIB, format="qcow2")
    report = await house.client.images.check("a.qcow2", "qcow2")
    assert (report.corruptions, report.leaks, report.check_errors) == (0, 0, 0)
    assert report.total_clusters == 16


@pytest.mark.peer("qemu-img")
async def test_a_leak_is_found_and_repaired(house: NodeHouse):
    await house.client.images.create("a.qcow2", MIB, format="qcow2")
    path = house.folder / "a.qcow2"
    with path.open("r+b") as image:  # count one cluster more than is used
        image.seek(2 * 65536 + 2 * 8)
        image.write((1).to_bytes(2, "big"))
        image.truncate(9 * 65536)
    assert (await house.client.images.check("a.qcow2", "qcow2")).leaks == 1
    assert (await house.client.images.check("a.qcow2", "qcow2", repair="leaks")).leaks_fixed == 1
    peers.run("qemu-img", "check", path)


async def test_a_check_needs_a_format_that_can_and_a_file_that_is_free(house: NodeHouse):
    await house.client.images.create("a.qcow2", MIB, format="qcow2")
    with pytest.raises(InvalidArgument):
        await house.client.images.check("a.qcow2", "")
    with pytest.raises(OperationUnsupported):
        await house.client.images.check("a.qcow2", "raw")
    await house.client.nodes.open(qcow2(file("a.qcow2"), node_name="a"))
    with pytest.raises(FileBusy):
        await house.client.images.check("a.qcow2", "qcow2")


async def test_a_check_does_not_follow_the_backing_file(house: NodeHouse):
    await house.client.images.create("a", MIB, format="qcow2", backing_file="a", backing_format="qcow2")
    assert (await house.client.images.check("a", "qcow2")).corruptions == 0


# --- measure ---------------------------------------------------------------------------------------------


def measured(size: int | None = None, node_name: str = "", **options: object) -> node.MeasureImageRequest:
    target = node.CreateImageRequest()
    target.qcow2.SetInParent()
    for name, value in options.items():
        setattr(target.qcow2, name, value)
    if size is not None:
        return node.MeasureImageRequest(size_bytes=size, target=target)
    return node.MeasureImageRequest(node_name=node_name, target=target)


@pytest.mark.peer("qemu-img")
@pytest.mark.parametrize(
    ("cluster", "size"),
    [
        (cluster, size)
        for cluster in (512, 65536, 2 * MIB)
        for size in (0, 512, 10 * MIB + 512, 1 << 40)
        if (cluster, size) != (512, 1 << 40)  # its tables pass the format's limits; both refuse it
    ],
)
async def test_an_empty_image_measures_as_qemu_says(house: NodeHouse, cluster: int, size: int):
    mine = await house.nodes.MeasureImage(measured(size, cluster_size_bytes=cluster))
    told = peers.run(
        "qemu-img", "measure", "--output=json", "-O", "qcow2", "-o", f"cluster_size={cluster}", "--size", str(size)
    )
    theirs = json.loads(told.stdout)
    assert (mine.required_bytes, mine.fully_allocated_bytes) == (theirs["required"], theirs["fully-allocated"])


@pytest.mark.peer("qemu-img")
async def test_a_nodes_content_measures_as_qemu_says(house: NodeHouse):
    path = house.raw_file("a.raw", 0)
    with path.open("r+b") as image:
        image.truncate(16 * MIB)
        for offset in (0, 3 * MIB + 4096, 3 * MIB + 65536 * 2 + 8192):
            image.seek(offset)
            image.write(b"\1" * 4096)
    await house.client.nodes.open(raw(file("a.raw"), node_name="a"))
    mine = await house.nodes.MeasureImage(measured(node_name="a"))
    theirs = json.loads(
        peers.run("qemu-img", "measure", "--output=json", "-O", "qcow2", "-f", "raw", "-U", path).stdout
    )
    assert (mine.required_bytes, mine.fully_allocated_bytes) == (theirs["required"], theirs["fully-allocated"])


async def test_a_raw_image_measures_as_its_size(house: NodeHouse):
    target = node.CreateImageRequest()
    target.raw.preallocation = types.PREALLOCATION_OFF
    mine = await house.nodes.MeasureImage(node.MeasureImageRequest(size_bytes=12345, target=target))
    assert mine.required_bytes == mine.fully_allocated_bytes == 12345


async def test_measuring_needs_a_source_and_a_size_that_can_be(house: NodeHouse):
    with pytest.raises(InvalidArgument):
        await house.nodes.MeasureImage(node.MeasureImageRequest(target=measured(1).target))
    with pytest.raises(InvalidArgument):
        await house.nodes.MeasureImage(measured(-5))


@pytest.mark.peer("qemu-img")
async def test_an_image_with_subclusters_and_a_data_file_is_made_and_opened_over_the_api(house: NodeHouse):
    info = await house.client.images.create(
        "m.qcow2", MIB, format="qcow2", extended_l2=True, data_file="m.raw", data_file_raw=True
    )
    assert info.format_specific["extended-l2"].bool_value
    assert info.format_specific["data-file"].string_value == "m.raw"
    assert (house.folder / "m.raw").read_bytes() == bytes(MIB)
    nodes = house.client.nodes
    with pytest.raises(DataFileDenied):
        await nodes.open(qcow2(file("m.qcow2"), node_name="top"))
    await nodes.open(qcow2(file("m.qcow2"), node_name="top", follow_data_file=True))
    await house.client.data.write("top", 4096, b"x" * 4096)
    state = await nodes.get("top")
    assert state.subcluster_size_bytes == 2048
    assert {edge.name for edge in state.children} == {"file", "data-file"}
    await nodes.close("top")
    assert (house.folder / "m.raw").read_bytes()[4096:8192] == b"x" * 4096
    await nodes.open(qcow2(file("m.qcow2"), node_name="top", data_file=file("m.raw")))
    assert await house.client.data.read("top", 4096, 4096) == b"x" * 4096
    await nodes.close("top")
    peers.run("qemu-img", "check", "-f", "qcow2", house.folder / "m.qcow2", cwd=house.folder)


async def test_a_data_file_is_found_again_after_a_restart_without_asking_the_header(house: NodeHouse):
    await house.client.images.create("m.qcow2", MIB, format="qcow2", data_file="m.raw")
    await house.client.nodes.open(qcow2(file("m.qcow2"), node_name="top", follow_data_file=True))
    told = (await house.client.nodes.get("top")).full_open_options
    assert '"data-file": {"driver": "file"' in told
