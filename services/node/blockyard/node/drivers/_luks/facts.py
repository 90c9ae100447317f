"""What is told of a LUKS volume, under QEMU's names (QCryptoBlockInfoLUKS). No salt, no digest, no key."""

from blockyard.node.drivers._luks.header import Header
from blockyard.node.formats.luks.volume import KeySlot

Facts = dict[str, str | int | bool]


def specific_of(header: Header, prefix: str = "") -> Facts:
    """Facts of the volume, then of each slot: `slots.0.active` ..."""
    volume = header.volume
    bits = volume.key_bytes * 8 // (2 if volume.spec.mode == "xts" else 1)
    found: Facts = {
        "version": volume.version,
        "cipher-alg": f"{volume.spec.algorithm}-{bits}",
        "cipher-mode": volume.spec.mode,
        "hash-alg": volume.digest.hash,
        "uuid": volume.uuid,
        "payload-offset": volume.payload_offset,
        "sector-size": volume.sector_size,
        "master-key-iters": volume.digest.iterations,
        "detached-header": header.place.detached,
    }
    if volume.spec.generator:
        found["ivgen-alg"] = volume.spec.generator
    if volume.spec.generator_hash:
        found["ivgen-hash-alg"] = volume.spec.generator_hash
    if volume.label:
        found["label"] = volume.label
    for slot in volume.slots:
        found.update((f"slots.{slot.number}.{name}", value) for name, value in _slot(slot).items())
    return {f"{prefix}{name}": value for name, value in found.items()}


def _slot(slot: KeySlot) -> Facts:
    found: Facts = {"active": slot.active, "key-offset": slot.area.offset}
    if slot.active and slot.derivation is not None:
        found |= {"iters": slot.derivation.iterations, "stripes": slot.stripes, "pbkdf": slot.derivation.kind}
        if slot.derivation.memory_kib:
            found |= {"memory-kib": slot.derivation.memory_kib, "lanes": slot.derivation.lanes}
    return found
