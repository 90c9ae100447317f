"""Images of formats that no driver here speaks, with their traps. Nothing in them is ever followed.

Named by a format they are not, they are refused; without a format they are refused too, not taken for raw; told
to be raw, they are.
"""

import struct

from tests.corpus.entry import Entry, blob, refused

FOREIGN = "formats not spoken"
VMDK_TEXT = b"""# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="monolithicFlat"
RW 2048 FLAT "/etc/passwd" 0
ddb.adapterType = "ide"
"""


def vmdk(grain: int = 128, capacity: int = 2048, tables: int = 512, descriptor: bytes = VMDK_TEXT) -> bytes:
    head = struct.pack(
        "<4sIIQQQQIQQQB4s",
        b"KDMV",
        1,
        3,
        capacity,
        grain,
        1,
        len(descriptor) // 512 + 1,
        tables,
        0,
        26,
        128,
        0,
        b"\n \r\n",
    )
    return head.ljust(512, b"\0") + descriptor.ljust(10240, b"\0") + bytes(65536)


def vhdx(block: int = 1 << 20, sector: int = 512) -> bytes:
    data = bytearray(4 << 20)
    data[:8] = b"vhdxfile"
    data[0x10000:0x10004] = b"head"
    data[0x30000:0x30004] = b"regi"
    struct.pack_into("<II", data, 0x30008, 0xFFFFFFFF, 0)
    data[0x200000:0x200008] = b"metadata"
    struct.pack_into("<II", data, 0x210000, block, 0)
    struct.pack_into("<I", data, 0x210010, sector)
    return bytes(data)


def vdi(block: int = 1 << 20, blocks: int = 0xFFFFFFFF) -> bytes:
    head = b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0") + struct.pack("<II", 0xBEDA107F, 0x10001)
    return (
        (head + struct.pack("<I", 400)).ljust(376, b"\0") + struct.pack("<IIII", block, 0, blocks, 0) + bytes(4096)
    )


def qed(cluster: int = 65536, table: int = 4, features: int = 1, backing: bytes = b"/etc/passwd") -> bytes:
    head = struct.pack(
        "<4sIIIQQQQQII", b"QED\0", cluster, table, 1, features, 0, 0, 65536, 1 << 30, 4096, len(backing)
    )
    return head.ljust(4096, b"\0") + backing + bytes(65536)


def parallels(tracks: int = 0, entries: int = 0xFFFFFFFF) -> bytes:
    head = struct.pack("<16sIIIIIQ", b"WithoutFreeSpace", 2, 16, 0, tracks, entries, 1 << 40)
    return head.ljust(64, b"\0") + bytes(4096)


def vpc(block: int = 0, entries: int = 0xFFFFFFFF) -> bytes:
    footer = struct.pack(">8sIIQ", b"conectix", 2, 0x10000, 512).ljust(512, b"\0")
    dynamic = struct.pack(">8sQQIII", b"cxsparse", (1 << 64) - 1, 1536, 0x10000, entries, block).ljust(1024, b"\0")
    return footer + dynamic + bytes(4096)


def qcow1(l2_bits: int = 255, size: int = (1 << 64) - 1) -> bytes:
    return struct.pack(">4sIQIIQBBHIQ", b"QFI\xfb", 1, 0, 0, 0, size, 9, l2_bits, 0, 0, 48) + bytes(4096)


def bochs(extent: int = 0) -> bytes:
    head = struct.pack("<32s16s16sII", b"Bochs Virtual HD Image", b"Redolog", b"Growing", 0x20000, 512)
    return head + struct.pack("<IIIQ", 0xFFFFFFFF, 512, extent, 1 << 40) + bytes(4096)


def cloop(block: int = 0xFFFFFFFF, blocks: int = 0xFFFFFFFF) -> bytes:
    shebang = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"
    return shebang.ljust(128, b"\0") + struct.pack(">II", block, blocks) + bytes(4096)


def dmg(chunks: int = 0xFFFFFFFF) -> bytes:
    koly = struct.pack(">4sII", b"koly", 4, 512) + struct.pack(">12Q", *[(1 << 63) - 1] * 12)
    return bytes(8192) + koly.ljust(512, b"\0")[:508] + struct.pack(">I", chunks)


def luks(iterations: int = 0xFFFFFFFF, version: int = 1) -> bytes:
    from tests.corpus.images.references import luks_header

    return luks_header(iterations=iterations, stripes=0xFFFFFFFF, payload=1, version=version) + bytes(65536)


NO_CHECK = refused("OPERATION_UNSUPPORTED", "", "check", "repair")


def _trap(slug: str, source: str, data: bytes, format_name: str) -> Entry:
    """Told to be raw it is raw; without a format it is refused by the name of what it looks like."""
    answers = {**NO_CHECK, **refused("FORMAT_MISMATCH", format_name, "guess")} if format_name else NO_CHECK
    return Entry(f"{slug}-as-raw", FOREIGN, source, blob(data), answers, format="raw")


def _luks(slug: str, source: str, data: bytes, word: str = "") -> Entry:
    """LUKS is spoken, but who says raw gets raw."""
    return Entry(
        f"luks-{slug}-as-raw",
        FOREIGN,
        source,
        blob(data),
        {**NO_CHECK, **refused("IMAGE_CORRUPT", word, "guess")},
        format="raw",
    )


def _as_qcow2(slug: str, source: str, data: bytes) -> Entry:
    answers = {**refused("FORMAT_MISMATCH", "qcow2"), **refused("FORMAT_MISMATCH", "", "guess")}
    return Entry(f"{slug}-as-qcow2", FOREIGN, source, blob(data), answers)


ENTRIES = (
    _trap("vmdk-descriptor-of-etc-passwd", "CVE-2022-47951", VMDK_TEXT, "vmdk"),
    _trap("vmdk-sparse-of-etc-passwd", "CVE-2022-47951", vmdk(), "vmdk"),
    _trap("vmdk-grain-0", "limits: grain, tables", vmdk(grain=0, tables=0xFFFFFFFF), "vmdk"),
    _trap("vhdx-block-0", "CVE-2014-0148", vhdx(block=0, sector=0), "vhdx"),
    _trap("vdi-blocks-2-to-32", "CVE-2014-0144", vdi(), "vdi"),
    _trap("vdi-block-0", "CVE-2014-0144", vdi(block=0), "vdi"),
    _trap("qed-of-etc-passwd", "CVE-2015-5163; oslo bans qed", qed(), "qed"),
    _trap("parallels-tracks-0", "CVE-2014-0142, 0143", parallels(), "parallels"),
    _trap("vpc-block-0", "limit: power of 2", vpc(), "vpc"),
    _trap("qcow1-l2-bits-255", "CVE-2014-0222, 0223", qcow1(), "qcow"),
    _trap("bochs-extent-0", "CVE-2014-0142, 0147", bochs(), "bochs"),
    _trap("cloop-block-2-to-32", "CVE-2014-0143, 0144", cloop(), "cloop"),
    _trap("dmg-chunks-2-to-32", "CVE-2014-0145", dmg(), ""),
    _luks("iterations-2-to-32", "CPU: iterations", luks(), "iterations"),
    _luks("version-2-of-zeroes", "a header without text", luks(version=2)),
    _trap("luks-version-9", "versions 1 and 2", luks(version=9), "luks"),
    _as_qcow2("vmdk", "CVE-2022-47951", vmdk()),
    _as_qcow2("vhdx", "CVE-2014-0148", vhdx()),
    _as_qcow2("qed", "CVE-2015-5163", qed()),
    _as_qcow2("qcow1", "CVE-2014-0222", qcow1()),
)
