"""What the headers of both versions say, in one form."""

from dataclasses import dataclass, field

from blockyard.base.ranges import ByteRange
from blockyard.node.formats.luks.cipher import CipherSpec


@dataclass(frozen=True, slots=True)
class Derivation:
    """How a passphrase becomes a key."""

    kind: str
    """pbkdf2, argon2i or argon2id."""
    salt: bytes = field(repr=False)
    hash: str = ""
    """Of pbkdf2."""
    iterations: int = 0
    """Of pbkdf2; passes of argon2."""
    memory_kib: int = 0
    lanes: int = 0


@dataclass(frozen=True, slots=True)
class KeySlot:
    """A place for the volume key, under a passphrase of its own."""

    number: int
    active: bool
    area: ByteRange
    """Key material, in bytes from the header's begin."""
    derivation: Derivation | None = None
    """None in a slot that is free."""
    spec: CipherSpec | None = None
    """How the key material is enciphered."""
    area_key_bytes: int = 0
    stripes: int = 0
    split_hash: str = ""
    by_number_only: bool = False
    """LUKS2 priority "ignore": not tried unless it is named."""


@dataclass(frozen=True, slots=True)
class KeyDigest:
    """Tells whether a key is the volume's."""

    hash: str
    iterations: int
    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Volume:
    """An encrypted volume."""

    version: int
    uuid: str
    label: str
    spec: CipherSpec
    key_bytes: int
    sector_size: int
    payload_offset: int
    """Bytes, from the begin of the file that holds the payload."""
    payload_size: int
    """Bytes; -1 is to the end of the file."""
    first_vector: int
    """Number of the payload's first sector, in 512 bytes."""
    digest: KeyDigest
    slots: tuple[KeySlot, ...]
    header_bytes: int
    """Up to where header and key material reach."""

    def slot(self, number: int) -> KeySlot | None:
        return next((slot for slot in self.slots if slot.number == number), None)
