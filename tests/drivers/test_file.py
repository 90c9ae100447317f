"""Driver `file`: a host file under the contract, and its dealings with the kernel and other processes."""

import asyncio
import errno
import fcntl
import os
import subprocess
import threading
from contextlib import nullcontext
from pathlib import Path

import pytest

from blockyard.base.errors import (
    BlockError,
    FileBusy,
    FileExists,
    FileNotFound,
    InvalidArgument,
    IoError,
    NoSpace,
    PathDenied,
)
from blockyard.base.units import KIB, MIB
from blockyard.node.drivers.file import driver as file_driver
from blockyard.node.drivers.file import inline, syscalls
from blockyard.node.drivers.file.inline import InlineWrites
from blockyard.node.interface.driver import Copies
from blockyard.node.interface.flags import FUA, MAY_UNMAP, DiscardMode, Preallocation
from blockyard.node.interface.mapping import MapKind
from tests.support import peers
from tests.support.contract import DriverContract, descriptors
from tests.support.ground import DriverChild, Ground


class TestFile(DriverContract):
    driver = "file"
    discard_zeroes = True

    async def prepare(self, ground: Ground) -> None:
        await ground.create("file", {"filename": "disk", "size": self.size})

    def options(self) -> dict[str, object]:
        return {"filename": "disk"}


class TestFileWithoutLocks(TestFile):
    def options(self) -> dict[str, object]:
        return {"filename": "disk", "locking": "off"}


@pytest.fixture
async def ground(tmp_path):
    ground = Ground(tmp_path)
    (tmp_path / "disk").write_bytes(bytes(MIB))
    yield ground
    await ground.leave()


async def disk(ground: Ground, **settings) -> DriverChild:
    return await ground.open("file", {"filename": "disk"}, **settings)


# --- inline or pool ---------------------------------------------------------------------------------------


async def test_cached_reads_and_small_writes_are_served_inline(ground: Ground):
    node = await disk(ground)
    assert node.write_now(0, b"x" * 4096)
    buffer = memoryview(bytearray(4096))
    assert node.read_now(0, buffer)
    assert bytes(buffer) == b"x" * 4096


async def test_a_read_that_is_not_cached_goes_to_the_pool(ground: Ground):
    node = await disk(ground)
    await node.flush()
    os.posix_fadvise(node.driver.descriptor(), 0, 0, os.POSIX_FADV_DONTNEED)
    buffer = memoryview(bytearray(4096))
    if not node.read_now(512 * KIB, buffer):  # a file system in memory has it all the time
        await node.read(512 * KIB, buffer)
    assert node.read_now(512 * KIB, buffer)


async def test_large_and_durable_writes_are_left_to_the_pool(ground: Ground):
    node = await disk(ground)
    assert not node.write_now(0, bytes(file_driver.INLINE_WRITE_LIMIT + 1))
    assert not node.write_now(0, b"x", FUA)


def test_a_write_that_slept_sends_writes_to_the_pool_for_a_while():
    writes = InlineWrites(allowed=True)
    writes.was_slow(6_000_000, None)
    assert writes.from_ns <= 6_000_000 and writes.watching(7_000_000)
    writes.was_slow(20_000_000, 1)
    assert writes.from_ns == 20_000_000 + inline.PAUSE_NS


def test_a_write_that_was_only_preempted_stays_inline():
    writes = InlineWrites(allowed=True)
    writes.was_slow(6_000_000, None)
    writes.was_slow(20_000_000, 0)
    assert writes.from_ns <= 20_000_000


def test_suspicion_ends_when_no_write_is_slow():
    writes = InlineWrites(allowed=True)
    writes.was_slow(6_000_000, None)
    assert not writes.watching(6_000_000 + inline.SUSPICION_NS)


async def test_a_kernel_without_nonblocking_reads_is_asked_once(ground: Ground, monkeypatch: pytest.MonkeyPatch):
    calls = []

    def refuse(*args):
        calls.append(args)
        raise OSError(errno.EOPNOTSUPP, "")

    node = await disk(ground)
    with monkeypatch.context() as patched:
        patched.setattr(os, "preadv", refuse)
        for _ in range(3):
            assert not node.read_now(0, memoryview(bytearray(1)))
    assert len(calls) == 1
    assert await node.content(0, 4) == bytes(4)


async def test_short_reads_and_writes_are_continued(ground: Ground, monkeypatch: pytest.MonkeyPatch):
    node = await disk(ground)
    read, write, write_plainly = os.preadv, os.pwritev, os.pwrite
    data = os.urandom(10_000)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwritev", lambda fd, data, *rest: write(fd, [data[0][:999]], *rest))
        patched.setattr(os, "pwrite", lambda fd, data, at: write_plainly(fd, data[:777], at))
        patched.setattr(os, "preadv", lambda fd, into, *rest: read(fd, [into[0][:999]], *rest))
        await node.write(0, data)
        assert node.write_now(20_000, data)
        assert await node.content(0, 30_000) == data + bytes(10_000) + data


async def test_a_read_past_the_end_of_a_file_cut_from_outside_gives_zeroes(ground: Ground):
    node = await disk(ground)
    await node.write(0, b"x" * MIB)
    os.truncate(ground.root / "disk", 1000)
    assert await node.content() == b"x" * 1000 + bytes(MIB - 1000)


# --- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "error"), [(errno.ENOSPC, NoSpace), (errno.EDQUOT, NoSpace), (errno.EIO, IoError)]
)
async def test_an_error_of_the_kernel_becomes_one_of_the_catalogue(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, code: int, error: type[BlockError]
):
    def refuse(*args):
        raise OSError(code, os.strerror(code))

    node = await disk(ground)
    for call in ("pwrite", "pwritev", "preadv", "fdatasync", "ftruncate"):
        monkeypatch.setattr(os, call, refuse)
    requests = [node.write(0, b"x"), node.read(0, memoryview(bytearray(1))), node.truncate(5)]
    for request in requests:
        with pytest.raises(error):
            await request
    with pytest.raises(error):
        node.write_now(0, b"x")
    assert node.size == MIB


async def test_after_a_failed_flush_no_flush_succeeds(ground: Ground, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args):
        raise OSError(errno.EIO, "")

    node = await disk(ground)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", refuse)
        with pytest.raises(IoError):
            await node.flush()
    with pytest.raises(IoError, match="earlier"):
        await node.flush()


async def test_a_flush_that_fails_after_its_caller_left_is_not_forgotten(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
):
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def refuse(*args):
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(20)
        raise OSError(errno.EIO, "")

    node = await disk(ground)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", refuse)
        caller = asyncio.create_task(node.flush())
        await begun.wait()
        caller.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await caller
    with pytest.raises(IoError, match="earlier"):
        await node.flush()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
async def test_a_full_disk_is_no_space_and_a_failed_growth_changes_nothing(tmp_path: Path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    ground = Ground(small)
    try:
        await ground.create("file", {"filename": "disk", "size": 64 * KIB})
        node = await disk(ground)
        with pytest.raises(NoSpace):
            await node.truncate(4 * MIB, Preallocation.FALLOC)
        with pytest.raises(NoSpace):
            await node.truncate(4 * MIB, Preallocation.FULL)
        assert (small / "disk").stat().st_size == node.size == 64 * KIB
        with pytest.raises(NoSpace):
            await node.write(0, bytes(2 * MIB))
        with pytest.raises(NoSpace):
            await ground.create("file", {"filename": "new", "size": 2 * MIB, "preallocation": "full"})
        assert not (small / "new").exists()
    finally:
        await ground.leave()
        subprocess.run(["umount", small], check=True)


async def test_a_file_that_cannot_be_opened_leaves_nothing_open(ground: Ground):
    before = descriptors()
    os.mkfifo(ground.root / "fifo")
    for filename, error in (("none", FileNotFound), ("../disk", PathDenied), ("fifo", PathDenied)):
        with pytest.raises(error):
            await ground.open("file", {"filename": filename})
    with pytest.raises(InvalidArgument):
        await ground.open("file", {"filename": "disk", "locking": "perhaps"})
    with pytest.raises(InvalidArgument):
        await disk(ground, force_share=True)
    assert descriptors() <= before


async def test_an_opening_that_is_cancelled_leaves_nothing_open(ground: Ground):
    await disk(ground, read_only=True)
    before = descriptors()
    opening = asyncio.ensure_future(disk(ground, read_only=True))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert descriptors() <= before


# --- zeroes, holes, discard ---------------------------------------------------------------------------------


async def test_unmapping_zeroes_and_discards_make_holes(ground: Ground):
    node = await disk(ground)
    await node.write(0, os.urandom(MIB))
    await node.zero(0, 256 * KIB, MAY_UNMAP)
    await node.discard(512 * KIB, 256 * KIB)
    await node.flush()
    assert (await node.driver.info()).allocated_bytes <= 600 * KIB
    kinds = [(await node.map(at * 256 * KIB, 256 * KIB)).kind for at in range(4)]
    assert kinds == [MapKind.ZERO, MapKind.DATA, MapKind.ZERO, MapKind.DATA]


async def test_a_discard_is_dropped_where_the_node_ignores_them(ground: Ground):
    node = await disk(ground, discard=DiscardMode.IGNORE)
    data = os.urandom(MIB)
    await node.write(0, data)
    await node.discard(0, MIB)
    assert await node.content() == data


async def test_zeroes_past_the_end_grow_the_file(ground: Ground):
    node = await disk(ground)
    await node.zero(MIB - 4096, MIB, MAY_UNMAP)
    assert node.size == (ground.root / "disk").stat().st_size == 2 * MIB - 4096


@pytest.mark.parametrize("lacking", [syscalls.FALLOC_ZERO_RANGE, syscalls.FALLOC_PUNCH_HOLE, -1])
async def test_a_file_system_that_lacks_a_way_to_zero_is_worked_around(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, lacking: int
):
    real = syscalls.fallocate

    def partly(descriptor: int, mode: int, offset: int, length: int) -> None:
        if mode & lacking:
            raise OSError(errno.EOPNOTSUPP, "")
        real(descriptor, mode, offset, length)

    node = await disk(ground)
    await node.write(0, b"x" * MIB)
    monkeypatch.setattr(syscalls, "fallocate", partly)
    done = await node.driver.zero(0, 4096, MAY_UNMAP)
    assert done == (lacking != -1)
    assert await node.content(0, 8192) == (bytes(4096) if done else b"x" * 4096) + b"x" * 4096
    await node.discard(8192, 4096)


async def test_a_file_system_that_does_not_know_holes_has_data_everywhere(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
):
    node = await disk(ground)
    await node.truncate(4 * MIB)

    def refuse(*args):
        raise OSError(errno.EINVAL, "")

    monkeypatch.setattr(os, "lseek", refuse)
    mapping = await node.map(0, 4 * MIB)
    assert (mapping.kind, mapping.length) == (MapKind.DATA, 4 * MIB)


async def test_the_kernel_may_copy_between_two_files(ground: Ground):
    node = await disk(ground)
    assert isinstance(node.driver, Copies)
    (ground.root / "source").write_bytes(b"y" * MIB)
    source = await ground.open("file", {"filename": "source"}, read_only=True)
    copied = os.copy_file_range(source.driver.descriptor(), node.driver.descriptor(), MIB, 0, MIB // 2)
    node.driver.grown(MIB // 2 + copied)
    assert (await node.content())[MIB // 2 :] == b"y" * MIB


# --- the cache mode -----------------------------------------------------------------------------------------


@pytest.fixture
async def direct(ground: Ground):
    try:
        return await disk(ground, direct=True)
    except InvalidArgument:
        pytest.skip("the file system has no O_DIRECT")


async def test_direct_requests_all_go_to_the_pool_and_never_to_the_kernels_copy(direct: DriverChild):
    assert direct.limits.request_alignment >= 512
    assert not direct.read_now(0, memoryview(bytearray(4096)))
    assert not direct.write_now(0, bytes(4096))
    assert direct.driver.descriptor() == -1


async def test_aligned_direct_requests_move_bytes(direct: DriverChild):
    import mmap

    with mmap.mmap(-1, 65536) as page:
        page[:] = data = os.urandom(65536)
        with memoryview(page) as view:
            await direct.write(4096, view)
            view[:] = bytes(65536)
            await direct.read(4096, view)
        assert page[:] == data


async def test_a_direct_read_of_an_odd_tail_gives_zeroes_behind_it(ground: Ground, direct: DriverChild):
    import mmap

    os.truncate(ground.root / "disk", 1000)
    (ground.root / "disk").write_bytes(b"z" * 1000)
    with mmap.mmap(-1, 4096) as page, memoryview(page) as view:
        await direct.driver.read(0, view)
        assert bytes(view) == b"z" * 1000 + bytes(3096)


async def test_alignments_are_probed_where_the_kernel_does_not_tell(direct: DriverChild):
    probed = syscalls._probed(direct.driver._descriptor)
    assert probed.offset in syscalls.PROBED_ALIGNMENTS
    assert probed.offset >= direct.limits.request_alignment


async def test_without_flushes_no_flush_reaches_the_disk(ground: Ground, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args):
        raise AssertionError("a flush reached the kernel")

    node = await disk(ground, no_flush=True)
    monkeypatch.setattr(os, "fdatasync", refuse)
    await node.write(0, b"x", FUA)
    await node.flush()


# --- creating -----------------------------------------------------------------------------------------------


async def test_a_created_file_has_its_size_and_no_blocks(ground: Ground):
    await ground.create("file", {"filename": "new", "size": 64 * MIB})
    status = (ground.root / "new").stat()
    assert (status.st_size, status.st_blocks, status.st_mode & 0o777) == (64 * MIB, 0, 0o600)


@pytest.mark.parametrize("mode", ["falloc", "full"])
async def test_preallocation_takes_the_blocks(ground: Ground, mode: str):
    await ground.create("file", {"filename": "new", "size": 3 * MIB + 5, "preallocation": mode})
    status = (ground.root / "new").stat()
    assert status.st_size == 3 * MIB + 5
    assert status.st_blocks * 512 >= 3 * MIB
    node = await ground.open("file", {"filename": "new"})
    await node.truncate(5 * MIB, Preallocation(mode))
    assert (ground.root / "new").stat().st_blocks * 512 >= 5 * MIB
    assert not any(await node.content())


async def test_hints_that_a_file_system_does_not_know_are_ignored(ground: Ground):
    await ground.create("file", {"filename": "new", "nocow": True, "extent_size_hint_bytes": MIB})


async def test_hints_reach_a_file_system_that_knows_them(ground: Ground, monkeypatch: pytest.MonkeyPatch):
    """The requests of linux/fs.h, on top of what the file has: FS_NOCOW_FL and, of 4 MiB, FS_XFLAG_EXTSIZE."""
    sent: dict[int, bytes] = {}

    def kernel(descriptor: int, request: int, argument: bytes | bytearray) -> int:
        if request in (0x80086601, 0x801C581F):  # FS_IOC_GETFLAGS, FS_IOC_FSGETXATTR
            assert isinstance(argument, bytearray)
            argument[:4] = (8).to_bytes(4, "little")
        else:
            sent[request] = bytes(argument)
        return 0

    monkeypatch.setattr(fcntl, "ioctl", kernel)
    await ground.create("file", {"filename": "new", "nocow": True, "extent_size_hint_bytes": 4 * MIB})
    flags, attributes = sent[0x40086602], sent[0x401C5820]
    assert int.from_bytes(flags[:4], "little") == 0x00800000 | 8
    assert int.from_bytes(attributes[:4], "little") == 0x800 | 8
    assert int.from_bytes(attributes[4:8], "little") == 4 * MIB


@pytest.mark.parametrize(
    ("number", "ignored"), [(errno.EOPNOTSUPP, True), (errno.ENOTTY, True), (errno.EIO, False)]
)
async def test_only_a_file_system_without_hints_is_excused(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, number: int, ignored: bool
):
    def refuse(*args: object) -> int:
        raise OSError(number, "")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    with nullcontext() if ignored else pytest.raises(IoError):
        await ground.create("file", {"filename": "new", "nocow": True})
    assert (ground.root / "new").exists() is ignored


async def test_a_file_that_exists_is_only_replaced_on_demand(ground: Ground):
    (ground.root / "disk").write_bytes(b"old")
    with pytest.raises(FileExists):
        await ground.create("file", {"filename": "disk", "size": 10})
    assert (ground.root / "disk").read_bytes() == b"old"
    await ground.create("file", {"filename": "disk", "size": 10, "overwrite": True})
    assert (ground.root / "disk").read_bytes() == bytes(10)


async def test_a_replacement_that_fails_keeps_the_file_but_removes_one_that_was_new(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*args):
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(os, "fsync", refuse)
    for filename in ("disk", "new"):
        with pytest.raises(NoSpace):
            await ground.create("file", {"filename": filename, "overwrite": True})
    assert {path.name for path in ground.root.iterdir()} == {"disk"}


async def test_a_creation_that_is_cancelled_leaves_nothing(ground: Ground):
    before = descriptors()
    for turns in range(12):
        creation = asyncio.ensure_future(
            ground.create("file", {"filename": "new", "size": 8 * MIB, "preallocation": "full"})
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        if creation.cancel():
            with pytest.raises(asyncio.CancelledError):
                await creation
            assert not (ground.root / "new").exists()
    assert descriptors() <= before


async def test_a_cancelled_close_closes_all_the_same(ground: Ground):
    before = descriptors()
    node = await ground.open("file", {"filename": "disk"})
    closing = asyncio.ensure_future(ground.close(node))
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert descriptors() <= before


async def test_a_file_in_use_is_not_replaced(ground: Ground):
    await disk(ground)
    with pytest.raises(FileBusy):
        await ground.create("file", {"filename": "disk", "overwrite": True})
    assert (ground.root / "disk").stat().st_size == MIB


@pytest.mark.parametrize("wrong", [{"size": -1}, {"size": 1 << 63}, {"preallocation": "metadata"}])
async def test_a_file_that_cannot_be_made_leaves_nothing(ground: Ground, wrong: dict[str, object]):
    with pytest.raises(BlockError):
        await ground.create("file", {"filename": "new", **wrong})
    assert not (ground.root / "new").exists()


async def test_shrinking_with_preallocation_is_refused(ground: Ground):
    node = await disk(ground)
    with pytest.raises(InvalidArgument):
        await node.truncate(5, Preallocation.FULL)
    assert node.size == MIB


# --- locks ----------------------------------------------------------------------------------------------------


async def test_two_writers_of_one_file_are_refused(ground: Ground):
    await disk(ground)
    with pytest.raises(FileBusy):
        await disk(ground)
    with pytest.raises(FileBusy):
        await disk(ground, read_only=True)
    await disk(ground, read_only=True, force_share=True)


async def test_many_readers_share_a_file_and_keep_writers_out(ground: Ground):
    await disk(ground, read_only=True)
    await disk(ground, read_only=True)
    with pytest.raises(FileBusy):
        await disk(ground)


async def test_closing_lets_the_next_one_in(ground: Ground):
    await ground.close(await disk(ground))
    await disk(ground)


@pytest.mark.peer("qemu-img")
async def test_qemu_refuses_a_file_that_we_write(ground: Ground):
    path = ground.root / "disk"
    peers.run("qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
    node = await disk(ground)
    refused = peers.run("qemu-img", "info", "-f", "qcow2", path, check=False)
    assert refused.returncode != 0
    assert "lock" in refused.stderr
    refused = peers.run("qemu-io", "-f", "raw", "-c", "write 0 512", path, check=False)
    assert "lock" in refused.stdout + refused.stderr
    peers.run("qemu-img", "info", "-U", "-f", "qcow2", path)
    await ground.close(node)
    peers.run("qemu-img", "info", "-f", "qcow2", path)


@pytest.mark.peer("qemu-io")
async def test_qemu_reads_with_us_what_we_only_read_and_may_not_write_it(ground: Ground):
    await disk(ground, read_only=True)
    path = ground.root / "disk"
    peers.run("qemu-io", "-r", "-f", "raw", "-c", "read 0 512", path)
    written = peers.run("qemu-io", "-f", "raw", "-c", "write 0 512", path, check=False)
    assert "lock" in written.stdout + written.stderr


@pytest.mark.peer("qemu-io")
@pytest.mark.parametrize("qemu_writes", [True, False])
async def test_we_refuse_a_file_that_qemu_writes_and_share_one_that_it_reads(ground: Ground, qemu_writes: bool):
    path = ground.root / "disk"
    flags = [] if qemu_writes else ["-r"]
    peer = subprocess.Popen(
        ["qemu-io", *flags, "-f", "raw", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert peer.stdin is not None
    assert peer.stdout is not None
    try:
        peer.stdin.write("read 0 512\n")
        peer.stdin.flush()
        assert "read 512/512" in peer.stdout.readline()  # it is open now
        if qemu_writes:
            with pytest.raises(FileBusy):
                await disk(ground, read_only=True)
        else:
            await disk(ground, read_only=True)
        with pytest.raises(FileBusy):
            await disk(ground)
    finally:
        peer.stdin.close()
        peer.stdout.read()
        peer.stdout.close()
        peer.wait()
