"""Programs of the field that tests use as oracles: found, run, or named in the reason of a skip."""

import os
import shutil
import subprocess
from pathlib import Path

REQUIRED_VARIABLE = "BLOCKYARD_REQUIRE_PEERS"
PACKAGES = {
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "qemu-nbd": "qemu-utils",
    "qemu-storage-daemon": "qemu-system-common",
    "nbdkit": "nbdkit",
    "nbdinfo": "libnbd-bin",
    "nbdcopy": "libnbd-bin",
    "nbdsh": "libnbd-bin and python3-libnbd",
    "fio": "fio",
    "strace": "strace",
    "prlimit": "util-linux",
    "cryptsetup": "cryptsetup-bin",
    "postgres": "postgresql",
}

DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
"""Debian keeps the programs of each version here, and none of the server's in PATH."""


def missing(name: str) -> str:
    """Why a peer cannot be used here; empty if it can."""
    if shutil.which(name) or any(DEBIAN_POSTGRES.glob(f"*/bin/{name}")):
        return ""
    return f"peer {name} is not installed (Debian package {PACKAGES.get(name, name)})"


def required() -> bool:
    """Whether a missing peer is a failure rather than a skip."""
    return os.environ.get(REQUIRED_VARIABLE, "") not in ("", "0")


def run(
    *command: str | Path, check: bool = True, timeout: float = 60, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a peer and return its output as text; `check` fails the test with what it printed."""
    result = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=timeout, check=False, cwd=cwd
    )
    if check:
        told = f"{' '.join(map(str, command))}: status {result.returncode}\n{result.stdout}{result.stderr}"
        assert result.returncode == 0, told
    return result
