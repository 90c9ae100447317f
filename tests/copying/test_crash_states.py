"""Every state that a crash can leave of a job: flushed bytes are there, and a reported end is durable."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from blockyard.base.units import KIB
from blockyard.node.copying.spec import CopyKind, CopyMode, FinishAction, SessionSpec
from blockyard.node.graph.definition import NodeDefinition
from tests.support.crash import Every, Guest, GuestContent, Oracle, QemuCheck, Recorder, budget, replay
from tests.support.crash.jobs import ENDED, BackingIs, GuestContentMoves, TargetHolds
from tests.support.crash.replay import surviving_barriers
from tests.support.yard import Yard, random_bytes, work_off, yard

SIZE = 512 * KIB
CLUSTER = 4096
USUAL_STATES = 700
"""Of each kind in the ordinary run; `make crash` takes as many as there are."""

pytestmark = [pytest.mark.crash, pytest.mark.peer("qemu-img", "qemu-io")]


@dataclass
class Scene:
    """Recorded files open in a graph, and a guest on the top layer."""

    ground: Yard
    recorder: Recorder
    guest: Guest
    initial: bytes


async def layers(ground: Yard) -> tuple[dict[str, bytes], bytes]:
    """The files of base <- middle <- top and an empty target, and what the guest sees of top."""
    view = bytearray(SIZE)
    below = ""
    for number, name in enumerate(("base", "middle", "top", "target")):
        backing = {"backing_file": f"{below}.qcow2", "backing_fmt": "qcow2"} if below and name != "target" else {}
        await ground.create_qcow2(f"{name}.qcow2", SIZE, cluster_size=CLUSTER, **backing)
        if name != "target":
            piece = random_bytes(number, 120 * KIB)
            offset = (20 + number * 90) * KIB
            view[offset : offset + len(piece)] = piece
            await ground.open("qcow2", "filling", f"{name}.qcow2")
            user = ground.use("filling")
            await user.write(offset, piece)
            await user.flush()
            ground.graph.release(user)
            await ground.graph.close("filling")
        below = name
    return {path.name: path.read_bytes() for path in ground.folder.glob("*.qcow2")}, bytes(view)


def recorded(name: str, backing: NodeDefinition | None = None, *, read_only: bool = False) -> NodeDefinition:
    file = NodeDefinition("recording", options={"filename": f"{name}.qcow2"}, read_only=read_only)
    children: dict[str, NodeDefinition | str | None] = {"file": file, "backing": backing}
    return NodeDefinition("qcow2", name, children=children, read_only=read_only)


@asynccontextmanager
async def scene(folder: Path, seed: int = 1) -> AsyncIterator[Scene]:
    async with yard(folder) as ground:
        files, initial = await layers(ground)
        recorder = Recorder(seed)
        for name, content in files.items():
            recorder.add(name, content)
        with recorder.registered():
            base = recorded("base", read_only=True)
            await ground.graph.open(recorded("top", recorded("middle", base, read_only=True)))
            await ground.graph.open(recorded("target"))
            user = ground.use("top")
            yield Scene(ground, recorder, Guest(recorder.log, user, initial=initial, seed=seed), initial)
            ground.graph.release(user)
            await ground.sessions.abandon_all()
            assert await ground.graph.close_all() == []


async def guest_works(guest: Guest) -> None:
    """Writes, zeroes and discards between, inside and across clusters, some flushed, some not."""
    for number in range(4):
        await guest.write(30 * KIB + number * 101 * KIB, 3 * KIB)
        await guest.zero((64 + number * 64) * KIB, 8 * KIB)
        if number % 2:
            await guest.flush()
        await guest.discard((100 + number * 80) * KIB, 12 * KIB)


async def run(scene: Scene, spec: SessionSpec, action: FinishAction) -> None:
    """The job from its start to its reported end, with a guest before, during and after."""
    session = await scene.ground.sessions.create(spec, 1)
    await asyncio.gather(guest_works(scene.guest), work_off(session, 64 * KIB))
    await scene.ground.sessions.finish(spec.session_id, 1, action)
    scene.recorder.log.mark(ENDED)
    await scene.guest.write(0, 4096)
    await scene.guest.flush()


def checked(oracle: Oracle, *images: str) -> Every:
    return Every(*(QemuCheck(f"{name}.qcow2") for name in images), oracle)


async def test_no_crash_of_a_stream_loses_or_changes_a_byte(tmp_path: Path) -> None:
    async with scene(tmp_path) as made:
        await run(made, SessionSpec("s", "job/s", CopyKind.STREAM, "top"), FinishAction.COMPLETE)
        oracle = checked(Every(GuestContent("top.qcow2", readers=("qemu",)), BackingIs("top.qcow2", "")), "top")
        report = replay(made.recorder.log, oracle, budget(USUAL_STATES))
    assert not report.findings, report


async def test_no_crash_of_a_stream_to_a_base_loses_or_changes_a_byte(tmp_path: Path) -> None:
    async with scene(tmp_path, seed=2) as made:
        await run(made, SessionSpec("s", "job/s", CopyKind.STREAM, "top", base="base"), FinishAction.COMPLETE)
        content = GuestContent("top.qcow2", readers=("qemu",))
        oracle = checked(Every(content, BackingIs("top.qcow2", "base.qcow2")), "top")
        report = replay(made.recorder.log, oracle, budget(USUAL_STATES))
    assert not report.findings, report


async def test_no_crash_of_a_commit_loses_or_changes_a_byte(tmp_path: Path) -> None:
    async with scene(tmp_path, seed=3) as made:
        await run(made, SessionSpec("c", "job/c", CopyKind.COMMIT, "middle", "base"), FinishAction.COMPLETE)
        content = GuestContent("top.qcow2", readers=("qemu",))
        oracle = checked(Every(content, BackingIs("top.qcow2", "base.qcow2")), "top", "base")
        report = replay(made.recorder.log, oracle, budget(USUAL_STATES))
    assert not report.findings, report


async def test_no_crash_of_an_active_commit_loses_or_changes_a_byte(tmp_path: Path) -> None:
    async with scene(tmp_path, seed=4) as made:
        await run(made, SessionSpec("c", "job/c", CopyKind.COMMIT, "top", "base"), FinishAction.COMPLETE)
        content = GuestContentMoves(
            GuestContent("top.qcow2", readers=("qemu",)), GuestContent("base.qcow2", readers=("qemu",))
        )
        report = replay(made.recorder.log, checked(content, "top", "base"), budget(USUAL_STATES))
    assert not report.findings, report


@pytest.mark.parametrize("mode", list(CopyMode))
async def test_no_crash_of_a_mirror_loses_or_changes_a_byte(tmp_path: Path, mode: CopyMode) -> None:
    async with scene(tmp_path, seed=5) as made:
        spec = SessionSpec("m", "job/m", CopyKind.MIRROR, "top", "target", copy_mode=mode)
        await run(made, spec, FinishAction.PIVOT)
        content = GuestContentMoves(
            GuestContent("top.qcow2", readers=("qemu",)), GuestContent("target.qcow2", readers=("qemu",))
        )
        report = replay(made.recorder.log, checked(content, "top", "target"), budget(USUAL_STATES))
    assert not report.findings, report


async def test_no_crash_of_a_backup_loses_a_byte_and_its_reported_end_is_durable(tmp_path: Path) -> None:
    async with scene(tmp_path, seed=6) as made:
        await run(made, SessionSpec("b", "job/b", CopyKind.BACKUP, "top", "target"), FinishAction.COMPLETE)
        promise = TargetHolds("target.qcow2", "qcow2", made.initial)
        oracle = checked(Every(GuestContent("top.qcow2", readers=("qemu",)), promise), "top", "target")
        report = replay(made.recorder.log, oracle, budget(USUAL_STATES))
    assert not report.findings, report


async def test_the_judge_notices_a_disk_that_ignores_flushes(tmp_path: Path) -> None:
    async with scene(tmp_path, seed=7) as made:
        await run(made, SessionSpec("s", "job/s", CopyKind.STREAM, "top"), FinishAction.COMPLETE)
        oracle = checked(GuestContent("top.qcow2", readers=("qemu",)), "top")
        report = replay(made.recorder.log.without_barriers(), oracle, 300)
    assert report.findings


async def test_no_flush_of_a_stream_is_idle(tmp_path: Path) -> None:
    async with scene(tmp_path, seed=8) as made:
        session = await made.ground.sessions.create(SessionSpec("s", "job/s", CopyKind.STREAM, "top"), 1)
        await work_off(session)
        await made.ground.sessions.finish("s", 1, FinishAction.COMPLETE)
        made.recorder.log.mark(ENDED)
        oracle = checked(Every(GuestContent("top.qcow2", readers=("qemu",)), BackingIs("top.qcow2", "")), "top")
        assert surviving_barriers(made.recorder.log, oracle, 400) == []
