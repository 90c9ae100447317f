"""Secrets: bytes that a client stored in memory, or a file of the secret directory that is read when it is needed.

Never here: a value in a message, a log, an event, a trace or the catalogue. The catalogue keeps the name of a file;
what came as bytes is gone with the process, and nodes that need it are not restored until it is stored again.

The library and the system make copies of what they are given, and Python's bytes cannot be wiped, so nobody claims
that a value leaves memory when it is forgotten.
"""

import asyncio
import base64
import binascii
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from blockyard.base.errors import (
    InvalidArgument,
    LimitReached,
    PathDenied,
    ResourceExists,
    ResourceNotFound,
    SecretUnreadable,
)
from blockyard.node.core.pool import FairPool
from blockyard.node.graph.definition import check_name
from blockyard.node.graph.kept_form import parsed
from blockyard.node.interface.keeper import Key

SECRET: Final = "secret"
MAX_SECRETS: Final = 10_000
"""As many as nodes."""
MAX_BYTES: Final = 8192
"""Of one value: passphrases have up to 512 characters in the field, key files 4096 bytes."""
FORMATS: Final = ("raw", "base64")


class SecretFiles(Protocol):
    """Files of the one directory that holds secrets. Implemented by `storage.secret_files`."""

    def read(self, path: str, limit: int) -> bytes:
        """At most `limit` bytes and one. Raises PathDenied, FileNotFound or IoError."""
        ...


class NoSecretFiles:
    """Where there is no such directory."""

    def read(self, path: str, limit: int) -> bytes:
        raise PathDenied(path, "there is no secret directory")


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret. Its value is in no text made of it."""

    name: str
    data: bytes = field(default=b"", repr=False)
    """The decoded value; empty if it is a file's."""
    file: str = ""
    """Path beneath the secret directory."""
    format: str = "raw"
    """How it is written: raw or base64."""


class SecretStore:
    """All secrets of a service; fulfils `interface.secrets.Secrets`."""

    def __init__(self, files: SecretFiles, pool: FairPool) -> None:
        self._files = files
        self._pool = pool
        self._secrets: dict[str, Secret] = {}
        self.heavy = asyncio.Lock()

    async def create(self, name: str, data: bytes = b"", file: str = "", form: str = "raw") -> Secret:
        """A new secret that can be read. Raises ResourceExists, LimitReached, InvalidArgument, SecretUnreadable."""
        check_name(name, "name")
        if bool(data) == bool(file):
            raise InvalidArgument("source", "a value or a file", "both" if data else "neither")
        if form not in FORMATS:
            raise InvalidArgument("format", " or ".join(FORMATS), form[:40])
        if len(data) > MAX_BYTES:
            raise InvalidArgument("value", f"at most {MAX_BYTES} bytes", f"{len(data)} bytes")
        value = _decoded(name, data, form) if data else b""
        secret = Secret(name, value, file, form)
        if file:
            await self._read(secret)
        return self.put(secret)

    def put(self, secret: Secret) -> Secret:
        """Take up a secret as it is. Raises ResourceExists or LimitReached."""
        if secret.name in self._secrets:
            raise ResourceExists(SECRET, secret.name)
        if len(self._secrets) >= MAX_SECRETS:
            raise LimitReached("secrets", MAX_SECRETS)
        self._secrets[secret.name] = secret
        return secret

    def get(self, name: str) -> Secret:
        found = self._secrets.get(name)
        if found is None:
            raise ResourceNotFound(SECRET, name)
        return found

    def all(self) -> list[Secret]:
        """By name."""
        return [self._secrets[name] for name in sorted(self._secrets)]

    def delete(self, name: str) -> Secret:
        """Forget it. Nodes that are open have their keys and go on."""
        found = self.get(name)
        del self._secrets[name]
        return found

    async def value(self, name: str) -> bytes:
        secret = self.get(name)
        return await self._read(secret) if secret.file else secret.data

    async def _read(self, secret: Secret) -> bytes:
        data = await self._pool.run(self._files.read, secret.file, MAX_BYTES)
        if not 0 < len(data) <= MAX_BYTES:
            raise SecretUnreadable(secret.name, f"{secret.file} must have 1 to {MAX_BYTES} bytes")
        return _decoded(secret.name, data, secret.format)


def _decoded(name: str, data: bytes, form: str) -> bytes:
    if form == "raw":
        return data
    try:
        value = base64.b64decode(data.strip(), validate=True)
    except (binascii.Error, ValueError):
        # The cause would show what stands there.
        raise SecretUnreadable(name, "it is not base64") from None
    if not value:
        raise SecretUnreadable(name, "it is empty")
    return value


class SecretKind:
    """What the catalogue keeps: the names of files. Secrets that came as bytes are not entries at all."""

    name = SECRET

    def __init__(self, store: SecretStore) -> None:
        self._store = store

    def names(self) -> Iterable[str]:
        return [secret.name for secret in self._store.all() if secret.file]

    def definition(self, name: str) -> str | None:
        if name not in self.names():
            return None
        secret = self._store.get(name)
        return json.dumps({"file": secret.file, "format": secret.format})

    def needs(self, name: str, definition: str) -> list[Key]:
        return []

    def provides(self, name: str, definition: str) -> list[str]:
        return [name]

    async def restore(self, name: str, definition: str) -> None:
        """The file is read when a node needs it: where it cannot be, that node says so."""
        found = parsed(definition)
        file, form = found.get("file"), found.get("format")
        if not isinstance(file, str) or form not in FORMATS:
            raise InvalidArgument("definition", "a file and a format", definition[:64])
        self._store.put(Secret(name, file=file, format=str(form)))

    def shown(self, definition: str) -> str:
        return f"json:{definition}"
