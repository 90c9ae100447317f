"""Changes of the graph against their commits: one that fails undoes the change, a crash around one loses nothing.

The guest is a raw node named `guest`; what it reads was flushed before, so each crash state must show it.
A crash is a copy of the images and of the durable rows at that instant, opened by a graph of its own.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from blockyard.base.errors import CatalogueNotWritten
from blockyard.base.units import MIB
from blockyard.node.copying.spec import CopyKind, FinishAction, SessionSpec
from blockyard.node.graph import actions, recording, recording_actions, surgery, transaction
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.interface.driver import BackingReference
from blockyard.node.interface.keeper import Entry, Key
from tests.support.kept_graph import MemoryKeeper
from tests.support.yard import Yard, random_bytes, work_off, yard

SIZE = MIB
Change = Callable[[Yard], Awaitable[object]]


def job(kind: CopyKind, source: str, action: FinishAction, **options: object) -> Change:
    """A copy session from its beginning to its end."""

    async def change(ground: Yard) -> None:
        session = await ground.sessions.create(SessionSpec("s", "job/s", kind, source, **options), 1)
        await work_off(session)
        await ground.sessions.finish("s", 1, action)

    return change


def several(*made: Callable[[], transaction.Action]) -> Change:
    """One transaction."""

    async def change(ground: Yard) -> None:
        await transaction.run(ground.graph, [make() for make in made])

    return change


async def _open(ground: Yard) -> None:
    await ground.open("qcow2", "new", "spare.qcow2")


async def _close(ground: Yard) -> None:
    await ground.graph.close("other")


async def _overlay(ground: Yard) -> None:
    await surgery.insert_overlay(ground.graph, ground.graph.get("top"), ground.graph.get("over"))


async def _replace(ground: Yard) -> None:
    await surgery.replace_node(ground.graph, ground.graph.get("top"), ground.graph.get("twin"))


async def _header(ground: Yard) -> None:
    node = ground.graph.get("top")
    assert node.backing is not None
    reference = BackingReference("twin.qcow2", "qcow2")
    await surgery.set_backing(ground.graph, node, node.backing.node, reference, header=True)


async def _followed_header(ground: Yard) -> None:
    node = ground.graph.get("high")
    assert node.backing is not None
    reference = BackingReference("spare.qcow2", "qcow2")
    await surgery.set_backing(ground.graph, node, node.backing.node, reference, header=True)


CHANGES: dict[str, Change] = {
    "open": _open,
    "close": _close,
    "overlay": _overlay,
    "replace": _replace,
    "header": _header,
    "header that was followed": _followed_header,
    "stream of a followed chain": job(CopyKind.STREAM, "high", FinishAction.COMPLETE),
    "filter in": several(
        lambda: actions.InsertFilter("top", NodeDefinition("copy-on-read", "cor", children={"file": "top"}))
    ),
    "filter out": several(lambda: actions.RemoveFilter("between")),
    "overlay and bitmaps": several(
        lambda: recording_actions.CreateBitmap("over", "new"),
        lambda: recording_actions.DeleteBitmap("top", "since"),
        lambda: actions.InsertOverlay("top", "over"),
        lambda: actions.CloseNode("other"),
    ),
    "stream": job(CopyKind.STREAM, "top", FinishAction.COMPLETE),
    "stream to a base": job(CopyKind.STREAM, "top", FinishAction.COMPLETE, base="base"),
    "commit of the middle": job(CopyKind.COMMIT, "middle", FinishAction.COMPLETE, target="base"),
    "commit of the top": job(CopyKind.COMMIT, "top", FinishAction.PIVOT, target="middle"),
    "mirror": job(CopyKind.MIRROR, "top", FinishAction.PIVOT, target="twin"),
    "mirror that is left": job(CopyKind.MIRROR, "top", FinishAction.DETACH, target="twin"),
    "backup": job(CopyKind.BACKUP, "top", FinishAction.COMPLETE, target="twin"),
}


NOTHING_NEW = ("header", "mirror that is left", "backup")
"""The graph is the same afterwards."""
LIVELY = [name for name in CHANGES if name not in ("open", "close", "replace", "overlay and bitmaps")]
"""Changes under a writing guest; a replaced node's new content is whatever it is."""


@dataclass
class Scene:
    """base <- middle <- top, guest above `between`, a filter, above top; all of a client's own. And spare nodes."""

    ground: Yard
    keeper: MemoryKeeper
    view: bytes = b""
    crashes: list[tuple[Path, dict[Key, Entry]]] = field(default_factory=list)

    async def build(self) -> None:
        ground = self.ground
        base = random_bytes(1, SIZE)
        piece = random_bytes(2, SIZE // 4)
        self.view = base[: SIZE // 2] + piece + base[SIZE // 2 + len(piece) :]
        await ground.create_qcow2("base.qcow2", SIZE)
        for name, below in (("middle", "base"), ("top", "middle")):
            await ground.create_qcow2(f"{name}.qcow2", SIZE, backing_file=f"{below}.qcow2", backing_fmt="qcow2")
        await ground.create_qcow2("low.qcow2", SIZE)
        await ground.create_qcow2("high.qcow2", SIZE, backing_file="low.qcow2", backing_fmt="qcow2")
        await ground.open("qcow2", "high", "high.qcow2")
        for name in ("over", "twin", "spare"):
            await ground.create_qcow2(f"{name}.qcow2", SIZE)
        await ground.open("qcow2", "base", "base.qcow2")
        await self._write("base", 0, base)
        await ground.open("qcow2", "middle", "middle.qcow2", backing="base")
        await self._write("middle", SIZE // 2, piece)
        await ground.open("qcow2", "top", "top.qcow2", backing="middle")
        for name in ("over", "twin"):
            await ground.open("qcow2", name, f"{name}.qcow2")
        await self._write("twin", 0, self.view)
        await ground.graph.open(NodeDefinition("copy-on-read", "between", children={"file": "top"}))
        await ground.graph.open(NodeDefinition("raw", "guest", children={"file": "between"}))
        await ground.graph.open(NodeDefinition("memory", "other", options={"size": MIB}))
        recording.create(ground.graph, ground.graph.get("top"), "since")
        await ground.graph.kept.catalogue.commit()

    async def _write(self, name: str, offset: int, data: bytes) -> None:
        user = self.ground.use(name)
        await user.write(offset, data)
        await user.flush()
        self.ground.graph.release(user)

    def watch_crashes(self, note: Callable[[], object] = lambda: None) -> None:
        """From now on the state before and after each commit is put aside."""

        def put_aside(number: int) -> None:
            note()
            copy = self.ground.folder.parent / f"crash-{len(self.crashes)}"
            shutil.copytree(self.ground.folder, copy)
            self.crashes.append((copy, dict(self.keeper.rows)))

        self.keeper.before = self.keeper.after = put_aside


def picture(ground: Yard) -> dict[str, object]:
    """Nodes, edges and bitmaps of clients' own."""
    nodes = {node.name: (node.driver.name, node.read_only) for node in ground.graph.nodes.values()}
    edges = sorted(
        (node.name, name, edge.node.name)
        for node in ground.graph.nodes.values()
        for name, edge in node.children.items()
    )
    bitmaps = sorted((node.name, name) for node in ground.graph.nodes.values() for name in node.bitmaps)
    return {"nodes": nodes, "edges": edges, "bitmaps": bitmaps}


async def scene(stack: AsyncExitStack, folder: Path) -> Scene:
    folder.mkdir()
    keeper = MemoryKeeper()
    made = Scene(await stack.enter_async_context(yard(folder, keeper=keeper)), keeper)
    await made.build()
    return made


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_whose_commit_fails_is_undone(tmp_path: Path, name: str):
    async with AsyncExitStack() as stack:
        made = await scene(stack, tmp_path / "images")
        before, failed = picture(made.ground), 0
        while True:
            first = made.keeper.commits + 1 + failed
            made.keeper.fail_from(first)
            try:
                await CHANGES[name](made.ground)
                break
            except CatalogueNotWritten:
                failed += 1
            await made.ground.sessions.abandon_all()
            assert picture(made.ground) == before
            assert made.ground.graph.kept.catalogue.differences() == []
            assert await made.ground.content("guest") == made.view
        assert failed or name in NOTHING_NEW, "it made nothing durable"
        assert made.ground.graph.kept.catalogue.differences() == []
        assert await made.ground.content("guest") == made.view


@pytest.mark.parametrize("name", CHANGES)
async def test_a_crash_around_a_commit_finds_the_graph_before_or_after(tmp_path: Path, name: str):
    async with AsyncExitStack() as stack:
        made = await scene(stack, tmp_path / "images")
        before = picture(made.ground)
        made.watch_crashes()
        await CHANGES[name](made.ground)
        after = picture(made.ground)
    for folder, rows in made.crashes:
        keeper = MemoryKeeper()
        keeper.rows = rows
        async with yard(folder, keeper=keeper) as again:
            assert again.graph.kept.catalogue.failed == {}
            assert picture(again) in (before, after)
            assert await again.content("guest") == made.view
            assert again.graph.kept.catalogue.differences() == []


class Writer:
    """A guest that writes and flushes one number after the other."""

    def __init__(self, ground: Yard) -> None:
        self._ground = ground
        self.flushed = 0
        self._went_on = asyncio.Event()

    async def run(self) -> None:
        user = self._ground.use("guest", user="writer")
        try:
            while True:
                number = self.flushed + 1
                await user.write(4096, number.to_bytes(8))
                await user.flush()
                self.flushed = number
                self._went_on.set()
        finally:
            self._ground.graph.release(user)

    async def let_write(self) -> None:
        """Give it the time for some writes; it may be held."""
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                for _ in range(3):
                    self._went_on.clear()
                    await self._went_on.wait()


@pytest.mark.parametrize("name", LIVELY)
async def test_a_crash_loses_no_write_that_a_guest_had_flushed(tmp_path: Path, name: str):
    flushed: list[int] = []
    async with AsyncExitStack() as stack:
        made = await scene(stack, tmp_path / "images")
        writer = Writer(made.ground)
        made.keeper.slowly = writer.let_write
        made.watch_crashes(lambda: flushed.append(writer.flushed))
        writing = asyncio.create_task(writer.run())
        await writer.let_write()
        await CHANGES[name](made.ground)
        writing.cancel()
        await asyncio.wait([writing])
    for (folder, rows), number in zip(made.crashes, flushed, strict=True):
        keeper = MemoryKeeper()
        keeper.rows = rows
        async with yard(folder, keeper=keeper) as again:
            found = int.from_bytes((await again.content("guest"))[4096:4104])
            assert number <= found <= number + 1


@pytest.mark.parametrize("name", CHANGES)
async def test_what_was_changed_is_so_after_a_restart(tmp_path: Path, name: str):
    async with AsyncExitStack() as stack:
        made = await scene(stack, tmp_path / "images")
        await CHANGES[name](made.ground)
        after = picture(made.ground)
    async with yard(tmp_path / "images", keeper=made.keeper) as again:
        assert again.graph.kept.catalogue.failed == {}
        assert picture(again) == after
        assert await again.content("guest") == made.view


@pytest.mark.parametrize("name", ["open", "close", "overlay", "mirror"])
async def test_a_change_that_is_cancelled_while_it_is_written_stands(tmp_path: Path, name: str):
    async with AsyncExitStack() as stack:
        made = await scene(stack, tmp_path / "images")
        before = picture(made.ground)
        changing = asyncio.create_task(CHANGES[name](made.ground))
        written = asyncio.Event()

        async def cancel() -> None:
            if not written.is_set():
                written.set()
                changing.cancel()
                await asyncio.sleep(0)

        made.keeper.slowly = cancel
        await asyncio.wait([changing])
        assert written.is_set() and changing.cancelled()
        assert picture(made.ground) != before
        assert made.ground.graph.kept.catalogue.differences() == []
        assert await made.ground.content("guest") == made.view
