"""`blockyard secret` against a real node service."""

import io
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.client.definitions import file, luks
from tests.support.command import Cli
from tests.support.node_calls import NodeHouse, node_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[NodeHouse]:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "disk.key").write_bytes(b"from the service's file")
    async with node_house(tmp_path, secret_directory=str(tmp_path / "secrets")) as made:
        yield made


@pytest.fixture
def cli(house: NodeHouse, capsysbinary: pytest.CaptureFixture[bytes]) -> Cli:
    return Cli(house.client.address, capsysbinary)


def typed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


async def test_a_value_comes_from_standard_input_or_a_file_and_is_never_printed(
    cli: Cli, house: NodeHouse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    typed(monkeypatch, b"from the pipe\n")
    ran = await cli("secret", "create", "piped")
    assert (ran.code, ran.out) == (0, "stored secret piped\n")
    (tmp_path / "key.bin").write_bytes(b"\x00\xff binary")
    await cli("secret", "create", "sent", "--from-file", str(tmp_path / "key.bin"))
    await cli("secret", "create", "kept", "--file", "disk.key")
    store = house.graph.environment.secrets
    assert [await store.value(name) for name in ("piped", "sent", "kept")] == [
        b"from the pipe\n", b"\x00\xff binary", b"from the service's file"
    ]  # fmt: skip
    ran = await cli("secret", "list")
    assert [line.split() for line in ran.out.splitlines()] == [
        ["SECRET", "FILE", "FORMAT"], ["kept", "disk.key", "raw"], ["piped", "-", "raw"], ["sent", "-", "raw"]
    ]  # fmt: skip
    ran = await cli("secret", "list", "--json")
    assert "pipe\\n" not in ran.out and "value" not in ran.out


async def test_a_secret_is_deleted(cli: Cli, house: NodeHouse, monkeypatch: pytest.MonkeyPatch):
    typed(monkeypatch, b"x")
    await cli("secret", "create", "key")
    assert (await cli("secret", "delete", "key")).out == "deleted secret key\n"
    assert (await cli("secret", "delete", "key")).code != 0
    assert (await cli("secret", "delete", "key", "--allow-missing")).code == 0


async def test_keys_of_an_image_are_changed_by_commands(
    cli: Cli, house: NodeHouse, monkeypatch: pytest.MonkeyPatch
):
    for name in ("old", "new"):
        typed(monkeypatch, name.encode())
        await cli("secret", "create", name)
    await house.client.images.create("disk", 1 << 20, format="luks", key_secret="old", iter_time=1)
    await house.client.nodes.open(luks(file("disk"), "old", node_name="disk"))
    ran = await cli("key", "add", "disk", "new", "--slot", "4", "--iter-time", "1")
    assert (ran.code, ran.out) == (0, "disk opens with new\n"), ran.err
    assert (await cli("key", "erase", "disk", "--slot", "4")).out == "erased slot 4 of disk\n"
    assert (await cli("key", "erase", "disk", "old")).code != 0
    ran = await cli("key", "rotate", "disk", "old", "new", "--iter-time", "1")
    assert ran.out == "disk opens with new, and no more with old\n"
