"""How much work a key derivation is to be, so that it takes the time that was asked for on this machine.

As cryptsetup and QEMU do: the work is measured for a short while and scaled (QEMU's qcrypto_pbkdf2_count_iters).
Our clock is the wall's, so a busy machine makes fewer iterations, never fewer than the minimum.
"""

import hashlib
import secrets
from collections.abc import Callable
from typing import Final

from blockyard.node.drivers._luks.options import NewVolume
from blockyard.node.formats.luks.derivation import derive
from blockyard.node.formats.luks.limits import (
    MAX_ARGON2_KIB,
    MAX_ARGON2_WORK_KIB,
    MAX_ITERATIONS,
    MIN_ITERATIONS,
)
from blockyard.node.formats.luks.volume import Derivation

_PROBE_NS: Final = 20_000_000
_FIRST: Final = 1 << 12
_ARGON2_FIRST_KIB: Final = 64 * 1024
_ARGON2_DEFAULT_KIB: Final = 1024 * 1024
_ARGON2_PASSES: Final = 4
"""cryptsetup's least number of passes (PBKDF2_ARGON2_MIN_TIME)."""
_ARGON2_LANES: Final = 4

Now = Callable[[], int]


def iterations_for(hash_name: str, length: int, milliseconds: int, now: Now) -> int:
    """Iterations of PBKDF2 that take so long."""
    count = _FIRST
    while True:
        start = now()
        hashlib.pbkdf2_hmac(hash_name, b"passphrase", b"s" * 32, count, length)
        took = now() - start
        if took >= _PROBE_NS or count >= MAX_ITERATIONS:
            wanted = count * milliseconds * 1_000_000 // max(1, took)
            return min(MAX_ITERATIONS, max(MIN_ITERATIONS, wanted))
        count *= 2


def slot_derivation(wish: NewVolume, now: Now) -> Derivation:
    """How the key of a new slot is derived."""
    salt = secrets.token_bytes(32)
    if wish.pbkdf == "pbkdf2":
        return Derivation(
            "pbkdf2", salt, wish.hash_alg, iterations_for(wish.hash_alg, wish.key_bytes, wish.iter_time, now)
        )
    lanes = wish.pbkdf_parallel or _ARGON2_LANES
    most = wish.pbkdf_memory or _ARGON2_DEFAULT_KIB
    probe = Derivation("argon2id", salt, "", 1, min(most, _ARGON2_FIRST_KIB), lanes)
    start = now()
    derive(probe, b"passphrase", wish.key_bytes, "")
    per_kib = max(1, (now() - start) // probe.memory_kib)
    work = wish.iter_time * 1_000_000 // per_kib  # KiB times passes
    memory = max(8 * lanes, min(most, MAX_ARGON2_KIB, work // _ARGON2_PASSES))
    passes = min(max(_ARGON2_PASSES, work // memory), MAX_ARGON2_WORK_KIB // memory)
    return Derivation("argon2id", salt, "", passes, memory, lanes)
