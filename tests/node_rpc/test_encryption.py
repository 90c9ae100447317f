"""Encrypted images over the API: made, opened by a secret's name, used, copied, and restored after a restart."""

import os
from pathlib import Path

import pytest

from blockyard.base.errors import (
    ImageLocked,
    InvalidArgument,
    KeyRefused,
    KeySlotUnavailable,
    MissingOption,
    OperationUnsupported,
    ResourceNotFound,
)
from blockyard.client.definitions import file, luks, qcow2, raw
from blockyard.node.copying.spec import CopyKind, FinishAction, SessionSpec
from tests.support.luks_images import PASSPHRASE, assert_luks_clean, qemu_luks_content
from tests.support.node_calls import NodeHouse, node_house
from tests.support.yard import work_off

MIB = 1 << 20
FAST = {"key_secret": "s", "iter_time": 1}


async def stored(house: NodeHouse) -> None:
    await house.client.secrets.create("s", value=PASSPHRASE)


@pytest.mark.peer("qemu-img")
async def test_a_volume_is_made_opened_written_and_read_by_qemu(house: NodeHouse):
    await stored(house)
    info = await house.client.images.create("disk.luks", 4 * MIB, format="luks", **FAST)
    assert (info.format, info.size_bytes, info.encrypted) == ("luks", 4 * MIB, True)
    assert info.format_specific["cipher-alg"].string_value == "aes-256"
    node = await house.client.nodes.open(luks(file("disk.luks"), "s", node_name="disk"))
    assert (node.size_bytes, node.encrypted) == (4 * MIB, True)
    data = os.urandom(4 * MIB)
    await house.client.data.write("disk", 0, data)
    await house.client.data.write("disk", 1001, b"in the middle of a sector")
    expected = data[:1001] + b"in the middle of a sector" + data[1026:]
    assert await house.client.data.read("disk", 0, 4 * MIB) == expected
    await house.client.nodes.close("disk")
    assert qemu_luks_content(house.folder / "disk.luks") == expected


async def test_the_dry_run_of_a_creation_asks_for_the_secret(house: NodeHouse):
    with pytest.raises(ResourceNotFound):
        await house.client.images.create("disk.luks", MIB, format="luks", validate_only=True, **FAST)
    await stored(house)
    await house.client.images.create("disk.luks", MIB, format="luks", validate_only=True, **FAST)
    assert not (house.folder / "disk.luks").exists()
    with pytest.raises(InvalidArgument):
        await house.client.images.create("disk.luks", MIB, format="luks", cipher_alg="rot13", **FAST)
    assert not (house.folder / "disk.luks").exists()


async def test_who_has_not_the_key_is_told_what_is_wrong(house: NodeHouse):
    await stored(house)
    await house.client.images.create("disk.luks", MIB, format="luks", **FAST)
    await house.client.secrets.create("other", value=b"another passphrase")
    for secret, error in (("", MissingOption), ("nobody", ResourceNotFound), ("other", KeyRefused)):
        with pytest.raises(error) as refusal:
            await house.client.nodes.open(luks(file("disk.luks"), secret))
        assert "passphrase" not in str(refusal.value) + str(refusal.value.metadata())
    await house.client.nodes.open(luks(file("disk.luks"), no_io=True, node_name="locked"))
    with pytest.raises(ImageLocked):
        await house.client.data.read("locked", 0, 512)


async def test_a_node_outlives_its_secret_and_changes_its_mode(house: NodeHouse):
    await stored(house)
    await house.client.images.create("disk.luks", MIB, format="luks", **FAST)
    definition = luks(file("disk.luks"), "s", node_name="disk", auto_read_only=True)
    assert (await house.client.nodes.open(definition)).read_only
    await house.client.secrets.remove("s")
    await house.client.data.write("disk", 0, b"written" * 100)
    assert await house.client.data.read("disk", 0, 7) == b"written"


async def test_ciphertext_goes_nowhere_by_the_kernels_copy(house: NodeHouse):
    """A copy from and to an encrypted node passes through its cipher."""
    await stored(house)
    data = os.urandom(2 * MIB)
    for name in ("one", "two"):
        await house.client.images.create(f"{name}.luks", 2 * MIB, format="luks", **FAST)
        await house.client.nodes.open(luks(file(f"{name}.luks"), "s", node_name=name))
    house.raw_file("plain.raw", 2 * MIB)
    await house.client.nodes.open(raw(file("plain.raw"), node_name="plain"))
    await house.client.data.write("one", 0, data)
    for number, (source, target) in enumerate((("one", "two"), ("two", "plain"))):
        spec = SessionSpec(f"copy{number}", "job/copy", CopyKind.MIRROR, source, target)
        session = await house.running.copies.create(spec, 1)
        await work_off(session)
        await house.running.copies.finish(spec.session_id, 1, FinishAction.ABORT)
        assert await house.client.data.read(target, 0, 2 * MIB) == data
    extents = [extent async for extent in house.client.data.block_status("one", 0, 2 * MIB)]
    assert extents and {extent.host_offset_bytes for extent in extents} == {-1}


async def test_a_restart_restores_what_is_opened_by_a_file_and_waits_for_a_value(tmp_path: Path):
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "disk.key").write_bytes(PASSPHRASE)
    options = {"state_directory": str(tmp_path / "state"), "secret_directory": str(folder)}
    async with node_house(tmp_path, **options) as house:
        await stored(house)
        await house.client.secrets.create("kept", file="disk.key")
        for name, secret in (("one", "kept"), ("two", "s")):
            await house.client.images.create(f"{name}.luks", MIB, format="luks", **FAST)
            await house.client.nodes.open(luks(file(f"{name}.luks"), secret, node_name=name))
            await house.client.data.write(name, 0, name.encode() * 512)
    async with node_house(tmp_path, **options) as house:
        assert await house.client.data.read("one", 0, 3) == b"one"
        failed = {
            entry.name: entry.reason for entry in (await house.client.catalogue.list(failed_only=True)).entries
        }
        assert failed == {"two": "RESOURCE_NOT_FOUND"}
        await stored(house)
        await house.client.catalogue.restore("node", "two")
        assert await house.client.data.read("two", 0, 3) == b"two"


# --- qcow2 -----------------------------------------------------------------------------------------------


@pytest.mark.peer("qemu-img")
async def test_a_qcow2_image_is_encrypted_by_luks(house: NodeHouse):
    await stored(house)
    info = await house.client.images.create("disk.qcow2", 4 * MIB, format="qcow2", encrypt=FAST)
    assert (info.encrypted, info.format_specific["encrypt.format"].string_value) == (True, "luks")
    with pytest.raises(MissingOption):
        await house.client.nodes.open(qcow2(file("disk.qcow2")))
    node = await house.client.nodes.open(qcow2(file("disk.qcow2"), key_secret="s", node_name="disk"))
    assert node.encrypted
    data = os.urandom(MIB)
    await house.client.data.write("disk", 1001, data)
    assert await house.client.data.read("disk", 1001, MIB) == data
    extents = [extent async for extent in house.client.data.block_status("disk", 0, 4 * MIB)]
    assert {extent.host_offset_bytes for extent in extents} == {-1}
    await house.client.nodes.close("disk")
    assert qemu_luks_content(house.folder / "disk.qcow2", "qcow2")[1001 : 1001 + MIB] == data
    assert_luks_clean(house.folder / "disk.qcow2")


async def test_a_snapshot_of_an_encrypted_image_opens_with_its_key(house: NodeHouse):
    await stored(house)
    await house.client.images.create("disk.qcow2", MIB, format="qcow2", encrypt=FAST)
    await house.client.nodes.open(qcow2(file("disk.qcow2"), key_secret="s", node_name="disk"))
    await house.client.data.write("disk", 0, b"before")
    await house.client.snapshots.create("disk", "one")
    await house.client.data.write("disk", 0, b"after ")
    await house.client.snapshots.open("disk", "one", "shown")
    assert await house.client.data.read("shown", 0, 6) == b"before"


# --- key slots -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["luks", "qcow2"])
async def test_keys_are_added_erased_and_rotated_while_the_image_is_used(format: str, house: NodeHouse):
    await stored(house)
    options = FAST if format == "luks" else {"encrypt": FAST}
    await house.client.images.create("disk", MIB, format=format, **options)
    definition = luks(file("disk"), "s") if format == "luks" else qcow2(file("disk"), key_secret="s")
    definition.node_name = "disk"
    await house.client.nodes.open(definition)
    await house.client.data.write("disk", 0, b"data")
    for name in ("new", "third"):
        await house.client.secrets.create(name, value=name.encode())
    with pytest.raises(KeySlotUnavailable):
        await house.client.keys.erase("disk", secret="s")
    state = await house.client.keys.rotate("disk", "s", "new", iter_time=1)
    prefix = "" if format == "luks" else "encrypt."
    shown = state.format_specific
    assert [shown[f"{prefix}slots.{slot}.active"].bool_value for slot in (0, 1)] == [False, True]
    await house.client.keys.add("disk", "third", slot=5, iter_time=1)
    await house.client.keys.erase("disk", slot=1)
    with pytest.raises(KeyRefused):
        await house.client.keys.rotate("disk", "s", "new")
    assert await house.client.data.read("disk", 0, 4) == b"data"
    await house.client.nodes.close("disk")
    with pytest.raises(KeyRefused):
        await house.client.nodes.open(definition)
    (definition.luks if format == "luks" else definition.qcow2.encrypt).key_secret = "third"
    await house.client.nodes.open(definition)
    assert await house.client.data.read("disk", 0, 4) == b"data"


async def test_keys_of_what_is_not_encrypted_are_refused(house: NodeHouse):
    await stored(house)
    await house.client.images.create("plain.qcow2", MIB, format="qcow2")
    await house.client.nodes.open(qcow2(file("plain.qcow2"), node_name="plain"))
    with pytest.raises(OperationUnsupported):
        await house.client.keys.add("plain", "s")
