"""The driver `luks`: the contract, and QEMU and cryptsetup both ways."""

import os
import random
from pathlib import Path

import pytest

from blockyard.base.errors import (
    ImageLocked,
    InvalidArgument,
    KeyRefused,
    MissingOption,
    OperationUnsupported,
    ResourceNotFound,
)
from blockyard.base.units import KIB, MIB
from blockyard.node.drivers.luks import Luks
from blockyard.node.interface.child import Child
from blockyard.node.interface.flags import Preallocation
from blockyard.node.interface.mapping import MapKind
from tests.support.contract import DriverContract
from tests.support.ground import DriverChild, Ground
from tests.support.luks_images import (
    PASSPHRASE,
    cryptsetup,
    cryptsetup_opens,
    qemu_create_luks,
    qemu_luks_content,
    qemu_luks_info,
    qemu_luks_write,
)

FAST: dict[str, object] = {"key_secret": "s", "iter_time": 1}
SECOND: dict[str, object] = {**FAST, "version": "luks2", "pbkdf_memory": 64, "pbkdf_parallel": 1}


async def made(ground: Ground, name: str = "disk", size: int = MIB, **options: object) -> None:
    """A volume of ours."""
    ground.secrets.values.setdefault("s", PASSPHRASE)
    (ground.root / name).touch()
    file = await ground.open("file", {"filename": name})
    await ground.create("luks", {**FAST, "size": size, **options}, {"file": file})
    await ground.close(file)


async def opened(ground: Ground, name: str = "disk", read_only: bool = False, **options: object) -> DriverChild:
    ground.secrets.values.setdefault("s", PASSPHRASE)
    file = await ground.open("file", {"filename": name}, read_only=read_only)
    given = options if "no_io" in options else {"key_secret": "s", **options}
    return await ground.open("luks", given, {"file": file}, name="top", read_only=read_only)


@pytest.fixture
async def ground(tmp_path: Path):
    ground = Ground(tmp_path)
    yield ground
    await ground.leave()


class LuksContract(DriverContract):
    driver = "luks"
    grows_by_writing = False
    discard_zeroes = False

    def create_options(self) -> dict[str, object]:
        return FAST

    async def prepare(self, ground: Ground) -> None:
        await made(ground, size=self.size, **self.create_options())
        node = await opened(ground)
        for at in range(0, self.size, 64 * KIB):
            await node.write(at, bytes(64 * KIB))
        await node.flush()
        await ground.close_all()

    def options(self) -> dict[str, object]:
        return {"key_secret": "s"}

    async def children(self, ground: Ground, read_only: bool) -> dict[str, Child]:
        return {"file": await ground.open("file", {"filename": "disk"}, read_only=read_only)}


class TestLuks(LuksContract):
    driver = "luks"


class TestLuks2(LuksContract):
    driver = "luks"

    def create_options(self) -> dict[str, object]:
        return {**SECOND, "sector_size": 4096}


# --- beside QEMU -----------------------------------------------------------------------------------------

MATRIX = [
    {},
    {"cipher_alg": "aes-128"},
    {"cipher_alg": "aes-192", "ivgen_alg": "plain"},
    {"cipher_alg": "aes-256", "cipher_mode": "cbc", "ivgen_alg": "essiv", "ivgen_hash_alg": "sha256"},
    {"cipher_alg": "aes-128", "cipher_mode": "cbc", "hash_alg": "sha1"},
    {"cipher_mode": "cbc", "hash_alg": "sha512", "ivgen_alg": "plain"},
    {"cipher_mode": "ctr", "hash_alg": "sha384"},
    {"cipher_mode": "ecb"},
    {"ivgen_alg": "essiv", "ivgen_hash_alg": "sha256", "hash_alg": "ripemd160"},
]  # fmt: skip


def named(options: dict[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in options.items()) or "default"


@pytest.mark.peer("qemu-img")
@pytest.mark.peer("qemu-io")
@pytest.mark.parametrize("options", MATRIX, ids=named)
async def test_we_read_and_write_what_qemu_made(options: dict[str, str], ground: Ground):
    path = ground.root / "disk"
    qemu_create_luks(path, MIB, *(f"{name.replace('_', '-')}={value}" for name, value in options.items()))
    qemu_luks_write(path, "write -P 7 0 1M", "write -P 9 300k 5k")
    model = bytearray(b"\x07" * MIB)
    model[300 * KIB : 305 * KIB] = b"\x09" * (5 * KIB)
    node = await opened(ground)
    assert node.size == MIB
    assert await node.content() == model
    for offset, length in ((512, 512), (8 * KIB, 4 * KIB), (100 * KIB, 200 * KIB), (MIB - 512, 512)):
        data = os.urandom(length)
        await node.write(offset, data)
        model[offset : offset + length] = data
    await node.flush()
    await ground.close_all()
    assert qemu_luks_content(path) == model


@pytest.mark.peer("qemu-img")
@pytest.mark.parametrize("options", MATRIX, ids=named)
async def test_qemu_reads_what_we_made(options: dict[str, str], ground: Ground):
    await made(ground, **options)
    node = await opened(ground)
    data = random.Random(5).randbytes(MIB)
    await node.write(0, data)
    facts = (await node.driver.info()).specific
    await ground.close_all()
    path = ground.root / "disk"
    assert qemu_luks_content(path) == data
    theirs = qemu_luks_info(path)["format-specific"]["data"]
    for name in (
        "cipher-alg",
        "cipher-mode",
        "hash-alg",
        "uuid",
        "payload-offset",
        "master-key-iters",
        "ivgen-alg",
    ):
        assert name not in facts or theirs[name] == facts[name], name
    for number, slot in enumerate(theirs["slots"]):
        assert facts[f"slots.{number}.active"] == slot["active"] == (number == 0)
        assert facts[f"slots.{number}.key-offset"] == slot["key-offset"]


# --- beside cryptsetup -----------------------------------------------------------------------------------


@pytest.mark.peer("cryptsetup")
@pytest.mark.parametrize(
    "options",
    [
        ["--type", "luks1", "--iter-time", "10"],
        ["--type", "luks1", "--iter-time", "10", "--cipher", "aes-cbc-essiv:sha256", "--key-size", "256"],
        ["--type", "luks2", "--pbkdf", "pbkdf2", "--iter-time", "10", "--sector-size", "512"],
        ["--type", "luks2", "--pbkdf-memory", "1024", "--iter-time", "10"],
        ["--type", "luks2", "--pbkdf-memory", "64", "--iter-time", "10", "--hash", "sha512",
         "--luks2-metadata-size", "64k"],
    ],
    ids=lambda options: "-".join(options[1::2]),
)  # fmt: skip
async def test_we_open_what_cryptsetup_made(options: list[str], ground: Ground):
    path = ground.root / "disk"
    with path.open("wb") as file:
        file.truncate(20 * MIB)
    cryptsetup("luksFormat", *options, path, folder=ground.root)
    node = await opened(ground)
    assert 0 < node.size < 20 * MIB
    data = os.urandom(64 * KIB)
    await node.write(0, data)
    assert await node.content(0, len(data)) == data
    await ground.close_all()
    assert cryptsetup_opens(path)


@pytest.mark.peer("cryptsetup")
@pytest.mark.parametrize("sector_size", [512, 4096])
@pytest.mark.parametrize("options", [FAST, SECOND], ids=["luks1", "luks2"])
async def test_cryptsetup_opens_what_we_made(options: dict[str, object], sector_size: int, ground: Ground):
    if options is FAST and sector_size != 512:
        return
    await made(ground, **{**options, "sector_size": sector_size})
    path = ground.root / "disk"
    assert cryptsetup_opens(path)
    assert not cryptsetup_opens(path, b"wrong")
    shown = cryptsetup("luksDump", "--dump-volume-key", path, folder=ground.root)
    assert ("LUKS header information" in shown) and "MK dump" in shown


@pytest.mark.peer("cryptsetup")
@pytest.mark.parametrize("sector_size", [512, 4096])
async def test_cryptsetup_enciphers_sectors_as_we_do(sector_size: int, ground: Ground):
    """It encrypts a file in place; the vectors of large sectors count in units of 512 bytes."""
    path, data = ground.root / "disk", os.urandom(4 * MIB)
    path.write_bytes(data + bytes(32 * MIB))
    cryptsetup(
        "reencrypt", "--encrypt", "--type", "luks2", "--reduce-device-size", "32m", "--sector-size",
        str(sector_size), "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--force-offline-reencrypt",
    path, folder=ground.root, )  # fmt: skip
    node = await opened(ground, read_only=True)
    assert await node.content(0, len(data)) == data


# --- keys ------------------------------------------------------------------------------------------------


async def test_a_wrong_passphrase_a_missing_secret_and_no_secret_are_told_apart(ground: Ground):
    await made(ground)
    ground.secrets.values["wrong"] = b"wrong"
    with pytest.raises(KeyRefused) as refusal:
        await opened(ground, key_secret="wrong")
    assert (refusal.value.secret, refusal.value.tried) == ("wrong", 1)
    await ground.close_all()
    with pytest.raises(ResourceNotFound):
        await opened(ground, key_secret="nobody")
    await ground.close_all()
    with pytest.raises(MissingOption):
        await opened(ground, key_secret="")


async def test_a_locked_disk_shows_its_header_and_no_data(ground: Ground):
    await made(ground)
    node = await opened(ground, no_io=True)
    assert node.size == MIB
    info = await node.driver.info()
    assert info.encrypted and info.specific["slots.0.active"] is True
    for request in (node.content(0, 512), node.write(0, bytes(512))):
        with pytest.raises(ImageLocked):
            await request


async def test_the_payload_may_be_in_a_file_of_its_own(ground: Ground):
    for options in (FAST, SECOND):
        await made(ground, "header", detached_header=True, **{**options, "size": 0})
        (ground.root / "payload").write_bytes(bytes(MIB))

        async def node() -> DriverChild:
            children: dict[str, Child] = {
                "file": await ground.open("file", {"filename": "payload"}),
                "header": await ground.open("file", {"filename": "header"}),
            }
            return await ground.open("luks", {"key_secret": "s"}, children, name="top")

        top = await node()
        assert top.size == MIB
        data = os.urandom(MIB)
        await top.write(0, data)
        await ground.close_all()
        assert b"LUKS" not in (ground.root / "payload").read_bytes()
        assert await (await node()).content() == data
        await ground.close_all()
        if options is FAST:
            continue
        (ground.root / "header").unlink()


# --- what is stored --------------------------------------------------------------------------------------


async def test_nothing_of_the_data_is_in_the_file(ground: Ground):
    await made(ground)
    node = await opened(ground)
    secret = b"attack at dawn! " * 32
    await node.write(0, secret * 128)
    await node.zero(512 * KIB, 64 * KIB, 0)
    await node.flush()
    await ground.close_all()
    stored = (ground.root / "disk").read_bytes()
    assert b"attack" not in stored and PASSPHRASE not in stored
    payload = stored[-MIB:]
    assert bytes(4096) not in payload[512 * KIB : 576 * KIB], "zeroes are enciphered"
    blocks = [payload[at : at + 16] for at in range(0, 64 * KIB, 16)]
    assert len(set(blocks)) == len(blocks), "equal sectors look different"


async def test_block_status_shows_no_place_and_the_kernel_copies_nothing(ground: Ground):
    await made(ground)
    mapping = (await opened(ground)).driver.lookup(0, 4096)
    assert mapping.kind is MapKind.DATA and mapping.child is not None and not mapping.child.plain


async def test_growth_reads_as_zeroes_and_a_size_of_half_a_sector_is_refused(ground: Ground):
    await made(ground)
    node = await opened(ground)
    with pytest.raises(InvalidArgument):
        await node.truncate(MIB + 100, Preallocation.OFF, exact=True)
    await node.truncate(3 * MIB, Preallocation.OFF, exact=True)
    assert await node.content(MIB) == bytes(2 * MIB)


@pytest.mark.parametrize(
    ("option", "value"),
    [("cipher_alg", "serpent-256"), ("cipher_mode", "gcm"), ("ivgen_alg", "benbi"), ("ivgen_hash_alg", "sha256"),
     ("hash_alg", "crc32"), ("iter_time", 0), ("iter_time", 10**9), ("version", "luks3"), ("sector_size", 4096),
     ("pbkdf", "argon2id"), ("label", "x"), ("size", 100), ("size", -512), ("pbkdf_parallel", 9)],
)  # fmt: skip
async def test_what_cannot_be_created_is_refused_by_its_field(option: str, value: object, ground: Ground):
    with pytest.raises(InvalidArgument) as refusal:
        await made(ground, **{option: value})
    assert refusal.value.name == option
    assert (ground.root / "disk").stat().st_size == 0


async def test_a_size_that_the_header_fixes_does_not_change(ground: Ground, monkeypatch: pytest.MonkeyPatch):
    await made(ground, **SECOND)
    node = await opened(ground)
    assert isinstance(node.driver, Luks)
    from dataclasses import replace

    header = node.driver._header
    header.volume = replace(header.volume, payload_size=512 * KIB)
    assert node.size == 512 * KIB
    with pytest.raises(OperationUnsupported):
        await node.truncate(MIB, Preallocation.OFF, exact=True)
