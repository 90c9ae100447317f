"""A qemu-io that holds an image open while a test does something else."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class QemuIo:
    """Commands in, answers out."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def do(self, command: str) -> str:
        """The answer to a read or write: two lines, there when it is done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline() + self._process.stdout.readline()


@contextmanager
def qemu_io(path: Path, format: str, *flags: str) -> Iterator[QemuIo]:
    """qemu-io with the image open from here on; it fails the test if it cannot open it."""
    process = subprocess.Popen(
        ["qemu-io", *flags, "-f", format, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        peer = QemuIo(process)
        answer = peer.do("read 0 512")
        assert "read 512/512" in answer, answer
        yield peer
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.stdout.read()
        process.stdout.close()
        process.wait()
