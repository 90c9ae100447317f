"""The tools of the field as judges: libnbd's, nbdkit's proxy, QEMU's and fio's clients read and write an export.

They run as processes of their own while the server runs in this one.
"""

import asyncio
import json
import random
from pathlib import Path

import pytest

from blockyard.base.clock import SystemClock
from blockyard.node.exports.nbd import ExportConfig, NbdServer
from tests.support import peers
from tests.support.export_source import CLUSTER, MemorySource

SIZE = 8 << 20


@pytest.fixture
async def disk(tmp_path):
    source = MemorySource(SIZE)
    source.add_bitmap("b0")
    server = NbdServer(SystemClock())
    config = ExportConfig("disk", "a disk", writable=True, bitmaps=("b0",), allocation_depth=True)
    await server.add_export(config, source)
    await server.add_export(ExportConfig("", "read-only"), MemorySource(CLUSTER))
    address = tmp_path / "nbd.sock"
    await server.start(address)
    source.uri = f"nbd+unix:///disk?socket={address}"
    source.list_uri = f"nbd+unix:///?socket={address}"
    source.server = server
    yield source
    await server.stop()


async def run(*command: str | Path, check: bool = True) -> str:
    result = await asyncio.to_thread(peers.run, *command, check=check)
    return result.stdout


def random_image(path: Path, seed: int = 1) -> bytes:
    """Data, zeroes and half clusters by formula."""
    chooser = random.Random(seed)
    data = bytearray(SIZE)
    for start in range(0, SIZE, 3 * CLUSTER):
        length = chooser.choice([0, CLUSTER, 2 * CLUSTER, 1000])
        data[start : start + length] = chooser.randbytes(length)[: len(data) - start]
    path.write_bytes(data)
    return bytes(data[:SIZE])


@pytest.mark.peer("nbdinfo")
async def test_nbdinfo_sees_every_ability(disk):
    [info] = json.loads(await run("nbdinfo", "--json", disk.uri))["exports"]
    assert info["export-size"] == SIZE
    assert info["description"] == "a disk"
    assert info["contexts"] == ["base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:b0"]
    abilities = ["cache", "df", "fast_zero", "flush", "fua", "multi_conn", "trim", "zero"]
    assert [name for name in abilities if not info[f"can_{name}"]] == []
    sizes = [info["block_size_minimum"], info["block_size_preferred"], info["block_size_maximum"]]
    assert sizes == [1, 4096, 32 << 20]


@pytest.mark.peer("nbdinfo")
async def test_nbdinfo_lists_all_exports(disk):
    listed = json.loads(await run("nbdinfo", "--list", "--json", disk.list_uri))["exports"]
    assert {(export["export-name"], export["is_read_only"]) for export in listed} == {("disk", False), ("", True)}


@pytest.mark.peer("nbdinfo")
@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ("base:allocation", [(0, 2 * CLUSTER, 0), (2 * CLUSTER, SIZE - 2 * CLUSTER, 3)]),
        ("qemu:dirty-bitmap:b0", [(0, 2 * CLUSTER, 1), (2 * CLUSTER, SIZE - 2 * CLUSTER, 0)]),
        ("qemu:allocation-depth", [(0, 2 * CLUSTER, 1), (2 * CLUSTER, SIZE - 2 * CLUSTER, 0)]),
    ],
)
async def test_nbdinfo_maps_a_context(disk, context, expected):
    disk.write_now(0, b"d" * 2 * CLUSTER)
    runs = json.loads(await run("nbdinfo", f"--map={context}", "--json", disk.uri))
    assert [(run["offset"], run["length"], run["type"]) for run in runs] == expected


@pytest.mark.peer("nbdcopy")
async def test_nbdcopy_in_and_out_keeps_every_byte(disk, tmp_path):
    data = random_image(tmp_path / "in.img")
    await run("nbdcopy", "--destination-is-zero", tmp_path / "in.img", disk.uri)
    assert disk.content == data
    await run("nbdcopy", disk.uri, tmp_path / "out.img")
    assert (tmp_path / "out.img").read_bytes() == data


@pytest.mark.peer("nbdcopy")
async def test_nbdcopy_over_old_content_writes_zeroes_where_they_belong(disk, tmp_path):
    disk.write_now(0, b"\xff" * SIZE)
    data = random_image(tmp_path / "in.img")
    await run("nbdcopy", "--flush", tmp_path / "in.img", disk.uri)
    assert disk.content == data
    assert ("flush", 0, 0, 0) in disk.calls


@pytest.mark.peer("nbdcopy")
async def test_nbdcopy_reads_right_when_nothing_is_inline(disk, tmp_path):
    data = random_image(tmp_path / "in.img")
    disk.write_now(0, data)
    disk.inline = False
    await run("nbdcopy", "--connections=4", disk.uri, tmp_path / "out.img")
    assert (tmp_path / "out.img").read_bytes() == data


@pytest.mark.peer("nbdkit", "nbdcopy")
async def test_nbdkits_checkwrite_finds_every_byte_and_hole_in_place(disk, tmp_path):
    # The filter holds the export against what nbdcopy writes into it, byte by byte, holes by block status.
    data = random_image(tmp_path / "in.img")
    disk.write_now(0, data)
    await run(
        "nbdkit", "-U", "-", "--filter=checkwrite", "nbd", f"uri={disk.uri}",
        "--run", f"nbdcopy {tmp_path}/in.img $uri",
    )  # fmt: skip


@pytest.mark.peer("nbdkit", "nbdcopy")
async def test_nbdkits_proxy_passes_reads_and_writes_through(disk, tmp_path):
    data = random_image(tmp_path / "in.img")
    await run(
        "nbdkit", "-U", "-", "nbd", f"uri={disk.uri}",
        "--run", f"nbdcopy {tmp_path}/in.img $uri && nbdcopy $uri {tmp_path}/out.img",
    )  # fmt: skip
    assert disk.content == data
    assert (tmp_path / "out.img").read_bytes() == data


@pytest.mark.peer("qemu-img")
async def test_qemu_img_converts_compares_and_maps(disk, tmp_path):
    random_image(tmp_path / "in.img")
    await run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", tmp_path / "in.img", disk.uri)
    await run("qemu-img", "compare", "-f", "raw", "-F", "raw", tmp_path / "in.img", disk.uri)
    assert disk.content == (tmp_path / "in.img").read_bytes()
    await run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk.uri, tmp_path / "out.qcow2")
    await run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", disk.uri, tmp_path / "out.qcow2")
    extents = json.loads(await run("qemu-img", "map", "--output=json", "-f", "raw", disk.uri))
    assert sum(extent["length"] for extent in extents) == SIZE
    for extent in extents:
        part = disk.content[extent["start"] : extent["start"] + extent["length"]]
        assert not extent["zero"] or not any(part)


@pytest.mark.peer("qemu-io")
async def test_qemu_io_writes_zeroes_discards_flushes_and_verifies(disk):
    output = await run(
        "qemu-io", "-f", "raw", disk.uri,
        "-c", "write -P 0xaa 0 1M", "-c", "write -f -P 0xbb 4097 513", "-c", "write -z -u 512k 64k",
        "-c", "write -z -n 576k 64k", "-c", "discard 768k 64k", "-c", "aio_flush", "-c", "flush",
        "-c", "read -P 0xaa 0 4097", "-c", "read -P 0xbb 4097 513", "-c", "read -P 0 512k 128k",
    )  # fmt: skip
    assert "failed" not in output
    assert disk.content[4097 : 4097 + 513] == b"\xbb" * 513


@pytest.mark.peer("qemu-io")
async def test_qemu_io_is_told_that_a_read_only_export_is_read_only(disk):
    output = await run("qemu-io", "-f", "raw", disk.list_uri, "-c", "write 0 512", check=False)
    assert disk.calls == []
    assert "read-only" in output or output == ""


@pytest.mark.peer("nbdsh")
@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="libnbd's Python module is Debian's")
async def test_nbdsh_drives_every_command_and_flag(disk):
    script = """
h.set_request_structured_replies({structured})
h.add_meta_context("base:allocation")
h.add_meta_context("qemu:dirty-bitmap:b0")
h.connect_uri("{uri}")
h.pwrite(b"a" * 65536, 4096, nbd.CMD_FLAG_FUA)
assert h.pread(65536, 4096) == b"a" * 65536
h.zero(4096, 4096, nbd.CMD_FLAG_NO_HOLE)
h.zero(4096, 8192, nbd.CMD_FLAG_FAST_ZERO)
h.trim(4096, 12288, nbd.CMD_FLAG_FUA)
h.cache(65536, 0)
h.flush()
if {structured}:
    seen = dict()
    h.block_status({size}, 0, lambda name, offset, entries, error: seen.setdefault(name, entries))
    assert set(seen) == set(("base:allocation", "qemu:dirty-bitmap:b0")), seen
    assert sum(seen["base:allocation"][::2]) == {size}, seen
    h.block_status({size}, 0, lambda *a: None, nbd.CMD_FLAG_REQ_ONE)
    chunks = []
    h.pread_structured(1 << 20, 0, lambda data, offset, status, error: chunks.append(len(data)), nbd.CMD_FLAG_DF)
    assert chunks == [1 << 20], chunks
try:
    h.set_strict_mode(0)
    h.pread(512, {size})
    raise SystemExit("a read past the end succeeded")
except nbd.Error as error:
    assert error.errno == "EINVAL", error.errno
h.shutdown()
"""
    for structured in (True, False):
        await run(
            "/usr/bin/python3", "-c",
            "import nbd\nh = nbd.NBD()\n" + script.format(structured=structured, uri=disk.uri, size=SIZE),
        )  # fmt: skip


@pytest.mark.peer("fio")
@pytest.mark.parametrize("inline", [True, False], ids=["inline", "awaited"])
async def test_fio_verifies_random_writes_of_many_sizes(disk, inline, tmp_path):
    disk.inline = inline
    await run(
        "fio", "--name=v", "--ioengine=nbd", f"--uri={disk.uri}", "--rw=randrw", "--bsrange=512-128k",
        "--bs_unaligned=1", "--size=8m", "--iodepth=16", "--verify=crc32c", "--verify_fatal=1",
        "--verify_state_save=0", "--loops=2",
        f"--directory={tmp_path}",
    )  # fmt: skip


@pytest.mark.peer("qemu-io")
@pytest.mark.parametrize("length", [3000, 4096, 5000])
async def test_a_name_that_is_absurdly_long_is_refused_and_the_server_lives(disk, length):
    address = disk.server.addresses[0]
    output = await run("qemu-io", "-f", "raw", f"nbd+unix:///{'1' * length}?socket={address}", check=False)
    assert output == ""
    await run("qemu-io", "-f", "raw", disk.uri, "-c", "read 0 512")
