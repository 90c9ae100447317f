"""What the node service is: drivers, filenames, limits, what comes later; starting, stopping, a full disk."""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

import grpc
import pytest

from blockyard.base.errors import (
    InvalidArgument,
    NoSpace,
    PeerUnavailable,
    ProtocolUnsupported,
    UnknownOption,
)
from blockyard.client import Client
from blockyard.client.definitions import file, memory, qcow2, raw
from blockyard.node import app
from blockyard.node.config import NodeConfig
from blockyard.node.rpc.nodes import NodeServicer
from blockyard.v1 import data_pb2 as data
from blockyard.v1 import node_pb2 as node
from blockyard.v1 import node_pb2_grpc
from tests.support import peers
from tests.support.eventually import eventually
from tests.support.node_calls import NodeHouse, node_house

MIB = 1 << 20


async def test_drivers_are_listed_with_options_and_abilities(house: NodeHouse):
    drivers = {driver.name: driver for driver in await house.client.server.drivers()}
    assert {"file", "memory", "null", "qcow2", "raw"} <= set(drivers)
    found = drivers["qcow2"]
    assert (found.kind, found.supports_backing, list(found.children)) == (
        "format",
        True,
        ["file", "backing", "data-file"],
    )
    assert {"creatable", "resizable", "checkable", "probes"} <= set(found.abilities)
    options = {option.name: option for option in found.options}
    assert (options["lazy_refcounts"].type, options["overlap_check"].default_value) == ("bool", "cached")
    created = {option.name: option for option in found.create_options}
    assert created["size"].required and created["preallocation"].type == "off|metadata|falloc|full"
    assert drivers["file"].kind == "protocol" and not drivers["file"].supports_backing
    assert all(driver.description for driver in drivers.values())
    filename = next(option for option in drivers["file"].options if option.name == "filename")
    assert not filename.required and filename.description.startswith("Path beneath a storage root")


async def test_the_service_tells_its_version_and_limits(house: NodeHouse):
    info = await house.client.server.info()
    assert info.version and info.instance_id and "qcow2" in info.drivers
    assert (await house.client.server.limits())["max_nodes"] == 10_000


async def test_a_filename_is_a_definition(house: NodeHouse):
    async def parsed(name: str):
        return (await house.nodes.ParseFilename(node.ParseFilenameRequest(filename=name))).definition

    assert (await parsed("dir/a.raw")).file.filename == "dir/a.raw"
    assert (await parsed("file:a.raw")).file.filename == "a.raw"
    assert (await parsed("./odd:name")).file.filename == "./odd:name"
    whole = {
        "driver": "raw",
        "node-name": "top",
        "read-only": True,
        "offset": 512,
        "discard": "ignore",
        "cache": {"direct": False, "no-flush": True},
        "file": {"driver": "file", "filename": "a.raw"},
    }
    house.raw_file("a.raw", MIB)
    state = await house.client.nodes.open(await parsed("json:" + json.dumps(whole)))
    assert (state.node_name, state.size_bytes, state.read_only) == ("top", MIB - 512, True)
    again = await house.client.nodes.close("top")
    assert again[0] == "top"
    assert (await house.client.nodes.open(await parsed(state.full_open_options))).size_bytes == MIB - 512


@pytest.mark.parametrize(
    "name",
    [
        "",
        "file:",
        "rbd:pool/x",
        "nbd://",
        "json:",
        "json:[]",
        "json:{",
        "json:{}",
        'json:{"driver": 5}',
        'json:{"driver": "raw", "node-name": 7}',
        'json:{"driver": "raw", "discard": "perhaps"}',
        'json:{"driver": "raw", "cache": 1}',
        'json:{"driver": "raw", "offset": 99999999999999999999}',
        "json:" + '{"driver":"raw","file":' * 100 + "{}" + "}" * 100,
        "json:" + "[" * 60_000,
        'json:{"driver": "raw", "deep": ' + "[" * 200 + "]" * 200 + "}",
        "json:" + " " * 70_000,
    ],
)
async def test_what_is_no_filename_is_refused(house: NodeHouse, name: str):
    with pytest.raises((InvalidArgument, ProtocolUnsupported)):
        await house.nodes.ParseFilename(node.ParseFilenameRequest(filename=name))


def test_every_method_of_the_node_service_is_served():
    for name in vars(node_pb2_grpc.NodeServiceServicer):
        if name[0].isupper():
            assert getattr(NodeServicer, name) is not getattr(node_pb2_grpc.NodeServiceServicer, name), name


# --- starting and stopping -------------------------------------------------------------------------------


async def test_a_stop_closes_what_is_open_and_forgets_its_clients(tmp_path: Path):
    async with node_house(tmp_path) as house:
        await house.client.images.create("a.qcow2", MIB, format="qcow2")
        await house.client.nodes.open(qcow2(file("a.qcow2"), node_name="a"))
        await house.client.nodes.open(raw("a", node_name="above"))
        await house.client.data.write("a", 0, b"kept")
        await house.client.exports.add_nbd("above", "disk", addresses=[f"unix:{tmp_path}/nbd.sock"])
        session = house.data.IoSession()
        await session.write(data.IoSessionRequest(open=data.IoSessionOpen(node_name="above")))
        await session.read()
        graph = house.graph
    assert graph.nodes == {}
    assert not (tmp_path / "nbd.sock").exists() and not (tmp_path / "node.sock").exists()
    async with node_house(tmp_path) as house:
        report = await house.client.images.check("a.qcow2", "qcow2")
        assert (report.corruptions, report.leaks) == (0, 0)
        await house.client.nodes.open(qcow2(file("a.qcow2"), node_name="a"))
        assert await house.client.data.read("a", 0, 4) == b"kept"


async def test_a_stop_ends_watches(tmp_path: Path):
    async with node_house(tmp_path) as house:
        call = house.watch.WatchNodes(node.WatchNodesRequest())
        await call.read()
        accounting = house.watch.WatchAccounting(node.WatchAccountingRequest())
        await accounting.read()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"storage_roots": ("/no/such/folder",)}, InvalidArgument),
        ({"storage_roots": ()}, InvalidArgument),
        ({"listen": ()}, InvalidArgument),
        ({"listen": ("nowhere",)}, InvalidArgument),
        ({"listen": ("unix:/no/such/folder/x.sock",)}, PeerUnavailable),
        ({"nbd": ("nowhere",)}, InvalidArgument),
    ],
)
async def test_a_wrong_configuration_is_refused_and_leaves_nothing(tmp_path: Path, options, error):
    settings = {"listen": (f"unix:{tmp_path}/node.sock",), "storage_roots": (str(tmp_path),), **options}
    with pytest.raises(error):
        async with app.serving(NodeConfig(**settings)):
            pass
    assert not (tmp_path / "node.sock").exists()


async def test_services_can_be_offered_by_another_server_too(house: NodeHouse):
    names = {service.name for service in house.running.services}
    assert {"blockyard.v1.NodeService", "blockyard.v1.DataService", "blockyard.v1.CopyService"} <= names
    assert [str(address) for address in house.running.addresses] == [house.client.address]


async def test_an_unknown_option_over_the_wire_names_the_field(house: NodeHouse):
    stub = node_pb2_grpc.NodeServiceStub(house.channel)
    definition = node.OpenNodeRequest()
    definition.definition.generic.driver = "memory"
    definition.definition.generic.options["sise"].int_value = 1
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.OpenNode(definition)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "sise" in (refused.value.details() or "")
    assert UnknownOption.reason in str(refused.value.trailing_metadata())


# --- processes -------------------------------------------------------------------------------------------


async def started(folder: Path, *before: str, ready_fd: int = -1) -> asyncio.subprocess.Process:
    """`blockyard-node` as a process, with the program that limits it, if any."""
    return await asyncio.create_subprocess_exec(
        *before,
        sys.executable,
        "-m",
        "blockyard.node",
        "--listen",
        f"unix:{folder}/node.sock",
        "--storage-roots",
        str(folder),
        "--log-level",
        "error",
        "--ready-fd",
        str(ready_fd),
        pass_fds=(ready_fd,) if ready_fd >= 0 else (),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )


async def test_the_process_says_when_it_is_ready_and_is_so_soon(tmp_path: Path):
    reading, writing = os.pipe()
    before = time.monotonic()
    process = await started(tmp_path, ready_fd=writing)
    os.close(writing)
    line = await asyncio.to_thread(os.read, reading, 1000)
    assert time.monotonic() - before < 10  # far more than it takes, for a machine that does much else
    os.close(reading)
    assert line.decode() == f"ready unix:{tmp_path}/node.sock\n"
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0


async def test_the_process_stops_cleanly_on_sigterm(tmp_path: Path):
    process = await started(tmp_path)
    async with Client.connect(f"unix:{tmp_path}/node.sock") as client:
        await eventually((tmp_path / "node.sock").exists)
        await client.ready(30)
        await client.images.create("a.qcow2", MIB, format="qcow2")
        await client.nodes.open(qcow2(file("a.qcow2"), node_name="a"))
        await client.data.write("a", 0, b"kept")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    assert not (tmp_path / "node.sock").exists()
    async with node_house(_fresh(tmp_path / "again")) as house:
        (house.folder / "a.qcow2").write_bytes((tmp_path / "a.qcow2").read_bytes())
        assert (await house.client.images.check("a.qcow2", "qcow2")).leaks == 0


@pytest.mark.peer("prlimit", "qemu-img")
async def test_a_full_disk_fails_writes_and_keeps_what_was_flushed(tmp_path: Path):
    """A limit on the size of files stands for a full disk: past it every write fails (EFBIG)."""
    process = await started(tmp_path, "prlimit", f"--fsize={2 * MIB}")
    async with Client.connect(f"unix:{tmp_path}/node.sock") as client:
        await eventually((tmp_path / "node.sock").exists)
        await client.ready(30)
        await client.images.create("a.qcow2", 64 * MIB, format="qcow2")
        await client.nodes.open(qcow2(file("a.qcow2"), node_name="a"))
        await client.data.write("a", 0, b"safe" * 65536)
        await client.data.flush("a")
        with pytest.raises(NoSpace):
            await client.data.write("a", 8 * MIB, b"x" * (8 * MIB))
        async with client.data.session("a") as session:
            with pytest.raises(NoSpace):
                await session.write(32 * MIB, b"y" * 1_000_000)
                await session.write(40 * MIB, b"y" * 1_000_000)
        assert await client.data.read("a", 0, 8) == b"safesafe"
        with pytest.raises(NoSpace):
            await client.images.create("b.raw", 4 * MIB, preallocation="full")
        assert not (tmp_path / "b.raw").exists()
        process.send_signal(signal.SIGTERM)
        await process.wait()
    peers.run("qemu-img", "check", tmp_path / "a.qcow2", check=False)
    told = json.loads(peers.run("qemu-img", "check", "--output=json", tmp_path / "a.qcow2", check=False).stdout)
    assert (told.get("corruptions", 0), told["check-errors"]) == (0, 0)
    async with node_house(_fresh(tmp_path / "again")) as house:
        (house.folder / "a.qcow2").write_bytes((tmp_path / "a.qcow2").read_bytes())
        await house.client.nodes.open(qcow2(file("a.qcow2"), node_name="a"))
        assert await house.client.data.read("a", 0, 4 * 65536) == b"safe" * 65536


def _fresh(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def test_many_calls_at_once_on_one_graph_leave_it_empty(house: NodeHouse):
    async def life(number: int) -> None:
        name = f"n{number}"
        await house.client.nodes.open(memory(65536, node_name=name))
        await house.client.data.write(name, 0, name.encode())
        assert (await house.client.data.read(name)).startswith(name.encode())
        await house.client.nodes.close(name)

    await asyncio.gather(*(life(number) for number in range(60)))
    assert house.graph.nodes == {}
