"""What comes back after a restart, over the API: the same directory, another process's life."""

import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from blockyard.base.errors import (
    BitmapInconsistent,
    CatalogueDamaged,
    CatalogueTooNew,
    DependencyNotRestored,
    EntryNotRestored,
    FileBusy,
    FileNotFound,
    ResourceBusy,
    ResourceNotFound,
    StateDirectoryBusy,
)
from blockyard.client.definitions import file, memory, qcow2, raw
from blockyard.node.copying.spec import CopyKind, FinishAction, SessionSpec
from blockyard.node.graph.graph import Graph
from blockyard.v1 import node_pb2 as node
from tests.support.kept_graph import differences, picture
from tests.support.node_calls import NodeHouse, node_house
from tests.support.yard import work_off

MIB = 1 << 20


def living(folder: Path, **options: object):
    """One life of the service."""
    options.setdefault("nbd", (f"unix:{folder}/nbd.sock",))
    return node_house(folder, state_directory=str(folder / "state"), **options)


async def chain(house: NodeHouse) -> None:
    """top.qcow2 above mid.qcow2 above base.raw."""
    images = house.client.images
    await images.create("base.raw", MIB)
    await images.create("mid.qcow2", format="qcow2", backing_file="base.raw", backing_format="raw")
    await images.create("top.qcow2", format="qcow2", backing_file="mid.qcow2", backing_format="qcow2")


async def work(house: NodeHouse, spec: SessionSpec, action: FinishAction) -> None:
    """A copy session from its beginning to its end."""
    session = await house.running.copies.create(spec, 1)
    await work_off(session)
    await house.running.copies.finish(spec.session_id, 1, action)


@contextmanager
def held_by_qemu(image: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A qemu-io that has the image open; it ends on `quit`."""
    with subprocess.Popen(
        ["qemu-io", "-f", "qcow2", str(image)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdin is not None and other.stdout is not None
        other.stdin.write(b"length\n")
        other.stdin.flush()
        other.stdout.readline()
        yield other


async def active(house: NodeHouse, name: str, wanted: bool):
    """Hand a node over, or take it back."""
    return await house.nodes.SetNodeActive(node.SetNodeActiveRequest(node_name=name, active=wanted))


async def failures(house: NodeHouse) -> dict[str, str]:
    return {entry.name: entry.reason for entry in (await house.client.catalogue.list(failed_only=True)).entries}


def agreed(graph: Graph) -> bool:
    """Whether what is kept says of everything what it is."""
    return graph.kept.catalogue.differences() == []


# --- the same graph --------------------------------------------------------------------------------------


async def test_a_graph_comes_back_as_it_was(tmp_path: Path):
    async with living(tmp_path) as house:
        await chain(house)
        house.raw_file("other.raw", MIB)
        nodes = house.client.nodes
        await nodes.open(qcow2(file("top.qcow2"), node_name="top", l2_cache_size=MIB, labels={"team": "blue"}))
        await nodes.open(raw(file("other.raw"), node_name="plain", offset=512, no_flush=True))
        await nodes.open(memory(MIB, node_name="scratch"))
        await house.client.bitmaps.add("top", "since", granularity_bytes=4096)
        await house.client.exports.add_nbd("top", "disk", writable=True, bitmaps=())
        before = await picture(house.client)
        assert agreed(house.graph)
    async with living(tmp_path) as house:
        assert differences(before, await picture(house.client)) == []
        assert agreed(house.graph)
        assert await failures(house) == {}


async def test_new_names_of_the_service_do_not_meet_old_ones(tmp_path: Path):
    async with living(tmp_path) as house:
        await chain(house)
        await house.client.nodes.open(qcow2(file("top.qcow2"), node_name="top"))
        taken = {node.node_name for node in await house.client.nodes.list()}
    async with living(tmp_path) as house:
        new = await house.client.nodes.open(memory(MIB))
        assert new.node_name not in taken
        assert {node.node_name for node in await house.client.nodes.list()} == taken | {new.node_name}


async def test_what_was_closed_does_not_come_back(tmp_path: Path):
    async with living(tmp_path) as house:
        await house.client.nodes.open(memory(MIB, node_name="a"))
        await house.client.nodes.open(memory(MIB, node_name="b"))
        await house.client.bitmaps.add("a", "since")
        await house.client.exports.add_nbd("b", "disk")
        await house.client.exports.remove("disk")
        await house.client.nodes.close("a")
    async with living(tmp_path) as house:
        assert set((await picture(house.client))["nodes"]) == {"b"}
        assert [str(key) for key in house.graph.kept.catalogue.entries] == ["node b"]


async def test_an_overlay_is_on_top_again(tmp_path: Path):
    async with living(tmp_path) as house:
        await house.client.images.create("base.raw", MIB)
        await house.client.images.create("over.qcow2", MIB, format="qcow2")
        await house.client.nodes.open(raw(file("base.raw"), node_name="base"))
        await house.client.exports.add_nbd("base", "disk", writable=True)
        await house.client.nodes.open(qcow2(file("over.qcow2"), node_name="over"))
        await house.client.nodes.insert_overlay("base", "over")
        await house.client.data.write("over", 0, b"x" * 512)
        await house.client.data.flush("over")
        before = await picture(house.client)
        assert before["exports"]["disk"][0] == "over"
    async with living(tmp_path) as house:
        assert differences(before, await picture(house.client)) == []
        assert await house.client.data.read("over", 0, 512) == b"x" * 512
        assert agreed(house.graph)


async def test_an_overlay_above_a_node_of_the_services_own_comes_back(tmp_path: Path):
    async with living(tmp_path) as house:
        await chain(house)
        top = await house.client.nodes.open(qcow2(file("top.qcow2"), node_name="top"))
        mid = next(child.node_name for child in top.children if child.name == "backing")
        await house.client.images.create("over.qcow2", MIB, format="qcow2")
        await house.client.nodes.open(qcow2(file("over.qcow2"), node_name="over"))
        await house.client.nodes.insert_overlay(mid, "over")
        before = await picture(house.client)
        assert ("top", "backing", "over") in before["edges"]
        assert ("over", "backing", mid) in before["edges"]
    async with living(tmp_path) as house:
        assert differences(before, await picture(house.client)) == []
        assert agreed(house.graph)


async def test_a_replaced_node_stays_replaced(tmp_path: Path):
    async with living(tmp_path) as house:
        for name in ("a", "b"):
            house.raw_file(f"{name}.raw", MIB)
            await house.client.nodes.open(raw(file(f"{name}.raw"), node_name=name))
        await house.client.nodes.open(raw("a", node_name="above"))
        await house.client.nodes.replace("a", "b")
        before = await picture(house.client)
    async with living(tmp_path) as house:
        after = await picture(house.client)
        # The file it was opened from: now that is the other one.
        assert differences(before, after) == ["/nodes/above/filename: a.raw became b.raw"]
        assert ("above", "file", "b") in before["edges"]


async def test_a_streamed_chain_stays_short_and_its_header_does_not_matter(tmp_path: Path):
    async with living(tmp_path) as house:
        await chain(house)
        await house.client.nodes.open(qcow2(file("top.qcow2"), node_name="top"))
        await work(house, SessionSpec("s", "job/s", CopyKind.STREAM, "top"), FinishAction.COMPLETE)
        before = await picture(house.client)
        assert len(before["nodes"]) == 2
    (tmp_path / "images" / "mid.qcow2").unlink()
    async with living(tmp_path) as house:
        assert differences(before, await picture(house.client)) == []


@pytest.mark.peer("qemu-img")
async def test_an_image_that_others_rebased_meanwhile_is_opened_as_its_header_says(tmp_path: Path):
    async with living(tmp_path) as house:
        await chain(house)
        shutil.copy(tmp_path / "images" / "mid.qcow2", tmp_path / "images" / "else.qcow2")
        await house.client.nodes.open(qcow2(file("top.qcow2"), node_name="top"))
    subprocess.run(
        ["qemu-img", "rebase", "-u", "-b", "else.qcow2", "-F", "qcow2", "top.qcow2"],
        cwd=tmp_path / "images",
        check=True,
    )
    async with living(tmp_path) as house:
        top = await house.client.nodes.get("top")
        below = next(child.node_name for child in top.children if child.name == "backing")
        assert (await house.client.nodes.get(below)).filename == "else.qcow2"
        assert agreed(house.graph)


async def test_a_changed_header_does_not_change_the_graph_after_a_restart(tmp_path: Path):
    async with living(tmp_path) as house:
        await chain(house)
        shutil.copy(tmp_path / "images" / "mid.qcow2", tmp_path / "images" / "same.qcow2")
        await house.client.nodes.open(qcow2(file("top.qcow2"), node_name="top"))
        await house.client.nodes.change_backing_file("top", "same.qcow2", "qcow2")
        before = await picture(house.client)
    async with living(tmp_path) as house:
        assert differences(before, await picture(house.client)) == []


async def test_an_ephemeral_node_comes_back_without_what_was_written_to_it(tmp_path: Path):
    async with living(tmp_path) as house:
        house.raw_file("a.raw", b"a" * MIB)
        definition = raw(file("a.raw", node_name="below"), node_name="e", labels={"team": "blue"})
        definition.ephemeral = True
        await house.client.nodes.open(definition)
        await house.client.data.write("e", 0, b"x" * 512)
        before = await picture(house.client)
        assert agreed(house.graph)
    for _ in range(2):
        async with living(tmp_path) as house:
            assert await failures(house) == {}
            changed = differences(before, await picture(house.client))
            assert [line for line in changed if "/size_bytes" not in line] == []
            assert await house.client.data.read("e", 0, 512) == b"a" * 512
            assert agreed(house.graph)


async def test_a_node_comes_back_as_it_was_reopened(tmp_path: Path):
    async with living(tmp_path) as house:
        house.raw_file("a.raw", MIB)
        await house.client.nodes.open(raw(file("a.raw"), node_name="a"))
        wanted = raw("", node_name="a", read_only=True, labels={"team": "blue"}, discard="ignore")
        wanted.raw.ClearField("file")
        await house.client.nodes.reopen([wanted])
        before = await picture(house.client)
        assert before["nodes"]["a"]["read_only"] == "True"
        assert agreed(house.graph)
    async with living(tmp_path) as house:
        assert differences(before, await picture(house.client)) == []
        assert agreed(house.graph)


# --- bitmaps ---------------------------------------------------------------------------------------------


async def test_a_bitmap_comes_back_inconsistent_and_can_only_be_deleted(tmp_path: Path):
    async with living(tmp_path) as house:
        await house.client.nodes.open(memory(MIB, node_name="a"))
        await house.client.bitmaps.add("a", "since", granularity_bytes=4096)
    async with living(tmp_path) as house:
        bitmap = await house.client.bitmaps.get("a", "since")
        assert (bitmap.granularity_bytes, bitmap.recording, bitmap.inconsistent) == (4096, False, True)
        for refused in (
            house.client.bitmaps.clear("a", "since"),
            house.client.bitmaps.record("a", "since", True),
            house.client.exports.add_nbd("a", "disk", bitmaps=["since"]),
        ):
            with pytest.raises(BitmapInconsistent):
                await refused
        with pytest.raises(BitmapInconsistent):
            [extent async for extent in house.client.bitmaps.extents("a", "since")]
        await house.client.bitmaps.remove("a", "since")
        assert agreed(house.graph)


async def test_an_export_comes_back_without_the_bitmap_that_lost_its_bits(tmp_path: Path):
    async with living(tmp_path) as house:
        await house.client.nodes.open(memory(MIB, node_name="a"))
        await house.client.bitmaps.add("a", "since")
        await house.client.exports.add_nbd("a", "disk", bitmaps=["since"])
    async with living(tmp_path) as house:
        assert list((await house.client.exports.get("disk")).nbd.bitmaps) == []
        assert agreed(house.graph)


# --- executors and thresholds ----------------------------------------------------------------------------


async def test_executors_come_back_and_nodes_run_there(tmp_path: Path):
    async with living(tmp_path, executors=("fixed:3",)) as house:
        house.raw_file("a.raw", MIB)
        await house.client.executors.create("slow", threads=2)
        await house.client.executors.create("gone")
        await house.client.executors.delete("gone")
        await house.client.nodes.open(raw(file("a.raw"), node_name="a", executor="slow"))
        await house.client.nodes.open(memory(MIB, node_name="b"))
        await house.client.nodes.set_executor("b", "fixed")
        before = await picture(house.client)
        assert agreed(house.graph)
    async with living(tmp_path, executors=("fixed:3",)) as house:
        assert differences(before, await picture(house.client)) == []
        assert [(each.name, each.threads) for each in await house.client.executors.list()] == [
            ("fixed", 3),
            ("main", 16),
            ("slow", 2),
        ]
        assert agreed(house.graph)


async def test_a_node_whose_executor_is_configured_no_more_waits_for_it(tmp_path: Path):
    async with living(tmp_path, executors=("fixed",)) as house:
        await house.client.nodes.open(memory(MIB, node_name="a", executor="fixed"))
    async with living(tmp_path) as house:
        assert await failures(house) == {"a": "RESOURCE_NOT_FOUND"}
        await house.client.executors.create("fixed")
        await house.client.catalogue.restore("node", "a")
        assert await failures(house) == {}


async def test_a_write_threshold_is_armed_again_until_it_is_passed(tmp_path: Path):
    async with living(tmp_path) as house:
        await house.client.nodes.open(memory(MIB, node_name="a"))
        await house.client.nodes.set_write_threshold("a", 4096)
    async with living(tmp_path) as house:
        assert (await house.client.nodes.get("a")).write_threshold_bytes == 4096
        await house.client.data.write("a", 4096, b"x")
        await house.client.nodes.open(memory(MIB, node_name="b"))
    async with living(tmp_path) as house:
        assert (await house.client.nodes.get("a")).write_threshold_bytes == 0


@pytest.mark.peer("qemu-img")
async def test_what_was_handed_over_stays_with_the_other_process_until_it_is_taken_back(tmp_path: Path):
    image = tmp_path / "images" / "a.qcow2"
    async with living(tmp_path) as house:
        await house.client.images.create("a.qcow2", MIB, format="qcow2")
        await house.client.nodes.open(qcow2(file("a.qcow2"), node_name="a"))
        await active(house, "a", False)
        before = await picture(house.client)
    with held_by_qemu(image) as other:
        async with living(tmp_path) as house:
            assert differences(before, await picture(house.client)) == []
            assert not (await house.client.nodes.get("a")).active
            with pytest.raises(FileBusy):
                await active(house, "a", True)
            other.communicate(b"quit\n")
            taken = await active(house, "a", True)
            assert (taken.active, taken.read_only) == (True, False)
            assert agreed(house.graph)
    async with living(tmp_path) as house:
        await house.client.data.write("a", 0, b"x")


async def test_a_node_that_waits_for_a_writer_still_does(tmp_path: Path):
    async with living(tmp_path) as house:
        house.raw_file("a.raw", MIB)
        await house.client.nodes.open(raw(file("a.raw"), node_name="a", auto_read_only=True))
        await house.client.exports.add_nbd("a", "disk", writable=True)
        before = await picture(house.client)
        assert before["nodes"]["a"]["read_only"] == "False"
    async with living(tmp_path) as house:
        assert differences(before, await picture(house.client)) == []
        await house.client.exports.remove("disk")
        assert (await house.client.nodes.get("a")).read_only
        assert agreed(house.graph)


# --- exports ---------------------------------------------------------------------------------------------


async def test_an_export_is_at_the_port_that_the_kernel_chose_before(tmp_path: Path):
    async with living(tmp_path, nbd=()) as house:
        await house.client.nodes.open(memory(MIB, node_name="a"))
        made = await house.client.exports.add_nbd("a", "disk", addresses=["127.0.0.1:0"])
        assert not made.uris[0].endswith(":0/disk")
    async with living(tmp_path, nbd=()) as house:
        assert list((await house.client.exports.get("disk")).uris) == list(made.uris)


# --- what does not come back -----------------------------------------------------------------------------


async def broken(folder: Path) -> None:
    """`lost` (its file will be gone); what needs it: `above`, `higher`, a bitmap, an export; and a good one."""
    async with living(folder) as house:
        house.raw_file("lost.raw", MIB)
        house.raw_file("good.raw", MIB)
        await house.client.nodes.open(raw(file("lost.raw"), node_name="lost"))
        await house.client.nodes.open(raw("lost", node_name="above"))
        await house.client.nodes.open(raw("above", node_name="higher"))
        await house.client.nodes.open(raw(file("good.raw"), node_name="good"))
        await house.client.bitmaps.add("lost", "since")
        await house.client.exports.add_nbd("higher", "disk")
        await house.client.exports.add_nbd("good", "other")
    (folder / "images" / "lost.raw").rename(folder / "images" / "away.raw")


async def test_what_cannot_be_opened_is_listed_with_its_reason_and_blocks_nothing_else(tmp_path: Path):
    await broken(tmp_path)
    async with living(tmp_path) as house:
        assert await failures(house) == {
            "lost": "FILE_NOT_FOUND",
            "above": "DEPENDENCY_NOT_RESTORED",
            "higher": "DEPENDENCY_NOT_RESTORED",
            "lost/since": "DEPENDENCY_NOT_RESTORED",
            "disk": "DEPENDENCY_NOT_RESTORED",
        }
        found = await picture(house.client)
        assert "good" in found["nodes"] and list(found["exports"]) == ["other"]
        listed = await house.client.catalogue.list()
        above = next(entry for entry in listed.entries if entry.name == "above")
        assert "'lost'" in above.failure
        assert json.loads(above.definition.removeprefix("json:"))["file"] == "lost"
        assert listed.location == str(tmp_path / "state" / "catalogue.db")


async def test_what_failed_is_not_forgotten_by_a_second_restart(tmp_path: Path):
    await broken(tmp_path)
    for _ in range(2):
        async with living(tmp_path) as house:
            assert len(await failures(house)) == 5
            await house.client.nodes.open(memory(MIB, node_name="meanwhile"))
            await house.client.nodes.close("meanwhile")
    (tmp_path / "images" / "away.raw").rename(tmp_path / "images" / "lost.raw")
    async with living(tmp_path) as house:
        assert await failures(house) == {}


async def test_the_name_of_what_failed_is_taken(tmp_path: Path):
    await broken(tmp_path)
    async with living(tmp_path) as house:
        with pytest.raises(EntryNotRestored) as caught:
            await house.client.nodes.open(memory(MIB, node_name="lost"))
        assert "catalogue forget node lost" in caught.value.hint


async def test_a_failed_entry_is_tried_again_with_all_that_need_it(tmp_path: Path):
    await broken(tmp_path)
    async with living(tmp_path) as house:
        with pytest.raises(FileNotFound):
            await house.client.catalogue.restore("node", "lost")
        with pytest.raises(DependencyNotRestored):
            await house.client.catalogue.restore("node", "higher")
        (tmp_path / "images" / "away.raw").rename(tmp_path / "images" / "lost.raw")
        entry = await house.client.catalogue.restore("node", "lost")
        assert (entry.name, entry.failure) == ("lost", "")
        assert await failures(house) == {}
        assert (await house.client.exports.get("disk")).node_name == "higher"
        assert agreed(house.graph)


async def test_trying_again_begins_with_what_is_needed(tmp_path: Path):
    await broken(tmp_path)
    async with living(tmp_path) as house:
        (tmp_path / "images" / "away.raw").rename(tmp_path / "images" / "lost.raw")
        await house.client.catalogue.restore("export", "disk")
        assert await failures(house) == {}


async def test_a_failed_entry_can_be_forgotten_with_its_bitmaps(tmp_path: Path):
    await broken(tmp_path)
    async with living(tmp_path) as house:
        await house.client.catalogue.forget("node", "lost")
        assert set(await failures(house)) == {"above", "higher", "disk"}
        await house.client.nodes.open(memory(MIB, node_name="lost"))
        await house.client.catalogue.restore("export", "disk")
        assert await failures(house) == {}


async def test_only_what_failed_is_tried_again_or_forgotten(tmp_path: Path):
    await broken(tmp_path)
    async with living(tmp_path) as house:
        for call in (house.client.catalogue.restore, house.client.catalogue.forget):
            with pytest.raises(ResourceBusy):
                await call("node", "good")
            with pytest.raises(ResourceNotFound):
                await call("node", "nobody")
            with pytest.raises(ResourceNotFound):
                await call("planet", "mars")


@pytest.mark.peer("qemu-img")
async def test_an_image_that_another_process_holds_is_listed_as_busy(tmp_path: Path):
    async with living(tmp_path) as house:
        await house.client.images.create("a.qcow2", MIB, format="qcow2")
        await house.client.nodes.open(qcow2(file("a.qcow2"), node_name="a"))
        await house.client.exports.add_nbd("a", "disk")
    with held_by_qemu(tmp_path / "images" / "a.qcow2") as other:
        async with living(tmp_path) as house:
            assert await failures(house) == {"a": "FILE_BUSY", "disk": "DEPENDENCY_NOT_RESTORED"}
            other.communicate(b"quit\n")
            await house.client.catalogue.restore("node", "a")
            assert await failures(house) == {}


async def test_an_image_that_was_not_closed_is_repaired_on_the_way_back(tmp_path: Path):
    async with living(tmp_path) as house:
        await house.client.images.create("a.qcow2", MIB, format="qcow2", lazy_refcounts=True)
        await house.client.nodes.open(qcow2(file("a.qcow2"), node_name="a"))
        await house.client.data.write("a", 0, b"x" * 65536)
        await house.client.data.flush("a")
        left = (tmp_path / "images" / "a.qcow2").read_bytes()
        assert left[79] & 1, "the dirty bit is set while it is open"
    (tmp_path / "images" / "a.qcow2").write_bytes(left)
    async with living(tmp_path) as house:
        assert await failures(house) == {}
        assert await house.client.data.read("a", 0, 65536) == b"x" * 65536
        await house.client.nodes.close("a")
        check = await house.client.images.check("a.qcow2", "qcow2")
        assert (check.corruptions, check.leaks) == (0, 0)


# --- the directory ---------------------------------------------------------------------------------------


async def test_two_processes_do_not_share_a_state_directory(tmp_path: Path):
    async with living(tmp_path):
        with pytest.raises(StateDirectoryBusy) as caught:
            async with living(tmp_path):
                pass
        assert str(os.getpid()) in str(caught.value)


async def test_a_damaged_catalogue_is_refused_and_left_as_it_is(tmp_path: Path):
    async with living(tmp_path) as house:
        for number in range(200):
            await house.client.nodes.open(memory(MIB, node_name=f"n{number}", labels={"a": "b" * 900}))
    path = tmp_path / "state" / "catalogue.db"
    whole = path.read_bytes()
    for damaged in (b"", whole[:5000], b"\xff" * 100 + whole[100:], whole[:4096] + bytes(8192) + whole[12288:]):
        path.write_bytes(damaged)
        with pytest.raises(CatalogueDamaged) as caught:
            async with living(tmp_path):
                pass
        assert str(path) in str(caught.value)
        assert path.read_bytes() == damaged
    path.write_bytes(whole)
    async with living(tmp_path) as house:
        assert len(house.graph.nodes) == 200


async def test_a_catalogue_of_a_later_version_is_refused(tmp_path: Path):
    async with living(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "state" / "catalogue.db") as database:
        database.execute("INSERT INTO migrations VALUES (99, 'tomorrow')")
    database.close()
    with pytest.raises(CatalogueTooNew):
        async with living(tmp_path):
            pass


async def test_without_a_state_directory_nothing_is_kept(tmp_path: Path):
    async with node_house(tmp_path) as house:
        await house.client.nodes.open(memory(MIB, node_name="a"))
        listed = await house.client.catalogue.list()
        assert (list(listed.entries), listed.location) == ([], "")
    async with node_house(tmp_path) as house:
        assert house.graph.nodes == {}


async def test_a_thousand_nodes_are_there_within_two_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    async with living(tmp_path) as house:
        await house.client.images.create("base.qcow2", MIB, format="qcow2")
        template = (tmp_path / "images" / "base.qcow2").read_bytes()
        for number in range(1000):
            house.raw_file(f"{number}.qcow2", template)
            await house.client.nodes.open(qcow2(file(f"{number}.qcow2"), node_name=f"n{number}"))
    started = time.perf_counter()
    async with living(tmp_path) as house:
        took = time.perf_counter() - started
        assert len(house.graph.nodes) == 2000
    with capsys.disabled():
        print(f"\n1,000 images (2,000 nodes) back in {took:.2f} s")
    assert took < 10, "one to two seconds; this leaves room for a busy machine"


async def test_exports_that_share_an_address_of_their_own_all_come_back(tmp_path: Path):
    async with living(tmp_path, nbd=()) as house:
        for name in ("a", "b", "c"):
            await house.client.nodes.open(memory(MIB, node_name=name))
            await house.client.exports.add_nbd(name, name, addresses=[f"unix:{tmp_path}/own.sock"])
    async with living(tmp_path, nbd=()) as house:
        assert house.graph.kept.catalogue.failed == {}
        assert {export.export_id for export in await house.client.exports.list()} == {"a", "b", "c"}
