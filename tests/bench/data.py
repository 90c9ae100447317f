"""What the API's byte streams reach beside a bare grpc.aio echo of the same messages, on the same machine.

Each case is a coroutine that takes a folder to work in and returns figures by name; a harness runs them. Servers
are processes of their own, so that client and server have a core each.

    python -m tests.bench.data            prints all cases
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc

from blockyard.base.units import KIB, MIB
from blockyard.client import Client
from blockyard.client.definitions import file, raw
from blockyard.v1 import data_pb2, data_pb2_grpc
from tests.bench.harness import Row, more

CHUNK: Final = 256 * KIB
TOTAL: Final = 512 * MIB
SMALL: Final = 4 * KIB
DEPTH: Final = 32
REQUESTS: Final = 60_000
ROUNDS: Final = 5
"""The best of so many: others use the machine too."""
OPTIONS: Final = [("grpc.max_receive_message_length", 16 * MIB), ("grpc.max_send_message_length", 16 * MIB)]

Figures = dict[str, float]


class Bare(data_pb2_grpc.DataServiceServicer):
    """The same messages with nothing behind them."""

    async def Read(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        content = bytes(CHUNK)
        for offset in range(0, TOTAL, CHUNK):
            yield data_pb2.ReadResponse(offset_bytes=offset, data=content)

    async def Write(self, requests: Any, context: Any) -> Any:  # noqa: N802
        written = 0
        async for request in requests:
            written += len(request.data)
        return data_pb2.WriteResponse(written_bytes=written)

    async def IoSession(self, requests: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        content = bytes(SMALL)
        async for message in requests:
            if message.WhichOneof("message") == "open":
                yield data_pb2.IoSessionResponse(opened=data_pb2.IoSessionOpened(max_in_flight=256))
                continue
            results = [data_pb2.IoResult(id=item.id, data=content) for item in message.batch.requests]
            yield data_pb2.IoSessionResponse(results=results)


async def serve_bare(path: str) -> None:
    server = grpc.aio.server(options=OPTIONS)
    data_pb2_grpc.add_DataServiceServicer_to_server(Bare(), server)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    await server.wait_for_termination()


@asynccontextmanager
async def _process(*arguments: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments)
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def _stub(folder: Path, bare: bool) -> AsyncIterator[Any]:
    """A stub of DataService; behind it node "disk" on a real file, or nothing."""
    socket = folder / ("bare.sock" if bare else "node.sock")
    if bare:
        arguments = ("-m", "tests.bench.data", "serve-bare", str(socket))
    else:
        arguments = (
            "-m", "blockyard.node", "--listen", f"unix:{socket}", "--storage-roots", str(folder),
            "--log-level", "warning",
        )  # fmt: skip
    async with _process(*arguments), grpc.aio.insecure_channel(f"unix:{socket}", options=OPTIONS) as channel:
        await asyncio.wait_for(channel.channel_ready(), 30)
        if not bare:
            async with Client.connect(f"unix:{socket}") as client:
                await client.images.create("disk.raw", TOTAL, overwrite=True)
                await client.nodes.open(raw(file("disk.raw"), node_name="disk"))
        yield data_pb2_grpc.DataServiceStub(channel)


async def _read(stub: Any) -> float:
    started, received = time.perf_counter(), 0
    async for response in stub.Read(data_pb2.ReadRequest(node_name="disk", chunk_bytes=CHUNK)):
        received += len(response.data)
    assert received == TOTAL
    return TOTAL / (time.perf_counter() - started)


async def _write(stub: Any) -> float:
    content = bytes(range(256)) * (CHUNK // 256)

    async def pieces() -> AsyncIterator[Any]:
        for offset in range(0, TOTAL, CHUNK):
            yield data_pb2.WriteRequest(node_name="disk", offset_bytes=offset, data=content)

    started = time.perf_counter()
    response = await stub.Write(pieces())
    assert response.written_bytes == TOTAL
    return TOTAL / (time.perf_counter() - started)


async def _session(stub: Any) -> float:
    """Reads of 4 KiB, always 32 in flight: a message asks for as many as the last one answered."""
    call = stub.IoSession()
    opening = data_pb2.IoSessionOpen(node_name="disk", max_in_flight=DEPTH)
    await call.write(data_pb2.IoSessionRequest(open=opening))
    await call.read()
    sent = received = 0
    started = time.perf_counter()
    room = DEPTH
    while received < REQUESTS:
        requests = [
            data_pb2.IoRequest(
                id=sent + at,
                operation=data_pb2.IoRequest.OPERATION_READ,
                offset_bytes=(sent + at) * 7919 * SMALL % TOTAL,
                length_bytes=SMALL,
            )
            for at in range(room)
        ]
        sent += room
        await call.write(data_pb2.IoSessionRequest(batch=data_pb2.IoBatch(requests=requests)))
        response = await call.read()
        assert all(not result.code for result in response.results)
        room = len(response.results)
        received += room
    elapsed = time.perf_counter() - started
    await call.done_writing()
    return received / elapsed


async def _compared(folder: Path, measure: Callable[[Any], Awaitable[float]], unit: str, scale: float) -> Figures:
    """Both servers run, and are measured in turns: what else the machine does hits both alike."""
    best = [0.0, 0.0]
    async with _stub(folder, True) as bare, _stub(folder, False) as ours:
        await _write(ours)
        for _ in range(ROUNDS):
            best = [max(before, await measure(stub)) for before, stub in zip(best, (bare, ours), strict=True)]
    return {f"bare {unit}": best[0] / scale, f"ours {unit}": best[1] / scale, "ratio": best[1] / best[0]}


async def streamed_read(folder: Path) -> Figures:
    """Chunks of 256 KiB out of a raw file, against at least 0.8 of the echo."""
    return await _compared(folder, _read, "MiB/s", MIB)


async def streamed_write(folder: Path) -> Figures:
    """Chunks of 256 KiB into a raw file, against at least 0.8 of the echo."""
    return await _compared(folder, _write, "MiB/s", MIB)


async def session_reads(folder: Path) -> Figures:
    """Random 4 KiB reads at depth 32 in one session, against at least 0.6 of the echo."""
    return await _compared(folder, _session, "requests/s", 1)


CASES: Final = (streamed_read, streamed_write, session_reads)


def _bench(name: str, measure: Callable[[Path], Awaitable[Figures]]) -> Callable[[Path], list[Row]]:
    def run(folder: Path) -> list[Row]:
        async def measured() -> Figures:
            return await measure(folder)

        bare, ours, _ = asyncio.run(measured()).items()
        return [more(name, ours[1], bare[1], "bare grpc.aio", ours[0].removeprefix("ours "))]

    return run


NAMES: Final = ("api-streamed-read", "api-streamed-write", "api-session-4k-32")
BENCHES: Final[dict[str, Callable[[Path], list[Row]]]] = {
    name: _bench(name, case) for name, case in zip(NAMES, CASES, strict=True)
}


async def main() -> None:
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            figures = await case(Path(folder))
        print(case.__name__, json.dumps({name: round(value, 2) for name, value in figures.items()}))


if __name__ == "__main__":
    asyncio.run(serve_bare(sys.argv[2]) if sys.argv[1:2] == ["serve-bare"] else main())
