"""QEMU's own blkdebug judges ours: the same names, and the same rules fail the same requests of the same guest."""

import json
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from blockyard.base.errors import BlockError, InvalidArgument, IoError, NoSpace
from blockyard.base.units import KIB, MIB
from blockyard.node.core.injection import EVENTS, REQUESTS
from blockyard.node.formats.blkdebug import parse
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.user import User
from tests.support import peers
from tests.support.graphs import GraphGround

pytestmark = [pytest.mark.peer("qemu-img"), pytest.mark.peer("qemu-io")]
SIZE = 4 * MIB


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[GraphGround]:
    ground = GraphGround(tmp_path)
    yield ground
    await ground.leave()


# --- names ----------------------------------------------------------------------------------------------------


@contextmanager
def storage_daemon() -> Iterator[Any]:
    """Lines of a qemu-storage-daemon's QMP, to read and to write."""
    folder = Path(tempfile.mkdtemp(prefix="qsd-"))
    address = folder / "qmp"
    process = subprocess.Popen(
        ["qemu-storage-daemon", "--chardev", f"socket,id=c,path={address},server=on,wait=off", "--monitor", "c"]
    )
    try:
        while not address.exists():
            assert process.poll() is None
            time.sleep(0.01)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(address))
            with connection.makefile("rw") as lines:
                yield lines
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


@pytest.mark.peer("qemu-storage-daemon")
def test_events_and_types_of_requests_are_those_of_qemus_schema():
    with storage_daemon() as lines:
        json.loads(lines.readline())
        for command in ("qmp_capabilities", "query-qmp-schema"):
            lines.write(json.dumps({"execute": command}) + "\n")
            lines.flush()
            answer = json.loads(lines.readline())
    enums = [set(found["values"]) for found in answer["return"] if found["meta-type"] == "enum"]
    assert set(EVENTS) in enums
    assert set(REQUESTS) in enums


def test_qemu_takes_a_breakpoint_at_every_event_and_refuses_what_is_none(tmp_path: Path):
    image = tmp_path / "disk.qcow2"
    peers.run("qemu-img", "create", "-q", "-f", "qcow2", image, "1M")

    def refused(*names: str) -> int:
        # Removed again, for qemu-io flushes before it goes, and would stand at flush_to_os for ever.
        words = [f"{verb} {name}" for name in names for verb in (f"break {name}", "remove_break")]
        breaks = [part for word in words for part in ("-c", word)]
        ran = peers.run("qemu-io", "-f", "qcow2", *breaks, f"blkdebug::{image}", check=False)
        return (ran.stdout + ran.stderr).count("Could not set breakpoint")

    assert refused(*EVENTS) == 0
    assert refused("l2_lode", "l1_grow.alloc_table", "write") == 3


# --- the same text --------------------------------------------------------------------------------------------

WORK = (
    ("write", 0, 64 * KIB),
    ("write", 64 * KIB, 64 * KIB),
    ("write", 100, 1000),
    ("write", MIB + 100, 1000),
    ("read", 0, 64 * KIB),
    ("read", MIB, 64 * KIB),
    ("flush", 0, 0),
    ("write", 2 * MIB, 128 * KIB),
    ("write", 2 * MIB, 4 * KIB),
    ("flush", 0, 0),
    ("read", 2 * MIB, 64 * KIB),
    ("write", 3 * MIB, 4 * KIB),
)

TEXTS = {
    "nothing": "",
    "every write of data": '[inject-error]\nevent = "write_aio"\n',
    "one write": '[inject-error]\nevent = "write_aio"\nonce = "on"\n',
    "no space at once": '[inject-error]\nevent = "write_aio"\nerrno = "28"\nimmediately = "on"\nonce = "on"\n',
    "the third write by states": (
        '[set-state]\nevent = "write_aio"\nstate = "1"\nnew_state = "2"\n'
        '[set-state]\nevent = "write_aio"\nstate = "2"\nnew_state = "3"\n'
        '[inject-error]\nevent = "write_aio"\nstate = "3"\nonce = "on"\n'
    ),
    "copying reads": '[inject-error]\nevent = "cow_read"\nonce = "on"\n',
    "copying writes": '[inject-error]\nevent = "cow_write"\nonce = "on"\n',
    "reads of data": '[inject-error]\nevent = "read_aio"\nerrno = "5"\n',
    "reads of the backing file": '[inject-error]\nevent = "read_backing_aio"\niotype = "read"\nonce = "on"\n',
    "only writes, by type": '[inject-error]\nevent = "read_aio"\niotype = "write"\n',
    "a sector": '[inject-error]\nevent = "none"\nsector = "1024"\n',
    "the first flush": '[inject-error]\nevent = "flush_to_disk"\niotype = "flush"\nonce = "on"\n',
    "from the first flush on": '[inject-error]\nevent = "flush_to_os"\n',
    "a table's load": '[inject-error]\nevent = "l2_load"\nonce = "on"\n',
    "no errors after all": '[inject-error]\nevent = "write_aio"\nerrno = "0"\n',
    "after a flush": (
        '[set-state]\nevent = "flush_to_disk"\nnew_state = "7"\n'
        '[inject-error]\nevent = "write_aio"\nstate = "7"\nerrno = "28"\n'
    ),
}


def make_disk(root: Path) -> Path:
    """Over a backing file, with its first cluster written, so that its first table must be loaded."""
    (root / "base.raw").write_bytes(b"\xbb" * SIZE)
    disk = root / "disk.qcow2"
    peers.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", disk, str(SIZE))
    peers.run("qemu-io", "-f", "qcow2", "-c", "write 0 64k", disk)
    return disk


def theirs(disk: Path, text: str) -> list[int]:
    """The error number of each read and write of the work, 0 for none; qemu-io says nothing of a failed flush."""
    config = disk.with_suffix(".cfg")
    config.write_text(text)
    commands = [f"{name} {offset} {length}" if length else name for name, offset, length in WORK]
    marked = [part for command in commands for part in ("-c", command, "-c", "length")]
    ran = subprocess.run(
        ["stdbuf", "-oL", "qemu-io", "-t", "writeback", "-f", "qcow2", *marked, f"blkdebug:{config}:{disk}"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
    )  # fmt: skip
    *answers, _ = re.split(r"^4 MiB\n", ran.stdout, flags=re.MULTILINE)
    assert len(answers) == len(WORK), ran.stdout
    words = {"Input/output error": 5, "No space left on device": 28}
    return [next((number for word, number in words.items() if word in answer), 0) for answer in answers]


async def ours(ground: GraphGround, text: str) -> list[int]:
    file = NodeDefinition("file", options={"filename": "disk.qcow2"})
    bug = NodeDefinition("blkdebug", options={"config": text}, children={"image": file})
    top = await ground.graph.open(NodeDefinition("qcow2", "top", children={"file": bug}))
    user = ground.use(top)
    found = [await errno_of(user, *request) for request in WORK]
    ground.graph.release(user)
    return found


async def errno_of(user: User, name: str, offset: int, length: int) -> int:
    try:
        if name == "write":
            await user.write(offset, b"\xcd" * length)
        elif name == "read":
            await user.read(offset, memoryview(bytearray(length)))
        else:
            await user.flush()
    except BlockError as error:
        if name == "flush":
            return 0
        assert isinstance(error, IoError | NoSpace)
        return error.errno
    return 0


@pytest.mark.parametrize("name", TEXTS)
async def test_the_same_text_fails_the_same_requests_in_qemu_and_here(ground: GraphGround, name: str):
    disk = make_disk(ground.root)
    copy = ground.root / "theirs"
    copy.mkdir()
    for file in (disk, ground.root / "base.raw"):
        shutil.copy(file, copy)
    assert await ours(ground, TEXTS[name]) == theirs(copy / disk.name, TEXTS[name])


# --- what is no configuration ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '[inject-error]\nevent = "l2_lode"\n',
        "[inject-error]\nevent = l2_load\n",
        '[injections]\nevent = "l2_load"\n',
        '[inject-error]\nevnt = "l2_load"\n',
        '[inject-error]\nevent = "l2_load"\nerrno = "five"\n',
        '[inject-error]\nevent = "l2_load"\nonce = "perhaps"\n',
        '[inject-error]\nevent = "l2_load"\niotype = "writes"\n',
        '[inject-error]\nstate = "1"\n',
        'event = "l2_load"\n',
    ],
)
def test_what_qemu_refuses_we_refuse_too(tmp_path: Path, text: str):
    (tmp_path / "rules").write_text(text)
    with pytest.raises(InvalidArgument):
        parse(text)
    ran = peers.run("qemu-io", "-c", "length", f"blkdebug:{tmp_path}/rules:null-co://", check=False)
    assert ran.returncode != 0


@pytest.mark.parametrize(
    "options",
    [
        {"align": 3},
        {"align": 4096, "max-transfer": 1024},
        {"align": 4096, "opt-write-zero": 6144},
        {"opt-write-zero": 65536, "max-write-zero": 4096},
        {"align": 4096, "opt-discard": 512},
        {"opt-discard": 65536, "max-discard": 32768},
        {"align": 4096, "max-transfer": 8192, "opt-discard": 65536, "max-discard": 131072},
        {"align": 512},
    ],
)
async def test_limits_that_qemu_refuses_we_refuse_too_and_no_others(ground: GraphGround, options: dict[str, int]):
    image = {"driver": "null-co", "size": MIB, "read-zeroes": True}
    spec = json.dumps({"driver": "blkdebug", "image": image, **options})
    ran = peers.run("qemu-io", "-c", "length", f"json:{spec}", check=False)
    names = {name.replace("-", "_"): value for name, value in options.items()}
    null = NodeDefinition("null", options={"size": MIB})
    try:
        await ground.graph.open(NodeDefinition("blkdebug", "bug", names, {"image": null}))
        taken = True
    except BlockError:
        taken = False
    assert taken == (ran.returncode == 0), ran.stderr
