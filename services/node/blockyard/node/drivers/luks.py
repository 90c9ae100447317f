"""Driver `luks`: an encrypted disk behind a LUKS header (QEMU's block/crypto.c, and LUKS2).

The payload follows header and key material, or has a file of its own (`header` then holds the rest). Nothing is
allocated: a look-up is an addition, into a view of the file that enciphers (`_encrypting`). Zeroes are enciphered
as all else is; discards are dropped, for holes would tell which sectors are free.
"""

import asyncio
from dataclasses import dataclass, replace
from typing import ClassVar, Final, NoReturn, Self

from blockyard.base.errors import (
    ImageCorrupt,
    ImageLocked,
    InvalidArgument,
    MissingOption,
    NoSpace,
    OperationUnsupported,
)
from blockyard.base.ranges import align_down
from blockyard.base.units import MAX_SIZE
from blockyard.node.drivers._encrypting import EncryptedChild
from blockyard.node.drivers._luks import creating, slots, unlocking
from blockyard.node.drivers._luks import header as headers
from blockyard.node.drivers._luks.facts import specific_of
from blockyard.node.drivers._luks.header import Header, Place
from blockyard.node.drivers._luks.options import KeyAmendment, NewVolume
from blockyard.node.formats.luks import luks1
from blockyard.node.interface.abilities import KeySlotChange
from blockyard.node.interface.child import Child
from blockyard.node.interface.driver import ChildSlot, DriverContext, FormatDriver, NodeInfo
from blockyard.node.interface.flags import Preallocation, Role
from blockyard.node.interface.limits import Limits
from blockyard.node.interface.mapping import Allocation, MapKind, Mapping
from blockyard.node.interface.operations import AmendStep, Progress

_VERSIONS: Final = {"luks1": 1, "luks2": 2}
_CERTAIN: Final = 100


@dataclass(frozen=True, slots=True)
class LuksOptions:
    """Options of driver `luks`."""

    key_secret: str = ""
    """Name of the secret that opens a key slot. Required unless `no_io`."""
    no_io: bool = False
    """Open without the key: the header can be seen, the data cannot."""


@dataclass(frozen=True, slots=True)
class LuksCreateOptions:
    """Options for a new LUKS volume."""

    size: int
    key_secret: str = ""
    """Name of the secret that is to open key slot 0. Required."""
    cipher_alg: str = "aes-256"
    """aes-128, aes-192 or aes-256."""
    cipher_mode: str = "xts"
    """xts, cbc, ctr or ecb."""
    ivgen_alg: str = "plain64"
    """plain64, plain or essiv."""
    ivgen_hash_alg: str = ""
    """The hash of essiv; default sha256."""
    hash_alg: str = "sha256"
    """Of key derivation, split and digest."""
    iter_time: int = 2000
    """Milliseconds that the derivation of a key is to take."""
    version: str = "luks1"
    """luks1, which QEMU reads, or luks2."""
    sector_size: int = 512
    """Bytes enciphered together; up to 4096 with luks2."""
    pbkdf: str = ""
    """pbkdf2, or argon2id, which is the default of luks2."""
    pbkdf_memory: int = 0
    """KiB that argon2id takes at most; default 1 GiB."""
    pbkdf_parallel: int = 0
    """Lanes of argon2id; default 4."""
    label: str = ""
    """Of luks2."""
    detached_header: bool = False
    """Make the header alone; the payload is to be a file of its own."""
    preallocation: Preallocation = Preallocation.OFF
    """Of the payload's file."""

    def wish(self) -> NewVolume:
        """Raises InvalidArgument."""
        if self.version not in _VERSIONS:
            raise InvalidArgument("version", " or ".join(_VERSIONS), self.version[:40])
        version = _VERSIONS[self.version]
        if not 0 <= self.size <= MAX_SIZE or self.size % max(1, self.sector_size):
            raise InvalidArgument("size", f"a multiple of {self.sector_size} up to {MAX_SIZE}", str(self.size))
        return NewVolume(
            key_secret=self.key_secret,
            cipher_alg=self.cipher_alg,
            cipher_mode=self.cipher_mode,
            ivgen_alg=self.ivgen_alg,
            ivgen_hash_alg=self.ivgen_hash_alg,
            hash_alg=self.hash_alg,
            iter_time=self.iter_time,
            version=version,
            sector_size=self.sector_size,
            pbkdf=self.pbkdf or ("argon2id" if version == 2 else "pbkdf2"),
            pbkdf_memory=self.pbkdf_memory,
            pbkdf_parallel=self.pbkdf_parallel,
            label=self.label,
        )


class Luks(FormatDriver):
    """An encrypted disk: LUKS1, as QEMU has it, and LUKS2."""

    name: ClassVar[str] = "luks"
    Options: ClassVar[type[LuksOptions]] = LuksOptions
    CreateOptions: ClassVar[type[LuksCreateOptions]] = LuksCreateOptions
    AmendOptions: ClassVar[type[KeyAmendment]] = KeyAmendment
    children: ClassVar[tuple[ChildSlot, ...]] = (
        ChildSlot("file", Role.FILE),
        ChildSlot("header", Role.FILE, required=False),
    )

    def __init__(self, context: DriverContext, header: Header, key: bytes) -> None:
        self._context = context
        self._file: Child = context.children["file"]
        self._header = header
        self._key = key
        self._changing = asyncio.Lock()
        volume = header.volume
        self._start, self._unit = volume.payload_offset, volume.sector_size
        self._view: EncryptedChild | None = None
        if key:
            cipher = volume.spec.make(key, volume.sector_size, header.place.image)
            self._view = EncryptedChild(self._file, cipher, context.pool, self._start, volume.first_vector)

    @classmethod
    async def open(cls, options: LuksOptions, context: DriverContext) -> Self:
        file = context.children["file"]
        apart = context.children.get("header")
        child = apart if apart is not None else file
        place = Place(child, 0, child.size, child.filename or context.node_name, detached=apart is not None)
        header = await headers.read(place)
        volume = header.volume
        if volume.payload_offset + max(0, volume.payload_size) > file.size:
            end = volume.payload_offset + max(0, volume.payload_size)
            raise ImageCorrupt(place.image, "payload", f"inside the file of {file.size} bytes", f"an end at {end}")
        if options.no_io:
            return cls(context, header, b"")
        if not options.key_secret:
            raise MissingOption("driver luks", "key_secret")
        key = await unlocking.volume_key(header, context, options.key_secret)
        if not context.read_only:
            await headers.mend(header)
        return cls(context, header, key)

    @classmethod
    async def create(cls, options: LuksCreateOptions, context: DriverContext) -> None:
        """The header, and behind it room for the payload, whose content nobody has written yet."""
        file, wish = context.children["file"], options.wish()
        wish.check()
        if file.size:
            await file.truncate(0)
        room = creating.header_bytes(wish)
        # Before there is a header, for the header says that there is all of this.
        await file.truncate(room if options.detached_header else room + options.size, options.preallocation)
        image = file.filename or context.node_name
        await creating.create(Place(file, 0, room, image, detached=options.detached_header), wish, context)

    # --- the disk ----------------------------------------------------------------------------------------

    @property
    def size(self) -> int:  # type: ignore[override]
        """It follows the file, unless the header says how long it is."""
        length = self._header.volume.payload_size
        if length >= 0:
            return length
        return align_down(max(0, self._file.size - self._start), self._unit)

    @property
    def limits(self) -> Limits:  # type: ignore[override]
        """Whole sectors; what the child wants of buffers it sees to itself."""
        free = Limits()
        return replace(
            self._file.limits,
            request_alignment=max(self._unit, self._file.limits.request_alignment),
            min_mem_alignment=free.min_mem_alignment,
            max_zeroes=free.max_zeroes,
            zero_alignment=self._unit,
            max_discard=free.max_discard,
            discard_alignment=self._unit,
        )

    def lookup(self, offset: int, length: int) -> Mapping:
        if self._view is None:
            raise ImageLocked(self._header.place.image)
        if offset + length > self.size:
            raise NoSpace(self._context.node_name, "write")  # reads past the end never reach a driver
        return Mapping(MapKind.DATA, length, self._view, offset, True)

    async def map(self, offset: int, length: int) -> Mapping:
        return self.lookup(offset, length)

    async def allocate(self, offset: int, length: int, flags: int) -> Allocation:
        self._never_allocates()

    async def commit(self, allocation: Allocation) -> None:
        self._never_allocates()

    async def abandon(self, allocation: Allocation) -> None:
        self._never_allocates()

    def _never_allocates(self) -> NoReturn:
        raise AssertionError("every place of an encrypted disk is writable")

    async def flush(self) -> None:
        await self._file.flush()

    async def truncate(self, size: int, preallocation: Preallocation, exact: bool) -> None:
        """New sectors are written: a hole would be deciphered to noise."""
        most = MAX_SIZE - self._start
        if not 0 <= size <= most or size % self._unit:
            raise InvalidArgument("size", f"a multiple of {self._unit} up to {most}", str(size))
        if self._header.volume.payload_size >= 0:
            raise OperationUnsupported(self._context.node_name, self.name, "change a size that its header fixes")
        if self._view is None:
            raise ImageLocked(self._header.place.image)
        before = self.size
        await self._file.truncate(self._start + size, preallocation, exact)
        if size > before:
            try:
                await self._view.zero(before, size - before)
            except BaseException:
                await self._file.truncate(self._start + before)
                raise

    # --- keys --------------------------------------------------------------------------------------------

    async def change_keys(self, change: KeySlotChange) -> None:
        """See `ChangesKeys.change_keys`."""
        async with self._changing:
            # A driver that stood here before may have changed them.
            self._header = await headers.read(self._header.place)
            await slots.change_online(self._header, self._context, self._key, change)

    def amendment(self, options: KeyAmendment, force: bool) -> list[AmendStep]:
        """See `Amendable.amendment`."""
        change = options.change(force)
        slots.check(self._header.volume, change)

        async def run(progress: Progress) -> None:
            await self.change_keys(change)

        return [AmendStep("key slots", run, online=True)]

    # --- images that are not open, and facts -------------------------------------------------------------

    @classmethod
    def probe(cls, head: bytes) -> int:
        return _CERTAIN if luks1.looks_like(head) in _VERSIONS.values() else 0

    @classmethod
    def measure(cls, options: LuksCreateOptions, data_bytes: int) -> tuple[int, int]:
        """It is as long as it ever will be from the begin on."""
        whole = creating.header_bytes(options.wish()) + (0 if options.detached_header else options.size)
        return whole, whole

    @classmethod
    def measure_unit(cls, options: LuksCreateOptions) -> int:
        return 1

    async def info(self) -> NodeInfo:
        return NodeInfo(
            encrypted=True, filename=self._header.place.image, specific=specific_of(self._header)
        )  # fmt: skip
