"""File names and json: specifications over the API: parsed, opened again, refused."""

import json
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.base.errors import (
    BackingProtocolDenied,
    BlockError,
    InvalidArgument,
    PathDenied,
    ProtocolUnsupported,
)
from blockyard.client.definitions import file, qcow2, raw
from blockyard.node.graph import filenames
from blockyard.node.rpc.definitions import definition_of
from blockyard.node.rpc.filenames import definition_of_filename
from blockyard.v1 import drivers_pb2, node_pb2
from tests.support import peers
from tests.support.node_calls import NodeHouse

MIB = 1 << 20


def shape(name: str) -> dict[str, Any]:
    return json_format.MessageToDict(definition_of_filename(name), preserving_proto_field_name=True)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("disk.raw", "disk.raw"),
        ("file:disk.raw", "disk.raw"),
        ("file:a:b", "a:b"),
        ("./a:b", "./a:b"),
        ("c:", "c:"),
        ("c:\\images\\disk", "c:\\images\\disk"),
        ("\\\\.\\d:", "\\\\.\\d:"),
    ],
)
async def test_a_path_stands_for_a_file(house: NodeHouse, name: str, path: str):
    found = await house.client.images.parse(name)
    assert found == drivers_pb2.NodeDefinition(file=drivers_pb2.FileOptions(filename=path))


@pytest.mark.parametrize(
    ("name", "driver"),
    [
        ("nbds://host:10809/disk", "nbd with TLS"),
        ("rbd:pool/disk", "rbd"),
        ("https://host/disk", "https"),
        ("fat:dir", "vvfat"),
    ],
)
async def test_a_known_protocol_is_refused_with_the_driver_it_needs(house: NodeHouse, name: str, driver: str):
    with pytest.raises(ProtocolUnsupported, match=f"'{driver}'"):
        await house.client.images.parse(name)


@pytest.mark.parametrize(
    ("name", "driver", "children"),
    [
        ("blkverify:a.raw:b.raw", "blkverify", {"raw": "a.raw", "test": "b.raw"}),
        ("blkdebug::a.raw", "blkdebug", {"image": "a.raw"}),
    ],
)
async def test_names_of_test_drivers_stand_for_them_and_their_images(
    house: NodeHouse, name: str, driver: str, children: dict[str, str]
):
    found = await house.client.images.parse(name)
    below = {key: child.definition.generic for key, child in found.generic.children.items()}
    assert found.generic.driver == driver
    assert {key: (item.driver, item.options["filename"].string_value) for key, item in below.items()} == {
        key: ("file", filename) for key, filename in children.items()
    }


async def test_the_image_of_a_test_driver_may_name_its_format(house: NodeHouse):
    await house.client.images.create("t.qcow2", 1 << 20, format="qcow2")
    await house.client.images.create("t.raw", 1 << 20)
    test = json.dumps({"driver": "qcow2", "file": {"driver": "file", "filename": "t.qcow2"}})
    found = await house.client.images.parse(f"blkverify:t.raw:json:{test}")
    opened = await house.client.nodes.open(found)
    await house.client.data.write(opened.node_name, 0, b"both")
    assert (house.folder / "t.raw").read_bytes()[:4] == b"both"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("blkdebug:rules.txt:disk", "as text"),
        ("blkdebug:disk", "blkdebug::IMAGE"),
        ("blkverify:disk", "blkverify:RAW:TEST"),
        ("null-co://size=5", "no more"),
        ("blkdebug::" * 100 + "disk", "inside each other"),
    ],
)
async def test_what_a_test_drivers_name_lacks_is_told(house: NodeHouse, name: str, told: str):
    with pytest.raises(InvalidArgument, match=told):
        await house.client.images.parse(name)


@pytest.mark.parametrize(
    ("name", "address", "export"),
    [
        ("nbd://host:10810/disk", "host:10810", "disk"),
        ("nbd+tcp://host/a%20b/c", "host", "a b/c"),
        ("nbd://[::1]:10809/", "[::1]:10809", ""),
        ("nbd+unix:///disk?socket=/run/x.sock", "unix:/run/x.sock", "disk"),
        ("nbd:host:10809:exportname=disk", "host:10809", "disk"),
        ("nbd:unix:/run/x.sock", "unix:/run/x.sock", ""),
    ],
)
async def test_an_nbd_uri_stands_for_an_export(house: NodeHouse, name: str, address: str, export: str):
    found = await house.client.images.parse(name)
    assert found == drivers_pb2.NodeDefinition(nbd=drivers_pb2.NbdOptions(address=address, export=export))


@pytest.mark.parametrize(
    "name",
    [
        "nbd://",
        "nbd:///disk",
        "nbd://user@host/disk",
        "nbd://host:x/disk",
        "nbd://host/disk?socket=/run/x.sock",
        "nbd+unix:///disk",
        "nbd+unix://host/disk?socket=/x",
        "nbd+unix:///disk?socket=/x&other=1",
        "nbd:",
        "nbd:host:1:exportname=",
    ],
)
async def test_an_nbd_uri_that_names_no_export_is_refused_with_the_forms_there_are(house: NodeHouse, name: str):
    with pytest.raises(InvalidArgument, match="nbd://HOST"):
        await house.client.images.parse(name)


@pytest.mark.parametrize("name", ["", "file:", "what:ever", "json:", "json:[]", 'json:{"driver":1}'])
async def test_what_stands_for_nothing_is_refused(house: NodeHouse, name: str):
    with pytest.raises(InvalidArgument):
        await house.client.images.parse(name)


def test_dots_and_objects_say_the_same():
    nested = 'json:{"driver":"qcow2","file":{"driver":"file","filename":"a"},"backing":null,"read-only":true}'
    dotted = 'json:{"driver":"qcow2","file.driver":"file","file.filename":"a","backing":null,"read-only":true}'
    mixed = 'json:{"driver":"qcow2","file":{"driver":"file"},"file.filename":"a","backing":null,"read-only":true}'
    assert shape(nested) == shape(dotted) == shape(mixed)
    assert shape(nested)["generic"]["children"]["backing"] == {"none": True}


def test_a_file_needs_no_driver_and_a_child_may_be_a_node():
    found = shape('json:{"driver":"qcow2","file.filename":"a","backing":"base"}')["generic"]["children"]
    assert found["file"]["definition"]["generic"]["driver"] == "file"
    assert found["backing"] == {"node_name": "base"}


def test_numbers_for_names_are_a_list():
    dotted = 'json:{"driver":"x","list.0":1,"list.1":2}'
    assert filenames.parsed(dotted) == {"driver": "x", "list": [1, 2]}


@pytest.mark.parametrize(
    "text",
    [
        '{"driver":"raw","file":"a","file.driver":"file"}',
        '{"driver":"raw","file.driver":"file","file":"a"}',
        '{"driver":"raw","driver":"qcow2"}',
        '{"driver":"raw","file":{"driver":"file"},"file.driver":"file"}',
        '{"driver":"raw","a..b":1}',
        '{"driver":"raw","file":7}',
        '{"driver":"raw","file":[1]}',
        '{"driver":"raw","read-only":"yes"}',
        '{"driver":"raw","cache":{"writeback":true}}',
        '{"driver":"raw","discard":"sometimes"}',
        '{"driver":"raw","labels":{"a":1}}',
        '{"driver":"raw","size":NaN}',
        '{"driver":"raw","size":99999999999999999999}',
        '{"driver":"raw","x":"\\ud800"}',
        '{"driver":"raw",' + '"file":{"driver":"raw",' * 70 + '"a":1' + "}" * 71,
        "[" * 100_000,
        json.dumps({"driver": "raw", **{f"o{at}": at for at in range(5000)}}),
        '{"driver":"raw","x":"' + "x" * 70_000 + '"}',
    ],
)
def test_a_specification_that_contradicts_itself_or_is_too_large_is_refused(text: str):
    with pytest.raises(InvalidArgument):
        definition_of_filename("json:" + text)


_words = st.text("ab.-:0/\\{}jsonfile", max_size=12)
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["file", "raw"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(_words | st.sampled_from(["driver", "file", "cache", "labels"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(_words | st.text(max_size=20))
def test_any_name_is_parsed_or_refused(name: str):
    try:
        definition_of_filename(name)
    except BlockError:
        pass
    except UnicodeEncodeError:
        assert any(0xD800 <= ord(letter) < 0xE000 for letter in name)  # no such name comes over the wire


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(_words | st.sampled_from(["driver", "file", "cache", "labels"]), _values, max_size=5))
def test_any_specification_is_parsed_or_refused(values: dict[str, Any]):
    values.setdefault("driver", "raw")
    with suppress(BlockError):
        definition_of(definition_of_filename("json:" + json.dumps(values)))


# --- the form in which nodes tell how to open them again -------------------------------------------------


async def reopened(house: NodeHouse, specification: str) -> Any:
    return await house.client.nodes.open(await house.client.images.parse(specification))


async def kinds(house: NodeHouse) -> list[drivers_pb2.NodeDefinition]:
    for name in ("a", "b", "base"):
        house.raw_file(f"{name}.raw", MIB)
    await house.client.images.create("base.qcow2", MIB, format="qcow2")
    await house.client.images.create(
        "top.qcow2", MIB, format="qcow2", backing_file="base.qcow2", backing_format="qcow2"
    )
    drivers = drivers_pb2
    return [
        file("a.raw", read_only=True, locking="on"),
        file("a.raw", auto_read_only=True, labels={"app.io/name": "x", "tier": "1"}),
        drivers.NodeDefinition(memory=drivers.MemoryOptions(size=MIB)),
        drivers.NodeDefinition(null=drivers.NullOptions(size=MIB, latency_ns=5, read_zeroes=True)),
        raw(file("a.raw"), offset=4096, size=8192, discard="ignore", detect_zeroes="on"),
        raw(file("a.raw", direct=True), direct=True, no_flush=True),
        qcow2(file("top.qcow2"), l2_cache_size=65536 * 4, lazy_refcounts=True),
        qcow2(file("top.qcow2"), backing=raw(file("base.raw"))),
        qcow2(file("top.qcow2"), ephemeral=True),
        qcow2(file("top.qcow2"), read_only=True, force_share=True),
    ]


@pytest.mark.parametrize("number", range(10))
async def test_a_node_is_opened_again_from_what_it_says_of_itself(house: NodeHouse, number: int):
    definition = (await kinds(house))[number]
    definition.node_name = "it"
    node = await house.client.nodes.open(definition)
    below = {child.name: (await house.client.nodes.get(child.node_name)).driver for child in node.children}
    await house.client.nodes.close("it")
    # Opened from the full form, what is below was given, so that form is what is told as given.
    for specification, more in (
        (node.full_open_options, ()),
        (node.explicit_options, ("explicit_options", "exact_filename")),
    ):
        again = await reopened(house, specification)
        told = ("driver", "size_bytes", "read_only", "auto_read_only", "cache", "discard", "detect_zeroes")
        for name in (*told, "labels", "filename", "full_open_options", *more):
            assert getattr(again, name) == getattr(node, name), name
        for child in again.children:
            assert (await house.client.nodes.get(child.node_name)).driver == below[child.name]
        await house.client.nodes.close("it")


async def test_an_exact_filename_is_there_when_the_name_alone_is_enough(house: NodeHouse):
    await kinds(house)
    for definition, name in (
        (file("a.raw"), "a.raw"),
        (raw(file("a.raw")), "a.raw"),
        (raw(file("a.raw"), offset=4096), ""),
        (qcow2(file("top.qcow2")), "top.qcow2"),
        (qcow2(file("top.qcow2"), backing=raw(file("base.raw"))), ""),
        (qcow2(file("top.qcow2"), ephemeral=True), ""),
    ):
        node = await house.client.nodes.open(definition)
        assert node.exact_filename == name
        await house.client.nodes.close(node.node_name)


async def test_given_and_effective_options_are_told_apart(house: NodeHouse):
    await kinds(house)
    node = await house.client.nodes.open(qcow2(file("top.qcow2"), node_name="it"))
    node = await house.client.nodes.get("it")
    explicit = json.loads(node.explicit_options.removeprefix("json:"))
    effective = json.loads(node.effective_options.removeprefix("json:"))
    assert "overlap-check" not in explicit and "backing" not in explicit
    assert effective["overlap-check"] == "cached" and effective["cache"] == {"direct": False, "no-flush": False}
    assert json.loads(node.full_open_options.removeprefix("json:"))["backing"]["driver"] == "qcow2"


# --- what headers name -----------------------------------------------------------------------------------


@pytest.mark.peer("qemu-img")
@pytest.mark.parametrize(
    ("name", "protocol"),
    [("nbd://host/disk", "nbd"), ('json:{"driver":"null-co"}', "json"), ("file:base.raw", "file"), ("xy:z", "xy")],
)
async def test_a_header_that_names_a_protocol_is_refused_as_such(house: NodeHouse, name: str, protocol: str):
    path = house.folder / "disk.qcow2"
    peers.run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", name, path, "1M")
    with pytest.raises(BackingProtocolDenied, match=f"'{protocol}'"):
        await house.client.nodes.open(qcow2(file("disk.qcow2")))
    with pytest.raises(BackingProtocolDenied):
        await house.client.images.info("disk.qcow2", format="qcow2", backing_chain=True)
    assert (await house.client.images.info("disk.qcow2", format="qcow2"))[0].backing_file == name
    house.raw_file("base.raw", MIB)
    await house.client.nodes.open(qcow2(file("disk.qcow2"), backing=raw(file("base.raw"))))


@pytest.mark.peer("qemu-img")
async def test_a_header_may_name_a_file_by_its_protocol_and_whole_path(house: NodeHouse):
    base = house.raw_file("base.raw", b"base" * 128)
    path = house.folder / "disk.qcow2"
    peers.run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", f"file:{base}", path, "512")
    await house.client.nodes.open(qcow2(file("disk.qcow2"), node_name="it"))
    assert await house.client.data.read("it") == b"base" * 128


@pytest.mark.peer("qemu-img")
async def test_a_header_that_leads_outside_is_refused(house: NodeHouse):
    path = house.folder / "disk.qcow2"
    peers.run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "file:/etc/passwd", path, "1M")
    with pytest.raises(BlockError, match="outside"):
        await house.client.nodes.open(qcow2(file("disk.qcow2")))
    with pytest.raises(PathDenied):
        await house.client.nodes.open(file("/etc/passwd"))


# --- probing ---------------------------------------------------------------------------------------------


async def test_a_guess_ranks_formats_and_names_the_kind_of_file(house: NodeHouse):
    await kinds(house)
    found = await house.client.images.probe_all("top.qcow2")
    assert [(guess.driver, guess.score) for guess in found.guesses] == [("qcow2", 100), ("raw", 1)]
    assert [(guess.driver, guess.score) for guess in found.protocol_guesses] == [("file", 100)]
    assert found.kind == "file"
    (house.folder / "short").write_bytes(b"QFI")
    assert [guess.driver for guess in (await house.client.images.probe_all("short")).guesses] == ["raw"]


async def test_nodes_are_found_by_their_labels(house: NodeHouse):
    for name, labels in (("a", {"vm": "1"}), ("b", {"vm": "1", "disk": "root"}), ("c", {"vm": "2"})):
        await house.nodes.OpenNode(
            node_pb2.OpenNodeRequest(
                definition=drivers_pb2.NodeDefinition(
                    node_name=name, labels=labels, memory=drivers_pb2.MemoryOptions(size=512)
                )
            )
        )
    assert [node.node_name for node in await house.client.nodes.list(labels={"vm": "1"})] == ["a", "b"]
    assert [node.node_name for node in await house.client.nodes.list(labels={"vm": "1", "disk": "root"})] == ["b"]
    assert len(await house.client.nodes.list()) == 3
