"""Random lives of a chain: a guest and sessions of every kind at once, held against plain bytes.

After every step the guest reads what it wrote, whatever sessions run, end or are taken back; a finished copy has
the bytes of its instant; at the end QEMU finds every image sound and the graph is as if no session had ever been.
"""

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from blockyard.base.errors import BlockError
from blockyard.base.units import KIB
from blockyard.node.copying.session import Session
from blockyard.node.copying.spec import CopyKind, CopyMode, FinishAction, Order, SessionSpec, SyncMode
from blockyard.node.graph import recording
from blockyard.node.graph.chain import below_filters, layers
from blockyard.node.graph.node import Node
from blockyard.node.graph.user import User
from tests.support import peers
from tests.support.yard import Yard

SEEDS = int(os.environ.get("BLOCKYARD_MODEL_SEEDS", "20"))
STEPS = 25
SIZE = 384 * KIB + 512 * 3
"""No multiple of any cluster or granule."""
LENGTHS = (1, 511, 512, 4096, 10_000, 40_000, 70_000)
SAFE = (0, 3)
"""`qemu-img check`: clean, or merely leaking."""


@dataclass
class Running:
    """A session with what must become of its target."""

    session: Session
    target: str
    expected: bytes | None
    """For a copy of an instant."""
    bitmap: str = ""


@dataclass
class Life:
    """One random life."""

    ground: Yard
    chance: Random
    model: bytearray
    guest: User
    running: dict[str, Running] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    """Bitmap: the raw node that holds the guest's bytes of when the bitmap was last clean."""
    count: int = 0

    # --- the guest --------------------------------------------------------------------------------------

    async def guest_works(self) -> None:
        """A few requests side by side, no two of them on one byte."""
        pieces = self.chance.randint(1, 4)
        room = len(self.model) // pieces
        await asyncio.gather(*(self.one_request(number * room, room) for number in range(pieces)))

    async def one_request(self, start: int, room: int) -> None:
        chance, guest, model = self.chance, self.guest, self.model
        length = min(chance.choice(LENGTHS), room)
        offset = start + chance.randrange(room - length + 1)
        where = slice(offset, offset + length)
        kind = chance.choice(("write", "write", "write", "zero", "discard", "flush"))
        if kind == "write":
            data = chance.randbytes(length)
            await guest.write(offset, data)
            model[where] = data
        elif kind == "zero":
            await guest.zero(offset, length)
            model[where] = bytes(length)
        elif kind == "discard":
            await guest.discard(offset, length)
            found = await self.seen(offset, length)
            assert all(new in (old, 0) for new, old in zip(found, model[where], strict=True))
            model[where] = found
        else:
            await guest.flush()

    async def seen(self, offset: int, length: int) -> bytes:
        data = bytearray(length)
        await self.guest.read(offset, memoryview(data))
        return bytes(data)

    # --- sessions ---------------------------------------------------------------------------------------

    @property
    def top(self) -> Node:
        return below_filters(self.guest.node)

    def name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    async def begins(self) -> None:
        kind = self.chance.choice(list(CopyKind))
        ident = self.name("s")
        begin = {
            CopyKind.MIRROR: self.mirror,
            CopyKind.BACKUP: self.backup,
            CopyKind.STREAM: self.stream,
            CopyKind.COMMIT: self.commit,
        }[kind]
        await begin(ident)

    async def create(self, spec: SessionSpec, expected: bytes | None = None, bitmap: str = "") -> bool:
        before = {name: len(node.parents) for name, node in self.ground.graph.nodes.items()}
        try:
            session = await self.ground.sessions.create(spec, 1)
        except BlockError:
            after = {name: len(node.parents) for name, node in self.ground.graph.nodes.items()}
            assert after == before, "a refused session left something"
            return False
        self.running[spec.session_id] = Running(session, spec.target, expected, bitmap)
        return True

    def granularity(self) -> int:
        return self.chance.choice((0, 4096, 16 * KIB))

    async def fresh_target(self) -> str:
        name = self.name("t")
        size = len(self.model) + self.chance.choice((0, 0, 512, 100 * KIB))
        if self.chance.random() < 0.5:
            self.ground.raw_file(f"{name}.raw", size)
            await self.ground.open("raw", name, f"{name}.raw")
        else:
            cluster_size = self.chance.choice((512, 4096, 65536))
            await self.ground.create_qcow2(f"{name}.qcow2", size, cluster_size=cluster_size)
            await self.ground.open("qcow2", name, f"{name}.qcow2")
        return name

    async def drop(self, name: str) -> None:
        """Close a node, unless somebody still needs it."""
        node = self.ground.graph.nodes.get(name)
        if node is not None and not node.parents:
            await self.ground.graph.close(name)

    async def mirror(self, ident: str) -> None:
        mode = self.chance.choice(list(CopyMode))
        target = await self.fresh_target()
        spec = SessionSpec(
            ident,
            f"job/{ident}",
            CopyKind.MIRROR,
            self.top.name,
            target,
            copy_mode=mode,
            granularity=self.granularity(),
        )
        if not await self.create(spec):
            await self.drop(target)

    async def backup(self, ident: str) -> None:
        known = [name for name in self.copies if name in self.top.bitmaps and not self.top.bitmaps[name].owner]
        source, owner, start = self.top.name, f"job/{ident}", bytes(self.model)
        if known and self.chance.random() < 0.6:
            bitmap = self.chance.choice(known)
            spec = SessionSpec(
                ident,
                owner,
                CopyKind.BACKUP,
                source,
                self.copies[bitmap],
                sync=SyncMode.BITMAP,
                bitmap=bitmap,
                granularity=self.granularity(),
            )
            await self.create(spec, start, bitmap)
            return
        target = await self.fresh_target()
        bitmap = ""
        if len(known) < 2:
            bitmap = self.name("b")
            recording.create(self.ground.graph, self.top, bitmap, 4096)
        spec = SessionSpec(ident, owner, CopyKind.BACKUP, source, target, granularity=self.granularity())
        if not await self.create(spec, start, bitmap):
            await self.drop(target)

    async def stream(self, ident: str) -> None:
        below = list(layers(self.top))[1:]
        base = self.chance.choice([None, *below[1:]])
        spec = SessionSpec(
            ident, f"job/{ident}", CopyKind.STREAM, self.top.name, base=base.name if base is not None else ""
        )
        if below:
            await self.create(spec)

    async def commit(self, ident: str) -> None:
        chain = list(layers(self.top))
        if len(chain) < 2:
            return
        source = self.chance.randrange(len(chain) - 1)
        target = self.chance.randrange(source + 1, len(chain))
        if source == 0 and len(self.copies) > 0:
            return  # the bitmaps stay with the top
        await self.create(
            SessionSpec(ident, f"job/{ident}", CopyKind.COMMIT, chain[source].name, chain[target].name)
        )

    async def works(self) -> None:
        """Orders of all sessions and the guest's requests, side by side."""
        orders = [
            self.orders(item.session, self.chance.choice((4096, 64 * KIB, 1 << 20)), self.chance.randint(0, 6))
            for item in self.running.values()
        ]
        await asyncio.gather(self.guest_works(), *orders)

    async def orders(self, session: Session, max_bytes: int, times: int) -> None:
        for _ in range(times):
            report = await session.run(Order(1, max_bytes))
            assert report.failure is None, report.failure

    async def ends(self, ident: str, *, abort: bool = False) -> None:
        item = self.running.pop(ident)
        old_top, kind = self.top, item.session.spec.kind
        if kind is CopyKind.MIRROR and self.is_followed_by(item.session):
            item.expected = bytes(self.model)
        action = self.chance.choice((FinishAction.COMPLETE, FinishAction.COMPLETE, FinishAction.ABORT))
        if kind is CopyKind.MIRROR and action is FinishAction.COMPLETE:
            action = self.chance.choice((FinishAction.PIVOT, FinishAction.DETACH))
        action = FinishAction.ABORT if abort else action
        orders = asyncio.create_task(self.orders(item.session, 64 * KIB, 3))
        await asyncio.sleep(0)
        try:
            await self.ground.sessions.finish(ident, 1, action)
        except BlockError:
            # In use by another session: this one goes on, and is taken back.
            await orders
            await self.ground.sessions.finish(ident, 1, FinishAction.ABORT)
            action = FinishAction.ABORT
        await orders
        await self.judge(item, action)
        if self.top is not old_top:
            self.copies.clear()
        for name in {item.target, old_top.name} - {self.top.name} - set(self.copies.values()):
            if name:
                await self.drop(name)

    async def judge(self, item: Running, action: FinishAction) -> None:
        spec = item.session.spec
        if action is FinishAction.ABORT:
            if item.bitmap and spec.sync is not SyncMode.BITMAP:
                if item.bitmap in self.top.bitmaps:
                    recording.delete(self.ground.graph, self.top, item.bitmap)
            elif item.bitmap:
                self.copies.pop(item.bitmap, None)
            return
        if item.expected is not None:
            assert (await self.ground.content(spec.target))[: len(self.model)] == item.expected
        if item.bitmap and item.bitmap in self.top.bitmaps:
            self.copies[item.bitmap] = spec.target

    def is_followed_by(self, session: Session) -> bool:
        """Whether the guest's writes come by; another mirror may have moved it elsewhere."""
        node = self.guest.node
        while node is not session.filter and node.filtered is not None:
            node = node.filtered
        return node is session.filter

    # --- the whole --------------------------------------------------------------------------------------

    async def lives(self) -> None:
        for _ in range(STEPS):
            step = self.chance.random()
            if step < 0.25 and len(self.running) < 4:
                await self.begins()
            elif step < 0.4 and self.running:
                await self.ends(self.chance.choice(list(self.running)))
            else:
                await self.works()
            assert await self.seen(0, len(self.model)) == self.model
        for ident in list(self.running):
            await self.ends(ident, abort=self.chance.random() < 0.3)
            assert await self.seen(0, len(self.model)) == self.model

    def check_nothing_is_left(self) -> None:
        for node in self.ground.graph.nodes.values():
            assert not node.is_filter, node.name
            assert not node.quiesced and not node.tracker.requests, node.name
            assert not [name for name in node.bitmaps if name.startswith("#")], node.name
            assert not [bitmap.owner for bitmap in node.bitmaps.values() if bitmap.owner], node.name
            for edge in node.parents:
                assert not edge.holder.startswith("job/") and not edge.frozen_reason, edge.holder


async def born(ground: Yard, seed: int) -> Life:
    """A chain of one to four layers, each of its own size and cluster size, and a guest on top."""
    chance = Random(seed)
    depth, below, view = chance.randint(1, 4), "", b""
    for number in range(depth):
        name = f"layer{number}"
        last = number == depth - 1
        size = SIZE if last else chance.choice((SIZE, SIZE // 1024 * 512, SIZE - 4096, SIZE + 64 * KIB))
        backing = {"backing_file": f"{below}.qcow2", "backing_fmt": "qcow2"} if below else {}
        await ground.create_qcow2(f"{name}.qcow2", size, cluster_size=chance.choice((512, 4096, 65536)), **backing)
        await ground.open("qcow2", "filling", f"{name}.qcow2")
        user = ground.use("filling")
        for _ in range(4):
            length = chance.choice(LENGTHS)
            offset = chance.randrange(size - length)
            await (
                user.write(offset, chance.randbytes(length)) if chance.random() < 0.8 else user.zero(offset, length)
            )
        ground.graph.release(user)
        view = await ground.content("filling")
        await ground.graph.close("filling")
        below = name
    await ground.open("qcow2", "top", f"{below}.qcow2")
    return Life(ground, chance, bytearray(view), ground.use("top"))


@pytest.mark.peer("qemu-img")
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_a_random_life_keeps_every_byte(ground: Yard, tmp_path: Path, seed: int) -> None:
    life = await born(ground, seed)
    await life.lives()
    life.check_nothing_is_left()
    final, form = life.top.filename, life.top.driver.name
    ground.graph.release(life.guest)
    assert await ground.graph.close_all() == []
    for image in sorted(tmp_path.glob("*.qcow2")):
        result = peers.run("qemu-img", "check", "-q", image, check=False)
        assert result.returncode in SAFE, (image.name, result.stdout)
    peers.run("qemu-img", "convert", "-f", form, "-O", "raw", tmp_path / final, tmp_path / "seen.raw")
    assert (tmp_path / "seen.raw").read_bytes()[: len(life.model)] == life.model
