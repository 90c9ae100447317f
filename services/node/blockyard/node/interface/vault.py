"""The door to small files that the node writes through memory: what is in them survives the death of the process at
once, and a power cut when it was synced.

The graph knows this shape only. The implementation is `blockyard.node.keeping.vault`, built by `app` alone; crash
tests have one of their own.
"""

from typing import Protocol


class VaultFile(Protocol):
    """One file, mapped."""

    @property
    def name(self) -> str: ...

    def room(self, length: int) -> memoryview:
        """So many bytes of the file, to be read and changed in place: those that were there before, cut or followed
        by zeroes. What an earlier call gave is no longer the file. Raises VaultUnusable if there is no room."""
        ...

    async def sync(self) -> None:
        """Everything that was put into the file before is durable. Raises VaultUnusable."""
        ...

    def close(self) -> None:
        """Let go of it; it stays."""
        ...


class Vault(Protocol):
    """A directory of such files."""

    @property
    def boot(self) -> bytes:
        """16 bytes that are others after every start of the machine: memory has survived while they are the
        same."""
        ...

    async def create(self, length: int) -> VaultFile:
        """A new file of zeroes under a name that none has; durable, name and all. Raises VaultUnusable."""
        ...

    async def open(self, name: str) -> VaultFile:
        """One that is there. Raises VaultUnusable."""
        ...

    def remove(self, name: str) -> None:
        """There is no such file, now or soon. Never fails: what is left is removed by `sweep`."""
        ...

    def sweep(self, kept: set[str]) -> None:
        """Remove every file but these."""
        ...
