"""Key slots added and erased while the image is in use. No crash leaves an image that no key opens.

| change | order, a flush after each step |
|---|---|
| add, LUKS1 | key material and the slot, still off; its state: on (four bytes of one sector) |
| add, LUKS2 | key material, in room that no slot has; one copy of the header; the other |
| erase, LUKS1 | noise over the key material; the slot's state: off |
| erase, LUKS2 | one copy of the header without the slot; the other, and noise over the key material |

An erased slot's material is overwritten before success is told. LUKS1 wipes first, so that what is off is gone; a
crash between leaves a slot that is on and opens nothing, which erasing it again removes. In LUKS2 the header goes
first, for there a slot's room is free for the next one. The last slot that is on is erased only by force.
"""

import secrets as noise
from dataclasses import replace

from blockyard.base.errors import ImageLocked, InvalidArgument, KeyRefused, KeySlotUnavailable, NodeReadOnly
from blockyard.base.ranges import ByteRange
from blockyard.node.drivers._luks import costing
from blockyard.node.drivers._luks.header import Header, write_copies
from blockyard.node.drivers._luks.options import DEFAULT_ITER_TIME_MS, MAX_ITER_TIME_MS, NewVolume
from blockyard.node.drivers._luks.unlocking import one_at_a_time, opened_by
from blockyard.node.formats.luks import derivation, luks1, luks2
from blockyard.node.formats.luks.limits import LUKS1_SLOTS, LUKS2_SLOTS, STRIPES
from blockyard.node.formats.luks.volume import Derivation, KeySlot, Volume
from blockyard.node.interface.abilities import KeySlotChange
from blockyard.node.interface.driver import DriverContext


async def change_online(header: Header, context: DriverContext, key: bytes, wish: KeySlotChange) -> None:
    """As `change`, of a node that may lack the right or the key to do it. Raises NodeReadOnly or ImageLocked
    too."""
    if context.read_only:
        raise NodeReadOnly(context.node_name)
    if not key and wish.active and not wish.old_secret:
        raise ImageLocked(header.place.image)
    await change(header, context, key, wish)


async def change(header: Header, context: DriverContext, key: bytes, wish: KeySlotChange) -> None:
    """Add or erase key slots as QEMU's amend does (QCryptoBlockAmendOptionsLUKS).

    Raises InvalidArgument, KeySlotUnavailable, KeyRefused, and what reading secrets raises.
    """
    check(header.volume, wish)
    if wish.active:
        await _add(header, context, key, wish)
    else:
        await _erase(header, context, wish)


def check(volume: Volume, wish: KeySlotChange) -> None:
    """Raises InvalidArgument for a change that makes no sense."""
    slots = LUKS1_SLOTS if volume.version == 1 else LUKS2_SLOTS
    rules = (
        ("keyslot", wish.keyslot is None or 0 <= wish.keyslot < slots, f"0 to {slots - 1}", wish.keyslot),
        ("new_secret", bool(wish.new_secret) or not wish.active, "a secret for a slot that becomes active", ""),
        ("new_secret", not wish.new_secret or wish.active, "none for slots that become inactive", wish.new_secret),
        ("old_secret", wish.active or bool(wish.old_secret) or wish.keyslot is not None,
         "a secret or a keyslot that says what becomes inactive", "neither"),
        ("iter_time", wish.active or wish.iter_time is None, "none for slots that become inactive", wish.iter_time),
        ("iter_time", 1 <= _or(wish.iter_time, 1) <= MAX_ITER_TIME_MS, f"1 to {MAX_ITER_TIME_MS} ms",
    wish.iter_time), )  # fmt: skip
    for name, holds, expected, found in rules:
        if not holds:
            raise InvalidArgument(name, expected, str(found))


def _or(given: int | None, default: int) -> int:
    return default if given is None else given


# --- adding ----------------------------------------------------------------------------------------------


async def _add(header: Header, context: DriverContext, key: bytes, wish: KeySlotChange) -> None:
    image, volume = header.place.image, header.volume
    if wish.old_secret:  # whoever changes keys by it must have it
        _, key = await opened_by(header, context, wish.old_secret)
    number = _free_slot(header) if wish.keyslot is None else wish.keyslot
    present = volume.slot(number)
    if number < 0:
        raise KeySlotUnavailable(image, "any", "all slots are active")
    if present is not None and present.active:
        if not wish.force:
            raise KeySlotUnavailable(image, str(number), "it is active, and would be overwritten")
        if _active(header) == 1:
            # In place there is a moment without any key.
            raise KeySlotUnavailable(image, str(number), "it is the last one that is active: add another first")
        await _erase_one(header, number)
    passphrase = await context.secrets.value(wish.new_secret)
    await add_slot(header, context, key, number, passphrase, _new_volume(header, wish))


def _new_volume(header: Header, wish: KeySlotChange) -> NewVolume:
    """The way of the slots that are there."""
    volume = header.volume
    found = next((slot.derivation for slot in volume.slots if slot.active and slot.derivation), None)
    argon = volume.version == 2 and (found is None or found.kind == "argon2id")
    return NewVolume(
        key_secret=wish.new_secret,
        hash_alg=volume.digest.hash,
        iter_time=_or(wish.iter_time, DEFAULT_ITER_TIME_MS),
        version=volume.version,
        pbkdf="argon2id" if argon else "pbkdf2",
        pbkdf_memory=found.memory_kib if argon and found is not None else 0,
        pbkdf_parallel=found.lanes if argon and found is not None else 0,
    )


async def add_slot(
    header: Header, context: DriverContext, key: bytes, number: int, passphrase: bytes, wish: NewVolume
) -> None:
    """Make a free slot open with a passphrase."""
    made = await context.pool.run(costing.slot_derivation, wish, context.clock.monotonic_ns)
    slot = _slot(header, number, made)
    async with one_at_a_time(context, slot):
        material = await context.pool.run(derivation.material_of, slot, key, passphrase, header.place.image)
    await header.place.write(slot.area.offset, material)
    if header.copy is not None:
        await header.place.flush()
        await write_copies(header, luks2.with_slot(header.copy, header.volume, slot))
        await header.place.flush()
        return
    at = luks1.slot_at(number)
    await header.place.write(at, luks1.encode_slot(replace(slot, active=False)))
    await header.place.flush()
    await header.place.write(at, luks1.encode_state(slot))
    await header.place.flush()
    header.volume = luks1.with_slot(header.volume, slot)


def _slot(header: Header, number: int, made: Derivation) -> KeySlot:
    volume = header.volume
    if header.copy is None:
        present = volume.slot(number)
        assert present is not None
        return replace(present, active=True, derivation=made)
    area = luks2.free_area(header.copy, volume)
    if area is None:
        raise KeySlotUnavailable(header.place.image, str(number), "the header has no room for its key material")
    return KeySlot(
        number, True, area, made, volume.spec, volume.key_bytes, STRIPES, volume.digest.hash
    )  # fmt: skip


def _free_slot(header: Header) -> int:
    if header.copy is not None:
        return luks2.free_number(header.copy)
    return next((slot.number for slot in header.volume.slots if not slot.active), -1)


def _active(header: Header) -> int:
    return sum(slot.active for slot in header.volume.slots)


# --- erasing ---------------------------------------------------------------------------------------------


async def _erase(header: Header, context: DriverContext, wish: KeySlotChange) -> None:
    image = header.place.image
    if wish.old_secret:
        doomed = await _opened_by_secret(header, context, wish)
    else:
        assert wish.keyslot is not None
        doomed = [wish.keyslot]
        present = header.volume.slot(wish.keyslot)
        if (present is None or not present.active) and not wish.force:
            raise KeySlotUnavailable(image, str(wish.keyslot), "it is not active")
    left = [slot for slot in header.volume.slots if slot.active and slot.number not in doomed]
    if not left and not wish.force:
        named = ", ".join(map(str, doomed))
        raise KeySlotUnavailable(image, named, "no slot would be left that opens the image")
    for number in doomed:
        await _erase_one(header, number)


async def _opened_by_secret(header: Header, context: DriverContext, wish: KeySlotChange) -> list[int]:
    """All slots that open with the secret, or the one that is named if it does. Raises KeyRefused."""
    slots = header.volume.slots
    if wish.keyslot is not None:
        slots = tuple(slot for slot in slots if slot.number == wish.keyslot)
    found: list[int] = []
    while True:
        rest = tuple(slot for slot in slots if slot.number not in found)
        try:
            slot, _ = await opened_by(header, context, wish.old_secret, rest)
        except KeyRefused:
            if found:
                return found
            raise
        found.append(slot.number)


async def _erase_one(header: Header, number: int) -> None:
    present = header.volume.slot(number)
    if present is None:
        return
    if header.copy is not None:
        await write_copies(header, luks2.without_slot(header.copy, header.volume, number))
        await _wipe(header, present.area)
        return
    await _wipe(header, present.area)
    off = replace(present, active=False)
    await header.place.write(luks1.slot_at(number), luks1.encode_state(off))
    await header.place.flush()
    header.volume = luks1.with_slot(header.volume, off)


async def _wipe(header: Header, area: ByteRange) -> None:
    await header.place.write(area.offset, noise.token_bytes(area.length))
    await header.place.flush()
