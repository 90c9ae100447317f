"""Encryption inside of qcow2: LUKS1 behind a header extension, and the legacy AES of QEMU 0.9, to be read.

Theory (QEMU's block/qcow2.c, qcow2-cluster.c). Only guest data is enciphered, the VM state included; metadata and
compressed clusters are not. LUKS makes its vectors of a sector's place in the file that holds the data, so a
cluster is moved by being written again and a snapshot costs nothing. Legacy AES makes them of the guest's offset,
so its data cannot be read through a view of the file: it is answered as ENCODED and read by `read_encoded`.

Because a place that was never written is noise, none is taken for zeroes: what surrounds a write is always written
with it, and preallocated clusters are flagged as zero.
"""

from dataclasses import dataclass
from typing import Final

from blockyard.base.errors import (
    ImageCorrupt,
    InvalidArgument,
    MissingOption,
    NodeReadOnly,
    OperationUnsupported,
    UnsupportedFeature,
)
from blockyard.base.ranges import ByteRange, align_up
from blockyard.base.units import MIB
from blockyard.node.drivers._encrypting import EncryptedChild
from blockyard.node.drivers._luks import header as headers
from blockyard.node.drivers._luks import slots, unlocking
from blockyard.node.drivers._luks.facts import Facts, specific_of
from blockyard.node.drivers._luks.header import Header, Place
from blockyard.node.drivers.qcow2.image import Image
from blockyard.node.drivers.qcow2.l2 import L2Table
from blockyard.node.drivers.qcow2.mapping import Mapper
from blockyard.node.formats.ciphers import VECTOR_UNIT, SectorCipher
from blockyard.node.formats.luks import luks1
from blockyard.node.formats.luks.cipher import CipherSpec
from blockyard.node.formats.luks.limits import MAX_HEADER_LUKS1
from blockyard.node.formats.qcow2 import extensions as ext
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.formats.qcow2 import validate
from blockyard.node.interface.abilities import KeySlotChange
from blockyard.node.interface.mapping import MapKind, Mapping

OPTION: Final = "encrypt.key_secret"
_NAMES: Final = {hdr.CRYPT_AES: "aes", hdr.CRYPT_LUKS: "luks"}
_AES_KEY_BYTES: Final = 16
"""A passphrase that is shorter is filled with zeroes, a longer one cut (crypto/block-qcow.c)."""
_LEGACY_RUN: Final = 1 * MIB
"""Bytes of one ENCODED answer of a legacy image."""


@dataclass(slots=True)
class Encryption:
    """How an image is encrypted."""

    method: int
    header: Header | None = None
    """Of LUKS."""
    key: bytes = b""
    """The volume key; empty if the image was opened without it."""
    legacy: SectorCipher | None = None
    """Of legacy AES, with its key."""

    @property
    def name(self) -> str:
        return _NAMES[self.method]

    def facts(self) -> Facts:
        """Under QEMU's names (ImageInfoSpecificQCow2Encryption)."""
        found: Facts = {"encrypt.format": self.name}
        return found | (specific_of(self.header, "encrypt.") if self.header is not None else {})


def place_of(cluster: hdr.HeaderCluster, image: str, file_bytes: int) -> ByteRange | None:
    """Where the LUKS header is, with its key material; None without one. Raises ImageCorrupt."""
    header = cluster.header
    data = ext.find(cluster.extensions, ext.ENCRYPTION)
    if header.crypt_method != hdr.CRYPT_LUKS:
        if data is not None:
            raise ImageCorrupt(image, "encryption extension", "none without LUKS", f"method {header.crypt_method}")
        return None
    if data is None:
        raise ImageCorrupt(image, "encryption extension", "one for LUKS", "none")
    place = ext.decode_encryption(data, image)
    limit = align_up(file_bytes, header.cluster_size)
    fits = luks1.SIZE <= place.length <= MAX_HEADER_LUKS1 and place.offset > 0 and place.end <= limit
    if place.offset % header.cluster_size or not fits:
        expected = f"whole clusters in the file, {luks1.SIZE} to {MAX_HEADER_LUKS1} bytes"
        raise ImageCorrupt(image, "place of the encryption header", expected, f"[{place.offset}, +{place.length})")
    for what, other in validate.header_places(header):
        if place.overlaps(other):
            raise ImageCorrupt(image, "place of the encryption header", "no overlap", f"over the {what}")
    return place


async def unlock(image: Image) -> None:
    """Read the header, get the key, and put a view that enciphers in the place of the image's data.

    Raises MissingOption, KeyRefused, InvalidArgument, UnsupportedFeature, ImageCorrupt ...
    """
    wanted, method = image.options.encrypt, image.header.crypt_method
    place = place_of(image.cluster, image.name, image.file.size)
    if not method:
        if wanted is not None and (wanted.key_secret or wanted.format):
            raise InvalidArgument("encrypt", "none: the image is not encrypted", wanted.format or wanted.key_secret)
        return
    if wanted is not None and wanted.format not in ("", _NAMES[method]):
        raise InvalidArgument("encrypt.format", _NAMES[method], wanted.format[:40])
    if image.header.size % VECTOR_UNIT:
        raise ImageCorrupt(
            image.name, "size of an encrypted disk", f"a multiple of {VECTOR_UNIT}", str(image.header.size)
        )
    found = image.encryption = Encryption(method)
    secret = wanted.key_secret if wanted is not None else ""
    if place is not None:
        image.crypto_place = place
        found.header = await headers.read(Place(image.file, place.offset, place.length, image.name, inside=True))
    if not secret and image.options.no_io:
        image.data = None
    elif not secret:
        raise MissingOption("driver qcow2", OPTION)
    elif found.header is not None:
        await _open_luks(image, found, found.header, secret)
    else:
        await _open_legacy(image, found, secret)


async def _open_luks(image: Image, found: Encryption, header: Header, secret: str) -> None:
    if image.is_raw_apart:
        raise ImageCorrupt(image.name, "data file", "no raw one of an encrypted image", "data-file-raw")
    found.key = await unlocking.volume_key(header, image.context, secret)
    if image.data is not None:
        cipher = header.volume.spec.make(found.key, VECTOR_UNIT, image.name)
        image.data = EncryptedChild(image.data, cipher, image.context.pool)


async def _open_legacy(image: Image, found: Encryption, secret: str) -> None:
    if not image.context.read_only:
        raise UnsupportedFeature(image.name, "legacy AES encryption, but for reading (read_only = true)")
    if image.geometry.extended or image.has_data_file:
        raise UnsupportedFeature(image.name, "legacy AES encryption with extended L2 entries or a data file")
    passphrase = await image.context.secrets.value(secret)
    key = passphrase[:_AES_KEY_BYTES].ljust(_AES_KEY_BYTES, b"\0")
    found.legacy = CipherSpec("aes", "cbc", "plain64").make(key, VECTOR_UNIT, image.name)


def luks_of(image: Image) -> Encryption:
    """The encryption of an image that has key slots. Raises OperationUnsupported."""
    if image.encryption is None or image.encryption.header is None:
        raise OperationUnsupported(
            image.context.node_name, "qcow2", "change key slots: it is not encrypted by LUKS"
        )
    return image.encryption


async def change_keys(image: Image, change: KeySlotChange) -> None:
    """See `ChangesKeys.change_keys`."""
    found = luks_of(image)
    async with image.changing:
        if image.broken:
            raise NodeReadOnly(image.context.node_name)
        assert found.header is not None
        # A driver that stood here before may have changed them.
        found.header = await headers.read(found.header.place)
        await slots.change_online(found.header, image.context, found.key, change)


class LegacyMapper(Mapper):
    """Answers for a legacy image: only the driver can read its data."""

    def answer(self, table: L2Table, offset: int, length: int, writable: bool) -> Mapping:
        found = super().answer(table, offset, length, writable)
        if found.kind is not MapKind.DATA:
            return found
        return Mapping(MapKind.ENCODED, min(found.length, _LEGACY_RUN))

    def plain_answer(self, table: L2Table, offset: int, length: int) -> Mapping:
        """Where the data is all the same."""
        return super().answer(table, offset, length, False)


async def read_encoded(image: Image, offset: int, into: memoryview) -> None:
    """Read inside one ENCODED mapping: compressed clusters, or data of a legacy image."""
    mapper, found = image.mapper, image.encryption
    if not isinstance(mapper, LegacyMapper) or found is None or found.legacy is None:
        await image.compressed.read(offset, into)
        return
    start = offset - offset % VECTOR_UNIT
    whole = memoryview(bytearray(align_up(offset + len(into), VECTOR_UNIT) - start))
    position = 0
    while position < len(whole):
        table = await image.l2.get((start + position) >> image.geometry.table_bits)
        answer = mapper.plain_answer(table, start + position, len(whole) - position)
        part = whole[position : position + answer.length]
        if answer.kind is MapKind.ENCODED:
            await image.compressed.read(start + position, part)
        else:
            await image.file.read(answer.offset, part)
            found.legacy.decrypt((start + position) // VECTOR_UNIT, part)
        position += answer.length
    into[:] = whole[offset - start : offset - start + len(into)]
