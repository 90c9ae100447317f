"""qemu-storage-daemon as a peer: one process, its QMP socket, and a job from start to end."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_S = 20.0


class Qmp:
    """A QMP connection: commands and the events between them."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(300)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("r")
        self.events: list[dict[str, Any]] = []
        self._next()
        self("qmp_capabilities")

    def __call__(self, command: str, **arguments: Any) -> Any:
        message = {"execute": command, "arguments": {key.replace("_", "-"): arguments[key] for key in arguments}}
        self._socket.sendall(json.dumps(message).encode() + b"\n")
        while "event" in (answer := self._next()):
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{command}: {answer['error']['desc']}")
        return answer["return"]

    def event(self) -> dict[str, Any]:
        return self.events.pop(0) if self.events else self._next()

    def job(self, command: str, **arguments: Any) -> None:
        """Run a job to its end; a READY one is completed."""
        self(command, job_id="job", auto_dismiss=False, **arguments)
        while True:
            event = self.event()
            if event["event"] != "JOB_STATUS_CHANGE":
                continue
            if event["data"]["status"] == "ready":
                self("job-complete", id="job")
            if event["data"]["status"] == "concluded":
                break
        (job,) = self("query-jobs")
        if "error" in job:
            raise RuntimeError(job["error"])
        self("job-dismiss", id="job")

    def open(self, node_name: str, path: Path, format: str, backing: str | None = None) -> None:
        """A format node over a file node `NAME-file`."""
        self("blockdev-add", node_name=f"{node_name}-file", driver="file", filename=str(path))
        below = {"backing": backing} if format == "qcow2" else {}
        self("blockdev-add", node_name=node_name, driver=format, file=f"{node_name}-file", **below)

    def close(self, *node_names: str) -> None:
        for name in node_names:
            self("blockdev-del", node_name=name)
            self("blockdev-del", node_name=f"{name}-file")

    def _next(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._lines.readline())
        return answer


@contextmanager
def storage_daemon(folder: Path) -> Iterator[Qmp]:
    """A fresh qemu-storage-daemon."""
    path = folder / "qmp.sock"
    command = ["qemu-storage-daemon", "--chardev", f"socket,path={path},server=on,wait=off,id=qmp"]
    process = subprocess.Popen([*command, "--monitor", "chardev=qmp"])
    try:
        deadline = time.monotonic() + START_S
        while not path.exists():
            assert process.poll() is None and time.monotonic() < deadline, "qemu-storage-daemon does not start"
            time.sleep(0.01)
        yield Qmp(path)
    finally:
        process.terminate()
        process.wait()
