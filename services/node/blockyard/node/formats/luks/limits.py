"""Bounds of what a LUKS header may say. A header is hostile input: all of this is looked at before any work."""

from typing import Final

from blockyard.base.units import GIB, KIB, MIB

LUKS1_SLOTS: Final = 8
LUKS2_SLOTS: Final = 32
"""As many as each format has (LUKS_NUMKEYS; LUKS2_KEYSLOTS_MAX of cryptsetup)."""
STRIPES: Final = 4000
"""Of a key that is split (LUKS_STRIPES). QEMU takes no other number; LUKS2 may say fewer, never more."""
MIN_ITERATIONS: Final = 1000
"""What a new slot has at least (QEMU's QCRYPTO_BLOCK_LUKS_MIN_SLOT_KEY_ITERS)."""
MAX_ITERATIONS: Final = 20_000_000
"""Of PBKDF2 for one slot or digest, about 8 s of SHA-256. cryptsetup's two seconds make 2 to 8 million."""
MAX_ARGON2_KIB: Final = 1 * GIB // KIB
"""Memory of one derivation: cryptsetup's default ceiling (--pbkdf-memory), which most images have."""
MAX_ARGON2_WORK_KIB: Final = 16 * GIB // KIB
"""Memory times passes, about 10 s of one core. cryptsetup's two seconds make 4 passes over at most 1 GiB."""
MAX_ARGON2_LANES: Final = 4
"""As cryptsetup (MAX_ARGON2 parallel threads)."""
MAX_KEY_MATERIAL: Final = 1 * MIB
"""Of one slot: 4000 stripes of the longest key are 256,000 bytes, and their area is rounded up."""
MAX_HEADER_LUKS1: Final = 4 * MIB
"""Header and key material of LUKS1: 8 slots of 64-byte keys end at 2 MiB."""
