"""LUKS headers that lie: named errors, at once, with little memory."""

import base64
import contextlib
import random
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blockyard.base.errors import BlockError, FormatMismatch, ImageCorrupt, UnsupportedFeature
from blockyard.base.units import MIB
from blockyard.node.formats.luks import luks1, luks2
from tests.drivers.test_luks import SECOND, made, opened
from tests.support.ground import Ground
from tests.support.luks_images import PASSPHRASE

MAX_SECONDS = 1.0
MAX_MEMORY = 128 * MIB
HASH_AT, PAYLOAD_AT, KEY_BYTES_AT, ITERATIONS_AT = 72, 104, 108, 164


@pytest.fixture
async def ground(tmp_path: Path):
    ground = Ground(tmp_path)
    ground.secrets.values["s"] = PASSPHRASE
    yield ground
    await ground.leave()


async def refused(ground: Ground) -> BlockError:
    """How opening fails; in time, and without much memory."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, time.monotonic()
    with pytest.raises(BlockError) as refusal:
        await opened(ground, read_only=True)
    assert time.monotonic() - started < MAX_SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < MAX_MEMORY
    return refusal.value


def slot_field(slot: int, at: int) -> int:
    return luks1.slot_at(slot) + at


NUMBERS = [
    ("payload inside of the header", PAYLOAD_AT, 1),
    ("payload at the begin", PAYLOAD_AT, 0),
    ("payload past the end", PAYLOAD_AT, 0xFFFFFFFF),
    ("key of no bytes", KEY_BYTES_AT, 0),
    ("key of 4 GiB", KEY_BYTES_AT, 0xFFFFFFFF),
    ("key of 33 bytes", KEY_BYTES_AT, 33),
    ("iterations of the digest", ITERATIONS_AT, 0xFFFFFFFF),
    ("no iterations of the digest", ITERATIONS_AT, 0),
    ("iterations of a slot", slot_field(0, 4), 0xFFFFFFFF),
    ("no iterations of a slot", slot_field(0, 4), 0),
    ("material past the end", slot_field(0, 40), 0xFFFFFFFF),
    ("material over the header", slot_field(0, 40), 0),
    ("material over another's", slot_field(3, 40), 8),
    ("material of a slot that is off past the end", slot_field(7, 40), 0x00FFFFFF),
    ("stripes", slot_field(0, 44), 0xFFFFFFFF),
    ("no stripes", slot_field(0, 44), 0),
    ("stripes of a slot that is off", slot_field(5, 44), 3),
    ("a state that is none", slot_field(2, 0), 1),
]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "at", "value"), NUMBERS, ids=lambda value: value if isinstance(value, str) else ""
)
async def test_a_number_of_luks1_that_cannot_be_is_named(what: str, at: int, value: int, ground: Ground):
    await made(ground)
    path = ground.root / "disk"
    data = bytearray(path.read_bytes())
    struct.pack_into(">I", data, at, value)
    path.write_bytes(data)
    problem = await refused(ground)
    assert isinstance(problem, ImageCorrupt), problem
    assert path.read_bytes() == data, "nothing is written"


@pytest.mark.parametrize(
    ("at", "text", "error"),
    [
        (8, b"serpent", UnsupportedFeature),
        (8, b"\xff" * 32, ImageCorrupt),
        (40, b"xts-random", UnsupportedFeature),
        (40, b"cbc-essiv:" + b"a" * 22, ImageCorrupt),
        (HASH_AT, b"whirlpool", UnsupportedFeature),
        (HASH_AT, b"../../etc", UnsupportedFeature),
        (0, b"LUKS\xba\xbf", FormatMismatch),
        (6, b"\x00\x09", FormatMismatch),
    ],
)
async def test_a_name_of_luks1_that_is_none_is_named(at: int, text: bytes, error: type[BlockError], ground: Ground):
    await made(ground)
    path = ground.root / "disk"
    data = bytearray(path.read_bytes())
    data[at : at + max(32 if at >= 8 else 0, len(text))] = text.ljust(32 if at >= 8 else 0, b"\0")
    path.write_bytes(data)
    assert isinstance(await refused(ground), error)


@pytest.mark.parametrize("keep", [0, 5, 8, 100, 591, 592, 4096, 300_000, 2_068_479])
@pytest.mark.parametrize("options", [{}, SECOND], ids=["luks1", "luks2"])
async def test_a_truncated_volume_is_refused_by_name(options: dict[str, object], keep: int, ground: Ground):
    await made(ground, **options)
    path = ground.root / "disk"
    path.write_bytes(path.read_bytes()[:keep])
    assert (await refused(ground)).reason in ("IMAGE_CORRUPT", "FORMAT_MISMATCH", "KEY_REFUSED")


# --- LUKS2 -----------------------------------------------------------------------------------------------


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    """Both copies of the header, whole and right, with another JSON."""
    data = bytearray(path.read_bytes())
    copy = luks2.decode_copy(bytes(data[:16384]), 0)
    assert copy is not None
    metadata = change(copy.metadata)
    for at in (0, 16384):
        data[at : at + 16384] = luks2.encode_copy(copy.changed(metadata or copy.metadata), at, "x")
    path.write_bytes(data)


def at(*keys: str, value: object) -> Callable[[Any], Any]:
    def change(metadata: Any) -> None:
        for key in keys[:-1]:
            metadata = metadata[key]
        if value is None:
            del metadata[keys[-1]]
        else:
            metadata[keys[-1]] = value

    return change


SLOT, KDF, AREA = ("keyslots", "0"), ("keyslots", "0", "kdf"), ("keyslots", "0", "area")
LIES = {
    "memory of 1 TiB": at(*KDF, "memory", value=1 << 30),
    "memory of no bytes": at(*KDF, "memory", value=0),
    "passes without end": at(*KDF, "time", value=1 << 31),
    "a thousand lanes": at(*KDF, "cpus", value=1000),
    "a short salt": at(*KDF, "salt", value="AAAA"),
    "a salt that is none": at(*KDF, "salt", value="!"),
    "a derivation of no kind": at(*KDF, "type", value="scrypt"),
    "argon2i": at(*KDF, "type", value="argon2i"),
    "iterations": at(
        *KDF, value={"type": "pbkdf2", "hash": "sha256", "iterations": 1 << 40, "salt": "AAAAAAAAAAA="}
    ),
    "stripes": at(*SLOT, "af", "stripes", value=1 << 40),
    "no stripes": at(*SLOT, "af", "stripes", value=0),
    "a split of no kind": at(*SLOT, "af", "type", value="other"),
    "a hash of no kind": at(*SLOT, "af", "hash", value="md999"),
    "material past the end": at(*AREA, "offset", value=str(1 << 60)),
    "material over the header": at(*AREA, "offset", value="0"),
    "material of no bytes": at(*AREA, "size", value="0"),
    "material of the whole world": at(*AREA, "size", value=str((1 << 63) - 1)),
    "a negative offset": at(*AREA, "offset", value="-1"),
    "an offset of words": at(*AREA, "offset", value="a lot"),
    "an offset that is a list": at(*AREA, "offset", value=[1]),
    "a key of a gigabyte": at(*SLOT, "key_size", value=1 << 30),
    "a slot of a strange number": lambda metadata: {
        **metadata,
        "keyslots": {"9999": metadata["keyslots"]["0"]},
        "digests": {"0": {**metadata["digests"]["0"], "keyslots": ["9999"]}},
    },
    "a digest of slots that are not there": at("digests", "0", "keyslots", value=["7"]),
    "no digest": at("digests", value={}),
    "a digest of 2^40 iterations": at("digests", "0", "iterations", value=1 << 40),
    "a digest of one byte": at("digests", "0", "digest", value=base64.b64encode(b"x").decode()),
    "no segment": at("segments", value={}),
    "a segment of no kind": at("segments", "0", "type", value="linear"),
    "a payload in the header": at("segments", "0", "offset", value="512"),
    "a payload past the end": at("segments", "0", "offset", value=str(1 << 50)),
    "a payload that is longer than the file": at("segments", "0", "size", value=str(1 << 50)),
    "sectors of 1 MiB": at("segments", "0", "sector_size", value=1 << 20),
    "sectors of no bytes": at("segments", "0", "sector_size", value=0),
    "a cipher of no kind": at("segments", "0", "encryption", value="rot13-xts-plain64"),
    "integrity": at("segments", "0", "integrity", value={"type": "hmac(sha256)"}),
    "a requirement": at("config", "requirements", value={"mandatory": ["online-reencrypt"]}),
    "no config": at("config", value=None),
    "no keyslots": at("keyslots", value=None),
    "keyslots that are a word": at("keyslots", value="many"),
}


@pytest.mark.parametrize("name", LIES)
async def test_what_luks2_may_not_say_is_named(name: str, ground: Ground):
    await made(ground, **SECOND)
    rewrite(ground.root / "disk", LIES[name])
    assert isinstance(await refused(ground), ImageCorrupt | UnsupportedFeature)


@pytest.mark.parametrize(
    "text", [b"[" * 12_000, b"{}", b"null", b"\xff\xfe", b'{"a":' * 2000, b"1" * 12_000, b""], ids=range(7)
)
async def test_json_that_is_none_is_named(text: bytes, ground: Ground, monkeypatch: pytest.MonkeyPatch):
    await made(ground, **SECOND)
    path = ground.root / "disk"
    monkeypatch.setattr(luks2.json, "dumps", lambda *_, **__: text.decode("latin-1"))
    data = bytearray(path.read_bytes())
    copy = luks2.decode_copy(bytes(data[:16384]), 0)
    assert copy is not None
    for place in (0, 16384):
        data[place : place + 16384] = luks2.encode_copy(copy, place, "x")
    monkeypatch.undo()
    path.write_bytes(data)
    assert isinstance(await refused(ground), ImageCorrupt)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("options", [{}, SECOND], ids=["luks1", "luks2"])
async def test_random_damage_gives_named_errors_or_the_disk(seed: int, options: dict[str, object], ground: Ground):
    await made(ground, **options)
    path = ground.root / "disk"
    original, numbers = path.read_bytes(), random.Random(seed)
    for _ in range(25):
        data = bytearray(original)
        for _ in range(numbers.choice((1, 1, 4, 30))):
            place = (
                numbers.randrange(592)
                if not options
                else numbers.choice((0, 4096, 16384, 20480)) + numbers.randrange(700)
            )
            data[place] = numbers.choice((0, 0xFF, numbers.randrange(256)))
        path.write_bytes(data)
        started = time.monotonic()
        with contextlib.suppress(BlockError):
            await opened(ground, read_only=True)
        assert time.monotonic() - started < 20 * MAX_SECONDS  # a valid cost may be long; see docs/limits.md
        await ground.close_all()


async def test_a_second_copy_alone_is_found_at_any_of_its_places(ground: Ground):
    await made(ground, **SECOND)
    path = ground.root / "disk"
    data = bytearray(path.read_bytes())
    data[:16384] = bytes(16384)
    path.write_bytes(data)
    node = await opened(ground, read_only=True)
    assert node.size == MIB
