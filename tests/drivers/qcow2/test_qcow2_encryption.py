"""qcow2 with LUKS inside, and with legacy AES: both ways with QEMU, through snapshots, resizes and chains."""

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.base.errors import (
    BlockError,
    ImageCorrupt,
    ImageLocked,
    InvalidArgument,
    KeyRefused,
    MissingOption,
    UnsupportedFeature,
)
from blockyard.base.ranges import ByteRange
from blockyard.base.units import KIB, MIB
from blockyard.node.drivers.qcow2 import Qcow2
from blockyard.node.formats.qcow2 import extensions as ext
from blockyard.node.formats.qcow2 import header as hdr
from blockyard.node.interface.child import Child
from blockyard.node.interface.flags import MAY_UNMAP, Preallocation
from blockyard.node.interface.internal_snapshots import SnapshotWish
from blockyard.node.interface.mapping import MapKind
from tests.support import peers
from tests.support.contract import DriverContract
from tests.support.ground import DriverChild, Ground
from tests.support.luks_images import (
    PASSPHRASE,
    assert_luks_clean,
    image_options,
    qemu_create_qcow2_luks,
    qemu_luks,
    qemu_luks_content,
    qemu_luks_info,
    qemu_luks_write,
)
from tests.support.qcow2_images import created, driver_of, shake

pytestmark = [pytest.mark.peer("qemu-img"), pytest.mark.peer("qemu-io")]

KEY: dict[str, object] = {"encrypt": {"key_secret": "s"}}
FAST: dict[str, object] = {"key_secret": "s", "iter_time": 1}


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    ground = Ground(tmp_path)
    ground.secrets.values["s"] = PASSPHRASE
    yield ground
    await ground.leave()


async def opened(
    ground: Ground, name: str = "disk", read_only: bool = False, backing: Child | None = None, **options: object
) -> DriverChild:
    children: dict[str, Child] = {"file": await ground.open("file", {"filename": name}, read_only=read_only)}
    if backing is not None:
        children["backing"] = backing
    return await ground.open("qcow2", {**KEY, **options}, children, name="top", read_only=read_only)


class TestQcow2WithLuks(DriverContract):
    driver = "qcow2"
    grows_by_writing = False
    discard_zeroes = True

    async def prepare(self, ground: Ground) -> None:
        ground.secrets.values["s"] = PASSPHRASE
        await created(ground, "disk", self.size, encrypt=FAST)

    def options(self) -> dict[str, object]:
        return KEY

    async def children(self, ground: Ground, read_only: bool) -> dict[str, Child]:
        return {"file": await ground.open("file", {"filename": "disk"}, read_only=read_only)}


# --- beside QEMU -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "encryption"),
    [
        ((), ()),
        (("cluster_size=4k",), ("cipher-alg=aes-128", "hash-alg=sha1")),
        (("compat=0.10",), ("cipher-mode=cbc", "ivgen-alg=essiv", "ivgen-hash-alg=sha256")),
        (("extended_l2=on", "cluster_size=64k"), ("ivgen-alg=plain",)),
        (("cluster_size=2M",), ("cipher-alg=aes-192",)),
        (("data_file=payload",), ()),
    ],
    ids=lambda value: ",".join(value) or "default",
)
async def test_we_read_and_write_what_qemu_made(
    options: tuple[str, ...], encryption: tuple[str, ...], ground: Ground
):
    path = ground.root / "disk"
    apart = any("data_file" in option for option in options)
    options = tuple(option.replace("=payload", f"={ground.root}/payload") for option in options)
    qemu_create_qcow2_luks(path, MIB, *options, *(f"encrypt.{one}" for one in encryption))
    qemu_luks_write(path, "write -P 7 0 300k", "write -P 9 700k 5k", driver="qcow2")
    model = bytearray(MIB)
    model[: 300 * KIB] = b"\x07" * (300 * KIB)
    model[700 * KIB : 705 * KIB] = b"\x09" * (5 * KIB)
    children: dict[str, Child] = {"file": await ground.open("file", {"filename": "disk"})}
    if apart:
        children["data-file"] = await ground.open("file", {"filename": "payload"})
    node = await ground.open("qcow2", KEY, children)
    assert await node.content() == model
    await shake(node, model, seed=3)
    assert await node.content() == model
    await node.flush()
    await ground.close_all()
    assert qemu_luks_content(path, "qcow2") == model
    assert_luks_clean(path)


@pytest.mark.parametrize(
    ("options", "encrypt"),
    [
        ({}, {}),
        ({"cluster_size": 4 * KIB}, {"cipher_alg": "aes-128", "cipher_mode": "cbc"}),
        ({"version": "v2"}, {"ivgen_alg": "plain", "hash_alg": "sha512"}),
        ({"extended_l2": True}, {}),
        ({"lazy_refcounts": True, "cluster_size": 512}, {"cipher_alg": "aes-192"}),
    ],
    ids=["default", "4k", "v2", "subclusters", "lazy"],
)
async def test_qemu_reads_and_writes_what_we_made(
    options: dict[str, object], encrypt: dict[str, object], ground: Ground
):
    await created(ground, "disk", MIB, encrypt={**FAST, **encrypt}, **options)
    path = ground.root / "disk"
    assert_luks_clean(path)
    node = await opened(ground)
    model = bytearray(MIB)
    await shake(node, model, seed=4)
    facts = (await node.driver.info()).specific
    await ground.close_all()
    assert_luks_clean(path)
    assert qemu_luks_content(path, "qcow2") == model
    qemu_luks_write(path, "write -P 5 10k 100k", driver="qcow2")
    model[10 * KIB : 110 * KIB] = b"\x05" * (100 * KIB)
    assert await (await opened(ground)).content() == model
    theirs = qemu_luks_info(path, "qcow2")["format-specific"]["data"]["encrypt"]
    assert theirs["format"] == facts["encrypt.format"] == "luks"
    assert theirs["cipher-alg"] == facts["encrypt.cipher-alg"] and theirs["uuid"] == facts["encrypt.uuid"]


async def test_nothing_of_the_data_is_in_the_file(ground: Ground):
    await created(ground, "disk", MIB, encrypt=FAST)
    node = await opened(ground)
    secret = b"attack at dawn! " * 32
    await node.write(0, secret * 128)
    await node.write(512 * KIB + 512, secret)
    assert not await driver_of(node).write_compressed(256 * KIB, bytes(64 * KIB))
    await node.flush()
    await ground.close_all()
    assert b"attack" not in (ground.root / "disk").read_bytes()


async def test_what_surrounds_a_write_in_a_new_cluster_reads_as_zeroes(ground: Ground):
    await created(ground, "disk", MIB, encrypt=FAST)
    node = await opened(ground)
    await node.write(65536 + 4096, b"x" * 512)
    assert await node.content(65536, 65536) == bytes(4096) + b"x" * 512 + bytes(65536 - 4608)


async def test_no_place_of_ciphertext_is_told(ground: Ground):
    await created(ground, "disk", MIB, encrypt=FAST)
    node = await opened(ground)
    await node.write(0, b"x" * 4096)
    mapping = driver_of(node).lookup(0, 4096)
    assert mapping is not None and mapping.kind is MapKind.DATA
    assert mapping.child is not None and not mapping.child.plain


@pytest.mark.parametrize("version", ["v2", "v3"])
@pytest.mark.parametrize("mode", ["metadata", "falloc", "full"])
async def test_preallocated_clusters_read_as_zeroes(mode: str, version: str, ground: Ground):
    await created(ground, "disk", MIB, encrypt=FAST, preallocation=mode, version=version)
    assert_luks_clean(ground.root / "disk")
    node = await opened(ground)
    assert await node.content() == bytes(MIB)
    before = (ground.root / "disk").stat().st_size
    await node.write(4096, b"x" * 512)
    await node.truncate(2 * MIB, Preallocation(mode), exact=True)
    assert await node.content() == bytes(4096) + b"x" * 512 + bytes(2 * MIB - 4608)
    await ground.close_all()
    assert before > MIB and qemu_luks_content(ground.root / "disk", "qcow2")[4096:4608] == b"x" * 512


async def test_snapshots_and_the_vm_state_are_encrypted_and_work(ground: Ground):
    await created(ground, "disk", MIB, encrypt=FAST)
    node = await opened(ground)
    driver = driver_of(node)
    old, new, state = os.urandom(MIB), os.urandom(MIB), b"the machine's state " * 10_000
    await node.write(0, old)

    async def pieces() -> AsyncIterator[bytes]:
        yield state

    await driver.save_vm_state(pieces())
    taken = await driver.create_snapshot(SnapshotWish("one", 0, vm_state_bytes=len(state)))
    await node.write(0, new)
    found = b"".join([piece async for piece in driver.load_vm_state(taken.identifier, 0)])
    assert found == state
    await node.flush()
    await ground.close_all()
    assert b"the machine's" not in (ground.root / "disk").read_bytes()
    shown = await opened(ground, read_only=True, snapshot="one")
    assert await shown.content() == old
    await ground.close_all()
    node = await opened(ground)
    await driver_of(node).revert_to_snapshot(taken.identifier)
    assert await node.content() == old
    await driver_of(node).delete_snapshot(taken.identifier)
    await ground.close_all()
    assert_luks_clean(ground.root / "disk")
    assert qemu_luks_content(ground.root / "disk", "qcow2") == old


async def test_qemus_snapshots_of_an_encrypted_image_are_shown(ground: Ground):
    path = ground.root / "disk"
    qemu_create_qcow2_luks(path, MIB)
    qemu_luks_write(path, "write -P 7 0 1M", driver="qcow2")
    qemu_luks("snapshot", "-c", "one", "--image-opts", image_options(path, "qcow2"))
    qemu_luks_write(path, "write -P 8 0 1M", driver="qcow2")
    shown = await opened(ground, read_only=True, snapshot="one")
    assert await shown.content() == b"\x07" * MIB


async def test_a_chain_may_be_encrypted_in_part(ground: Ground):
    """An encrypted base with its own key, below an overlay with another."""
    ground.secrets.values["base"] = b"of the base"
    await created(ground, "base", MIB, encrypt={**FAST, "key_secret": "base"})
    base = await opened(ground, "base", encrypt={"key_secret": "base"})
    old = os.urandom(MIB)
    await base.write(0, old)
    await base.flush()
    await ground.close_all()
    await created(ground, "disk", MIB, encrypt=FAST, backing_file="base", backing_fmt="qcow2")
    below = await opened(ground, "base", read_only=True, encrypt={"key_secret": "base"})
    top = await opened(ground, backing=below)
    await top.write(100 * KIB + 512, b"y" * 1024)
    expected = bytearray(old)
    expected[100 * KIB + 512 : 101 * KIB + 512] = b"y" * 1024
    assert await top.content() == expected


async def test_growth_and_shrinking_keep_what_is_there(ground: Ground):
    await created(ground, "disk", MIB, encrypt=FAST)
    node = await opened(ground)
    data = os.urandom(MIB)
    await node.write(0, data)
    await node.truncate(700 * KIB + 512, Preallocation.OFF, exact=True)
    await node.truncate(2 * MIB, Preallocation.OFF, exact=True)
    assert await node.content() == data[: 700 * KIB + 512] + bytes(2 * MIB - 700 * KIB - 512)
    await ground.close_all()
    assert_luks_clean(ground.root / "disk")


async def test_zeroes_and_discards_read_as_zeroes(ground: Ground):
    for version in ("v2", "v3"):
        await created(ground, version, MIB, encrypt=FAST, version=version)
        node = await opened(ground, version)
        await node.write(0, os.urandom(MIB))
        await node.zero(64 * KIB, 64 * KIB, 0)
        await node.zero(256 * KIB, 64 * KIB, MAY_UNMAP)
        assert await node.content(64 * KIB, 64 * KIB) == await node.content(256 * KIB, 64 * KIB) == bytes(64 * KIB)
        await node.write(64 * KIB + 512, b"z" * 512)
        assert await node.content(64 * KIB, 64 * KIB) == bytes(512) + b"z" * 512 + bytes(63 * KIB)
        await ground.close_all()


async def test_our_check_counts_the_encryption_header(ground: Ground):
    qemu_create_qcow2_luks(ground.root / "disk", MIB)
    node = await opened(ground, encrypt=None, no_io=True)
    report = await driver_of(node).check(False, False)
    assert (report.corruptions, report.leaks, report.check_errors) == (0, 0, 0)


async def test_the_guard_keeps_writes_off_the_encryption_header(ground: Ground):
    await created(ground, "disk", MIB, encrypt=FAST)
    image = driver_of(await opened(ground)).image
    assert image.crypto_place is not None
    assert image.guard.first_hit(image.crypto_place.offset // image.header.cluster_size, 1) >= 0


# --- keys ------------------------------------------------------------------------------------------------


async def test_what_is_wrong_with_a_key_is_told(ground: Ground):
    await created(ground, "disk", MIB, encrypt=FAST)
    await created(ground, "plain", MIB)
    ground.secrets.values["wrong"] = b"wrong"
    cases: list[tuple[str, dict[str, object] | None, type[BlockError]]] = [
        ("disk", None, MissingOption),
        ("disk", {"key_secret": "wrong"}, KeyRefused),
        ("disk", {"key_secret": "s", "format": "aes"}, InvalidArgument),
        ("plain", {"key_secret": "s"}, InvalidArgument),
    ]
    for name, encrypt, error in cases:
        with pytest.raises(error):
            await opened(ground, name, encrypt=encrypt)
        await ground.close_all()


async def test_an_image_without_its_key_can_be_looked_at_and_not_read(ground: Ground):
    await created(ground, "disk", MIB, encrypt=FAST)
    node = await opened(ground)
    await node.write(0, b"x" * 65536)
    await ground.close_all()
    node = await opened(ground, encrypt=None, no_io=True)
    assert (await node.driver.info()).encrypted
    for request in (node.content(0, 512), node.write(0, bytes(512)), node.write(512 * KIB, bytes(512))):
        with pytest.raises(ImageLocked):
            await request


# --- legacy AES ------------------------------------------------------------------------------------------


async def test_legacy_aes_is_read_and_never_written(ground: Ground):
    path = ground.root / "disk"
    qemu_luks("create", "-q", "-f", "qcow2", "-o", "encrypt.format=aes,encrypt.key-secret=s", path, "1M")
    qemu_luks_write(path, "write -P 7 0 300k", "write -P 9 700k 5k", driver="aes")
    model = bytearray(MIB)
    model[: 300 * KIB] = b"\x07" * (300 * KIB)
    model[700 * KIB : 705 * KIB] = b"\x09" * (5 * KIB)
    node = await opened(ground, read_only=True)
    assert await node.content() == model
    numbers = random.Random(1)
    for _ in range(20):
        offset = numbers.randrange(MIB - 5000)
        assert await node.content(offset, 5000) == model[offset : offset + 5000]
    assert isinstance(node.driver, Qcow2)
    assert (await node.driver.info()).specific["encrypt.format"] == "aes"
    await ground.close_all()
    with pytest.raises(UnsupportedFeature, match="AES"):
        await opened(ground)


async def test_a_long_passphrase_of_legacy_aes_is_cut(ground: Ground):
    path = ground.root / "disk"
    key = b"more than sixteen bytes of passphrase"
    qemu_luks("create", "-q", "-f", "qcow2", "-o", "encrypt.format=aes,encrypt.key-secret=s", path, "1M",
              secrets={"s": key})  # fmt: skip
    peers.run("qemu-io", "--object", f"secret,id=s,data={key.decode()}", "-c", "write -P 3 0 1M", "--image-opts",
              image_options(path, "aes"))  # fmt: skip
    ground.secrets.values["s"] = key
    assert await (await opened(ground, read_only=True)).content() == b"\x03" * MIB


# --- what a header may say -------------------------------------------------------------------------------


def with_extension(path: Path, data: bytes | None, method: int = hdr.CRYPT_LUKS) -> None:
    """Another place of the encryption header; None for none."""
    whole = bytearray(path.read_bytes())
    cluster = hdr.decode(bytes(whole[:65536]), "x")
    records = ext.replaced(cluster.extensions, ext.ENCRYPTION, data)
    made = hdr.encode(hdr.HeaderCluster(cluster.header, records).with_header(crypt_method=method))
    whole[: len(made)] = made
    path.write_bytes(whole)


@pytest.mark.parametrize(
    ("data", "method"),
    [
        (None, hdr.CRYPT_LUKS),
        (b"short", hdr.CRYPT_LUKS),
        (ext.encode_encryption(ByteRange(0, 65536)), hdr.CRYPT_LUKS),
        (ext.encode_encryption(ByteRange(65536, 65536)), hdr.CRYPT_LUKS),
        (ext.encode_encryption(ByteRange(1 << 40, 65536)), hdr.CRYPT_LUKS),
        (ext.encode_encryption(ByteRange(4 * 65536 + 512, 65536)), hdr.CRYPT_LUKS),
        (ext.encode_encryption(ByteRange(4 * 65536, 100)), hdr.CRYPT_LUKS),
        (ext.encode_encryption(ByteRange(4 * 65536, 1 << 50)), hdr.CRYPT_LUKS),
        (b"\xff" * 16, hdr.CRYPT_LUKS),
        (ext.encode_encryption(ByteRange(4 * 65536, 65536)), 0),
        (ext.encode_encryption(ByteRange(4 * 65536, 65536)), hdr.CRYPT_AES),
    ],
)
async def test_an_encryption_header_in_an_absurd_place_is_named(data: bytes | None, method: int, ground: Ground):
    await created(ground, "disk", MIB, encrypt=FAST)
    with_extension(ground.root / "disk", data, method)
    with pytest.raises(ImageCorrupt):
        await opened(ground, read_only=True)


async def test_an_unknown_method_is_named(ground: Ground):
    await created(ground, "disk", MIB, encrypt=FAST)
    with_extension(ground.root / "disk", None, 7)
    with pytest.raises(UnsupportedFeature, match="method 7"):
        await opened(ground, read_only=True)
