"""ExecutorService and SetExecutor over the wire, by the client library and by the command."""

from pathlib import Path

import grpc
import pytest

from blockyard.base.errors import (
    InvalidArgument,
    LimitReached,
    NodeNotFound,
    ResourceBusy,
    ResourceExists,
    ResourceNotFound,
)
from blockyard.client.definitions import file, memory, qcow2
from blockyard.v1 import control_pb2 as control
from blockyard.v1 import control_pb2_grpc, node_pb2
from tests.support.command import Cli
from tests.support.node_calls import NodeHouse, Raising, node_house

MIB = 1 << 20


@pytest.fixture
def cli(house: NodeHouse, capfdbinary: pytest.CaptureFixture[bytes]) -> Cli:
    return Cli(house.client.address, capfdbinary)


async def test_an_executor_is_made_shown_and_removed(house: NodeHouse):
    made = await house.client.executors.create("slow", 2)
    assert (made.name, made.threads, list(made.node_names), made.running, made.waiting) == ("slow", 2, [], 0, 0)
    assert [item.name for item in await house.client.executors.list()] == ["main", "slow"]
    await house.client.executors.delete("slow")
    assert [item.name for item in await house.client.executors.list()] == ["main"]
    await house.client.executors.delete("slow", allow_missing=True)


async def test_threads_that_nobody_chose_are_four_and_main_has_the_services(house: NodeHouse):
    assert (await house.client.executors.create("x")).threads == 4
    assert (await house.client.executors.get("main")).threads == 16


@pytest.mark.parametrize(
    ("name", "threads"), [("", 1), ("#1", 1), ("a/b", 1), ("x" * 129, 1), ("x", -1), ("x", 65)]
)
async def test_a_bad_executor_is_refused_and_its_field_named(house: NodeHouse, name: str, threads: int):
    with pytest.raises(InvalidArgument) as refused:
        await house.client.executors.create(name, threads)
    assert refused.value.bad_field.startswith("executor.")


async def test_what_is_not_there_is_said(house: NodeHouse):
    for call in (
        house.client.executors.get("x"),
        house.client.executors.get(""),
        house.client.executors.delete("x"),
        house.client.nodes.open(memory(MIB, executor="x")),
    ):
        with pytest.raises(ResourceNotFound):
            await call
    await house.client.nodes.open(memory(MIB, node_name="a"))
    with pytest.raises(ResourceNotFound):
        await house.client.nodes.set_executor("a", "x")
    with pytest.raises(InvalidArgument):
        await house.client.nodes.set_executor("a", "")
    with pytest.raises(NodeNotFound):
        await house.client.nodes.set_executor("b", "main")


async def test_names_are_taken_once_and_main_is_nobodys(house: NodeHouse):
    await house.client.executors.create("x")
    for name in ("x", "main"):
        with pytest.raises(ResourceExists):
            await house.client.executors.create(name)
    with pytest.raises(InvalidArgument):
        await house.client.executors.delete("main")


async def test_there_are_sixteen_at_most(house: NodeHouse):
    for number in range(15):
        await house.client.executors.create(f"x{number}")
    with pytest.raises(LimitReached):
        await house.client.executors.create("more")


async def test_a_node_and_what_is_below_move_and_hold_their_executor(house: NodeHouse):
    await house.client.images.create("a.qcow2", MIB, format="qcow2")
    await house.client.executors.create("x")
    await house.client.nodes.open(qcow2(file("a.qcow2", node_name="below"), node_name="a"))
    await house.client.data.write("a", 1000, b"before")
    moved = await house.client.nodes.set_executor("a", "x")
    assert moved.executor == "x"
    assert list((await house.client.executors.get("x")).node_names) == ["a", "below"]
    assert (await house.client.nodes.get("below")).executor == "x"
    await house.client.data.write("a", 70_000, b"after")
    assert await house.client.data.read("a", 1000, 6) == b"before"
    with pytest.raises(ResourceBusy, match="node/a, node/below"):
        await house.client.executors.delete("x")
    await house.client.nodes.set_executor("a", "main")
    await house.client.executors.delete("x")


async def test_watchers_see_the_move(house: NodeHouse):
    await house.client.nodes.open(memory(MIB, node_name="a"))
    await house.client.executors.create("x")
    call = house.watch.WatchNodes(node_pb2.WatchNodesRequest(start_revision=house.graph.hub.revision))
    await house.client.nodes.set_executor("a", "x")
    first, second = await call.read(), await call.read()
    call.cancel()
    assert (first.event.kind, dict(first.event.details)) == ("executor-changed", {"from": "main", "to": "x"})
    assert second.node.executor == "x"


async def test_executors_of_the_configuration_are_there_from_the_start(tmp_path: Path):
    async with node_house(tmp_path, executors=("fast", "slow:7")) as house:
        assert {item.name: item.threads for item in await house.client.executors.list()} == {
            "main": 16,
            "fast": 4,
            "slow": 7,
        }


@pytest.mark.parametrize("text", ["slow:", "slow:x", ":4", "slow:0", "slow:65", "main", "a:1:2"])
async def test_a_bad_executor_in_the_configuration_ends_the_start(tmp_path: Path, text: str):
    with pytest.raises((InvalidArgument, ResourceExists)):
        async with node_house(tmp_path, executors=(text,)):
            pass


async def test_the_bare_service_answers_too(house: NodeHouse):
    stub = control_pb2_grpc.ExecutorServiceStub(house.channel)
    bare = Raising(stub)
    await bare.CreateExecutor(control.CreateExecutorRequest(executor=control.Executor(name="x", threads=1)))
    with pytest.raises(ResourceExists):
        await bare.CreateExecutor(control.CreateExecutorRequest(executor=control.Executor(name="x")))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.DeleteExecutor(control.DeleteExecutorRequest(name="y"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_the_command_makes_lists_and_removes_executors_and_moves_nodes(house: NodeHouse, cli: Cli):
    await house.client.nodes.open(memory(MIB, node_name="disk"))
    assert (await cli("executor", "create", "slow", "--threads", "2")).code == 0
    moved = await cli("node", "set-executor", "disk", "slow")
    assert "executor: slow" in " ".join(moved.out.split()) or "slow" in moved.out
    listed = await cli("executor", "list")
    assert [line.split() for line in listed.out.splitlines()] == [
        ["EXECUTOR", "THREADS", "RUNNING", "WAITING", "NODES"],
        ["main", "16", "0", "0", "-"],
        ["slow", "2", "0", "0", "disk"],
    ]
    refused = await cli("executor", "delete", "slow")
    assert refused.code == 4 and "node/disk" in refused.err
    assert (await cli("node", "set-executor", "disk", "main")).code == 0
    removed = await cli("executor", "delete", "slow")
    assert (removed.code, removed.out) == (0, "removed executor slow\n")
