"""Key slots of encrypted images that are open: `client.keys`.

await client.secrets.create("new-key", value=passphrase)
await client.keys.rotate("disk", "old-key", "new-key")

Guests go on meanwhile. No crash leaves an image that no key opens.
"""

from blockyard.client.definitions import Plain
from blockyard.client.nodes import Nodes
from blockyard.client.operations import Operations
from blockyard.v1.types_pb2 import BlockDriverState


class Keys:
    """Adds, erases and rotates key slots (AmendImage)."""

    def __init__(self, nodes: Nodes, operations: Operations) -> None:
        self._nodes = nodes
        self._operations = operations

    async def add(
        self,
        node_name: str,
        secret: str,
        *,
        slot: int | None = None,
        iter_time: int | None = None,
        old_secret: str = "",
        force: bool = False,
    ) -> BlockDriverState:
        """Make a free slot, or this one, open with a secret. `iter_time`: milliseconds that opening is to take."""
        wanted: dict[str, Plain] = {"state": "active", "new_secret": secret, "old_secret": old_secret}
        if iter_time is not None:
            wanted["iter_time"] = iter_time
        return await self._amend(node_name, wanted, slot, force)

    async def erase(
        self, node_name: str, *, secret: str = "", slot: int | None = None, force: bool = False
    ) -> BlockDriverState:
        """Erase all slots that open with a secret, or one by its number; the last one by force only."""
        return await self._amend(node_name, {"state": "inactive", "old_secret": secret}, slot, force)

    async def rotate(
        self, node_name: str, old_secret: str, new_secret: str, *, iter_time: int | None = None
    ) -> BlockDriverState:
        """A slot for the new secret, then no slot opens with the old one. Interrupted, both open."""
        await self.add(node_name, new_secret, old_secret=old_secret, iter_time=iter_time)
        return await self.erase(node_name, secret=old_secret)

    async def _amend(
        self, node_name: str, wanted: dict[str, Plain], slot: int | None, force: bool
    ) -> BlockDriverState:
        given: dict[str, Plain] = {name: value for name, value in wanted.items() if value != ""}
        if slot is not None:
            given["keyslot"] = slot
        driver = (await self._nodes.get(node_name)).driver
        options: dict[str, Plain] = {"encrypt": given} if driver == "qcow2" else given
        return await self._operations.amend(node_name, force=force, **options)  # type: ignore[arg-type]
