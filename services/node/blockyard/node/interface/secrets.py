"""The door to passphrases and keys: a driver's options name one, and never hold one."""

from typing import Protocol

from blockyard.base.errors import ResourceNotFound


class Secrets(Protocol):
    """Secrets by name. Implemented by `graph.secrets`."""

    async def value(self, name: str) -> bytes:
        """The bytes, to be kept no longer than needed. Raises ResourceNotFound, SecretUnreadable and more."""
        ...


class NoSecrets:
    """Where there are none."""

    async def value(self, name: str) -> bytes:
        raise ResourceNotFound("secret", name)
