"""A node whose state directory cannot be written: every change is refused and has not happened; reading goes on."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from blockyard.base.errors import CatalogueNotWritten
from blockyard.client.definitions import file, generic, memory, qcow2, raw
from blockyard.v1 import export_pb2 as export
from blockyard.v1 import node_pb2 as node
from tests.support.kept_graph import differences, picture
from tests.support.node_calls import NodeHouse, node_house

MIB = 1 << 20
Call = Callable[[NodeHouse], Awaitable[Any]]


def both(house: NodeHouse) -> Awaitable[Any]:
    """One export goes and another comes, in one transaction."""
    new = export.Export(export_id="new", node_name="disk", nbd=export.NbdExport())
    return house.client.nodes.transaction(
        [
            node.TransactionAction(delete_export=export.DeleteExportRequest(export_id="old")),
            node.TransactionAction(create_export=export.CreateExportRequest(export=new)),
            node.TransactionAction(close=node.CloseNodeRequest(node_name="spare")),
        ]
    )


CALLS: dict[str, Call] = {
    "open": lambda house: house.client.nodes.open(memory(MIB, node_name="new")),
    "close": lambda house: house.client.nodes.close("spare"),
    "overlay": lambda house: house.client.nodes.insert_overlay("disk", "over"),
    "insert filter": lambda house: house.client.nodes.insert_filter(
        "disk", generic("copy-on-read", children={"file": "disk"}, node_name="cor")
    ),
    "remove filter": lambda house: house.client.nodes.remove_filter("filter"),
    "replace": lambda house: house.client.nodes.replace("disk", "spare"),
    "header": lambda house: house.client.nodes.change_backing_file("over", "base.raw", "raw"),
    "transaction": both,
    "add bitmap": lambda house: house.client.bitmaps.add("disk", "new"),
    "remove bitmap": lambda house: house.client.bitmaps.remove("disk", "since"),
    "stop recording": lambda house: house.client.bitmaps.record("disk", "since", False),
    "add export": lambda house: house.client.exports.add_nbd("disk", "new"),
    "remove export": lambda house: house.client.exports.remove("old"),
    "create executor": lambda house: house.client.executors.create("new"),
    "delete executor": lambda house: house.client.executors.delete("slow"),
    "move": lambda house: house.client.nodes.set_executor("disk", "slow"),
    "threshold": lambda house: house.client.nodes.set_write_threshold("disk", 4096),
}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[NodeHouse]:
    state = {"state_directory": str(tmp_path / "state"), "nbd": (f"unix:{tmp_path}/nbd.sock",)}
    async with node_house(tmp_path, **state) as made:
        client = made.client
        for name in ("disk", "spare", "base"):
            made.raw_file(f"{name}.raw", MIB)
        await client.images.create("over.qcow2", MIB, format="qcow2")
        await client.nodes.open(raw(file("disk.raw"), node_name="disk"))
        await client.nodes.open(raw(file("spare.raw"), node_name="spare"))
        await client.nodes.open(generic("copy-on-read", children={"file": "disk"}, node_name="filter"))
        await client.nodes.open(qcow2(file("over.qcow2"), node_name="over"))
        await client.bitmaps.add("disk", "since")
        await client.exports.add_nbd("disk", "old", writable=True)
        await client.executors.create("slow", threads=2)
        yield made


async def whole(house: NodeHouse) -> dict[str, Any]:
    """Everything that clients can see of it."""
    seen = await picture(house.client)
    seen["executors"] = {each.name: each.threads for each in await house.client.executors.list()}
    seen["bitmaps"] = {each.name: each.recording for each in await house.client.bitmaps.list()}
    states = [await house.client.nodes.get(name) for name in seen["nodes"]]
    seen["thresholds"] = {state.node_name: state.write_threshold_bytes for state in states}
    return seen


def disk_full(house: NodeHouse, full: bool) -> None:
    """SQLite itself refuses to write."""
    house.graph.kept.catalogue._keeper._database.execute(f"PRAGMA query_only = {'ON' if full else 'OFF'}")


@pytest.mark.parametrize("name", CALLS)
async def test_a_change_that_cannot_be_kept_is_refused_and_has_not_happened(house: NodeHouse, name: str):
    before = await whole(house)
    disk_full(house, True)
    with pytest.raises(CatalogueNotWritten) as refused:
        await CALLS[name](house)
    assert "state directory" in refused.value.hint
    after = await whole(house)
    if name == "header":
        # The image's own header is written after the link is kept: it was not reached.
        assert (await house.client.nodes.get("over")).backing_file == ""
    assert differences(before, after) == []
    disk_full(house, False)
    await CALLS[name](house)
    assert house.graph.kept.catalogue.differences() == []
