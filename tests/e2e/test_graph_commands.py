"""`blockyard graph` on a real daemon: overlays, replacement and transactions under a guest's feet."""

import json
import os
from pathlib import Path

import pytest

from blockyard.cli.exits import Exit
from tests.support.command import Cli


async def done(cli: Cli, *tokens: str):
    """A command that must succeed."""
    ran = await cli(*tokens)
    assert ran.code == 0, f"{' '.join(tokens)}: {ran.code}\n{ran.err}"
    return ran


async def image(cli: Cli, name: str) -> str:
    await done(cli, "image", "create", f"{name}.qcow2", "--format", "qcow2", "--size", "1M")
    await done(cli, "node", "open", f"{name}.qcow2", "--format", "qcow2", "--name", name)
    return name


@pytest.fixture
async def pair(cli: Cli):
    """Two open images, closed afterwards: a disk and what shall be its overlay."""
    names = [await image(cli, f"{kind}{os.urandom(4).hex()}") for kind in ("disk", "top")]
    yield names
    for name in reversed(names):
        await cli("node", "close", name, "--allow-missing")


async def test_an_overlay_goes_above_a_disk(cli: Cli, pair: list[str]):
    disk, top = pair
    assert top in (await done(cli, "graph", "overlay", disk, top)).out
    state = (await done(cli, "node", "show", disk, "-o", "json")).json
    assert state["read_only"]


async def test_users_get_another_node(cli: Cli, pair: list[str]):
    disk, other = pair
    await done(cli, "node", "open", "--format", "memory", "--name", f"m{disk}", "--set", "size=1048576")
    await done(cli, "graph", "replace", disk, other)
    await done(cli, "node", "close", f"m{disk}")


async def test_a_backing_reference_is_rewritten(cli: Cli, pair: list[str]):
    disk, other = pair
    await done(cli, "graph", "change-backing-file", disk, f"{other}.qcow2", "--format", "qcow2")
    assert (await done(cli, "node", "show", disk, "-o", "json")).json["backing_file"] == f"{other}.qcow2"
    await done(cli, "graph", "change-backing-file", disk)


async def test_a_transaction_prints_what_changed(cli: Cli, pair: list[str], tmp_path: Path):
    disk, top = pair
    actions = {"actions": [{"insertOverlay": {"nodeName": disk, "overlayNodeName": top}}]}
    (tmp_path / "actions.json").write_text(json.dumps(actions))
    dry = await done(cli, "graph", "transaction", str(tmp_path / "actions.json"), "--dry-run")
    assert f"+ {top}.backing -> {disk}" in dry.out
    assert "backing" not in (await done(cli, "node", "show", top, "-o", "json")).json
    await done(cli, "graph", "transaction", str(tmp_path / "actions.json"))
    children = (await done(cli, "node", "show", top, "-o", "json")).json["children"]
    assert [child["node_name"] for child in children if child["name"] == "backing"] == [disk]


async def test_a_dry_run_that_would_fail_says_what_and_ends_with_1(cli: Cli, pair: list[str], tmp_path: Path):
    disk, _ = pair
    actions = {"actions": [{"close": {"nodeName": "nobody"}}, {"clearBitmap": {"nodeName": disk, "name": "b"}}]}
    (tmp_path / "actions.json").write_text(json.dumps(actions))
    ran = await cli("graph", "transaction", str(tmp_path / "actions.json"), "--dry-run")
    assert ran.code == Exit.FAILED
    assert "! action 0: no node named 'nobody'" in ran.out and "! action 1: no bitmap named 'b'" in ran.out


async def test_what_is_no_transaction_is_refused_before_any_call(cli: Cli, tmp_path: Path):
    (tmp_path / "actions.json").write_text('{"acts": []}')
    ran = await cli("graph", "transaction", str(tmp_path / "actions.json"))
    assert ran.code == Exit.USAGE and "RunTransactionRequest" in ran.err
