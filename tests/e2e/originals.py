"""The image that the story begins with: the user's own, or one made of real files of this machine.

The user's image is only ever read. An image that is made is a raw disk of the files of /usr and the like, one after
the other: real data, with its runs of zeroes, its text and its compressed parts.
"""

import os
import shutil
import stat
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from blockyard.base.ranges import align_up
from blockyard.base.units import GIB, KIB, MIB
from tests.e2e.ledger import UNIT

ENOUGH: Final = 512 * MIB
PLACES: Final = ("/usr/lib", "/usr/bin", "/usr/share", "/usr", "/opt", "/lib", "/bin", "/nix/store", "/etc")
LARGEST_FILE: Final = 64 * MIB
"""A part of each file is enough: many files make better data than one."""
COPY: Final = MIB
QCOW2_MAGIC: Final = b"QFI\xfb"
LONGEST_NAME: Final = 1023
"""Of a backing file (QEMU, docs/interop/qcow2.txt, header bytes 16 to 19)."""
DEEPEST_CHAIN: Final = 200


class NotEnough(Exception):
    """This machine lacks what the story needs."""


def probe_format(path: Path) -> str:
    """qcow2 if the file begins like one, else raw. The story reads it and never writes it, so a guess is safe."""
    with path.open("rb") as source:
        return "qcow2" if source.read(4) == QCOW2_MAGIC else "raw"


def folders_of(image: Path) -> list[Path]:
    """Where the image and the backing files that its headers name lie; the daemon may look nowhere else."""
    folders = [image.parent]
    for _ in range(DEEPEST_CHAIN):
        with image.open("rb") as source:
            magic, _, offset, length = struct.unpack(">4sIQI", source.read(20).ljust(20, b"\0"))
            if magic != QCOW2_MAGIC or not offset or not 0 < length <= LONGEST_NAME:
                break
            source.seek(offset)
            image = (image.parent / os.fsdecode(source.read(length))).resolve()
        if not image.is_file():
            break  # the daemon will say so
        folders.append(image.parent)
    return list(dict.fromkeys(folders))


def build(path: Path, wanted: int = ENOUGH) -> tuple[int, int]:
    """Write a raw image of real bytes; how many bytes of how many files."""
    total = files = 0
    with path.open("wb") as sink:
        for found in _real_files():
            copied = _append(found, sink.fileno(), total, min(LARGEST_FILE, wanted - total))
            total, files = total + copied, files + bool(copied)
            if total >= wanted:
                break
        os.ftruncate(sink.fileno(), align_up(total, 64 * KIB))
    if total < wanted:
        raise NotEnough(
            f"only {total} bytes of real files were found here, {wanted} are needed; name an image instead"
        )
    assert align_up(total, 64 * KIB) % UNIT == 0
    return total, files


def _real_files() -> Iterator[Path]:
    seen: set[tuple[int, int]] = set()
    for place in (*PLACES, sys.prefix, sys.base_prefix):
        for folder, names, files in os.walk(place):
            names.sort()
            for name in sorted(files):
                path = Path(folder, name)
                try:
                    found = path.lstat()
                except OSError:
                    continue
                if stat.S_ISREG(found.st_mode) and found.st_size and (found.st_dev, found.st_ino) not in seen:
                    seen.add((found.st_dev, found.st_ino))
                    yield path


def _append(path: Path, sink: int, offset: int, limit: int) -> int:
    copied = 0
    try:
        with path.open("rb") as source:
            while copied < limit and (part := source.read(min(COPY, limit - copied))):
                os.pwrite(sink, part, offset + copied)
                copied += len(part)
    except OSError:
        pass  # unreadable, or gone meanwhile: what was copied counts
    return copied


def work_place(needed: int) -> Path:
    """A directory for temporary files with so much room."""
    tried = []
    for folder in dict.fromkeys((tempfile.gettempdir(), "/var/tmp", str(Path.cwd()))):
        if not os.access(folder, os.W_OK):
            continue
        free = shutil.disk_usage(folder).free
        if free >= needed:
            return Path(folder)
        tried.append(f"{folder} has {free // MIB} MiB")
    raise NotEnough(f"{needed // MIB} MiB of disk are needed; {', '.join(tried)}; set TMPDIR to a larger place")


def room_for(data: int) -> int:
    """Disk that the story needs for an image with so much data: the copies, the backups and their overlays."""
    return 6 * data + GIB
