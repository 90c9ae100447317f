"""Outside judges of the corpus: OpenStack's inspector on what we accept, and the kernel on what we open."""

import asyncio
import logging
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from oslo_utils.imageutils import format_inspector

from tests.corpus.catalogue import ENTRIES
from tests.corpus.entry import MAIN, Entry
from tests.corpus.house import House, house
from tests.corpus.images import references

HEAD_BYTES: Final = 64 << 20
"""What the inspector reads of a file: it goes through all of one, and some are 16 TiB of holes."""

ACCEPTED: Final = tuple(entry for entry in ENTRIES if not entry.answer("alone").reason)

BACKING: Final = "a backing file is named; it is followed beneath the storage roots only, behind `follow_backing`"
TOLD: Final = "the caller said raw, so nothing in it is looked at; without a format it is refused"
TWO: Final = "the caller said the format, so the other one is never looked for; its bytes mean nothing to this one"
EXCEPTIONS: Final[dict[str, tuple[str, str]]] = {
    **{
        entry.name: (BACKING, "backing_file")
        for entry in references.ENTRIES
        if entry.kind in (references.BACKING, references.CHAINS, references.FILES)
    },
    "backing-format-twice": (BACKING, "backing_file"),
    "backing-format-not-text": (BACKING, "backing_file"),
    "raw-that-names-a-backing-file": (TOLD, "qcow2"),
    "raw-that-names-a-data-file": (TOLD, "qcow2"),
    "raw-with-a-qed-header": (TOLD, "qed"),
    "vmdk-descriptor-of-etc-passwd-as-raw": (TOLD, "vmdk"),
    "vmdk-sparse-of-etc-passwd-as-raw": (TOLD, "vmdk"),
    "vmdk-grain-0-as-raw": (TOLD, "vmdk"),
    "vhdx-block-0-as-raw": (TOLD, "vhdx"),
    "vdi-blocks-2-to-32-as-raw": (TOLD, "vdi"),
    "vdi-block-0-as-raw": (TOLD, "vdi"),
    "qed-of-etc-passwd-as-raw": (TOLD, "qed"),
    "vpc-block-0-as-raw": (TOLD, "vhd"),
    "qcow1-l2-bits-255-as-raw": (TOLD, "qcow2"),
    "luks-iterations-2-to-32-as-raw": (TOLD, "luks"),
    "luks-version-2-of-zeroes-as-raw": (TOLD, "luks"),
    "luks-version-9-as-raw": (TOLD, "luks"),
    "luks-2-sound": ("the inspector knows LUKS1 alone", "version"),
    "iso-that-boots": (TWO, "Multiple formats"),
    "qcow2-with-a-boot-sector": (TWO, "Multiple formats"),
    "qcow2-and-vdi": (TWO, "Multiple formats"),
}
"""Images that we accept and the inspector does not: why, and what it says."""


def complaint(path: Path, format_: str) -> str:
    """What the inspector has against a file of this format; empty if it is safe."""
    try:
        found = format_inspector.detect_file_format(str(path))
        if found is None or str(found) != format_:
            return f"looks like {found}"
        found.safety_check()
    except format_inspector.SafetyCheckFailed as failed:
        return f"unsafe: {', '.join(sorted(failed.failures))}"
    except format_inspector.ImageFormatError as problem:
        return str(problem)
    return ""


@pytest.mark.parametrize("entry", ACCEPTED, ids=lambda entry: entry.name)
def test_the_inspector_of_openstack_agrees_on_what_is_accepted(
    entry: Entry, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.CRITICAL)
    entry.make(tmp_path)
    if (tmp_path / MAIN).stat().st_size > HEAD_BYTES:
        os.truncate(tmp_path / MAIN, HEAD_BYTES)
    said = complaint(tmp_path / MAIN, entry.format)
    _, expected = EXCEPTIONS.get(entry.name, ("", ""))
    assert bool(said) == bool(expected), said
    assert expected in said


def test_every_exception_is_an_image_that_is_accepted():
    accepted = {entry.name for entry in ACCEPTED}
    refused = {"backing-name-of-1024", "backing-name-past-the-cluster", "backing-name-inside-the-header"}
    assert set(EXCEPTIONS) - accepted == {*refused, "backing-name-at-2-to-64"}


# --- what the process opens ----------------------------------------------------------------------------------

WARMING: Final = ("l2-one-cluster-for-all", "chain-to-nothing", "bomb-of-zstd")
"""What their answers import is imported before the trace begins."""
TRACED: Final = "%file,socket,connect,bind,execve"
CALL: Final = re.compile(r"^\d+ +(?:<\.\.\. )?(\w+)")
PATHS: Final = re.compile(r'(?:(\d+|AT_FDCWD)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
OURS: Final = ("socket", "connect", "bind", "execve")
"""Calls that the service has no reason for while images are looked at."""


@asynccontextmanager
async def traced(pid: int, log: Path) -> AsyncIterator[None]:
    """All threads of a process under strace."""
    process = await asyncio.create_subprocess_exec(
        "strace", "-f", "-y", "-s", "4096", "-e", f"trace={TRACED}", "-o", str(log), "-p", str(pid),
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    said = await process.stderr.readline()
    assert b"attached" in said, said
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


def opened(log: Path) -> Iterator[tuple[str, str]]:
    """(Call, path) of everything that the process named to the kernel."""
    for line in log.read_text(errors="replace").splitlines():
        found = CALL.match(line)
        if found is None or "resumed>" in line or "+++" in line or "---" in line:
            continue
        call = found[1]
        if call in OURS:
            yield call, line
            continue
        for _, directory, path in PATHS.findall(line):
            yield call, os.path.normpath(os.path.join(directory, path))  # noqa: PTH118


@pytest.mark.peer("strace")
@pytest.mark.timeout(600)
async def test_nothing_outside_the_storage_roots_is_opened_for_any_image(tmp_path: Path):
    log = tmp_path / "trace"
    async with house(tmp_path) as asked:
        await everything(asked, [entry for entry in ENTRIES if entry.name in WARMING])
        async with traced(asked.daemon.pid, log):
            await everything(asked, ENTRIES)
        calls = list(opened(log))
        root = os.fspath(asked.root)
    foreign = [(call, path) for call, path in calls if not (path == root or path.startswith(root + "/"))]
    assert sum(path.endswith(f"/{MAIN}") for _, path in calls) > len(ENTRIES), "the trace saw the images themselves"
    assert not [item for item in foreign if not harmless(*item)], foreign[:10]


def harmless(call: str, path: str) -> bool:
    """The interpreter's own files, for a module that is imported late; the C library counts processors when a
    thread first asks for memory (arena_get2 of glibc)."""
    if path == "/sys/devices/system/cpu/online":
        return True
    return call in ("openat", "newfstatat", "stat", "readlink") and path.startswith((sys.prefix, sys.base_prefix))


async def everything(asked: House, entries: tuple[Entry, ...] | list[Entry]) -> None:
    for entry in entries:
        folder = asked.root / entry.name
        folder.mkdir(exist_ok=True)
        if not (folder / MAIN).exists():
            entry.make(folder)
        await asked.ask(entry, folder)
