"""The door to passphrases and keys: a driver's options name one, and never hold one."""

import asyncio
from typing import Protocol

from blockyard.base.errors import ResourceNotFound


class Secrets(Protocol):
    """Secrets by name. Implemented by `graph.secrets`."""

    @property
    def heavy(self) -> asyncio.Lock:
        """Held while a key is derived that needs much memory: however many images are opened, it is needed once."""
        ...

    async def value(self, name: str) -> bytes:
        """The bytes, to be kept no longer than needed. Raises ResourceNotFound, SecretUnreadable and more."""
        ...


class NoSecrets:
    """Where there are none."""

    def __init__(self) -> None:
        self.heavy = asyncio.Lock()

    async def value(self, name: str) -> bytes:
        raise ResourceNotFound("secret", name)
