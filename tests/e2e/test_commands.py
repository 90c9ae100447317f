"""The command line on a real daemon, as a newcomer would use it."""

import os
from pathlib import Path

import pytest

from blockyard.cli.exits import Exit
from tests.support import peers
from tests.support.command import Cli
from tests.support.daemon import Daemon


async def done(cli: Cli, *tokens: str):
    """A command that must succeed."""
    ran = await cli(*tokens)
    assert ran.code == 0, f"{' '.join(tokens)}: {ran.code}\n{ran.err}"
    return ran


@pytest.fixture
async def disk(cli: Cli, tmp_path: Path):
    """An open qcow2 image of 8 MiB whose first MiB is random; the name, closed afterwards."""
    name = f"d{os.urandom(4).hex()}"
    (tmp_path / "content").write_bytes(os.urandom(1 << 20))
    await done(cli, "image", "create", f"{name}.qcow2", "--format", "qcow2", "--size", "8M")
    await done(cli, "node", "open", f"{name}.qcow2", "--format", "qcow2", "--name", name)
    await done(cli, "io", "write", name, "--file", str(tmp_path / "content"))
    yield name
    await cli("node", "close", name, "--allow-missing")


async def target(cli: Cli, name: str, *more: str) -> str:
    await done(cli, "image", "create", f"{name}.qcow2", "--format", "qcow2", "--size", "8M", *more)
    await done(cli, "node", "open", f"{name}.qcow2", "--format", "qcow2", "--name", name)
    return name


async def content(cli: Cli, node: str, path: Path) -> bytes:
    await done(cli, "io", "read", node, "--file", str(path), "-q")
    return path.read_bytes()


async def test_what_is_written_is_read_and_survives_a_close(cli: Cli, disk: str, tmp_path: Path):
    written = (tmp_path / "content").read_bytes() + bytes(7 << 20)
    assert await content(cli, disk, tmp_path / "out") == written
    await done(cli, "io", "flush", disk)
    await done(cli, "node", "close", disk)
    await done(cli, "node", "open", f"{disk}.qcow2", "--format", "qcow2", "--name", disk, "--read-only")
    assert await content(cli, disk, tmp_path / "again") == written


async def test_an_image_is_inspected_probed_and_checked(cli: Cli, disk: str):
    await done(cli, "node", "close", disk)
    info = (await done(cli, "image", "info", f"{disk}.qcow2", "-o", "json")).json
    assert (info["format"], info["size_bytes"], info["cluster_size_bytes"]) == ("qcow2", str(8 << 20), "65536")
    assert (await done(cli, "image", "info", f"{disk}.qcow2", "--probe")).out.splitlines()[1].startswith("qcow2")
    check = (await done(cli, "image", "check", f"{disk}.qcow2", "--format", "qcow2", "-o", "json")).json
    assert (check["allocated_clusters"], check["total_clusters"]) == ("16", "128")


async def test_a_map_shows_data_and_holes_of_a_closed_image(cli: Cli, disk: str):
    await done(cli, "node", "close", disk)
    ran = await done(cli, "image", "map", f"{disk}.qcow2", "--format", "qcow2", "-o", "jsonl")
    assert sum(int(extent["length_bytes"]) for extent in ran.lines if extent["data"]) == 1 << 20
    assert sum(int(extent["length_bytes"]) for extent in ran.lines) == 8 << 20
    assert "map-" not in (await done(cli, "node", "list", "--all")).out


async def test_zeroes_and_discards_reach_the_image(cli: Cli, disk: str, tmp_path: Path):
    await done(cli, "io", "zero", disk, "--offset", "64K", "--length", "64K", "--unmap")
    await done(cli, "io", "discard", disk, "--offset", "128K", "--length", "64K")
    assert (await content(cli, disk, tmp_path / "out"))[65536:131072] == bytes(65536)


async def test_a_chain_is_a_tree_and_its_base_cannot_be_closed(cli: Cli, disk: str):
    top = f"t{disk}"
    await done(
        cli, "image", "create", f"{top}.qcow2", "--format", "qcow2", "--size", "8M",
        "--backing-file", f"{disk}.qcow2", "--backing-format", "qcow2",
    )  # fmt: skip
    await done(cli, "node", "open", f"{top}.qcow2", "--format", "qcow2", "--name", top, "--backing", disk)
    tree = (await done(cli, "node", "graph", top)).out
    assert tree.splitlines()[0].startswith(f"{top}  qcow2  8 MiB")
    assert f"backing: {disk}  qcow2" in tree
    ran = await cli("node", "close", disk)
    assert ran.code == Exit.PRECONDITION
    assert top in ran.err
    await done(cli, "job", "stream", top, "--wait", "-q")
    assert f"backing: {disk}" not in (await done(cli, "node", "graph", top)).out
    await done(cli, "node", "close", top)


async def test_a_node_grows_and_shrinks_only_when_told(cli: Cli, disk: str):
    await done(cli, "node", "resize", disk, "16M")
    ran = await cli("node", "resize", disk, "8M")
    assert ran.code == Exit.USAGE
    await done(cli, "node", "resize", disk, "8M", "--shrink")
    assert (await done(cli, "node", "show", disk, "-o", "json")).json["size_bytes"] == str(8 << 20)


async def test_a_mirror_pivots_and_the_copy_is_the_same(cli: Cli, disk: str, tmp_path: Path):
    before = await content(cli, disk, tmp_path / "before")
    copy = await target(cli, f"m{disk}")
    ran = await done(cli, "job", "mirror", disk, copy, "--id", f"job-{disk}", "--complete", "pivot", "-o", "json")
    assert ran.json["outcome"] == "JOB_OUTCOME_SUCCEEDED"
    assert "succeeded: " in ran.err
    assert await content(cli, copy, tmp_path / "after") == before
    assert f"job-{disk}" in (await done(cli, "job", "list")).out
    await done(cli, "job", "dismiss", f"job-{disk}")
    await done(cli, "node", "close", copy)


async def test_an_increment_holds_what_a_bitmap_says(cli: Cli, disk: str, tmp_path: Path):
    await done(cli, "bitmap", "add", disk, "since")
    await done(cli, "io", "write", disk, "--offset", "2M", "--pattern", "0xab", "--length", "100K")
    extents = (await done(cli, "bitmap", "extents", disk, "since", "-o", "jsonl")).lines
    assert extents == [{"offset_bytes": str(2 << 20), "length_bytes": "131072"}]
    copy = await target(cli, f"i{disk}")
    await done(cli, "job", "backup", disk, copy, "--sync", "bitmap", "--bitmap", "since", "--wait", "-q")
    found = await content(cli, copy, tmp_path / "increment")
    assert found == bytes(2 << 20) + b"\xab" * 102400 + bytes((6 << 20) - 102400)
    assert (await done(cli, "bitmap", "list", disk, "-o", "json")).json[0]["dirty_bytes"] == "0"
    await done(cli, "node", "close", copy)
    await done(cli, "bitmap", "remove", disk, "since")


async def test_a_slow_job_is_sped_up_paused_and_cancelled(cli: Cli, disk: str):
    copy = await target(cli, f"s{disk}")
    job = f"slow-{disk}"
    await done(cli, "job", "mirror", disk, copy, "--id", job, "--speed", "64K")
    assert (await done(cli, "job", "pause", job, "-o", "json")).json["job_id"] == job
    await done(cli, "job", "resume", job)
    await done(cli, "job", "speed", job, "128K")
    ran = await cli("job", "finalize", job)
    assert ran.code == Exit.PRECONDITION
    assert "In this state it accepts: " in ran.err
    await done(cli, "job", "cancel", job)
    ran = await cli("job", "watch", job, "-q")
    assert ran.code == Exit.FAILED
    assert "was cancelled" in ran.err
    await done(cli, "node", "close", copy)


async def test_bytes_go_through_standard_streams(cli: Cli, disk: str, tmp_path: Path):
    ran = await done(cli, "io", "read", disk, "--length", "4K", "-q")
    assert ran.out.encode(errors="surrogateescape") == (tmp_path / "content").read_bytes()[:4096]


@pytest.mark.peer("nbdinfo")
async def test_an_export_is_seen_by_others(cli: Cli, disk: str, yard: Daemon):
    export = (await done(cli, "export", "add", disk, "--writable", "--id", "vm", "-o", "json")).json
    uri = export["uris"][0]
    import asyncio

    seen = await asyncio.to_thread(peers.run, "nbdinfo", "--size", uri)
    assert seen.stdout.strip() == str(8 << 20)
    ran = await cli("node", "close", disk)
    assert ran.code == Exit.PRECONDITION
    await done(cli, "export", "remove", "vm", "--force")


async def test_statistics_know_the_node(cli: Cli, disk: str):
    assert "qcow2" in (await done(cli, "driver", "list")).out
    info = (await done(cli, "server", "info", "-o", "json")).json
    assert "qcow2" in info["drivers"]
    assert (await done(cli, "stats", "show")).out.startswith("NODE")
    assert (await done(cli, "stats", "latency")).out.startswith("NODE")


@pytest.mark.parametrize(
    ("tokens", "code", "says"),
    [
        (("node", "open", "absent.qcow2", "--format", "qcow2"), Exit.NOT_FOUND, "absent.qcow2"),
        (("node", "open", "/etc/passwd", "--format", "raw"), Exit.DENIED, "storage root"),
        (("image", "create", "../x", "--size", "1M"), Exit.DENIED, ".."),
        (("node", "open", "--format", "vmdk", "x"), Exit.USAGE, "vmdk"),
        (("job", "stream", "absent"), Exit.NOT_FOUND, "absent"),
        (("io", "read", "absent"), Exit.NOT_FOUND, "absent"),
        (("export", "show", "absent"), Exit.NOT_FOUND, "absent"),
    ],
)
async def test_what_cannot_be_is_refused_with_a_reason(cli: Cli, tokens, code, says):
    ran = await cli(*tokens)
    assert ran.code == code, ran.err
    assert says in ran.err
    assert len(ran.err.splitlines()) >= 2


async def test_an_image_of_another_format_is_not_opened(cli: Cli, disk: str, yard: Daemon):
    (yard.root / "text.img").write_bytes(b"no image at all" * 1000)
    ran = await cli("node", "open", "text.img", "--format", "qcow2")
    assert ran.code == Exit.USAGE
    assert "image info --probe" in ran.err
    ran = await cli("io", "write", disk, "--offset", "8M", "--pattern", "1", "--length", "1")
    assert ran.code == Exit.USAGE
    assert "lies outside" in ran.err


async def test_a_definition_written_by_hand_opens_a_node(cli: Cli, tmp_path: Path):
    (tmp_path / "null.json").write_text('{"node_name": "n0", "null": {"size": "1048576", "latency_ns": "1000"}}')
    await done(cli, "node", "open", "--definition", str(tmp_path / "null.json"))
    assert (await done(cli, "node", "show", "n0", "-o", "json")).json["driver"] == "null"
    await done(cli, "node", "close", "n0")
