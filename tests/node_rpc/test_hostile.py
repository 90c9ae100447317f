"""Messages that nobody would send: every answer is an error of the catalogue, none is a bug of ours, none hangs."""

import asyncio
import random
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory

from blockyard.base.errors import InternalError, RemoteError
from blockyard.client.definitions import file, memory, qcow2
from blockyard.rpc.status import from_rpc_error
from blockyard.v1 import types_pb2 as types
from tests.support.node_calls import NodeHouse

SERVICES = ("NodeService", "DataService", "BitmapService", "ExportService")
AFTER_THE_END = "Internal error from Core"
"""grpc.aio's words, in the client, when it writes to a stream that the server has ended (with an error, here)."""
LEFT_OUT = {
    "DrainNode": "later calls would wait for its lease",
    "WatchNodes": "it never ends",
    "WatchAccounting": "it never ends",
}
CALLS = 150
DEPTH = 4
NUMBERS = (-(2**63), -1, 0, 1, 2, 511, 512, 4096, 65536, 2**20, 2**26 + 512, 2**62, 2**63 - 1)
WORDS = (
    "", "m", "a", "b", "raw", "qcow2", "file", "memory", "null", "backing", "size", "filename", "a.qcow2",
    "new.img", "../up", "/etc/passwd", "a\0b", "x" * 2000, "\u2028", "#1", "json:{}", "v3", "zstd", "auto", "disk",
    "off",
)  # fmt: skip


class Hostile:
    """Fills messages at random. Reserving space is left out: a test must not fill the disk."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def message(self, descriptor: Any, depth: int = 0) -> Any:
        made = message_factory.GetMessageClass(descriptor)()
        for field in descriptor.fields:
            if field.enum_type is types.Preallocation.DESCRIPTOR or self.random.random() < 0.4:
                continue
            if field.message_type is not None and depth >= DEPTH:
                continue
            self._fill(made, field, depth)
        return made

    def _fill(self, made: Any, field: Any, depth: int) -> None:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            entry = self.message(field.message_type, depth + 1)
            target = getattr(made, field.name)
            if field.message_type.fields_by_name["value"].message_type is not None:
                target[entry.key].CopyFrom(entry.value)
            else:
                target[entry.key] = entry.value
        elif field.is_repeated:
            getattr(made, field.name).extend(self._value(field, depth) for _ in range(self.random.randrange(3)))
        elif field.message_type is not None:
            getattr(made, field.name).CopyFrom(self.message(field.message_type, depth + 1))
        else:
            setattr(made, field.name, self._value(field, depth))

    def _value(self, field: Any, depth: int) -> Any:
        if field.message_type is not None:
            return self.message(field.message_type, depth + 1)
        if field.name == "addresses":
            return self.random.choice(("", "nowhere", "unix:relative", "unix:/no/such/folder/s"))
        if field.type == field.TYPE_STRING:
            return self.random.choice(WORDS)
        if field.type == field.TYPE_BYTES:
            return self.random.randbytes(self.random.choice((0, 1, 4096)))
        if field.type == field.TYPE_BOOL:
            return self.random.random() < 0.5
        if field.type == field.TYPE_ENUM:
            return self.random.choice((0, 1, 2, 3, 99))
        number = self.random.choice(NUMBERS)
        return max(-(2**31), min(2**31 - 1, number)) if field.type == field.TYPE_INT32 else number


def methods() -> list[tuple[str, Any]]:
    pool = descriptor_pool.Default()
    found = [
        (f"/blockyard.v1.{name}/{method.name}", method)
        for name in SERVICES
        for method in pool.FindServiceByName(f"blockyard.v1.{name}").methods
    ]
    return [(path, method) for path, method in found if method.name not in LEFT_OUT]


async def answered(channel: grpc.aio.Channel, path: str, method: Any, hostile: Hostile) -> Any:
    """What a call with random messages ends with; None for success."""
    shape = ("stream" if method.client_streaming else "unary", "stream" if method.server_streaming else "unary")
    response = message_factory.GetMessageClass(method.output_type)
    made = getattr(channel, "_".join(shape))(
        path,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=response.FromString,
    )
    count = hostile.random.randrange(4) if method.client_streaming else 1
    requests = [hostile.message(method.input_type) for _ in range(count)]
    call = made(iter(requests) if method.client_streaming else requests[0])
    try:
        async with asyncio.timeout(30):
            if method.server_streaming:
                async for _ in call:
                    pass
            else:
                await call
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error, path)
    return None


@pytest.mark.parametrize("seed", range(6))
async def test_random_messages_are_answered_by_the_catalogue(house: NodeHouse, seed: int):
    await house.client.images.create("a.qcow2", 2**20, format="qcow2")
    hostile, errors = Hostile(seed), 0
    for number in range(CALLS):
        if "m" not in house.graph.nodes:
            await house.client.nodes.open(memory(2**20, node_name="m"))
        if number == 0:
            await house.client.nodes.open(qcow2(file("a.qcow2"), node_name="a"))
        path, method = hostile.random.choice(methods())
        error = await answered(house.channel, path, method, hostile)
        assert not isinstance(error, InternalError), f"{path}: {error}"
        assert not isinstance(error, RemoteError) or error.detail == AFTER_THE_END, f"{path}: {error}"
        errors += error is not None
    assert errors > CALLS // 3, "the messages are too tame"


async def test_bytes_that_are_no_message_end_the_call_only(house: NodeHouse):
    for path, method in methods():
        if method.client_streaming:
            continue
        shape = "unary_stream" if method.server_streaming else "unary_unary"
        call = getattr(house.channel, shape)(path)(b"\xff\xff\xff\xff")
        with pytest.raises(grpc.aio.AioRpcError):
            if method.server_streaming:
                await call.read()
            else:
                await call
    assert (await house.client.server.info()).version
