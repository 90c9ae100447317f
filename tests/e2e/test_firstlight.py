"""`make run`, small, and its judges: a story that could not fail would prove nothing."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.ledger import UNIT, ZEROED, Ledger, expected, first_difference, pattern
from tests.e2e.originals import NotEnough, build, folders_of, probe_format, work_place
from tests.e2e.plain_qcow2 import PlainQcow2
from tests.support import peers

ROOT = Path(__file__).resolve().parents[2]
PLACES = (
    "protos/python",
    "services/common",
    "services/node",
    "services/jobs",
    "services/stats",
    "services/daemon",
    "clients",
    ".",
)

ENVIRONMENT = {**os.environ, "PYTHONPATH": ":".join(str(ROOT / place) for place in PLACES)}


async def told(*options: str) -> tuple[int, str]:
    """Run the story as `make run` does."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.e2e.firstlight",
        *options,
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


@pytest.mark.slow
async def test_the_main_job_runs_on_a_disk_of_real_files():
    code, out = await told("--size", "32M")
    assert code == 0, out
    assert "All identical" in out
    assert "stream live flat" in out
    assert "blk.read qcow2" in out


@pytest.mark.slow
async def test_an_interrupt_ends_it_and_leaves_nothing_behind(tmp_path: Path):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.e2e.firstlight", "--size", "32M"),
        cwd=ROOT,
        env={**ENVIRONMENT, "TMPDIR": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    while b"a guest writes" not in await process.stdout.readline():
        assert process.returncode is None
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == 130
    assert err.splitlines()[-1] == b"firstlight: interrupted; everything temporary is removed"
    assert b"Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.peer("qemu-img")
async def test_the_main_job_runs_on_a_qcow2_image_of_the_user_which_stays_as_it_is(tmp_path: Path):
    raw, image = tmp_path / "raw", tmp_path / "users.qcow2"
    raw.write_bytes(os.urandom(3 << 20) + bytes(5 << 20) + os.urandom(1 << 20) + b"odd size" * 64)
    peers.run("qemu-img", "convert", "-O", "qcow2", "-c", raw, image)
    before = image.read_bytes()
    code, out = await told("--image", str(image), "--quiet")
    assert code == 0, out
    assert image.read_bytes() == before


@pytest.mark.peer("qemu-img")
def test_the_folders_of_a_users_chain_are_found(tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    peers.run("qemu-img", "create", "-f", "qcow2", tmp_path / "elsewhere" / "base.qcow2", "1M")
    peers.run(
        "qemu-img", "create", "-f", "qcow2", "-b", "elsewhere/base.qcow2", "-F", "qcow2", tmp_path / "top.qcow2"
    )
    assert folders_of(tmp_path / "top.qcow2") == [tmp_path, tmp_path / "elsewhere"]


async def test_an_image_that_is_not_there_is_named():
    code, out = await told("--image", "/nonexistent/disk.img")
    assert code == 1
    assert "/nonexistent/disk.img" in out
    assert "Traceback" not in out


def disk(ledger: Ledger, original: bytes) -> bytearray:
    return bytearray(expected(ledger.seeds, 0, original))


async def compared(ledger: Ledger, original: bytes, found: bytes) -> int:
    async def read_original(offset: int, length: int) -> bytes:
        return original[offset : offset + length]

    async def read_found(offset: int, length: int) -> bytes:
        return bytes(found[offset : offset + length])

    return await first_difference(ledger.seeds, read_original, read_found)


async def test_the_ledger_expects_the_original_under_what_was_written():
    original, ledger = os.urandom(64 * UNIT), Ledger(64 * UNIT)
    ledger.note(3 * UNIT, 2 * UNIT, 7)
    ledger.note(4 * UNIT, UNIT, ZEROED)
    found = disk(ledger, original)
    assert found[: 3 * UNIT] == original[: 3 * UNIT]
    assert found[3 * UNIT : 4 * UNIT] == pattern(3 * UNIT, UNIT, 7)
    assert found[4 * UNIT : 5 * UNIT] == bytes(UNIT)
    assert found[5 * UNIT :] == original[5 * UNIT :]
    assert ledger.written_bytes == 2 * UNIT


@pytest.mark.parametrize("where", [0, 5 * UNIT + 17, 9 << 20])
async def test_one_wrong_byte_is_found_where_it_is(where):
    size = 10 << 20
    original, ledger = np.random.default_rng(1).bytes(size), Ledger(size)
    ledger.note(5 * UNIT, UNIT, 1)
    found = disk(ledger, original)
    assert await compared(ledger, original, found) == -1
    found[where] ^= 1
    assert await compared(ledger, original, found) == where


async def test_a_stale_a_misplaced_and_a_missing_unit_are_found():
    original, ledger = bytes(64 * UNIT), Ledger(64 * UNIT)
    ledger.note(8 * UNIT, UNIT, 2)
    good = disk(ledger, original)
    for wrong in (pattern(8 * UNIT, UNIT, 1), pattern(9 * UNIT, UNIT, 2), bytes(UNIT)):
        found = bytearray(good)
        found[8 * UNIT : 9 * UNIT] = wrong
        assert 8 * UNIT <= await compared(ledger, original, found) < 9 * UNIT
    assert await compared(ledger, original, good[:-1]) >= 0


@pytest.mark.peer("qemu-img")
@pytest.mark.parametrize("options", ["cluster_size=64k", "cluster_size=4k", "compat=0.10"])
def test_the_plain_reader_reads_what_qemu_wrote(tmp_path: Path, options):
    raw, image = tmp_path / "raw", tmp_path / "image"
    content = os.urandom(300_000) + bytes(1 << 20) + os.urandom(200_192)
    raw.write_bytes(content)
    peers.run("qemu-img", "convert", "-O", "qcow2", "-o", options, raw, image)
    plain = PlainQcow2(image)
    try:
        assert plain.read(0, plain.size)[: len(content)] == content
        assert plain.read(299_990, 20) == content[299_990:300_010]
    finally:
        plain.close()


@pytest.mark.peer("qemu-img")
def test_the_plain_reader_refuses_what_is_not_flat(tmp_path: Path):
    peers.run("qemu-img", "create", "-f", "qcow2", tmp_path / "base", "1M")
    peers.run("qemu-img", "create", "-f", "qcow2", "-b", "base", "-F", "qcow2", tmp_path / "top")
    with pytest.raises(ValueError, match="no flat"):
        PlainQcow2(tmp_path / "top")


def test_a_disk_of_real_files_has_the_size_that_was_asked_for(tmp_path: Path):
    total, files = build(tmp_path / "disk", 3_000_000)
    assert total == 3_000_000
    assert files >= 1
    assert (tmp_path / "disk").stat().st_size == 46 * 65536
    assert probe_format(tmp_path / "disk") == "raw"


def test_a_machine_without_room_is_told_how_much_is_needed():
    with pytest.raises(NotEnough, match="MiB of disk are needed"):
        work_place(1 << 60)
