"""What bytes pretend to be, and how much they become: bombs, polyglots, guesses, size without substance."""

import struct

from backports import zstd

from tests.corpus.entry import SUCCESS, Entry, blob, image, refused
from tests.corpus.writer import (
    BACKING_FORMAT,
    COMPRESSED,
    MIB,
    Image,
    compressed_entry,
    deflated,
    extension,
    plain,
)

BOMBS = "decompression bombs"
PROBING = "format probing"
POLYGLOTS = "polyglots"
EXHAUSTION = "resource exhaustion"


def _stream(
    data: bytes, *, zstd_type: bool = False, entries: int = 1, cluster_bits: int = 16, size: int = MIB
) -> Image:
    """`entries` clusters that are all the same compressed bytes."""
    made = plain(cluster_bits=cluster_bits, size=size, written=())
    if zstd_type:
        made.header(compression_type=1, incompatible_features=8)
    at = made.append(data)
    made.counted(at, len(data), by=min(entries, 65535))
    return made.put("l2", *[compressed_entry(at, len(data), cluster_bits)] * entries)


def _bomb() -> Image:
    """262,144 clusters of 2 MiB out of one stream of 2 KiB: half a TiB of zero-like data in a file of 10 MiB."""
    return _stream(deflated(b"\1" * (2 * MIB)), entries=1 << 18, cluster_bits=21, size=1 << 39)


def _zstd_window() -> bytes:
    """A frame that asks for a window of 128 MiB and does not say how much it holds."""
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    packer = zstd.ZstdCompressor(options=options)
    return packer.compress(b"\1" * 65536) + packer.flush()


def _zstd_huge_window() -> bytes:
    """A frame header with the largest window there is (windowLog 41), then one block."""
    return struct.pack("<IBB", 0xFD2FB528, 0, 31 << 3 | 7) + struct.pack("<I", 65536 << 3 | 3)[:3] + b"\1"


SHORT = refused("IMAGE_CORRUPT", "compressed cluster", "read")
_BOMBS = [
    Entry("bomb-of-half-a-tebibyte", BOMBS, "10.5 MB become 512 GiB", image(_bomb), {}),
    Entry(
        "bomb-in-one-cluster",
        BOMBS,
        "a cluster expands past its size",
        image(lambda: _stream(deflated(b"\1" * (64 * MIB)))),
        {},
    ),
    Entry(
        "bomb-of-zstd",
        BOMBS,
        "a cluster expands past its size",
        image(lambda: _stream(zstd.compress(b"\1" * (64 * MIB)), zstd_type=True)),
        {},
    ),
    Entry(
        "zstd-window-of-128-mib",
        BOMBS,
        "memory of a decoder",
        image(lambda: _stream(_zstd_window(), zstd_type=True, entries=16)),
        {},
    ),
    Entry(
        "zstd-window-of-2-tib",
        BOMBS,
        "memory of a decoder",
        image(lambda: _stream(_zstd_huge_window(), zstd_type=True)),
        SHORT,
    ),
    Entry(
        "stream-too-short",
        BOMBS,
        "a cluster that is not filled",
        image(lambda: _stream(deflated(b"\1" * 100))),
        SHORT,
    ),
    Entry("stream-of-noise", BOMBS, "broken stream", image(lambda: _stream(bytes(range(7, 207)))), SHORT),
    Entry("stream-empty", BOMBS, "broken stream", image(lambda: plain().put("l2", COMPRESSED | 1 << 30)), SHORT),
    Entry(
        "zstd-of-noise", BOMBS, "broken stream", image(lambda: _stream(bytes(range(7, 207)), zstd_type=True)), SHORT
    ),
    Entry(
        "zstd-frames-without-end",
        BOMBS,
        "many empty frames",
        image(lambda: _stream(zstd.compress(b"") * 5000, zstd_type=True)),
        SHORT,
    ),
]

NOT_QCOW2 = {**refused("FORMAT_MISMATCH", "qcow2"), "guess": SUCCESS}
LOOKS = refused("FORMAT_MISMATCH", "", "guess")


def _guest_wrote(header: bytes) -> bytes:
    """A raw disk on whose first sector the guest put another format's header."""
    return header.ljust(512, b"\0") + b"guest data " * 100


def _named_backing() -> bytes:
    return bytes(plain(backing=b"/etc/passwd", extensions=[extension(BACKING_FORMAT, b"raw")]).data)


NO_CHECK = refused("OPERATION_UNSUPPORTED", "", "check", "repair")
_PROBING = [
    Entry(
        "raw-that-names-a-backing-file",
        PROBING,
        "CVE-2008-2004, 2026-24708",
        blob(_named_backing()),
        NO_CHECK,
        format="raw",
    ),
    Entry(
        "raw-that-names-a-data-file",
        PROBING,
        "CVE-2024-32498",
        blob(bytes(plain(fields={"incompatible_features": 4}).data)),
        NO_CHECK,
        format="raw",
    ),
    Entry(
        "raw-with-a-vmdk-descriptor",
        PROBING,
        "CVE-2022-47951",
        blob(_guest_wrote(b'# Disk DescriptorFile\nRW 1 FLAT "/etc/passwd" 0\n')),
        {**NO_CHECK, **LOOKS},
        format="raw",
    ),
    Entry(
        "raw-with-a-qed-header",
        PROBING,
        "CVE-2015-1851",
        blob(_guest_wrote(b"QED\0")),
        {**NO_CHECK, **LOOKS},
        format="raw",
    ),
    Entry("raw-named-qcow2", PROBING, "CVE-2013-1922", blob(b"plain bytes " * 1000), NOT_QCOW2),
    Entry("empty-named-qcow2", PROBING, "0 bytes", blob(b""), NOT_QCOW2),
    Entry("qcow2-behind-a-sector", PROBING, "offset 512", blob(bytes(512) + bytes(plain().data)), NOT_QCOW2),
]

MBR = bytes(446) + bytes.fromhex("000002000cffffff3f0000000a000000") + bytes(48) + b"\x55\xaa"


def _iso(data: bytes) -> bytes:
    return data[:32768].ljust(32768, b"\0") + b"\1CD001\1".ljust(2048, b"\0") + data[34816:]


def _qcow2_and_vdi() -> Image:
    made = plain()
    return made.write(64, struct.pack("<I", 0xBEDA107F)).header(
        incompatible_features=0, crypt_method=0, nb_snapshots=0
    )


_POLYGLOTS = [
    Entry(
        "qcow2-with-a-boot-sector",
        POLYGLOTS,
        "two formats: MBR",
        image(lambda: plain().write(510, b"\x55\xaa")),
        {},
    ),
    Entry(
        "qcow2-and-iso", POLYGLOTS, "two formats: ISO 9660", image(lambda: plain().write(32768, b"\0\1CD001\1")), {}
    ),
    Entry(
        "qcow2-and-vpc",
        POLYGLOTS,
        "two formats: footer",
        image(lambda: plain().write(9 << 16, b"conectix".ljust(512, b"\0"))),
        {},
    ),
    Entry("qcow2-and-vdi", POLYGLOTS, "two formats: VDI's magic lies in a qcow2 field", image(_qcow2_and_vdi), {}),
    Entry("iso-that-boots", POLYGLOTS, "raw: ISO and MBR, a usual hybrid", blob(_iso(MBR)), NO_CHECK, format="raw"),
]


def _exbibyte() -> Image:
    """22 MiB that claim 1 EiB, the largest disk there is."""
    return plain(cluster_bits=21, size=1 << 60, written=())


def _sparse(length: int) -> Image:
    made = plain()
    made.length = length
    return made


def _largest_tables() -> Image:
    """L1 of 32 MiB and a refcount table of 8 MiB, all of holes but the first entries."""
    made = plain(cluster_bits=21, size=1 << 60, l1_entries=4 * MIB, written=())
    at = made.append(bytes(8 * MIB))
    made.put(at, made.places["refcount_block"]).counted(at, 8 * MIB)
    return made.header(refcount_table_offset=at, refcount_table_clusters=4)


_EXHAUSTION = [
    Entry("one-exbibyte", EXHAUSTION, "QEMU 7.2: map and measure run on at 40 s", image(_exbibyte), {}),
    Entry(
        "file-of-16-tib-of-holes",
        EXHAUSTION,
        "check counts clusters",
        image(lambda: _sparse((16 << 40) - (1 << 20))),
        {},
    ),
    Entry("largest-tables", EXHAUSTION, "limits: L1 32 MiB, refcount table 8 MiB", image(_largest_tables), {}),
    Entry(
        "raw-of-16-tib", EXHAUSTION, "a hole is no work", blob(b"", (16 << 40) - (1 << 20)), NO_CHECK, format="raw"
    ),
]

ENTRIES = (*_BOMBS, *_PROBING, *_POLYGLOTS, *_EXHAUSTION)
