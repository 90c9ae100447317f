"""What an image names: backing files, data files, keys; chains of them; files that are none."""

import itertools
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.corpus.entry import MAIN, Entry, image, refused
from tests.corpus.writer import (
    BACKING_FORMAT,
    DATA_FILE,
    ENCRYPTION,
    MIB,
    V3_LENGTH,
    Image,
    extension,
    plain,
)

BACKING = "backing names"
DATA = "external data file"
CRYPT = "encryption header of qcow2"
CHAINS = "self, circular and deep chains"
FILES = "special files"
ON_CHAIN = ("chain", "open", "write")


def overlay(name: bytes, form: bytes | None = b"raw", **options: int) -> Image:
    """An image that names a backing file and holds nothing itself."""
    extensions = [] if form is None else [extension(BACKING_FORMAT, form)]
    return plain(backing=name, extensions=extensions, written=(), **options)  # type: ignore[arg-type]


def _names(
    slug: str, name: bytes, reason: str, word: str = "", form: bytes | None = b"raw", source: str = "CVE-2015-5163"
) -> Entry:
    return Entry(
        f"backing-{slug}", BACKING, source, image(lambda: overlay(name, form)), refused(reason, word, *ON_CHAIN)
    )


_BACKING = [
    _names("etc-passwd", b"/etc/passwd", "BACKING_MISSING", "/etc/passwd"),
    _names("etc-shadow-climbing", b"../../../../../../../etc/shadow", "BACKING_MISSING", "outside"),
    _names("file-protocol", b"file:/etc/passwd", "BACKING_MISSING"),
    _names("file-url", b"file:///etc/passwd", "BACKING_MISSING"),
    _names("nbd", b"nbd://127.0.0.1:10809/x", "BACKING_PROTOCOL_DENIED", "nbd"),
    _names("nbd-of-a-socket", b"nbd:unix:/run/secret.sock", "BACKING_PROTOCOL_DENIED", "nbd"),
    _names("http", b"http://169.254.169.254/latest/meta-data/", "BACKING_PROTOCOL_DENIED", "http"),
    _names(
        "json",
        b'json:{"driver":"file","filename":"/etc/passwd"}',
        "BACKING_PROTOCOL_DENIED",
        "json",
        source="CVE-2024-4467",
    ),
    _names("json-nested", b"json:" + b"[" * 900, "BACKING_PROTOCOL_DENIED", "json", source="CVE-2024-4467"),
    _names("fd-of-the-service", b"/proc/self/fd/3", "BACKING_MISSING"),
    _names("device", b"/dev/zero", "BACKING_MISSING"),
    _names("with-a-nul", b"base\0/../../etc/passwd", "BACKING_MISSING"),
    _names("not-text", b"\xff\xfe\x80base", "BACKING_MISSING"),
    _names("of-terminal-codes", b"\x1b]0;owned\x07\x1b[2J\r\n", "BACKING_MISSING"),
    _names("without-a-format", b"base", "BACKING_FORMAT_UNKNOWN", form=None, source="CVE-2008-2004"),
    _names("of-an-unknown-format", b"base", "BACKING_MISSING", "", b"vmdk"),
    _names("of-a-protocol-as-format", b"base", "BACKING_MISSING", "", b"nbd"),
    Entry(
        "backing-name-of-1024",
        BACKING,
        "limit: 1,023",
        image(lambda: overlay(b"x" * 1024)),
        refused("IMAGE_CORRUPT", "backing_file_size"),
    ),
    Entry(
        "backing-name-past-the-cluster",
        BACKING,
        "CVE-2014-0144",
        image(lambda: plain(fields={"backing_file_offset": 65530, "backing_file_size": 100})),
        refused("IMAGE_CORRUPT", "backing file name"),
    ),
    Entry(
        "backing-name-inside-the-header",
        BACKING,
        "CVE-2014-0144",
        image(lambda: plain(fields={"backing_file_offset": 8, "backing_file_size": 8})),
        refused("IMAGE_CORRUPT", "backing file name"),
    ),
    Entry(
        "backing-name-at-2-to-64",
        BACKING,
        "CVE-2014-0144",
        image(lambda: plain(fields={"backing_file_offset": (1 << 64) - 8, "backing_file_size": 100})),
        refused("IMAGE_CORRUPT", "backing file name"),
    ),
]


def _data_file(name: bytes, **fields: int) -> Image:
    return plain(extensions=[extension(DATA_FILE, name)], fields={"incompatible_features": 4, **fields})


DENIED = refused("DATA_FILE_DENIED", "data file", "alone", "open", "write")
_DATA = [
    Entry(
        "data-file-etc-passwd",
        DATA,
        "CVE-2024-32498",
        image(lambda: _data_file(b"/etc/passwd", autoclear_features=2)),
        DENIED,
    ),
    Entry(
        "data-file-json",
        DATA,
        "CVE-2024-4467",
        image(lambda: _data_file(b'json:{"driver":"nbd","host":"127.0.0.1"}')),
        DENIED,
    ),
    Entry(
        "data-file-without-a-name",
        DATA,
        "CVE-2024-32498",
        image(lambda: plain(fields={"incompatible_features": 4})),
        DENIED,
    ),
    Entry(
        "data-file-name-without-the-bit",
        DATA,
        "CVE-2024-32498",
        image(lambda: _data_file(b"/etc/passwd", incompatible_features=0)),
        {},
    ),
]


def _luks(method: int = 2, *, at: int = 5 << 16, length: int = 4096, header: bytes = b"") -> Image:
    record = extension(ENCRYPTION, struct.pack(">QQ", at, length))
    made = plain(extensions=[record], fields={"crypt_method": method})
    if header:
        made.write(at, header)
    return made


def luks_header(
    *, iterations: int = 1000, stripes: int = 4000, payload: int = 4096, key_at: int = 8, version: int = 1
) -> bytes:
    """LUKS1 (592 bytes): one key slot."""
    head = struct.pack(
        ">6sH32s32s32sII20s32sI40s",
        b"LUKS\xba\xbe",
        version,
        b"aes",
        b"xts-plain64",
        b"sha256",
        payload,
        64,
        bytes(20),
        bytes(32),
        iterations,
        b"00000000-0000-0000-0000-000000000000",
    )
    slot = struct.pack(">II32sII", 0x00AC71F3, iterations, bytes(32), key_at, stripes)
    empty = struct.pack(">II32sII", 0x0000DEAD, 0, bytes(32), 0, stripes)
    return head + slot + empty * 7


ENCRYPTED = refused("UNSUPPORTED_FEATURE", "encryption")
_CRYPT = [
    Entry("crypt-method-9", CRYPT, "spec: 0 to 2", image(lambda: _luks(9)), ENCRYPTED),
    Entry(
        "crypt-aes",
        CRYPT,
        "legacy",
        image(lambda: plain(fields={"crypt_method": 1})),
        refused("MISSING_OPTION", "key_secret", "alone", "open", "write"),
    ),
    Entry(
        "luks-without-a-header",
        CRYPT,
        "spec: required with LUKS",
        image(lambda: plain(fields={"crypt_method": 2})),
        refused("IMAGE_CORRUPT", "encryption extension"),
    ),
    Entry(
        "luks-header-past-the-end",
        CRYPT,
        "offsets beyond the file",
        image(lambda: _luks(at=1 << 50)),
        refused("IMAGE_CORRUPT", "encryption header"),
    ),
    Entry(
        "luks-header-of-16-eib",
        CRYPT,
        "limit: 32 clusters",
        image(lambda: _luks(length=(1 << 64) - 1)),
        refused("IMAGE_CORRUPT", "encryption header"),
    ),
    Entry(
        "luks-iterations-2-to-32",
        CRYPT,
        "CPU: iterations",
        image(lambda: _luks(header=luks_header(iterations=0xFFFFFFFF))),
        refused("IMAGE_CORRUPT", "iterations"),
    ),
    Entry(
        "luks-stripes-2-to-32",
        CRYPT,
        "memory: stripes",
        image(lambda: _luks(header=luks_header(stripes=0xFFFFFFFF))),
        refused("IMAGE_CORRUPT", "stripes"),
    ),
    Entry(
        "luks-payload-inside-the-header",
        CRYPT,
        "payload over key material",
        image(lambda: _luks(header=luks_header(payload=1))),
        refused("IMAGE_CORRUPT", "key"),
    ),
]


def _chain(links: Sequence[tuple[str, str]]) -> Callable[[Path], None]:
    """Overlays: file to the name that its header has."""

    def make(folder: Path) -> None:
        for name, below in links:
            overlay(below.encode(), b"qcow2", cluster_bits=9, size=65536).save(folder / name)

    return make


def _hard_link(folder: Path) -> None:
    """Two names, one file."""
    overlay(b"other", b"qcow2").save(folder / MAIN)
    os.link(folder / MAIN, folder / "other")


def _deep(folder: Path) -> None:
    names = [MAIN, *(f"layer{number}" for number in range(1, 300))]
    _chain(list(itertools.pairwise(names)))(folder)
    plain(cluster_bits=9, size=65536).save(folder / names[-1])


def _through_a_folder(folder: Path) -> None:
    """A link to the folder itself: every step has another name."""
    (folder / "down").symlink_to(".")
    overlay(b"down/image", b"qcow2").save(folder / MAIN)


_CHAINS = [
    Entry(
        "backing-is-itself",
        CHAINS,
        "QEMU 7.2: check never returns",
        _chain([(MAIN, MAIN)]),
        refused("BACKING_LOOP", "image", *ON_CHAIN),
    ),
    Entry(
        "backing-is-itself-by-another-path",
        CHAINS,
        "paths are folded",
        _chain([(MAIN, "./a/.././image")]),
        refused("BACKING_LOOP", "image", *ON_CHAIN),
    ),
    Entry(
        "chain-of-two-in-a-circle",
        CHAINS,
        "A, B, A",
        _chain([(MAIN, "b"), ("b", MAIN)]),
        refused("BACKING_LOOP", "", *ON_CHAIN),
    ),
    Entry(
        "chain-of-a-hard-link",
        CHAINS,
        "two names, one file",
        _hard_link,
        {**refused("BACKING_LOOP", "", *ON_CHAIN), **refused("BACKING_MISSING", "locked", "write")},
    ),
    Entry(
        "chain-through-a-link",
        CHAINS,
        "links are not followed",
        _through_a_folder,
        refused("BACKING_MISSING", "link", *ON_CHAIN),
    ),
    Entry("chain-of-300", CHAINS, "limit: 200", _deep, refused("CHAIN_TOO_DEEP", "200", *ON_CHAIN)),
    Entry(
        "chain-to-nothing",
        CHAINS,
        "dangling",
        _chain([(MAIN, "gone")]),
        refused("BACKING_MISSING", "gone", *ON_CHAIN),
    ),
]


def _beside(name: str, make: Callable[[Path], None], form: bytes = b"raw") -> Callable[[Path], None]:
    def made(folder: Path) -> None:
        make(folder / name)
        overlay(name.encode(), form).save(folder / MAIN)

    return made


def _link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


_FILES = [
    Entry(
        "backing-is-a-fifo",
        FILES,
        "opening one may wait for ever",
        _beside("pipe", os.mkfifo),
        refused("BACKING_MISSING", "pipe", *ON_CHAIN),
    ),
    Entry(
        "backing-is-a-folder",
        FILES,
        "no file",
        _beside("folder", Path.mkdir),
        refused("BACKING_MISSING", "folder", *ON_CHAIN),
    ),
    Entry(
        "backing-is-a-link",
        FILES,
        "a link inside the root that leads outside",
        _beside("link", _link),
        refused("BACKING_MISSING", "link", *ON_CHAIN),
    ),
    Entry("backing-is-empty", FILES, "0 bytes", _beside("empty", Path.touch), {}),
    Entry(
        "backing-is-no-qcow2",
        FILES,
        "CVE-2008-2004: never probed",
        _beside("plain", lambda path: path.write_bytes(b"x" * MIB), b"qcow2"),
        refused("BACKING_MISSING", "plain", *ON_CHAIN),
    ),
]


def _v2_without_extensions() -> Image:
    """QEMU before 0.10 put the name right behind the header, where later versions put extensions."""
    return plain(version=2, backing=b"base", end_mark=False, written=())


def _no_end_mark() -> Image:
    """The name of the backing file ends the list of extensions (qcow2_read_extensions)."""
    made = plain(backing=b"base.raw", extensions=[extension(BACKING_FORMAT, b"raw")], end_mark=False, written=())
    assert made.get("backing_file_offset") == V3_LENGTH + 16
    return made


_OLD = [
    Entry(
        "name-right-behind-the-header",
        BACKING,
        "QEMU 0.9 wrote such images",
        image(_v2_without_extensions),
        refused("BACKING_FORMAT_UNKNOWN", "base", *ON_CHAIN),
    ),
    Entry(
        "name-ends-the-extensions",
        BACKING,
        "QEMU: qcow2_read_extensions",
        image(_no_end_mark),
        refused("BACKING_MISSING", "base.raw", *ON_CHAIN),
    ),
]

ENTRIES = (*_BACKING, *_OLD, *_DATA, *_CRYPT, *_CHAINS, *_FILES)
