"""The command line: what it prints, what it says when something is wrong, and its exit codes."""

import asyncio
import io
import json
import sys
from pathlib import Path

import pytest

from blockyard.base.errors import CATALOGUE, Code
from blockyard.cli.exits import BY_CODE, MEANINGS, Exit
from blockyard.cli.running import leading_last
from blockyard.v1 import job_pb2, types_pb2
from tests.support.command import Cli
from tests.support.fake_services import FakeServices


def text(block: str) -> str:
    """A block of expected output: no first line, no common indent, no trailing blanks."""
    lines = block.strip("\n").splitlines()
    indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return "\n".join(line[indent:].rstrip() for line in lines).rstrip() + "\n"


@pytest.fixture
def chain(fakes: FakeServices) -> FakeServices:
    """top over base, each over a file, and a guest on top."""
    top = fakes.graph.add("top", 10 << 30, "qcow2", filename="top.qcow2")
    fakes.graph.add("base", 10 << 30, "raw", filename="base.raw", read_only=True)
    fakes.graph.add("top-file", 196_616, "file", filename="top.qcow2", implicit=True)
    fakes.graph.add("base-file", 10 << 30, "file", filename="base.raw", read_only=True, implicit=True)
    top.state.children.add(name="file", node_name="top-file")
    top.state.children.add(name="backing", node_name="base")
    top.state.holders.add(kind="export", name="vm")
    top.state.jobs.append("mirror-1")
    fakes.graph.nodes["base"].state.children.add(name="file", node_name="base-file")
    fakes.graph.nodes["base"].state.holders.add(kind="node", name="top", edge="backing")
    fakes.graph.exports["vm"] = fakes_export("vm", "top")
    return fakes


def fakes_export(name: str, node: str):
    from blockyard.v1.export_pb2 import Export

    return Export(export_id=name, node_name=node, writable=True, uris=[f"nbd+unix:///{name}?socket=/run/nbd.sock"])


async def test_nodes_are_a_table(cli: Cli, chain: FakeServices):
    ran = await cli("node", "list")
    assert ran.out == text("""
        NODE  DRIVER    SIZE  MODE  FILE       USED BY             JOBS
        base  raw     10 GiB  ro    base.raw   node top (backing)  -
        top   qcow2   10 GiB  rw    top.qcow2  export vm           mirror-1
    """)
    assert ran.code == 0
    assert ran.err == ""


async def test_implicit_nodes_are_listed_when_asked(cli: Cli, chain: FakeServices):
    ran = await cli("node", "list", "--all", "--output", "jsonl")
    assert [node["node_name"] for node in ran.lines] == ["base", "base-file", "top", "top-file"]


async def test_json_has_every_field_under_its_own_name(cli: Cli, chain: FakeServices):
    ran = await cli("node", "list", "-o", "json")
    node = ran.json[1]
    assert node["size_bytes"] == str(10 << 30)
    assert node["copy_on_read"] == 0
    assert set(node) == {field.name for field in types_pb2.BlockDriverState.DESCRIPTOR.fields} - {
        field.name for field in types_pb2.BlockDriverState.DESCRIPTOR.fields if field.has_presence
    } | {name for name in node if name in ("create_time",)}


async def test_an_empty_list_is_a_header_or_an_empty_array(cli: Cli):
    assert (await cli("export", "list")).out == "EXPORT  NODE  MODE  CLIENTS  URI\n"
    assert (await cli("export", "list", "-o", "json")).json == []
    assert (await cli("export", "list", "-o", "jsonl")).out == ""


async def test_the_graph_is_a_tree(cli: Cli, chain: FakeServices):
    ran = await cli("node", "graph")
    assert ran.out == text("""
        top  qcow2  10 GiB  top.qcow2  [export vm, job mirror-1]
        ├─ file: top-file  file  192 KiB  top.qcow2
        └─ backing: base  raw  10 GiB  read-only  base.raw
           └─ file: base-file  file  10 GiB  read-only  base.raw
    """)


async def test_a_node_with_two_parents_is_drawn_once(cli: Cli, chain: FakeServices):
    other = chain.graph.add("other", 10 << 30, "qcow2")
    other.state.children.add(name="backing", node_name="base")
    ran = await cli("node", "graph")
    assert ran.out.startswith("other  qcow2  10 GiB\n└─ backing: base  raw")
    assert "└─ backing: base (drawn above)\n" in ran.out
    assert ran.out.count("base-file") == 1


async def test_the_graph_for_graphviz_has_nodes_edges_and_users(cli: Cli, chain: FakeServices):
    ran = await cli("node", "graph", "--output", "dot")
    assert ran.out.startswith("digraph blockyard {\n")
    assert '"top" -> "base" [label="backing", style="dotted"];' in ran.out
    assert '"export vm" -> "top";' in ran.out
    assert '"top-file" [label="top-file\\nfile\\n192 KiB\\ntop.qcow2", style="dashed"];' in ran.out


async def test_no_graph_is_said_in_words(cli: Cli):
    assert (await cli("node", "graph")).out == "no nodes are open\n"


async def test_a_node_is_opened_by_the_short_form(cli: Cli, fakes: FakeServices):
    ran = await cli(
        "node",
        "open",
        "top.qcow2",
        "--format",
        "qcow2",
        "--name",
        "top",
        "--read-only",
        "--set",
        "l2_cache_size=1M",
    )
    assert ran.code == 0
    assert ran.out == text("""
        node    top
        driver  qcow2
        size    4 MiB (4194304 bytes)
        mode    read-only
        file    top.qcow2
        opened  2023-11-14 22:13:20 UTC
    """)
    definition = fakes.graph.opened[0].definition
    assert definition.qcow2.l2_cache_size == 1 << 20
    assert definition.qcow2.file.definition.read_only


async def test_direct_and_backing_reach_the_definition(cli: Cli, fakes: FakeServices):
    await cli("node", "open", "a.qcow2", "--format", "qcow2", "--direct", "--backing", "none", "--dry-run")
    request = fakes.graph.opened[0]
    assert request.validate_only
    assert request.definition.cache.direct
    assert request.definition.qcow2.file.definition.cache.direct
    assert request.definition.qcow2.backing.none


async def test_a_whole_definition_comes_from_a_file(cli: Cli, fakes: FakeServices, tmp_path: Path):
    path = tmp_path / "chain.json"
    path.write_text('{"null": {"size": "1048576"}, "labels": {"vm": "7"}}')
    ran = await cli("node", "open", "--definition", str(path), "--name", "n0", "-o", "json")
    assert ran.json["node_name"] == "n0"
    assert fakes.graph.opened[0].definition.labels["vm"] == "7"


async def test_a_definition_that_is_none_says_where_the_fields_stand(cli: Cli, tmp_path: Path):
    path = tmp_path / "chain.json"
    path.write_text('{"nul": {}}')
    ran = await cli("node", "open", "--definition", str(path))
    assert ran.code == Exit.USAGE
    assert '"nul"' in ran.err
    assert "drivers.proto" in ran.err


async def test_formats_are_never_guessed(cli: Cli):
    ran = await cli("node", "open", "disk.img")
    assert ran.code == Exit.USAGE
    assert ran.err == text("""
        blockyard: node open needs --format (or --definition)
          Formats are not guessed; `blockyard image info --probe FILE` tells what a file looks like.
    """)


async def test_what_was_closed_is_named(cli: Cli, fakes: FakeServices):
    fakes.graph.add("disk", 4096)
    assert (await cli("node", "close", "disk")).out == "closed disk\n"
    assert (await cli("node", "close", "disk", "--allow-missing")).out == "no node disk was open\n"
    assert (await cli("node", "close", "disk", "--allow-missing", "-q")).out == ""
    assert (await cli("node", "close", "disk", "--allow-missing", "-o", "json")).json == {"closed": []}


async def test_a_node_is_resized(cli: Cli, fakes: FakeServices):
    fakes.graph.add("disk", 4096)
    assert "size    1 MiB (1048576 bytes)" in (await cli("node", "resize", "disk", "1M")).out
    ran = await cli("node", "resize", "disk", "4K")
    assert ran.code == Exit.USAGE
    assert ran.err.startswith("blockyard: size_bytes: expected at least 1048576, found 4096\n")


@pytest.mark.parametrize(
    ("tokens", "code", "says"),
    [
        (("node", "show", "absent"), Exit.NOT_FOUND, "no node named 'absent'\n  `blockyard node list` prints"),
        (("node", "close", "top"), Exit.PRECONDITION, "in use by export vm\n  Release or end what holds it"),
        (
            ("node", "open", "--format", "null", "--name", "top"),
            Exit.EXISTS,
            "a node named 'top' is open already\n",
        ),
        (("node", "open", "--format", "vmdk", "x"), Exit.USAGE, "no driver named 'vmdk'; there are: file, memory"),
        (
            ("io", "write", "base", "--pattern", "1", "--length", "1"),
            Exit.PRECONDITION,
            "node 'base' is read-only\n  Open",
        ),
        (("io", "discard", "top", "--offset", "20G", "--length", "1"), Exit.USAGE, "lies outside node 'top'"),
        (("job", "show", "absent"), Exit.NOT_FOUND, "no job named 'absent'\n"),
        (("bitmap", "clear", "top", "absent"), Exit.NOT_FOUND, "no bitmap named 'absent'"),
        (("image", "info", "absent"), Exit.NOT_FOUND, "no file 'absent'\n"),
        (("node", "lst"), Exit.USAGE, 'Unknown command "lst". Did you mean "list"?'),
        (
            ("node", "list", "--al"),
            Exit.USAGE,
            "Unknown option: --al. Did you mean --all?\n  `blockyard node list --help`",
        ),
        (("node", "show"), Exit.USAGE, "NODE"),
        (("node", "resize", "top", "big"), Exit.USAGE, "'big' is no size"),
        (("io", "write", "top", "--pattern", "300", "--length", "1"), Exit.USAGE, "'300' is no byte"),
        (("io", "write", "top", "--pattern", "1"), Exit.USAGE, "--pattern needs --length"),
        (("io", "write", "top", "--file", "/nonexistent/x"), Exit.FAILED, "/nonexistent/x"),
        (("driver", "list", "vmkd"), Exit.NOT_FOUND, "There are: qcow2, vmdk."),
        (("job", "mirror", "top", "copy", "--sync", "half"), Exit.USAGE, "sync: expected full | top | none"),
    ],
)
async def test_every_error_says_what_and_what_to_do(cli: Cli, chain: FakeServices, tokens, code, says):
    ran = await cli(*tokens)
    assert ran.code == code
    assert says in ran.err
    assert ran.err.startswith("blockyard: ")
    assert ran.out == ""


async def test_no_service_says_how_to_start_one(cli: Cli, tmp_path: Path):
    cli.address = f"unix:{tmp_path}/nobody.sock"
    ran = await cli("node", "list")
    assert ran.code == Exit.UNAVAILABLE
    assert ran.err == text(f"""
        blockyard: no service answers at {cli.address}: No such file or directory
          Start `blockyardd`, or say where it is with --address or BLOCKYARD_ADDRESS.
    """)


async def test_a_timeout_is_told_as_such(cli: Cli, fakes: FakeServices):
    fakes.node.answers.clear()
    ran = await cli("server", "info", "--timeout", "50ms")
    assert ran.code == Exit.TIMEOUT
    assert ran.err == text("""
        blockyard: no answer within --timeout
          What was asked may still happen.
    """)


def test_every_code_of_the_catalogue_has_an_exit_code_with_a_meaning():
    assert set(BY_CODE) == set(Code)
    assert {error.code for error in CATALOGUE.values()} <= set(BY_CODE)
    assert set(MEANINGS) == set(Exit)


@pytest.mark.parametrize(
    ("tokens", "ordered"),
    [
        (["--address", "a:1", "node", "list"], ["node", "list", "--address", "a:1"]),
        (["-q", "-o", "json", "io", "read", "x", "--", "-f"], ["io", "read", "x", "-q", "-o", "json", "--", "-f"]),
        (["--output=json", "node", "list"], ["node", "list", "--output=json"]),
        (["--help"], ["--help"]),
        (["--version"], ["--version"]),
        (["node", "list"], ["node", "list"]),
        ([], []),
    ],
)
def test_options_before_the_command_count_too(tokens, ordered):
    assert leading_last(tokens) == ordered


async def test_images_are_created_and_shown(cli: Cli):
    ran = await cli("image", "create", "a.qcow2", "--format", "qcow2", "--size", "10G", "--cluster-size", "4K")
    assert ran.out == text("""
        file          a.qcow2
        format        qcow2
        size          10 GiB (10737418240 bytes)
        disk usage    192 KiB (196616 bytes)
        cluster size  4 KiB (4096 bytes)
        compat        1.1
    """)
    await cli(
        "image", "create", "b.qcow2", "--format", "qcow2", "--backing-file", "a.qcow2", "--backing-format", "qcow2"
    )
    ran = await cli("image", "info", "b.qcow2", "--chain")
    assert ran.out.count("file          ") == 2
    assert "\n\nfile          a.qcow2\n" in ran.out
    assert len((await cli("image", "info", "b.qcow2", "--chain", "-o", "json")).json) == 2
    ran = await cli("image", "create", "a.qcow2")
    assert ran.code == Exit.EXISTS


async def test_a_probe_ranks_its_guesses(cli: Cli):
    assert (await cli("image", "info", "x", "--probe")).out == text("""
        FORMAT  CERTAINTY
        qcow2        100%
        raw            1%
    """)


@pytest.mark.parametrize(("name", "code"), [("good", 0), ("damaged", Exit.FAILED), ("leaky", Exit.FAILED)])
async def test_a_check_ends_with_what_it_found(cli: Cli, name, code):
    await cli("image", "create", name)
    ran = await cli("image", "check", name, "--format", "qcow2")
    assert ran.code == code
    assert ("--repair" in ran.err) == bool(code)
    assert ran.out.startswith("errors")


async def test_a_repair_of_everything_is_a_success(cli: Cli):
    await cli("image", "create", "damaged")
    ran = await cli("image", "check", "damaged", "--format", "qcow2", "--repair", "all")
    assert ran.code == 0
    assert "errors repaired  2" in ran.out


async def test_a_map_opens_a_node_for_its_time_only(cli: Cli, fakes: FakeServices):
    ran = await cli("image", "map", "x.qcow2", "--format", "qcow2", "--top-only", "-o", "jsonl")
    assert sum(int(extent["length_bytes"]) for extent in ran.lines) == 4 << 20
    definition = fakes.graph.opened[0].definition
    assert definition.read_only
    assert definition.qcow2.backing.none
    assert fakes.graph.nodes == {}


async def test_a_map_of_a_node_is_a_table(cli: Cli, fakes: FakeServices):
    fakes.graph.add("disk", 3 * 65536)
    await cli("io", "write", "disk", "--offset", "64K", "--pattern", "0xff", "--length", "1K")
    assert (await cli("io", "map", "disk")).out == text("""
         OFFSET   LENGTH  KIND  LAYER   IN FILE AT
            0x0  0x10000  hole  -       -
        0x10000  0x10000  data  0 disk  0x10000
        0x20000  0x10000  hole  -       -
    """)


async def test_bytes_go_to_files_and_come_from_them(cli: Cli, fakes: FakeServices, tmp_path: Path):
    fakes.graph.add("disk", 1 << 20)
    (tmp_path / "in").write_bytes(b"x" * 5000)
    ran = await cli("io", "write", "disk", "--file", str(tmp_path / "in"), "--offset", "1K")
    assert ran.out == "wrote 4.88 KiB\n"
    ran = await cli(
        "io", "read", "disk", "--offset", "1K", "--length", "5000", "--file", str(tmp_path / "out"), "-q"
    )
    assert ran.err == ""
    assert (tmp_path / "out").read_bytes() == b"x" * 5000


async def test_bytes_go_to_standard_output(cli: Cli, fakes: FakeServices):
    fakes.graph.add("disk", 8)
    fakes.graph.nodes["disk"].content[:] = bytes([0xFF, 0, 1, 2, 0x80, 10, 13, 255])
    ran = await cli("io", "read", "disk", "-q")
    assert ran.out.encode(errors="surrogateescape") == bytes(fakes.graph.nodes["disk"].content)


async def test_standard_input_is_written(cli: Cli, fakes: FakeServices, monkeypatch: pytest.MonkeyPatch):
    fakes.graph.add("disk", 4096)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from a pipe")))
    ran = await cli("io", "write", "disk", "-o", "json")
    assert ran.json == {"written_bytes": "11"}
    assert bytes(fakes.graph.nodes["disk"].content[:11]) == b"from a pipe"


async def test_a_hex_dump_folds_zeroes(cli: Cli, fakes: FakeServices):
    fakes.graph.add("disk", 2 << 20)
    fakes.graph.nodes["disk"].content[:5] = b"hello"
    ran = await cli("io", "read", "disk", "--hex")
    lines = ran.out.splitlines()
    assert lines[0].startswith("000000000000  68 65 6c 6c 6f 00")
    assert lines[0].endswith("  hello...........")
    assert lines[-1] == "000000040000  zeroes"


async def test_zero_discard_and_flush_say_what_they_did(cli: Cli, fakes: FakeServices):
    fakes.graph.add("disk", 1 << 20)
    assert (await cli("io", "zero", "disk", "--offset", "0", "--length", "64K")).out == "zeroed 64 KiB\n"
    assert (await cli("io", "discard", "disk", "--offset", "0", "--length", "64K")).out == "discarded 64 KiB\n"
    assert (await cli("io", "flush", "disk")).out == "nothing to flush: everything is durable\n"


async def test_bitmaps_are_a_table(cli: Cli, fakes: FakeServices):
    fakes.graph.add("disk", 1 << 20)
    ran = await cli("bitmap", "add", "disk", "monday")
    assert ran.out == text("""
        NODE  BITMAP  DIRTY  GRANULARITY  STATE
        disk  monday    0 B       64 KiB  recording
    """)
    fakes.graph.dirty["disk", "monday"] = [(0x10000, 0x20000)]
    ran = await cli("bitmap", "extents", "disk", "monday")
    assert ran.out == " OFFSET   LENGTH\n0x10000  0x20000\n"
    ran = await cli("bitmap", "extents", "disk", "monday", "-o", "jsonl")
    assert ran.lines == [{"offset_bytes": "65536", "length_bytes": "131072"}]
    assert "not recording" in (await cli("bitmap", "disable", "disk", "monday")).out
    assert "not recording" not in (await cli("bitmap", "enable", "disk", "monday")).out
    await cli("bitmap", "add", "disk", "week")
    assert (await cli("bitmap", "merge", "disk", "week", "monday", "disk/monday")).code == 0
    assert (await cli("bitmap", "merge", "disk", "week", "disk/absent")).code == Exit.NOT_FOUND
    assert "monday" in (await cli("bitmap", "show", "disk", "monday")).out
    assert len((await cli("bitmap", "hash", "disk", "monday")).out) == 65
    assert (await cli("bitmap", "remove", "disk", "monday")).out == "removed bitmap monday of disk\n"


async def test_exports_tell_where_to_connect(cli: Cli, fakes: FakeServices):
    fakes.graph.add("disk", 1 << 20)
    ran = await cli("export", "add", "disk", "--writable")
    assert ran.out == text("""
        export  disk
        node    disk
        mode    read-write
        uri     nbd+unix:///disk?socket=/run/nbd.sock
    """)
    assert "disk    disk  rw          0  nbd+unix" in (await cli("export", "list")).out
    assert (await cli("export", "show", "disk", "-o", "json")).json["export_id"] == "disk"
    assert (await cli("export", "remove", "disk")).out == "removed export disk\n"


async def test_drivers_and_their_options_are_explained(cli: Cli):
    ran = await cli("driver", "list")
    assert "qcow2   format  creatable, resizable  QEMU's copy-on-write format.\n" in ran.out
    assert "disabled: library missing" in ran.out
    ran = await cli("driver", "list", "qcow2")
    assert "lazy_refcounts  bool  as the image says  Postpone refcount updates.\n" in ran.out
    assert (await cli("driver", "list", "qcow2", "-o", "json")).json["options"][0]["name"] == "lazy_refcounts"


async def test_the_server_tells_its_limits(cli: Cli):
    assert "limit max_nodes  1000\n" in (await cli("server", "info")).out


async def test_statistics_are_tables(cli: Cli):
    assert (await cli("stats", "show")).out == text("""
        NODE  DRIVER  REQUEST  COUNT     BYTES     MEAN  FAILED
        disk  qcow2   read     1,500  5.86 MiB  20.0 us       0
    """)
    ran = await cli("stats", "latency")
    assert [line.split()[0] for line in ran.out.splitlines()] == ["NODE", "disk", "base"]
    assert "90.0 ms" in ran.out


async def test_rates_are_lines_until_the_time_is_up(cli: Cli):
    ran = await cli("stats", "watch", "disk", "--timeout", "500ms")
    assert ran.code == Exit.TIMEOUT
    lines = ran.out.splitlines()
    assert lines[0].split() == ["NODE", "REQUEST", "PER", "SECOND", "BYTES", "MEAN", "P50", "P99", "FAILED"]
    assert lines[1].split() == ["disk", "write", "1,234", "4.77", "MiB/s", "25.0", "us", "0", "ns", "0", "ns", "-"]
    ran = await cli("stats", "watch", "--timeout", "500ms", "-o", "jsonl")
    assert ran.lines[0]["rates"][0]["node_name"] == "disk"


async def test_a_job_is_started_in_the_background(cli: Cli, fakes: FakeServices):
    ran = await cli("job", "mirror", "disk", "copy", "--id", "m1", "--speed", "100M")
    assert ran.code == 0
    assert ran.out.startswith("job          m1\nkind         mirror\nwork         disk -> copy\n")
    assert "speed limit  100 MiB/s\n" in ran.out
    assert fakes.jobs.jobs["m1"].speed_bytes_per_second == 100 << 20


async def moved(fakes: FakeServices, *steps) -> None:
    await fakes.jobs.until(lambda: fakes.jobs.streams)
    for step in steps:
        await fakes.jobs.move("m1", **step)


async def test_waiting_shows_progress_and_completes_when_asked(cli: Cli, fakes: FakeServices):
    ready = {"state": "ready", "done_bytes": 4 << 20, "total_bytes": 4 << 20, "copied_bytes": 3 << 20}
    async with asyncio.TaskGroup() as group:
        group.create_task(moved(fakes, {"state": "running", "done_bytes": 1 << 20, "total_bytes": 4 << 20}, ready))
        ran = await cli("job", "mirror", "disk", "copy", "--id", "m1", "--wait", "--complete", "pivot")
    assert ran.code == 0
    assert fakes.jobs.verbs == [f"complete {job_pb2.COMPLETE_ACTION_PIVOT}"]
    lines = ran.err.splitlines()
    assert lines[0] == "mirror m1  running  0 B"
    assert "mirror m1  ready  100.0%  4 MiB of 4 MiB" in lines
    assert lines[-1] == "m1 succeeded: disk -> copy, 3 MiB copied, 0:04 (768 KiB/s)"
    assert ran.out == ""


async def test_waiting_without_a_decision_ends_when_the_mirror_is_ready(cli: Cli, fakes: FakeServices):
    async with asyncio.TaskGroup() as group:
        group.create_task(moved(fakes, {"state": "ready"}))
        ran = await cli("job", "mirror", "disk", "copy", "--id", "m1", "--wait", "-o", "json")
    assert ran.code == 0
    assert "`blockyard job complete m1` moves the users to the target" in ran.err
    assert ran.json["state"] == "JOB_STATE_READY"
    assert fakes.jobs.verbs == []


async def test_a_failed_job_fails_the_command_with_its_advice(cli: Cli, fakes: FakeServices):
    async def fail() -> None:
        await fakes.jobs.until(lambda: fakes.jobs.streams)
        fakes.jobs.jobs["m1"].error.message = "no space left for copy on node 'copy'"
        fakes.jobs.jobs["m1"].error.advice = "Make room and try again."
        await fakes.jobs.move("m1", "concluded", "failed")

    async with asyncio.TaskGroup() as group:
        group.create_task(fail())
        ran = await cli("job", "backup", "disk", "copy", "--id", "m1", "-W", "-q")
    assert ran.code == Exit.FAILED
    assert ran.err == text("""
        blockyard: backup m1 failed: no space left for copy on node 'copy'
          Make room and try again.
    """)


async def test_a_cancelled_job_fails_the_command(cli: Cli, fakes: FakeServices):
    await cli("job", "stream", "disk", "--id", "m1")
    await cli("job", "cancel", "m1", "--force")
    assert fakes.jobs.verbs == ["cancel force=True"]
    ran = await cli("job", "watch", "m1", "-q")
    assert ran.code == Exit.FAILED
    assert "was cancelled" in ran.err


async def test_a_verb_that_is_not_allowed_names_those_that_are(cli: Cli):
    await cli("job", "mirror", "disk", "copy", "--id", "m1")
    ran = await cli("job", "complete", "m1")
    assert ran.code == Exit.PRECONDITION
    assert ran.err == text("""
        blockyard: job 'm1' in state RUNNING cannot accept COMPLETE
          In this state it accepts: CANCEL, PAUSE, SET_SPEED.
    """)


async def test_jobs_are_a_table(cli: Cli, fakes: FakeServices):
    await cli("job", "mirror", "disk", "copy", "--id", "m1")
    await cli("job", "commit", "disk", "--id", "c1", "--top", "mid")
    await fakes.jobs.move("m1", "running", done_bytes=1, total_bytes=3, rate_bytes_per_second=5 << 20)
    fakes.jobs.jobs["m1"].progress.eta.FromSeconds(75)
    assert (await cli("job", "list")).out == text("""
        JOB  KIND    STATE     DONE     RATE   ETA  WORK
        c1   commit  running      -    0 B/s     -  mid -> base
        m1   mirror  running  33.3%  5 MiB/s  1:15  disk -> copy
    """)


async def test_verbs_print_the_job(cli: Cli):
    await cli("job", "mirror", "disk", "copy", "--id", "m1")
    assert "state        paused\n" in (await cli("job", "pause", "m1")).out
    assert "state        running\n" in (await cli("job", "resume", "m1")).out
    assert "speed limit  1 MiB/s\n" in (await cli("job", "speed", "m1", "1M")).out
    assert "outcome      succeeded\n" in (await cli("job", "finalize", "m1")).out
    assert (await cli("job", "dismiss", "m1")).out == "dismissed m1\n"
    assert (await cli("job", "dismiss", "m1", "--allow-missing", "-q")).out == ""


async def test_changes_of_all_jobs_are_lines(cli: Cli, fakes: FakeServices):
    await cli("job", "mirror", "disk", "copy", "--id", "m1")

    async with asyncio.TaskGroup() as group:
        group.create_task(moved(fakes, {"state": "concluded", "outcome": "succeeded"}))
        ran = await cli("job", "watch", "m1", "-o", "jsonl")
    assert [event["job"]["state"] for event in ran.lines] == ["JOB_STATE_RUNNING", "JOB_STATE_CONCLUDED"]
    assert json.loads(ran.out.splitlines()[0])["revision"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion_knows_commands_and_options(shell, capsys: pytest.CaptureFixture[str]):
    from blockyard.cli.app import build
    from blockyard.cli.running import run

    assert run(build(), ["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("mirror", "write-blocking", "--definition", "jsonl", "--install-completion"):
        assert word.removeprefix("--install-") in script or word == "--install-completion"


async def test_completion_is_installed_where_it_is_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from blockyard.cli.app import build
    from blockyard.cli.running import run

    assert run(build(), ["completion", "install", "bash", "--path", str(tmp_path / "blockyard")]) == 0
    assert "complete" in (tmp_path / "blockyard").read_text()


async def test_checkpoints_are_a_table_and_their_delta_too(cli: Cli, fakes: FakeServices):
    fakes.graph.add("disk", 1 << 20)
    ran = await cli(
        "checkpoint", "create", "disk", "nightly", "monday", "--keep-seconds", "60", "--hold", "restore"
    )
    assert "nightly" in ran.out and "held by restore" in ran.out and "until " in ran.out
    await cli("checkpoint", "create", "disk", "nightly", "tuesday")
    assert (await cli("checkpoint", "list", "disk", "--consumer", "other")).code == 0
    assert "tuesday" in (await cli("checkpoint", "list", "disk")).out
    ran = await cli("checkpoint", "delta", "disk", "nightly/monday", "nightly/tuesday")
    assert ran.out == " OFFSET   LENGTH\n0x10000  0x20000\n"
    assert "0x30000" in (await cli("checkpoint", "delta", "disk", "nightly/monday")).out
    assert "until" not in (await cli("checkpoint", "expire", "disk", "nightly", "monday")).out
    assert "restore, second" in (await cli("checkpoint", "hold", "disk", "nightly", "monday", "second")).out
    assert "restore" not in (await cli("checkpoint", "release", "disk", "nightly", "monday", "restore")).out
    ran = await cli("checkpoint", "delete", "disk", "nightly", "monday")
    assert ran.out == "deleted checkpoint nightly/monday of disk\n"
    assert (await cli("checkpoint", "show", "disk", "nightly", "monday")).code == Exit.NOT_FOUND
    assert (await cli("checkpoint", "delete", "disk", "nightly", "monday", "--allow-missing")).code == 0
