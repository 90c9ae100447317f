"""What the README tells a newcomer to type works, and prints what the README shows."""

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.support import readme

PAGE = (readme.ROOT / "README.md").read_text()
BLOCKS = readme.blocks(PAGE)
OURS = {
    f"blockyard.v1.{name}Service"
    for name in (
        *("Attachment", "Bitmap", "Copy", "Data", "Debug", "Executor", "Export"),
        *("Job", "Node", "Secret", "Snapshot", "Stats", "Throttle"),
    )
}


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short: a socket's path has 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="readme-") as path:
        yield Path(path)


def block(kind: str, name: str) -> str:
    [found] = [item.text for item in BLOCKS if (item.kind, item.name) == (kind, name)]
    return found


def settled(line: str) -> str:
    """Names that the service chose, and how far a file has grown, are different every time."""
    return re.sub(r"#\d+|[\d.]+ MiB", "#", line.rstrip())


async def listed(address: str, package: str) -> set[str]:
    """The services that reflection tells, asked in the words of one of its two versions."""
    async with grpc.aio.insecure_channel(address, options=[("grpc.default_authority", "localhost")]) as channel:
        ask = channel.stream_stream(
            f"/{package}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        call = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="*")]))
        [answer] = [response async for response in call]
    return {service.name for service in answer.list_services_response.service}


@pytest.mark.peer("qemu-io")
async def test_the_way_to_a_mirrored_image_is_as_the_readme_tells_it(directory: Path):
    async with readme.servers(block("terminal 1", "main"), directory):
        script = readme.script(BLOCKS, "main")
        printed = await readme.typed("bash", "-euc", script, directory=directory)
    lines = {settled(line) for line in printed.splitlines()}
    shown = [settled(line) for line in block("shown by", "main").splitlines()]
    assert [line for line in shown if line not in lines] == []


async def test_a_first_call_needs_nothing_but_reflection(directory: Path):
    async with readme.servers(block("terminal 1", "main"), directory):
        address = f"unix:{directory}/yard.sock"
        stable, alpha = (
            await listed(address, "grpc.reflection.v1"),
            await listed(address, "grpc.reflection.v1alpha"),
        )
        async with grpc.aio.insecure_channel(address, options=[("grpc.default_authority", "localhost")]) as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            wanted = reflection_pb2.ServerReflectionRequest(file_containing_symbol="blockyard.v1.NodeService")
            [described] = [each async for each in stub.ServerReflectionInfo(iter([wanted]))]
    assert stable == alpha
    assert {name for name in stable if name.startswith("blockyard.")} == OURS
    assert "grpc.health.v1.Health" in stable
    assert described.file_descriptor_response.file_descriptor_proto


async def test_the_python_program_prints_the_nodes(directory: Path):
    async with readme.servers(block("terminal 1", "main"), directory):
        address = f"unix:{directory}/yard.sock"
        opened = "blockyard node open --format memory --name scratch --set size=1M"
        await readme.typed("bash", "-euc", opened, directory=directory, BLOCKYARD_ADDRESS=address)
        program = block("python", "main")
        printed = await readme.typed(sys.executable, "-c", program, directory=directory, BLOCKYARD_ADDRESS=address)
    assert printed == "scratch memory 1048576\n"


async def test_three_services_answer_for_what_is_theirs(directory: Path):
    async with readme.servers(block("terminal 1", "apart"), directory):
        await readme.typed("bash", "-euc", readme.script(BLOCKS, "apart"), directory=directory)


async def test_spans_go_to_the_file_that_the_readme_names(directory: Path):
    async with readme.servers(block("terminal 1", "traced"), directory):
        await readme.typed("bash", "-euc", readme.script(BLOCKS, "traced"), directory=directory)
    spans = [json.loads(line) for line in (directory / "spans.jsonl").read_text().splitlines()]
    names = {span["name"] for span in spans}
    assert {"blockyard.v1.NodeService/CreateImage", "blk.write file"} <= names


def test_every_page_that_the_readme_names_exists():
    prose = re.sub(r"^```.*?^```$", "", PAGE, flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\((?!https?:)([^)#]+)", prose)
    assert links
    assert [link for link in links if not (readme.ROOT / link).exists()] == []


def test_both_commands_of_the_readme_are_targets_of_the_makefile():
    targets = re.findall(r"^([a-z]+):", (readme.ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"`make (\w+)", PAGE)) <= set(targets)
