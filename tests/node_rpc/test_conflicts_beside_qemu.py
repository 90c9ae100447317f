"""What may be done to one graph at the same time: qemu-storage-daemon and this service allow and refuse the same.

A scene is a list of steps; the last one is judged, those before it must succeed on both sides.
"""

import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from blockyard.base.errors import BlockError
from blockyard.client.definitions import NO_NODE, file, generic, qcow2
from blockyard.v1 import node_pb2
from tests.bench.qsd import Qmp, storage_daemon
from tests.support.node_calls import NodeHouse

pytestmark = pytest.mark.peer("qemu-storage-daemon", "qemu-img")

MIB = 1 << 20
Step = tuple[Any, ...]

DISK: list[Step] = [("file", "f", "disk"), ("qcow2", "q", "f")]
"""A qcow2 node `q` over a file node `f` with a name of its own."""
CHAIN: list[Step] = [
    ("file", "bf", "base"),
    ("qcow2", "base", "bf"),
    ("file", "tf", "top"),
    ("qcow2", "top", "tf", "base"),
]

SCENES: dict[str, tuple[list[Step], bool]] = {
    "the file of an image is written by nobody else": ([*DISK, ("export", "f", True)], False),
    "two formats for writing on one file": ([*DISK, ("qcow2", "again", "f")], False),
    "a reader's format beside a writer's": ([*DISK, ("qcow2", "again", "f", None, True)], False),
    "a raw node beside a format, as long as nobody writes": ([*DISK, ("raw", "r", "f")], True),
    "a writer through a raw node beside a format": ([*DISK, ("raw", "r", "f"), ("export", "r", True)], False),
    "two guests that write to one node": ([*DISK, ("export", "q", True), ("export", "q", True)], True),
    "a file that an image stands on is not closed": ([*DISK, ("close", "f")], False),
    "a node that is exported is not closed": ([*DISK, ("export", "q", False), ("close", "q")], False),
    "a node without users is closed": ([*DISK, ("close", "q")], True),
    "a name is taken once": ([*DISK, ("file", "q", "other")], False),
    "a writer keeps a node writable": ([*DISK, ("export", "q", True), ("read-only", "q", "f")], False),
    "a reader does not": ([*DISK, ("export", "q", False), ("read-only", "q", "f")], True),
    "a node that became read-only takes no writer": (
        [*DISK, ("read-only", "q", "f"), ("export", "q", True)],
        False,
    ),
    "a backing file is read beside its overlay": ([*CHAIN, ("export", "base", False)], True),
    "a backing file is not closed under its overlay": ([*CHAIN, ("close", "base")], False),
    "an overlay is closed before its base": ([*CHAIN, ("close", "top"), ("close", "base")], True),
    "an overlay that has a backing file is none for another": ([*CHAIN, *DISK, ("overlay", "q", "top")], False),
    "an overlay goes above a node with a guest": (
        [*DISK, ("file", "nf", "new"), ("qcow2", "n", "nf", "none"), ("export", "q", True), ("overlay", "q", "n")],
        True,
    ),
    "an overlay that is used already": (
        [*DISK, ("file", "nf", "new"), ("qcow2", "n", "nf", "none"), ("export", "n", False), ("overlay", "q", "n")],
        False,
    ),
    "a node is no overlay of itself": ([*DISK, ("overlay", "q", "q")], False),
}


STRICTER_THERE: dict[str, list[Step]] = {
    "QEMU's NBD exports share no resize, and an image's file must be free to grow": [*DISK, ("export", "f", False)],
}
"""What QEMU refuses and we allow, on purpose (docs/design/0005)."""


# --- ours ----------------------------------------------------------------------------------------------


async def ours(house: NodeHouse, step: Step) -> None:
    calls: dict[str, Callable[..., Awaitable[Any]]] = {
        "file": lambda name, image: house.client.nodes.open(file(f"{image}.qcow2", node_name=name)),
        "raw": lambda name, below: house.client.nodes.open(
            generic("raw", children={"file": below}, node_name=name)
        ),
        "qcow2": _our_qcow2,
        "export": _our_export,
        "close": lambda name: house.client.nodes.close(name),
        "read-only": lambda name, below: house.client.nodes.reopen([qcow2(below, node_name=name, read_only=True)]),
        "overlay": lambda node, above: house.client.nodes.insert_overlay(node, above),
    }
    kind, *rest = step
    if kind in ("qcow2", "export"):
        await calls[kind](house, *rest)
    else:
        await calls[kind](*rest)


async def _our_qcow2(
    house: NodeHouse, name: str, below: str, backing: str | None = None, read_only: bool = False
) -> None:
    child = NO_NODE if backing in (None, "none") else backing
    await house.client.nodes.open(qcow2(below, backing=child, node_name=name, read_only=read_only))


async def _our_export(house: NodeHouse, node: str, writable: bool) -> None:
    exports = await house.client.exports.list()
    address = f"unix:{house.folder.parent}/nbd.sock"
    await house.client.exports.add_nbd(node, f"e{len(exports)}", writable=writable, addresses=[address])


# --- theirs --------------------------------------------------------------------------------------------


@pytest.fixture
def qemu() -> Iterator[Qmp]:
    # Not pytest's own directory: its path may be too long for a socket.
    with tempfile.TemporaryDirectory(prefix="qemu-") as name, storage_daemon(folder := Path(name)) as qmp:
        _images(folder)
        qmp("nbd-server-start", addr={"type": "unix", "data": {"path": str(folder / "nbd.sock")}})
        qmp.folder = folder  # type: ignore[attr-defined]
        yield qmp


def theirs(qmp: Any, number: int, step: Step) -> None:
    kind, name, *rest = step
    if kind == "file":
        qmp("blockdev-add", node_name=name, driver="file", filename=str(qmp.folder / f"{rest[0]}.qcow2"))
    elif kind == "raw":
        qmp("blockdev-add", node_name=name, driver="raw", file=rest[0])
    elif kind == "qcow2":
        below, backing, read_only = (*rest, None, False)[:3] if len(rest) == 1 else (*rest, False)[:3]
        link = None if backing in (None, "none") else backing
        qmp("blockdev-add", node_name=name, driver="qcow2", file=below, backing=link, read_only=read_only)
    elif kind == "export":
        qmp("block-export-add", id=f"e{number}", type="nbd", node_name=name, name=f"e{number}", writable=rest[0])
    elif kind == "close":
        qmp("blockdev-del", node_name=name)
    elif kind == "read-only":
        option = {"node-name": name, "driver": "qcow2", "file": rest[0], "backing": None, "read-only": True}
        qmp("blockdev-reopen", options=[option])
    else:
        qmp("blockdev-snapshot", node=name, overlay=rest[0])


def _images(folder: Path) -> None:
    for name in ("disk", "other", "base", "top", "new"):
        path = str(folder / f"{name}.qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(MIB)], check=True)


# --- both ----------------------------------------------------------------------------------------------


@pytest.fixture
async def scene(house: NodeHouse) -> AsyncIterator[NodeHouse]:
    _images(house.folder)
    yield house


@pytest.mark.parametrize("name", SCENES)
async def test_both_judge_a_scene_alike(scene: NodeHouse, qemu: Qmp, name: str):
    steps, allowed = SCENES[name]
    for number, step in enumerate(steps[:-1]):
        await ours(scene, step)
        theirs(qemu, number, step)
    assert await _allowed_here(scene, steps[-1]) is allowed
    assert _allowed_there(qemu, len(steps), steps[-1]) is allowed


@pytest.mark.parametrize("name", STRICTER_THERE)
async def test_what_is_allowed_here_and_not_there_is_known(scene: NodeHouse, qemu: Qmp, name: str):
    steps = STRICTER_THERE[name]
    for number, step in enumerate(steps[:-1]):
        await ours(scene, step)
        theirs(qemu, number, step)
    assert await _allowed_here(scene, steps[-1])
    assert not _allowed_there(qemu, len(steps), steps[-1])


async def _allowed_here(house: NodeHouse, step: Step) -> bool:
    try:
        await ours(house, step)
    except BlockError:
        return False
    return True


def _allowed_there(qmp: Qmp, number: int, step: Step) -> bool:
    try:
        theirs(qmp, number, step)
    except RuntimeError:
        return False
    return True


async def test_a_refusal_is_a_failed_precondition_that_names_both_owners(scene: NodeHouse):
    for step in DISK:
        await ours(scene, step)
    import grpc

    from blockyard.rpc.status import from_rpc_error
    from blockyard.v1 import node_pb2_grpc

    stub = node_pb2_grpc.NodeServiceStub(scene.channel)
    definition = qcow2("f", backing=NO_NODE, node_name="again")
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await stub.OpenNode(node_pb2.OpenNodeRequest(definition=definition))
    assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    error: Any = from_rpc_error(refusal.value)
    assert (error.node_name, error.owner) == ("f", "node/q (as file)")
