"""Driver `file` between reading, writing and handed over, its locks at every moment; nameless files and ioctls."""

import errno
import fcntl
import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from blockyard.base.errors import (
    FileBusy,
    FileReadOnly,
    InvalidArgument,
    IoError,
    MissingOption,
    NodeReadOnly,
    OperationUnsupported,
)
from blockyard.base.units import MIB
from blockyard.node.drivers.file import ioctls, locks
from blockyard.node.storage.rooted import RootedStorage
from tests.support import peers
from tests.support.contract import descriptors
from tests.support.ground import DriverChild, Ground
from tests.support.qemu_io import qemu_io


@pytest.fixture
async def ground(tmp_path):
    ground = Ground(tmp_path)
    (tmp_path / "disk").write_bytes(bytes(MIB))
    yield ground
    await ground.leave()


async def disk(ground: Ground, **settings) -> DriverChild:
    return await ground.open("file", {"filename": "disk"}, **settings)


async def become(node: DriverChild, **mode) -> None:
    node.context = replace(node.context, **mode)
    await node.driver.reconfigure(node.context)


def held(path: Path) -> dict[int, str]:
    """The bytes of a file that somebody holds, as another process sees them."""
    found = {}
    with path.open("rb+") as file:
        for place in range(100, 205):
            request = struct.pack("=hh4xqqi4x", fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
            kind = struct.unpack("=hh4xqqi4x", fcntl.fcntl(file, fcntl.F_OFD_GETLK, request))[0]
            if kind != fcntl.F_UNLCK:
                found[place] = "shared" if kind == fcntl.F_RDLCK else "exclusive"
    return found


# --- which bytes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "places"),
    [
        ({}, {100, 101, 103, 201, 203}),
        ({"read_only": True}, {100, 201, 203}),
        ({"read_only": True, "force_share": True}, {100}),
        ({"read_only": True, "inactive": True}, set()),
    ],
)
async def test_each_mode_holds_its_bytes_and_no_other(ground: Ground, settings, places):
    await disk(ground, **settings)
    assert held(ground.root / "disk") == dict.fromkeys(places, "shared")


async def test_a_file_that_need_not_be_locked_is_not(ground: Ground):
    await ground.open("file", {"filename": "disk", "locking": "off"})
    assert not held(ground.root / "disk")


async def test_an_error_names_the_file_and_the_permission(ground: Ground):
    await disk(ground)
    with pytest.raises(FileBusy, match=r"'disk'.*does not share 'write'|'disk'.*uses 'write'"):
        await disk(ground, read_only=True)


async def test_a_second_name_of_a_file_is_the_same_file(ground: Ground):
    os.link(ground.root / "disk", ground.root / "other")
    await disk(ground)
    with pytest.raises(FileBusy, match="other"):
        await ground.open("file", {"filename": "other"})


async def test_force_share_says_that_it_is_for_readers(ground: Ground):
    with pytest.raises(InvalidArgument, match="read_only"):
        await disk(ground, force_share=True)


# --- from mode to mode -----------------------------------------------------------------------------------


async def test_a_reader_becomes_a_writer_and_a_reader_again(ground: Ground):
    node = await disk(ground, read_only=True)
    await become(node, read_only=False)
    assert set(held(ground.root / "disk")) == {100, 101, 103, 201, 203}
    await node.write(0, b"new")
    await node.flush()
    await become(node, read_only=True)
    assert set(held(ground.root / "disk")) == {100, 201, 203}
    assert (ground.root / "disk").read_bytes()[:3] == await node.content(0, 3) == b"new"


async def test_a_change_that_is_refused_leaves_mode_and_locks(ground: Ground):
    node = await disk(ground, read_only=True)
    await disk(ground, read_only=True)
    before, open_now = held(ground.root / "disk"), descriptors()
    with pytest.raises(FileBusy):
        await become(node, read_only=False)
    assert held(ground.root / "disk") == before
    assert descriptors() == open_now
    with pytest.raises(NodeReadOnly):
        await node.write(0, b"x")


async def test_there_is_no_moment_without_a_lock(ground: Ground, monkeypatch: pytest.MonkeyPatch):
    node = await disk(ground, read_only=True)
    seen = []
    real, close = fcntl.fcntl, os.close

    def look() -> None:
        monkeypatch.undo()
        seen.append(set(held(ground.root / "disk")))
        watch()

    def watch() -> None:
        monkeypatch.setattr(fcntl, "fcntl", lambda *args: (real(*args), look())[0])
        monkeypatch.setattr(os, "close", lambda descriptor: (close(descriptor), look())[0])

    watch()
    for read_only in (False, True):
        await become(node, read_only=read_only)
    monkeypatch.undo()
    assert len(seen) > 10
    assert all({100, 201, 203} <= places for places in seen)


async def test_a_file_that_cannot_be_written_says_so_and_stays_readable(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
):
    node = await disk(ground, read_only=True)
    real = ground.storage.open

    def refuse(path: str, flags: int, mode: int = 0o600) -> int:
        if flags & os.O_RDWR:
            raise FileReadOnly(path)
        return real(path, flags, mode)

    monkeypatch.setattr(RootedStorage, "open", lambda self, *args: refuse(*args))
    with pytest.raises(FileReadOnly):
        await become(node, read_only=False)
    assert await node.content(0, 4) == bytes(4)


async def test_a_path_that_names_another_file_by_now_is_noticed(ground: Ground):
    node = await disk(ground, read_only=True)
    (ground.root / "disk").rename(ground.root / "moved")
    (ground.root / "disk").write_bytes(b"another")
    with pytest.raises(IoError, match="another file"):
        await become(node, read_only=False)
    assert len(await node.content()) == MIB


async def test_a_change_sees_the_size_that_the_file_has_by_now(ground: Ground):
    node = await disk(ground, read_only=True, inactive=True)
    os.truncate(ground.root / "disk", 2 * MIB)
    await become(node, read_only=False, inactive=False)
    assert node.size == 2 * MIB


# --- QEMU on the other side ------------------------------------------------------------------------------


@pytest.mark.peer("qemu-io")
async def test_a_reader_cannot_become_a_writer_while_qemu_reads(ground: Ground):
    peers.run("qemu-img", "create", "-q", "-f", "qcow2", ground.root / "disk", "1M")
    node = await disk(ground, read_only=True)
    with qemu_io(ground.root / "disk", "qcow2", "-r") as peer:
        with pytest.raises(FileBusy):
            await become(node, read_only=False)
        assert "read" in peer.do("read 0 512")
    await become(node, read_only=False)
    refused = peers.run("qemu-io", "-r", "-f", "qcow2", "-c", "read 0 512", ground.root / "disk", check=False)
    assert "lock" in refused.stdout + refused.stderr


@pytest.mark.peer("qemu-io")
async def test_what_is_handed_over_may_be_written_by_qemu_and_taken_back_after_it(ground: Ground):
    node = await disk(ground)
    await become(node, read_only=True, inactive=True)
    with qemu_io(ground.root / "disk", "raw") as peer:
        assert "wrote" in peer.do("write -P 7 0 512")
        with pytest.raises(FileBusy):
            await become(node, read_only=False, inactive=False)
    await become(node, read_only=False, inactive=False)
    assert await node.content(0, 512) == b"\7" * 512


@pytest.mark.peer("qemu-img")
async def test_qemu_looks_at_what_we_write_only_when_it_accepts_a_torn_view(ground: Ground):
    peers.run("qemu-img", "create", "-q", "-f", "qcow2", ground.root / "disk", "1M")
    await disk(ground)
    refused = peers.run("qemu-img", "info", "-f", "qcow2", ground.root / "disk", check=False)
    assert 'Failed to get shared "write" lock' in refused.stderr
    peers.run("qemu-img", "info", "-U", "-f", "qcow2", ground.root / "disk")


@pytest.mark.peer("qemu-storage-daemon")
@pytest.mark.parametrize("theirs", ["on", "off"])
async def test_a_storage_daemon_and_we_exclude_each_other(ground: Ground, theirs: str):
    import subprocess

    path, socket = ground.root / "disk", ground.root / "nbd"
    arguments = [
        "qemu-storage-daemon",
        "--blockdev",
        f"driver=file,node-name=f,filename={path},read-only={theirs}",
        "--blockdev",
        f"driver=qcow2,node-name=q,file=f,read-only={theirs}",
        "--nbd-server",
        f"addr.type=unix,addr.path={socket}",
        "--export",
        f"type=nbd,id=e,node-name=q,name=e,writable={'off' if theirs == 'on' else 'on'}",
    ]
    peers.run("qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
    ours = await disk(ground)
    refused = subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode != 0
    assert "lock" in refused.stderr
    await ground.close(ours)
    daemon = subprocess.Popen([*arguments, "--pidfile", ground.root / "pid"], stderr=subprocess.PIPE, text=True)
    try:
        while not (ground.root / "pid").exists():
            assert daemon.poll() is None, daemon.stderr
        with pytest.raises(FileBusy):
            await disk(ground)
        if theirs == "on":
            await disk(ground, read_only=True)
        else:
            with pytest.raises(FileBusy):
                await disk(ground, read_only=True)
            await disk(ground, read_only=True, force_share=True)
    finally:
        daemon.terminate()
        daemon.wait()
        assert daemon.stderr is not None
        daemon.stderr.close()


# --- files without a name --------------------------------------------------------------------------------


async def test_a_temporary_file_has_no_name_and_is_not_given_one(ground: Ground):
    node = await ground.open("file", {"temporary": True})
    await node.write(0, b"x" * 4096)
    assert {path.name for path in ground.root.iterdir()} == {"disk"}
    assert await node.content() == b"x" * 4096


@pytest.mark.parametrize(
    ("options", "settings", "error"),
    [
        ({}, {}, MissingOption),
        ({"temporary": True, "filename": "disk"}, {}, InvalidArgument),
        ({"temporary": True}, {"read_only": True}, InvalidArgument),
    ],
)
async def test_a_file_has_a_name_or_is_temporary_and_written(ground: Ground, options, settings, error):
    with pytest.raises(error):
        await ground.open("file", options, **settings)


async def test_a_temporary_file_cannot_be_handed_over(ground: Ground):
    node = await ground.open("file", {"temporary": True})
    with pytest.raises(OperationUnsupported):
        await become(node, read_only=True, inactive=True)


async def test_a_file_system_without_nameless_files_gets_one_whose_name_goes_at_once(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
):
    real = os.open

    def refuse(path, flags, *args, **kwargs):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "")
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    node = await ground.open("file", {"temporary": True})
    await node.write(0, b"x")
    assert {path.name for path in ground.root.iterdir()} == {"disk"}


# --- ioctls and sizes ------------------------------------------------------------------------------------

FIGETBSZ = 2
FS_IOC_GETFLAGS = 0x80086601
IOC_PR_CLEAR = 0x401070CD


async def test_an_ioctl_gives_what_the_kernel_left_in_its_argument(ground: Ground):
    node = await disk(ground)
    argument = bytearray(4)
    assert await node.driver.ioctl(FIGETBSZ, argument) == 0
    assert struct.unpack("=i", argument)[0] == os.statvfs(ground.root).f_bsize


async def test_an_error_of_an_ioctl_has_its_number(ground: Ground):
    node = await disk(ground)
    with pytest.raises(IoError) as refused:
        await node.driver.ioctl(0x5331, bytearray())
    assert refused.value.errno == errno.ENOTTY


@pytest.mark.parametrize(
    ("request_", "argument"),
    [
        (0x12345678, b""),
        (FIGETBSZ, b""),
        (FIGETBSZ, bytes(5)),
        (FIGETBSZ, bytes(5000)),
        (ioctls.SG_IO, bytes(87)),
        (ioctls.SG_IO, bytes(88)),
        (ioctls.SG_IO, struct.pack("=iiBBHI", ord("S"), -1, 6, 0, 0, 8192).ljust(88, b"\0") + bytes(8198)),
        (ioctls.SG_IO, struct.pack("=iiBBHI", ord("S"), -1, 6, 0, 1, 0).ljust(88, b"\0") + bytes(6)),
    ],
)
async def test_only_arguments_of_known_shape_reach_the_kernel(ground: Ground, request_: int, argument: bytes):
    node = await disk(ground)
    with pytest.raises(InvalidArgument):
        await node.driver.ioctl(request_, bytearray(argument))


async def test_a_scsi_command_goes_out_with_our_addresses_and_comes_back_without(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
):
    import ctypes

    def device(descriptor: int, request: int, address: int) -> int:
        header = (ctypes.c_char * 88).from_address(address).raw
        data, command, sense, user = struct.unpack_from("=QQQ16xQ", header, 16)
        assert user == 0
        assert ctypes.string_at(command, 6) == b"\x12\0\0\0\x04\0"
        ctypes.memmove(data, b"DATA", 4)
        ctypes.memmove(sense, b"SE", 2)
        return 0

    header = struct.pack("=iiBBHIQQQII", ord("S"), -3, 6, 2, 0, 4, 1, 2, 3, 1000, 0).ljust(88, b"\xff")
    argument = bytearray(header + b"\x12\0\0\0\x04\0" + bytes(2) + bytes(4))
    monkeypatch.setattr(fcntl, "ioctl", device)
    node = await disk(ground)
    assert await node.driver.ioctl(ioctls.SG_IO, argument) == 0
    assert bytes(argument[88:]) == b"\x12\0\0\0\x04\0" + b"SE" + b"DATA"
    assert argument[16:40] == bytes(24)


async def test_what_changes_a_reservation_needs_a_node_for_writing(ground: Ground):
    node = await disk(ground, read_only=True)
    with pytest.raises(NodeReadOnly):
        await node.driver.ioctl(IOC_PR_CLEAR, bytearray(16))


async def test_a_size_is_looked_at_again_on_demand(ground: Ground):
    node = await disk(ground, read_only=True, force_share=True)
    assert (await node.driver.info()).variable_length
    os.truncate(ground.root / "disk", 3 * MIB)
    assert node.size == MIB
    assert await node.driver.refresh_size() == node.size == 3 * MIB


def test_modes_are_named_by_qemus_bytes():
    assert locks.WRITER.bytes() == {100, 101, 103, 201, 203}
