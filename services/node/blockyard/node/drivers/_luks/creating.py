"""New headers. What makes a file a LUKS volume is written last, so that an unfinished one is none."""

import secrets as noise
import uuid
from dataclasses import replace
from typing import Final

from blockyard.node.drivers._luks import costing
from blockyard.node.drivers._luks.header import Header, Place
from blockyard.node.drivers._luks.options import NewVolume
from blockyard.node.drivers._luks.slots import add_slot
from blockyard.node.formats.luks import luks1, luks2
from blockyard.node.formats.luks.cipher import HASHES
from blockyard.node.formats.luks.derivation import digest_of
from blockyard.node.formats.luks.volume import KeyDigest, Volume
from blockyard.node.interface.driver import DriverContext

_SECTOR: Final = 512


def header_bytes(wish: NewVolume) -> int:
    """What header and key material take."""
    digest = KeyDigest(wish.hash_alg, 1, bytes(32), bytes(20))
    if wish.version == 1:
        return luks1.fresh(wish.spec, wish.key_bytes, wish.hash_alg, digest, "", detached=False).header_bytes
    copy = luks2.fresh(wish.spec, wish.key_bytes, wish.sector_size, digest, "", "", detached=False)
    return int(copy.metadata["segments"]["0"]["offset"])


async def create(place: Place, wish: NewVolume, context: DriverContext) -> tuple[Header, bytes]:
    """A header with one key slot, durable, and the volume key. The place reads as zeroes."""
    wish.check()
    passphrase = await context.secrets.value(wish.key_secret)
    key = noise.token_bytes(wish.key_bytes)
    digest = await context.pool.run(_digest, wish, key, context)
    name = str(uuid.uuid4())
    if wish.version == 1:
        volume = luks1.fresh(wish.spec, wish.key_bytes, wish.hash_alg, digest, name, detached=place.detached)
        header = Header(place, volume)
        await add_slot(header, context, key, 0, passphrase, wish)
        whole = luks1.encode(header.volume)
        await place.write(_SECTOR, whole[_SECTOR:])
        await place.flush()
        await place.write(0, whole[:_SECTOR])  # the magic
        await place.flush()
    else:
        copy = luks2.fresh(
            wish.spec, wish.key_bytes, wish.sector_size, digest, name, wish.label, detached=place.detached
        )
        header = Header(place, _without_slots(copy, place, wish), copy, fresh=True)
        await add_slot(header, context, key, 0, passphrase, wish)
    return header, key


def _without_slots(copy: luks2.Copy, place: Place, wish: NewVolume) -> Volume:
    """The size of the key is said by slots, and there is none yet."""
    return replace(
        luks2.volume_of(copy, place.image, place.room, detached=place.detached), key_bytes=wish.key_bytes
    )


def _digest(wish: NewVolume, key: bytes, context: DriverContext) -> KeyDigest:
    """An eighth of the time goes into the digest of the key (crypto/block-luks.c)."""
    length = luks1.DIGEST_BYTES if wish.version == 1 else HASHES[wish.hash_alg]
    count = costing.iterations_for(wish.hash_alg, length, max(1, wish.iter_time // 8), context.clock.monotonic_ns)
    return digest_of(key, wish.hash_alg, count, length)
