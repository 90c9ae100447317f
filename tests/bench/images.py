"""Images for benchmarks: random bytes that nothing can compress or skip, in the page cache."""

import os
import subprocess
from pathlib import Path
from typing import Final

from blockyard.base.units import GIB, MIB

SIZE: Final = GIB


def qemu_img(*arguments: str | Path) -> str:
    command = ["qemu-img", *(str(part) for part in arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout


def random_raw(path: Path, size: int = SIZE) -> Path:
    """A raw image of random bytes, on the disk so that no write-back disturbs what is measured."""
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
        file.flush()
        os.fsync(file.fileno())
    return path


def qcow2_of(path: Path, source: Path) -> Path:
    """The same bytes as a qcow2 image."""
    qemu_img("convert", "-f", "raw", "-O", "qcow2", source, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return path


def empty(path: Path, format: str, size: int = SIZE, backing: Path | None = None) -> Path:
    """A fresh image, made anew."""
    path.unlink(missing_ok=True)
    below = ["-b", backing.name, "-F", "raw" if backing.suffix == ".raw" else "qcow2"] if backing else []
    qemu_img("create", "-q", "-f", format, *below, path, str(size))
    return path


def warm(*paths: Path) -> None:
    """Bring files into the page cache, and let the disk come to rest."""
    os.sync()
    for path in paths:
        with path.open("rb") as file:
            while file.read(4 * MIB):
                pass
