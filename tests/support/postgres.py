"""A real PostgreSQL in a temporary directory, as Debian packages it, run by a user that is not root."""

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

DEBIAN = Path("/usr/lib/postgresql")


def program(name: str) -> str:
    """Its path: Debian keeps those of a version beside each other and none in PATH. Empty if there is none."""
    versions = sorted(DEBIAN.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    return str(versions[-1]) if versions else shutil.which(name) or ""


class Postgres:
    """A server, reached by a Unix socket."""

    def __init__(self, folder: Path, port: int = 5432) -> None:
        self.folder = folder
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        return f"postgresql:///{database}?host={self.folder}&user=blockyard"

    def start(self) -> None:
        """Returns when it accepts connections."""
        # Safe against a kill of its processes; nobody cuts the power here.
        settings = {"listen_addresses": "", "unix_socket_directories": str(self.folder), "fsync": "off"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program("postgres"), "-D", str(self.folder / "data"), *options], stderr=log, **_somebody()
            )
        ready = [program("pg_isready"), "-q", "-h", str(self.folder)]
        for _ in range(1000):
            if subprocess.run(ready, check=False, timeout=10).returncode == 0:
                return
            assert self._process.poll() is None, (self.folder / "log").read_text()
        raise AssertionError("it does not accept connections")

    def stop(self) -> None:
        """At once: connections are cut."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(3)
            process.wait(30)

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"jobs_{uuid.uuid4().hex}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A running server, gone with its directory at the end."""
    with tempfile.TemporaryDirectory(prefix="by-pg-") as name:
        folder = Path(name)
        somebody = _somebody()
        if somebody:
            os.chown(folder, somebody["user"], somebody["group"])
        command = [program("initdb"), "-D", str(folder / "data"), "-U", "blockyard", "-A", "trust", "--no-sync"]
        subprocess.run([*command, "-E", "UTF8", "--locale=C"], check=True, capture_output=True, cwd="/", **somebody)
        server = Postgres(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _somebody() -> dict[str, Any]:
    """PostgreSQL refuses to be run by root."""
    if os.getuid():
        return {}
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    raise AssertionError("there is no user to run it")
