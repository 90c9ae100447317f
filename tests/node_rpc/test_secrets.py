"""SecretService: stored, listed, forgotten; from bytes and from files; never shown; what a restart keeps."""

import base64
import logging
import os
from pathlib import Path

import pytest

from blockyard.base.errors import (
    BlockError,
    FileNotFound,
    InvalidArgument,
    LimitReached,
    PathDenied,
    ResourceExists,
    ResourceNotFound,
    SecretUnreadable,
)
from blockyard.node.graph import secrets
from blockyard.v1 import control_pb2
from tests.support.node_calls import NodeHouse, node_house

VALUE = b"correct horse battery staple"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The secret directory."""
    made = tmp_path / "secrets"
    made.mkdir()
    return made


async def test_a_secret_is_stored_listed_and_forgotten(house: NodeHouse):
    made = await house.client.secrets.create("disk-key", value=VALUE)
    assert (made.name, made.file, made.format) == ("disk-key", "", control_pb2.SECRET_FORMAT_RAW)
    await house.client.secrets.create("another", value=base64.b64encode(VALUE), base64=True)
    assert [found.name for found in await house.client.secrets.list()] == ["another", "disk-key"]
    store = house.graph.environment.secrets
    assert await store.value("disk-key") == await store.value("another") == VALUE
    await house.client.secrets.remove("disk-key")
    await house.client.secrets.remove("disk-key", allow_missing=True)
    with pytest.raises(ResourceNotFound) as refusal:
        await house.client.secrets.remove("disk-key")
    assert (refusal.value.kind, refusal.value.name) == ("secret", "disk-key")
    with pytest.raises(ResourceNotFound):
        await store.value("disk-key")


async def test_a_name_is_taken_once(house: NodeHouse):
    await house.client.secrets.create("key", value=VALUE)
    with pytest.raises(ResourceExists):
        await house.client.secrets.create("key", value=b"other")
    assert await house.graph.environment.secrets.value("key") == VALUE


async def test_a_repeated_call_is_harmless(house: NodeHouse):
    for _ in range(2):
        await house.client.secrets.create("key", value=VALUE, request_id="5f2c")
    assert len(await house.client.secrets.list()) == 1


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "source"),
        ({"value": VALUE, "file": "x"}, "source"),
        ({"value": bytes(secrets.MAX_BYTES + 1)}, "value"),
    ],
)
async def test_what_is_no_source_is_refused_by_its_field(house: NodeHouse, given, field: str):
    with pytest.raises(InvalidArgument) as refusal:
        await house.client.secrets.create("key", **given)
    assert refusal.value.name == field


@pytest.mark.parametrize("name", ["", "1x", "a/b", "x" * 129])
async def test_a_name_follows_the_rules_of_names(house: NodeHouse, name: str):
    with pytest.raises(InvalidArgument):
        await house.client.secrets.create(name, value=VALUE)


async def test_base64_that_is_none_is_refused_without_showing_it(house: NodeHouse):
    with pytest.raises(SecretUnreadable) as refusal:
        await house.client.secrets.create("key", value=b"!correct horse!", base64=True)
    assert "horse" not in str(refusal.value) + repr(refusal.value)


async def test_a_file_is_read_when_it_is_needed(tmp_path: Path, folder: Path):
    (folder / "disk.key").write_bytes(b"first")
    async with node_house(tmp_path, secret_directory=str(folder)) as house:
        assert (await house.client.secrets.create("key", file="disk.key")).file == "disk.key"
        (folder / "disk.key").write_bytes(b"second\n")
        assert await house.graph.environment.secrets.value("key") == b"second\n"
        for content in (b"", bytes(secrets.MAX_BYTES + 1)):
            (folder / "disk.key").write_bytes(content)
            with pytest.raises(SecretUnreadable):
                await house.graph.environment.secrets.value("key")


async def test_nothing_outside_the_secret_directory_is_read(tmp_path: Path, folder: Path):
    (tmp_path / "outside").write_bytes(VALUE)
    (folder / "link").symlink_to("../outside")
    (folder / "..data").mkdir()
    (folder / "..data" / "key").write_bytes(VALUE)
    (folder / "mounted").symlink_to("..data/key")
    os.mkfifo(folder / "pipe")
    async with node_house(tmp_path, secret_directory=str(folder)) as house:
        for path in ("../outside", "/etc/passwd", str(tmp_path / "outside"), "link", "a/../../outside", "pipe"):
            with pytest.raises(PathDenied):
                await house.client.secrets.create("key", file=path)
        with pytest.raises(FileNotFound):
            await house.client.secrets.create("key", file="nothing")
        # As Kubernetes mounts them.
        await house.client.secrets.create("key", file="mounted")
        assert await house.graph.environment.secrets.value("key") == VALUE


async def test_without_a_secret_directory_no_file_is_read(house: NodeHouse):
    with pytest.raises(PathDenied, match="secret_directory"):
        await house.client.secrets.create("key", file="disk.key")


async def test_systemds_credentials_are_the_secret_directory_by_default(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    (folder / "disk.key").write_bytes(VALUE)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    async with node_house(tmp_path) as house:
        await house.client.secrets.create("key", file="disk.key")
        assert await house.graph.environment.secrets.value("key") == VALUE


async def test_a_restart_keeps_the_names_of_files_and_no_value(tmp_path: Path, folder: Path):
    (folder / "disk.key").write_bytes(VALUE)
    options = {"state_directory": str(tmp_path / "state"), "secret_directory": str(folder)}
    async with node_house(tmp_path, **options) as house:
        await house.client.secrets.create("by-file", file="disk.key")
        await house.client.secrets.create("by-value", value=b"gone with the process")
        await house.client.secrets.create("removed", file="disk.key")
        await house.client.secrets.remove("removed")
    kept = b"".join(path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file())
    assert b"disk.key" in kept and VALUE not in kept and b"gone with" not in kept and b"by-value" not in kept
    async with node_house(tmp_path, **options) as house:
        assert [found.name for found in await house.client.secrets.list()] == ["by-file"]
        assert await house.graph.environment.secrets.value("by-file") == VALUE


async def test_a_value_is_in_no_text_and_no_message(house: NodeHouse, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    created = control_pb2.CreateSecretRequest(name="key", value=VALUE)
    await house.client.secrets.create("key", value=VALUE)
    for name, value in (("key", VALUE), ("key two", VALUE), ("third", VALUE * 1000)):
        with pytest.raises(BlockError) as refusal:
            await house.client.secrets.create(name, value=value)
        assert "horse" not in f"{refusal.value} {refusal.value!r} {refusal.value.metadata()}"
    secret = house.graph.environment.secrets.get("key")
    assert "horse" not in f"{secret} {secret!r} {house.graph.environment!r}"
    listed = control_pb2.ListSecretsResponse(secrets=await house.client.secrets.list())
    assert VALUE not in listed.SerializeToString()
    assert "horse" not in caplog.text
    assert {field.name for field in control_pb2.Secret.DESCRIPTOR.fields} == {"name", "file", "format"}
    assert created.DESCRIPTOR.fields_by_name["value"].GetOptions().debug_redact


async def test_secrets_are_bounded(house: NodeHouse, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(secrets, "MAX_SECRETS", 2)
    for name in ("one", "two"):
        await house.client.secrets.create(name, value=VALUE)
    with pytest.raises(LimitReached):
        await house.client.secrets.create("three", value=VALUE)
