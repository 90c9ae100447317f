"""Quorum and blkverify over the API and from the command line: definitions in every form, children that come and
go, events, and QEMU's quorum over the same files."""

import asyncio
import json
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from blockyard.base.errors import (
    BlockError,
    CopiesDiffer,
    InvalidArgument,
    MissingOption,
    NodeNotFound,
    OperationUnsupported,
    QuorumFailed,
    ResourceNotFound,
    TransactionFailed,
)
from blockyard.client.definitions import blkverify, file, generic, memory, qcow2, quorum, raw
from blockyard.node.formats import nbd
from blockyard.v1 import node_pb2 as node
from blockyard.v1.drivers_pb2 import NodeDefinition, NodeReference
from tests.support.command import Cli
from tests.support.nbd_peer import NbdPeer
from tests.support.node_calls import NodeHouse, node_house

SIZE = 1 << 20
DATA = random.Random(5).randbytes(SIZE)


def copies(house: NodeHouse, count: int = 3) -> list[NodeDefinition]:
    """Raw files with the same bytes."""
    for at in range(count):
        house.raw_file(f"copy{at}", DATA)
    return [raw(file(f"copy{at}")) for at in range(count)]


def spoil(house: NodeHouse, at: int, offset: int, data: bytes) -> None:
    with (house.folder / f"copy{at}").open("r+b") as image:
        image.seek(offset)
        image.write(data)


# --- definitions -----------------------------------------------------------------------------------------


async def test_a_quorum_opens_reads_and_writes(house: NodeHouse):
    state = await house.client.nodes.open(quorum(copies(house), 2, node_name="q"))
    assert [child.name for child in state.children] == ["children.0", "children.1", "children.2"]
    assert state.driver == "quorum" and state.size_bytes == SIZE and state.growable
    await house.client.data.write("q", 4096, b"x" * 4096)
    spoil(house, 1, 4096, b"y" * 4096)
    assert await house.client.data.read("q", 0, SIZE) == DATA[:4096] + b"x" * 4096 + DATA[8192:]
    full = await house.client.nodes.get("q")
    assert full.format_specific["children.1.bad"].int_value == 1
    assert full.format_specific["vote-threshold"].int_value == 2
    assert full.allocated_bytes >= 3 * SIZE - 3 * 4096


async def test_its_specification_is_qemus_and_opens_it_again(house: NodeHouse):
    state = await house.client.nodes.open(quorum(copies(house), 2, rewrite_corrupted=True, node_name="q"))
    said = json.loads(state.full_open_options.removeprefix("json:"))
    assert said == {
        "driver": "quorum",
        "node-name": "q",
        "vote-threshold": 2,
        "rewrite-corrupted": True,
        "children": [{"driver": "raw", "file": {"driver": "file", "filename": f"copy{at}"}} for at in range(3)],
    }
    effective = json.loads(state.effective_options.removeprefix("json:"))
    assert len(effective["children"]) == 3 and effective["read-pattern"] == "quorum"
    await house.client.nodes.close("q")
    request = node.ParseFilenameRequest(filename=state.full_open_options)
    again = await house.client.nodes.open((await house.nodes.ParseFilename(request)).definition)
    assert again.full_open_options == state.full_open_options


@pytest.mark.parametrize(
    "said",
    [
        {"children": ["a", "b"]},
        {"children.0": "a", "children.1": "b"},
        {"children": {"0": "a", "1": "b"}},
        {"children.0": "a", "children.1.driver": "memory", "children.1.size": SIZE},
    ],
    ids=json.dumps,
)
async def test_children_can_be_said_in_all_of_qemus_ways(house: NodeHouse, said: dict[str, Any]):
    for name in ("a", "b"):
        await house.client.nodes.open(memory(SIZE, node_name=name))
    whole = {"driver": "quorum", "node-name": "q", "vote-threshold": 1, **said}
    parsed = await house.nodes.ParseFilename(node.ParseFilenameRequest(filename="json:" + json.dumps(whole)))
    state = await house.client.nodes.open(parsed.definition)
    assert [child.name for child in state.children] == ["children.0", "children.1"]
    assert state.children[0].node_name == "a"


@pytest.mark.parametrize("said", [{"children": [1]}, {"children.1": "a", "children": ["b"]}])
async def test_children_that_are_none_are_refused(house: NodeHouse, said: dict[str, Any]):
    whole = {"driver": "quorum", "vote-threshold": 1, **said}
    with pytest.raises(InvalidArgument):
        await house.nodes.ParseFilename(node.ParseFilenameRequest(filename="json:" + json.dumps(whole)))


async def test_a_quorum_without_children_or_votes_says_what_is_missing(house: NodeHouse):
    with pytest.raises(MissingOption) as refusal:
        await house.client.nodes.open(quorum([], 1))
    assert refusal.value.option == "children"
    with pytest.raises(MissingOption) as refusal:
        await house.client.nodes.open(quorum(copies(house, 1), 0))
    assert refusal.value.option == "vote_threshold"
    with pytest.raises(InvalidArgument):
        quorum([], 1, read_pattern="lifo")


async def test_blkverify_names_the_first_difference(house: NodeHouse):
    await house.client.images.create("a.qcow2", SIZE, format="qcow2")
    house.raw_file("copy0", bytes(SIZE))
    await house.client.nodes.open(blkverify(qcow2(file("a.qcow2")), raw(file("copy0")), node_name="v"))
    await house.client.data.write("v", 70_000, b"same")
    assert await house.client.data.read("v", 70_000, 4) == b"same"
    spoil(house, 0, 70_002, b"M")
    with pytest.raises(CopiesDiffer) as failure:
        await house.client.data.read("v", 65_536, 8192)
    assert failure.value.offset == 70_002 and "test has 0x6d, raw has 0x4d" in failure.value.detail


# --- children --------------------------------------------------------------------------------------------


async def test_children_come_and_go(house: NodeHouse):
    await house.client.nodes.open(quorum(copies(house), 2, node_name="q"))
    house.raw_file("copy3", DATA)
    state = await house.client.nodes.add_child("q", raw(file("copy3")))
    assert [child.name for child in state.children][3:] == ["children.3"]
    await house.client.data.write("q", 0, b"all four")
    state = await house.client.nodes.remove_child("q", "children.1")
    assert [child.name for child in state.children] == ["children.0", "children.2", "children.3"]
    assert len(json.loads(state.full_open_options.removeprefix("json:"))["children"]) == 3
    await house.client.data.write("q", 0, b"not one!")
    contents = [(house.folder / f"copy{at}").read_bytes()[:8] for at in range(4)]
    assert contents == [b"not one!", b"all four", b"not one!", b"not one!"]
    assert "copy1" not in {item.filename for item in await house.client.nodes.list()}
    graph = await house.client.nodes.graph("q")
    assert {edge.child.name for edge in graph.edges if edge.parent == "q"} == {
        "children.0",
        "children.2",
        "children.3",
    }


async def test_a_check_only_answers_with_the_node_as_it_is(house: NodeHouse):
    await house.client.nodes.open(quorum(copies(house), 2, node_name="q"))
    house.raw_file("copy3", DATA)
    before = len(await house.client.nodes.list())
    for checked in (
        await house.client.nodes.add_child("q", raw(file("copy3")), validate_only=True),
        await house.client.nodes.remove_child("q", "children.0", validate_only=True),
    ):
        assert len(checked.children) == 3
    assert len(await house.client.nodes.list()) == before


async def test_refusals_of_children_name_what_is_wrong(house: NodeHouse):
    client = house.client.nodes
    await client.open(quorum(copies(house, 2), 2, node_name="q"))
    await client.open(memory(SIZE // 2, node_name="small"))
    refusals: list[tuple[type[BlockError], Any]] = [
        (InvalidArgument, client.add_child("q", "small")),
        (NodeNotFound, client.add_child("q", "nobody")),
        (NodeNotFound, client.add_child("nobody", "small")),
        (OperationUnsupported, client.add_child("small", "q")),
        (InvalidArgument, house.nodes.AddChild(node.AddChildRequest(node_name="q"))),
        (
            InvalidArgument,
            house.nodes.AddChild(node.AddChildRequest(node_name="q", child=NodeReference(none=True))),
        ),
        (InvalidArgument, client.remove_child("q", "children.1")),
        (ResourceNotFound, client.remove_child("q", "children.5")),
        (OperationUnsupported, client.remove_child("small", "file")),
    ]
    for error, call in refusals:
        with pytest.raises(error):
            await call
    assert len((await client.get("q")).children) == 2


async def test_a_child_is_exchanged_in_one_transaction(house: NodeHouse):
    await house.client.nodes.open(quorum(copies(house, 2), 2, node_name="q"))
    house.raw_file("copy2", DATA)
    wanted = NodeReference(definition=raw(file("copy2")))
    actions = [
        node.TransactionAction(add_child=node.AddChildRequest(node_name="q", child=wanted)),
        node.TransactionAction(remove_child=node.RemoveChildRequest(node_name="q", child="children.0")),
    ]
    would = await house.client.nodes.transaction(actions, validate_only=True)
    assert not would.failures and len(would.difference.added_nodes) == len(would.difference.removed_nodes) == 2
    assert [edge.child.name for edge in would.difference.added_edges] == ["children.2"]
    await house.client.nodes.transaction(actions)
    state = await house.client.nodes.get("q")
    assert [child.name for child in state.children] == ["children.1", "children.2"]
    with pytest.raises(TransactionFailed):
        await house.client.nodes.transaction(actions[1:] * 2)
    assert (await house.client.nodes.get("q")).etag == state.etag


async def test_after_a_restart_the_children_are_those_that_were_left(tmp_path: Path):
    async with node_house(tmp_path, state_directory=str(tmp_path / "state")) as house:
        await house.client.nodes.open(quorum(copies(house), 2, node_name="q"))
        house.raw_file("copy3", DATA)
        await house.client.nodes.add_child("q", raw(file("copy3")))
        await house.client.nodes.remove_child("q", "children.1")
        before = [child.name for child in (await house.client.nodes.get("q")).children]
    async with node_house(tmp_path, state_directory=str(tmp_path / "state")) as house:
        state = await house.client.nodes.get("q")
        assert [child.name for child in state.children] == before == ["children.0", "children.2", "children.3"]
        await house.client.data.write("q", 0, b"there again")
        written = [(house.folder / f"copy{at}").read_bytes().startswith(b"there again") for at in range(4)]
        assert written == [True, False, True, True]


async def test_watchers_hear_of_bad_children_and_lost_votes(house: NodeHouse):
    await house.client.nodes.open(quorum(copies(house), 2, node_name="q"))
    revision = (await house.client.nodes.graph()).revision
    spoil(house, 2, 512, b"?")
    assert await house.client.data.read("q", 0, 4096) == DATA[:4096]
    spoil(house, 1, 512, b"!")
    spoil(house, 0, 512, b".")
    with pytest.raises(QuorumFailed) as failure:
        await house.client.data.read("q", 0, 4096)
    assert failure.value.votes == 1
    call = house.watch.WatchNodes(node.WatchNodesRequest(start_revision=revision, node_names=["q"]))
    events = []
    while len(events) < 2:
        change = await call.read()
        if change.HasField("event"):
            events.append((change.event.kind, dict(change.event.details)))
    call.cancel()
    kind, details = events[0]
    assert kind == "quorum-report-bad" and details["child"] == "children.2" and details["type"] == "read"
    assert (details["offset_bytes"], details["length_bytes"]) == ("0", "4096")
    assert events[1][0] == "quorum-failure"


# --- the command line ------------------------------------------------------------------------------------


@pytest.fixture
def cli(house: NodeHouse, capsysbinary: pytest.CaptureFixture[bytes]) -> Cli:
    return Cli(f"unix:{house.folder.parent}/node.sock", capsysbinary)


async def test_a_quorum_from_the_command_line(house: NodeHouse, cli: Cli):
    for name in ("a", "b", "c"):
        await house.client.nodes.open(memory(SIZE, node_name=name))
    opened = await cli(
        *("node", "open", "--format", "quorum", "--name", "q", "--child", "a", "--child", "b"),
        *("--set", "vote_threshold=1", "--set", "read_pattern=fifo"),
    )
    assert opened.code == 0, opened.err
    added = await cli("node", "add-child", "q", "c", "-o", "json")
    assert [child["name"] for child in added.json["children"]] == ["children.0", "children.1", "children.2"]
    checked = await cli("node", "remove-child", "q", "children.0", "--dry-run")
    assert checked.code == 0
    assert (await cli("node", "remove-child", "q", "children.0")).code == 0
    drawn = (await cli("node", "graph", "q")).out
    assert "children.1: b" in drawn and "children.2: c" in drawn and "children.0" not in drawn
    refused = await cli("node", "remove-child", "q", "children.0")
    assert refused.code != 0 and "children.0" in refused.err


async def test_filters_over_open_nodes_from_the_command_line(house: NodeHouse, cli: Cli):
    for name in ("a", "b"):
        await house.client.nodes.open(memory(SIZE, node_name=name))
    opened = await cli(
        *("node", "open", "--format", "blkverify", "--name", "v", "--set", "test=a", "--set", "raw=b")
    )
    assert opened.code == 0, opened.err
    wrong = await cli("node", "open", "--format", "memory", "--child", "a")
    assert wrong.code != 0 and "--child" in wrong.err
    assert (await cli("node", "open", "--format", "qcow2")).code != 0


async def test_a_generic_definition_takes_children_by_number(house: NodeHouse):
    for name in ("a", "b"):
        await house.client.nodes.open(memory(SIZE, node_name=name))
    state = await house.client.nodes.open(
        generic("quorum", {"vote-threshold": 1}, {"children.1": "a", "children.4": "b"}, node_name="q")
    )
    assert [child.name for child in state.children] == ["children.1", "children.4"]
    await house.client.nodes.open(memory(SIZE, node_name="c"))
    added = await house.client.nodes.add_child("q", "c")
    assert added.children[2].name == "children.5"


# --- QEMU's quorum over the same files -------------------------------------------------------------------


class QemuQuorum:
    """A qemu-storage-daemon with our node's own specification, served over NBD, and the events it sent."""

    def __init__(self, reader: asyncio.StreamReader, guest: NbdPeer) -> None:
        self._reader = reader
        self.guest = guest

    async def read(self, offset: int, length: int) -> bytes | None:
        """None if it fails."""
        reply = await self.guest.read(offset, length)
        return None if reply.error else reply.data

    async def events(self) -> list[tuple[str, str, int]]:
        """Kind, child, and first byte of all events until now; QEMU sends at most one of a kind in a second."""
        found = []
        try:
            async with asyncio.timeout(1.2):
                while True:
                    message = json.loads(await self._reader.readline())
                    if "event" in message:
                        data = message["data"]
                        found.append((message["event"], data.get("node-name", ""), data["sector-num"] * 512))
        except TimeoutError:
            return found


@asynccontextmanager
async def qemu_quorum(folder: Path, specification: str, children: Sequence[str]) -> AsyncIterator[QemuQuorum]:
    definition = json.loads(specification.removeprefix("json:"))
    for name, child in zip(children, definition["children"], strict=True):
        child["node-name"] = name
        child["file"]["filename"] = str(folder / child["file"]["filename"])
    sockets = Path(tempfile.mkdtemp(prefix="qsd-"))
    process = await asyncio.create_subprocess_exec(
        "qemu-storage-daemon",
        *("--chardev", f"socket,id=c,path={sockets}/qmp,server=on,wait=off", "--monitor", "chardev=c"),
        *("--blockdev", json.dumps(definition)),
        *("--nbd-server", f"addr.type=unix,addr.path={sockets}/nbd"),
        *("--export", f"type=nbd,id=e,node-name={definition['node-name']},name=e,writable=on"),
    )
    try:
        async with asyncio.timeout(20):
            while not (sockets / "nbd").exists():
                assert process.returncode is None
                await asyncio.sleep(0.02)
        reader, writer = await asyncio.open_unix_connection(sockets / "qmp")
        await reader.readline()
        writer.write(b'{"execute": "qmp_capabilities"}\n')
        await reader.readline()
        guest = await NbdPeer.open(sockets / "nbd", "e", structured=False)
        yield QemuQuorum(reader, guest)
        guest.send(nbd.request(nbd.CMD_DISC, 1, 0, 0, 0))
        await guest.close()
        writer.close()
    finally:
        process.kill()
        await process.wait()
        shutil.rmtree(sockets)


UNIT = 4096


def harmed(numbers: random.Random, count: int) -> list[bytes]:
    """Copies that differ in some units: some have a majority left, some have none, some tie."""
    found = [bytearray(DATA) for _ in range(count)]
    for unit in range(SIZE // UNIT):
        for at in numbers.sample(range(count), numbers.choice((0, 0, 1, 1, 2, count))):
            # Few values, so that wrong copies may agree.
            found[at][unit * UNIT + 7] ^= numbers.choice((1, 2, 3, 4))
    return [bytes(data) for data in found]


@pytest.mark.peer("qemu-storage-daemon")
@pytest.mark.parametrize("rewrite", [False, True])
@pytest.mark.parametrize(("count", "threshold"), [(3, 2), (4, 2), (3, 1), (5, 3)])
async def test_qemu_reads_the_same_fails_where_we_fail_and_rewrites_the_same(
    house: NodeHouse, count: int, threshold: int, rewrite: bool
):
    definition = quorum(copies(house, count), threshold, rewrite_corrupted=rewrite, node_name="q")
    specification = (await house.client.nodes.open(definition)).full_open_options
    await house.client.nodes.close("q")
    bad = harmed(random.Random(count * 10 + threshold), count)
    outcomes = []
    for who in ("ours", "qemu"):
        for at, data in enumerate(bad):
            house.raw_file(f"copy{at}", data)
        read = []
        if who == "ours":
            await house.client.nodes.open(definition)
            read += [await ours(house, offset) for offset in range(0, SIZE, UNIT)]
            await house.client.nodes.close("q")
        else:
            async with qemu_quorum(house.folder, specification, [f"c{at}" for at in range(count)]) as qemu:
                read += [await qemu.read(offset, UNIT) for offset in range(0, SIZE, UNIT)]
        left = [(house.folder / f"copy{at}").read_bytes() for at in range(count)]
        outcomes.append((read, left))
    (our_read, our_left), (their_read, their_left) = outcomes
    assert [at for at, data in enumerate(our_read) if data is None] == [
        at for at, data in enumerate(their_read) if data is None
    ]
    assert (None in our_read) == (threshold > 1), "the scene has units without a quorum"
    assert [at for at in range(len(our_read)) if our_read[at] != their_read[at]] == []
    for at in range(count):
        differ = [
            unit for unit in range(0, SIZE, UNIT) if our_left[at][unit:][:UNIT] != their_left[at][unit:][:UNIT]
        ]
        assert differ == []
        assert (our_left[at] != bad[at]) == rewrite


async def ours(house: NodeHouse, offset: int) -> bytes | None:
    try:
        return bytes(await house.client.data.read("q", offset, UNIT))
    except QuorumFailed:
        return None


@pytest.mark.peer("qemu-storage-daemon")
async def test_qemu_reports_the_same_child_and_the_same_lost_vote(house: NodeHouse):
    definitions = copies(house)
    for at, item in enumerate(definitions):
        item.node_name = f"c{at}"
    specification = (await house.client.nodes.open(quorum(definitions, 2, node_name="q"))).full_open_options
    for at in range(3):
        spoil(house, at, 64 << 10, bytes([at]) * 512)
    spoil(house, 1, 8192, b"?" * 512)
    revision = (await house.client.nodes.graph()).revision
    for offset in (8192, 64 << 10):
        await ours(house, offset)
    call = house.watch.WatchNodes(node.WatchNodesRequest(start_revision=revision, node_names=["q"]))
    told = []
    while len(told) < 2:
        change = await call.read()
        if change.HasField("event"):
            details = change.event.details
            told.append((change.event.kind, details.get("child_node_name", ""), int(details["offset_bytes"])))
    call.cancel()
    for name in ("q", "c0", "c1", "c2"):
        await house.client.nodes.close(name)
    async with qemu_quorum(house.folder, specification, ["c0", "c1", "c2"]) as qemu:
        assert await qemu.read(8192, UNIT) == DATA[8192 : 8192 + UNIT]
        assert await qemu.read(64 << 10, UNIT) is None
        events = await qemu.events()
    names = {"QUORUM_REPORT_BAD": "quorum-report-bad", "QUORUM_FAILURE": "quorum-failure"}
    assert [(names[kind], child, offset) for kind, child, offset in events] == told
