"""The volume key, out of a key slot that a secret opens."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from blockyard.base.errors import KeyRefused
from blockyard.base.units import KIB, MIB
from blockyard.node.drivers._luks.header import Header
from blockyard.node.formats.luks import derivation
from blockyard.node.formats.luks.volume import KeySlot
from blockyard.node.interface.driver import DriverContext

_HEAVY: Final = 64 * MIB // KIB
"""KiB of a derivation from which on only one runs at a time."""
_REMEMBERED: Final = "luks"


async def volume_key(header: Header, context: DriverContext, secret: str) -> bytes:
    """The key of a volume that this node may have opened before. Raises KeyRefused, and what `Secrets` raises."""
    known = context.memory.get(_REMEMBERED)
    if known is not None and known[0] == header.volume.digest:
        key: bytes = known[1]
        return key
    _, key = await opened_by(header, context, secret)
    context.memory[_REMEMBERED] = (header.volume.digest, key)
    return key


async def opened_by(
    header: Header, context: DriverContext, secret: str, slots: tuple[KeySlot, ...] | None = None
) -> tuple[KeySlot, bytes]:
    """The first slot that a secret opens, and the volume key. Raises KeyRefused."""
    passphrase = await context.secrets.value(secret)
    tried = 0
    for slot in _candidates(header, slots):
        tried += 1
        key = await key_of(header, context, slot, passphrase)
        if key is not None:
            return slot, key
    raise KeyRefused(header.place.image, secret, tried)


def _candidates(header: Header, slots: tuple[KeySlot, ...] | None) -> list[KeySlot]:
    if slots is not None:
        return [slot for slot in slots if slot.active]
    return [slot for slot in header.volume.slots if slot.active and not slot.by_number_only]


async def key_of(header: Header, context: DriverContext, slot: KeySlot, passphrase: bytes) -> bytes | None:
    """The volume key, if the slot opens."""
    volume, image = header.volume, header.place.image
    material = await header.place.read(slot.area.offset, derivation.material_bytes(slot, volume.key_bytes))

    def work() -> bytes | None:
        key = derivation.key_in(slot, material, passphrase, volume.key_bytes, image)
        return key if derivation.is_key(volume.digest, key) else None

    async with one_at_a_time(context, slot):
        return await context.pool.run(work)


@asynccontextmanager
async def one_at_a_time(context: DriverContext, slot: KeySlot) -> AsyncIterator[None]:
    """To be held while a key is derived."""
    assert slot.derivation is not None
    if slot.derivation.memory_kib < _HEAVY:
        yield
        return
    async with context.secrets.heavy:
        yield
