"""Options of open nodes changed under their users: all of them, or none."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blockyard.base.errors import (
    BlockError,
    FileBusy,
    GraphCycle,
    InvalidArgument,
    MissingOption,
    NodeInUse,
    NodeReadOnly,
    UnknownOption,
)
from blockyard.base.units import KIB, MIB
from blockyard.node.graph import recording_actions, surgery
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.reopening import Reopen
from blockyard.node.graph.transaction import Action, Plan, run
from blockyard.node.interface.flags import DetectZeroes, DiscardMode
from tests.graph.test_transactions import picture
from tests.support import peers
from tests.support.yard import Yard, random_bytes, yard


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Yard]:
    async with yard(tmp_path) as ground:
        yield ground


async def disk(ground: Yard, name: str = "disk", **settings: Any) -> bytes:
    """An open qcow2 node with random content, over a file that is part of it."""
    await ground.create_qcow2(f"{name}.qcow2", MIB)
    await ground.open("qcow2", name, f"{name}.qcow2", **settings)
    content = random_bytes(7, MIB)
    if not settings.get("read_only"):
        user = ground.use(name)
        await user.write(0, content)
        ground.graph.release(user)
    return content


def definition_of(ground: Yard, name: str, **changed: Any) -> NodeDefinition:
    """The present definition of a node, with changes and without its children."""
    return replace(ground.graph.get(name).definition, node_name=name, children={}, **changed)


async def reopen(ground: Yard, *definitions: NodeDefinition) -> None:
    await run(ground.graph, [Reopen(definitions)])


class Fails(Action):
    async def switch(self, plan: Plan) -> None:
        raise InvalidArgument("phase", "another one", "switch")


# --- modes ---------------------------------------------------------------------------------------------


async def test_a_node_becomes_read_only_with_its_file_and_writable_again(ground: Yard):
    content = await disk(ground)
    node = ground.graph.get("disk")
    file = node.children["file"].node
    await reopen(ground, definition_of(ground, "disk", read_only=True))
    assert node.read_only and file.read_only and node.definition.read_only
    with pytest.raises(NodeReadOnly):
        ground.use("disk")
    assert await ground.content("disk") == content
    await reopen(ground, definition_of(ground, "disk", read_only=False))
    await ground.use("disk").write(0, b"again")


async def test_a_list_that_names_a_node_twice_is_refused(ground: Yard):
    await disk(ground)
    both = [definition_of(ground, "disk", read_only=value) for value in (True, False)]
    with pytest.raises(InvalidArgument, match="'disk' more than once"):
        await reopen(ground, *both)
    assert not ground.graph.get("disk").read_only


async def test_a_writer_keeps_a_node_writable_and_is_named(ground: Yard):
    await disk(ground)
    ground.use("disk", user="guest")
    with pytest.raises(NodeInUse) as refusal:
        await reopen(ground, definition_of(ground, "disk", read_only=True))
    assert "guest" in refusal.value.owners


async def test_users_stay_while_the_driver_changes_under_them(ground: Yard):
    content = await disk(ground)
    user = ground.graph.use("disk", "session", "reader", writable=False)
    uid = user.node.uid
    await reopen(ground, definition_of(ground, "disk", options={"l2_cache_size": 64 * KIB}))
    assert user.node.uid == uid
    into = bytearray(MIB)
    await user.read(0, memoryview(into))
    assert bytes(into) == content
    assert ground.graph.get("disk").definition.options == {"l2_cache_size": 64 * KIB}


async def test_an_option_left_out_returns_to_its_default(ground: Yard):
    await disk(ground, discard=DiscardMode.IGNORE)
    await reopen(ground, NodeDefinition("qcow2", "disk"))
    assert ground.graph.get("disk").discard is DiscardMode.UNMAP


async def test_a_cache_mode_reaches_the_file_below(ground: Yard):
    await disk(ground)
    file = ground.graph.get("disk").children["file"].node
    await reopen(ground, definition_of(ground, "disk", no_flush=True))
    assert file.no_flush and file.context.no_flush
    await reopen(ground, definition_of(ground, "disk", no_flush=False))
    assert not file.no_flush


async def test_a_childs_own_wish_outlives_its_parents(ground: Yard):
    await ground.create_qcow2("disk.qcow2", MIB)
    file = NodeDefinition("file", options={"filename": "disk.qcow2"}, no_flush=True)
    await ground.graph.open(NodeDefinition("qcow2", "disk", children={"file": file}))
    below = ground.graph.get("disk").children["file"].node
    await reopen(ground, definition_of(ground, "disk", no_flush=True))
    await reopen(ground, definition_of(ground, "disk", no_flush=False))
    assert below.no_flush


async def test_a_child_is_reopened_inside_its_parent(ground: Yard):
    await disk(ground)
    below = ground.graph.get("disk").children["file"].node
    file = NodeDefinition("file", options={"filename": "disk.qcow2"}, no_flush=True)
    await reopen(ground, replace(definition_of(ground, "disk"), children={"file": file}))
    assert ground.graph.get("disk").children["file"].node is below
    assert below.no_flush


async def test_zeroes_are_detected_from_now_on(ground: Yard):
    await disk(ground)
    await reopen(ground, definition_of(ground, "disk", detect_zeroes=DetectZeroes.UNMAP))
    user = ground.use("disk")
    await user.write(0, bytes(64 * KIB))
    extents = await user.block_status(0, 64 * KIB)
    assert [extent.zero for extent in extents] == [True]


async def test_labels_change(ground: Yard):
    await disk(ground)
    await reopen(ground, definition_of(ground, "disk", labels={"tier": "gold"}))
    assert ground.graph.get("disk").definition.labels == {"tier": "gold"}


async def test_memory_that_is_opened_for_writing_is_written(ground: Yard):
    node = await ground.graph.open(NodeDefinition("memory", "m", {"size": MIB}, read_only=True))
    await reopen(ground, NodeDefinition("memory", "m", {"size": MIB}))
    await ground.use("m").write(0, b"x")
    for user in list(node.parents):
        user.detach()
    again = NodeDefinition("memory", "m", {"size": MIB}, read_only=True)
    with pytest.raises(BlockError):
        await run(ground.graph, [Reopen([again]), Fails()])
    await ground.use("m").write(0, b"y")


async def test_memory_keeps_its_bytes(ground: Yard):
    await ground.graph.open(NodeDefinition("memory", "m", {"size": MIB}))
    user = ground.use("m")
    await user.write(0, b"kept")
    ground.graph.release(user)
    await reopen(ground, NodeDefinition("memory", "m", {"size": MIB}, read_only=True, discard=DiscardMode.IGNORE))
    assert (await ground.content("m"))[:4] == b"kept"


# --- children ------------------------------------------------------------------------------------------


async def test_a_backing_file_comes_goes_and_changes(ground: Yard):
    await ground.create_qcow2("top.qcow2", MIB)
    await ground.open("qcow2", "top", "top.qcow2")
    for number in (1, 2):
        ground.raw_file(f"base{number}.raw", random_bytes(number, MIB))
        await ground.open("raw", f"base{number}", f"base{number}.raw", read_only=True)
    for number in (1, 2):
        await reopen(ground, replace(definition_of(ground, "top"), children={"backing": f"base{number}"}))
        assert await ground.content("top") == random_bytes(number, MIB)
    await reopen(ground, replace(definition_of(ground, "top"), children={"backing": None}))
    assert await ground.content("top") == bytes(MIB)


async def test_a_child_that_is_left_out_stays(ground: Yard):
    await ground.create_qcow2("top.qcow2", MIB)
    await ground.open("qcow2", "top", "top.qcow2")
    ground.raw_file("base.raw", random_bytes(1, MIB))
    await ground.open("raw", "base", "base.raw", read_only=True)
    await reopen(ground, replace(definition_of(ground, "top"), children={"backing": "base"}))
    await reopen(ground, definition_of(ground, "top"))
    assert await ground.content("top") == random_bytes(1, MIB)


async def test_a_child_that_only_the_parent_held_is_closed_with_the_change(ground: Yard):
    await ground.graph.open(
        NodeDefinition("raw", "r", children={"file": NodeDefinition("memory", options={"size": MIB})})
    )
    old = ground.graph.get("r").children["file"].node.name
    await reopen(
        ground, NodeDefinition("raw", "r", children={"file": NodeDefinition("memory", options={"size": MIB})})
    )
    assert ground.graph.get("r").children["file"].node.name == old, "the same definition means the same child"
    new = NodeDefinition("null", options={"size": MIB})
    await reopen(ground, NodeDefinition("raw", "r", children={"file": new}))
    assert old not in ground.graph.nodes
    assert ground.graph.get("r").children["file"].node.implicit


async def test_a_link_that_someone_froze_does_not_change(ground: Yard):
    await ground.graph.open(NodeDefinition("memory", "a", {"size": MIB}))
    await ground.graph.open(NodeDefinition("memory", "b", {"size": MIB}))
    await ground.graph.open(NodeDefinition("raw", "r", children={"file": "a"}))
    ground.graph.get("r").children["file"].frozen_reason = "job/j reads here"
    with pytest.raises(NodeInUse) as refusal:
        await reopen(ground, NodeDefinition("raw", "r", children={"file": "b"}))
    assert "job/j" in str(refusal.value)


async def test_no_circle_is_made(ground: Yard):
    await ground.graph.open(NodeDefinition("memory", "m", {"size": MIB}))
    await ground.graph.open(NodeDefinition("raw", "low", children={"file": "m"}))
    await ground.graph.open(NodeDefinition("raw", "high", children={"file": "low"}))
    with pytest.raises(GraphCycle):
        await reopen(ground, NodeDefinition("raw", "low", children={"file": "high"}))


# --- several, and failures -----------------------------------------------------------------------------


async def test_several_nodes_change_together(ground: Yard):
    await disk(ground, "one")
    await disk(ground, "two")
    await reopen(ground, *(definition_of(ground, name, read_only=True) for name in ("one", "two")))
    assert all(ground.graph.get(name).read_only for name in ("one", "two"))


async def test_one_that_cannot_be_opened_leaves_the_others_as_they_were(ground: Yard):
    content = await disk(ground, "one")
    await disk(ground, "two")
    await reopen(ground, *(definition_of(ground, name, read_only=True) for name in ("one", "two")))
    before = picture(ground.graph)
    path = ground.folder / "two.qcow2"
    header = bytearray(path.read_bytes())
    header[4:8] = (9).to_bytes(4, "big")  # a version that nobody knows
    path.write_bytes(header)
    with pytest.raises(BlockError):
        await reopen(ground, *(definition_of(ground, name, read_only=False) for name in ("one", "two")))
    assert ground.graph.get("one").read_only
    assert await ground.content("one") == content
    assert {name: item[3:] for name, item in picture(ground.graph).items() if name == "one"} == {
        name: item[3:] for name, item in before.items() if name == "one"
    }


async def test_a_later_action_that_fails_brings_drivers_and_edges_back(ground: Yard):
    content = await disk(ground)
    ground.raw_file("base.raw", random_bytes(1, MIB))
    await ground.open("raw", "base", "base.raw", read_only=True)
    before, driver = picture(ground.graph), ground.graph.get("disk").driver
    wanted = replace(definition_of(ground, "disk", read_only=True), children={"backing": "base"})
    with pytest.raises(BlockError):
        await run(ground.graph, [Reopen([wanted]), recording_actions.CreateBitmap("disk", "b"), Fails()])
    assert picture(ground.graph) == before
    assert ground.graph.get("disk").driver is not driver
    assert await ground.content("disk") == content
    await ground.use("disk").write(0, b"writable as before")


async def test_a_dry_run_changes_nothing(ground: Yard):
    await disk(ground)
    before, driver = picture(ground.graph), ground.graph.get("disk").driver
    outcome = await run(ground.graph, [Reopen([definition_of(ground, "disk", read_only=True)])], validate_only=True)
    assert outcome.failures == [] and "disk" in outcome.changed_nodes
    assert picture(ground.graph) == before and ground.graph.get("disk").driver is driver


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        (NodeDefinition("raw", "disk"), InvalidArgument),
        (NodeDefinition("qcow2", ""), MissingOption),
        (NodeDefinition("qcow2", "disk", {"no_such": 1}), UnknownOption),
        (NodeDefinition("qcow2", "disk", children={"target": "disk"}), UnknownOption),
        (NodeDefinition("qcow2", "disk", children={"file": None}), MissingOption),
        (NodeDefinition("qcow2", "disk", executor="elsewhere"), InvalidArgument),
        (NodeDefinition("qcow2", "disk", ephemeral=True), InvalidArgument),
        (NodeDefinition("qcow2", "disk", force_share=True), InvalidArgument),
    ],
)
async def test_what_cannot_be_is_refused_before_anything_happens(
    ground: Yard, wanted: NodeDefinition, error: type[BlockError]
):
    await disk(ground)
    driver = ground.graph.get("disk").driver
    with pytest.raises(error):
        await reopen(ground, wanted)
    assert ground.graph.get("disk").driver is driver


async def test_what_a_node_is_open_on_is_fixed(ground: Yard):
    await disk(ground)
    ground.raw_file("other", 4096)
    below = ground.graph.get("disk").children["file"].node
    with pytest.raises(InvalidArgument):
        await reopen(ground, NodeDefinition("file", below.name, {"filename": "other"}))
    await ground.graph.open(NodeDefinition("memory", "m", {"size": MIB}))
    with pytest.raises(InvalidArgument):
        await reopen(ground, NodeDefinition("memory", "m", {"size": 2 * MIB}))


async def test_a_layer_that_a_job_writes_to_is_not_reopened(ground: Yard):
    await disk(ground, read_only=True)
    ground.graph.get("disk").lent_for_writing = True
    with pytest.raises(NodeInUse):
        await reopen(ground, definition_of(ground, "disk"))
    ground.graph.get("disk").lent_for_writing = False


@pytest.mark.peer("qemu-io")
async def test_qemu_may_read_the_file_of_a_node_that_became_read_only(ground: Yard):
    await disk(ground)
    path = str(ground.folder / "disk.qcow2")
    held = peers.run("qemu-io", "-r", "-f", "qcow2", path, "-c", "read 0 64k", check=False)
    assert "lock" in held.stderr + held.stdout
    await reopen(ground, definition_of(ground, "disk", read_only=True))
    assert "read 65536/65536" in peers.run("qemu-io", "-r", "-f", "qcow2", path, "-c", "read 0 64k").stdout


async def test_a_file_that_another_process_took_keeps_the_node_read_only(ground: Yard):
    await disk(ground)
    await reopen(ground, definition_of(ground, "disk", read_only=True))
    with (ground.folder / "disk.qcow2").open("r+b") as other:
        import fcntl
        import struct

        lock = struct.pack("=hh4xqqi4x", fcntl.F_RDLCK, 0, 201, 1, 0)  # "I do not share write"
        fcntl.fcntl(other, fcntl.F_OFD_SETLK, lock)
        with pytest.raises(FileBusy):
            await reopen(ground, definition_of(ground, "disk", read_only=False))
    assert ground.graph.get("disk").read_only
    assert (await ground.content("disk")) == random_bytes(7, MIB)


async def test_the_specification_tells_the_new_options(ground: Yard):
    await disk(ground)
    await reopen(ground, definition_of(ground, "disk", options={"l2_cache_size": 64 * KIB}))
    specification = ground.graph.get("disk").definition.specification()
    assert json.loads(specification.removeprefix("json:"))["l2-cache-size"] == 64 * KIB


async def test_an_overlay_that_was_reopened_is_still_removed_with_its_filter(ground: Yard):
    await disk(ground)
    await ground.graph.open(NodeDefinition("copy-on-read", "cor", children={"file": "disk"}))
    await reopen(ground, NodeDefinition("copy-on-read", "cor"))
    user = ground.use("cor")
    assert await surgery.remove_filter(ground.graph, ground.graph.get("cor")) is user.node
