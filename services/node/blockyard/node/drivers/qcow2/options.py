"""What a qcow2 node can be told when it is opened, and when an image is created. Names as in QEMU."""

from dataclasses import dataclass, fields
from typing import Final

from blockyard.base.errors import InvalidArgument
from blockyard.base.ranges import is_power_of_two
from blockyard.base.units import KIB
from blockyard.node.drivers._luks.options import DEFAULT_ITER_TIME_MS, NewVolume
from blockyard.node.drivers.qcow2.overlap import AS_THE_TEMPLATE, TEMPLATES, OverlapChecks
from blockyard.node.interface.flags import Preallocation

VERSIONS: Final = {"v2": 2, "v3": 3, "0.10": 2, "1.1": 3}
"""Names of the format's versions: as QEMU's `compat`, and plain."""


@dataclass(frozen=True, slots=True)
class Qcow2Encryption:
    """How an encrypted image is opened (BlockdevQcow2Encryption)."""

    format: str = ""
    """luks, or aes for the legacy kind, which can be read only; empty is what the image has."""
    key_secret: str = ""
    """Name of the secret that opens it."""


@dataclass(frozen=True, slots=True)
class Qcow2CreateEncryption:
    """How a new image is encrypted."""

    format: str = "luks"
    """luks."""
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
    iter_time: int = DEFAULT_ITER_TIME_MS
    """Milliseconds that the derivation of a key is to take."""

    def wish(self) -> NewVolume:
        """Raises InvalidArgument or MissingOption."""
        if self.format != "luks":
            raise InvalidArgument("encrypt.format", "luks", self.format[:40])
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "format"}
        made = NewVolume(owner="driver qcow2", **values)
        made.check()
        return made


@dataclass(frozen=True, slots=True)
class Qcow2Options:
    """Qcow2Options of an open node. None: as the image or QEMU's default says."""

    lazy_refcounts: bool | None = None
    """Postpone refcount updates; default: what the image's header asks for."""
    pass_discard_request: bool | None = None
    """Guest discards reach the file; default: if the node's discard mode is unmap."""
    pass_discard_snapshot: bool = True
    """Clusters freed by deleting an internal snapshot are discarded in the file."""
    pass_discard_other: bool = False
    """Clusters freed for other reasons are discarded in the file."""
    overlap_check: str = "cached"
    """Metadata that is kept from being written over: none, constant, cached or all (overlap-check.template). It
    costs nothing per request; all reads the L1 tables of snapshots when the image is opened."""
    overlap_checks: OverlapChecks = AS_THE_TEMPLATE
    """Single structures, where they differ from that (overlap-check.main-header ...)."""
    cache_size: int | None = None
    """Bytes for L2 tables and refcount blocks together: as much as is of use for the former, the rest for these."""
    l2_cache_size: int | None = None
    """Bytes for L2 tables; default 32 MiB."""
    refcount_cache_size: int | None = None
    """Bytes for refcount blocks; default 8 MiB."""
    l2_cache_entry_size: int | None = None
    """Accepted for compatibility and checked; tables are cached whole."""
    cache_clean_interval: int | None = None
    """Seconds after which what was not used is given back; default 600, 0 never."""
    repair: bool = False
    """Open an image that is marked corrupt, or whose refcount table is unusable, so that `check` can repair it."""
    follow_data_file: bool = False
    """Open the data file that the header names; else it must be given as child `data-file`."""
    no_io: bool = False
    """Open an image without its data file, or without its key, to look at it or check it: data cannot be read."""
    encrypt: Qcow2Encryption | None = None
    """How an encrypted image is opened."""
    snapshot: str = ""
    """Show this internal snapshot (id or name) instead of the disk; the node must be read-only."""

    def check(self, cluster_size: int, version: int) -> None:
        """Raise InvalidArgument for a value that cannot be."""
        if self.lazy_refcounts and version < 3:
            raise InvalidArgument("lazy_refcounts", "false for a version 2 image", "true")
        for name in ("cache_size", "l2_cache_size", "refcount_cache_size"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1 << 40:
                raise InvalidArgument(name, "bytes from 0 to 1 TiB", str(value))
        interval = self.cache_clean_interval
        if interval is not None and not 0 <= interval < 1 << 32:
            raise InvalidArgument("cache_clean_interval", "seconds from 0 to 4294967295", str(interval))
        entry = self.l2_cache_entry_size
        if entry is not None and not (is_power_of_two(entry) and 512 <= entry <= cluster_size):
            raise InvalidArgument(
                "l2_cache_entry_size", f"a power of two from 512 to the cluster size {cluster_size}", str(entry)
            )
        if self.overlap_check not in TEMPLATES:
            raise InvalidArgument("overlap_check", "one of " + ", ".join(TEMPLATES), self.overlap_check)


@dataclass(frozen=True, slots=True)
class Qcow2CreateOptions:
    """Qcow2Options of a new image."""

    size: int
    """Guest bytes, a multiple of 512."""
    version: str = "v3"
    """v2 (compat 0.10) or v3 (compat 1.1)."""
    cluster_size: int = 64 * KIB
    refcount_bits: int = 16
    lazy_refcounts: bool = False
    preallocation: Preallocation = Preallocation.OFF
    compression_type: str = "zlib"
    backing_file: str = ""
    backing_fmt: str = ""
    extended_l2: bool = False
    """Allocate and zero by subclusters, 32 to a cluster (at least 16 KiB); version 3."""
    data_file: str = ""
    """Keep guest data in this file, beside the image or absolute; version 3. It is made, empty."""
    data_file_raw: bool = False
    """The data file alone reads as the guest's disk; implies preallocation of the metadata."""
    encrypt: Qcow2CreateEncryption | None = None
    """Encrypt the guest's data, as LUKS1 inside of the image."""
