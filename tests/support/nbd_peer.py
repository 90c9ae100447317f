"""A small NBD client for tests: it says exactly what a test tells it to, right or wrong."""

import asyncio
import contextlib
from pathlib import Path
from typing import NamedTuple, Self

from blockyard.node.formats import nbd


class Reply(NamedTuple):
    """What a request was answered with; `error` 0 is success."""

    cookie: int
    error: int
    text: str
    data: bytes
    statuses: dict[int, list[tuple[int, int]]]
    chunks: int
    """Content chunks; 0 with a simple reply."""


class NbdPeer:
    """One connection. `structured` is what was negotiated."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.structured = False
        self.size = 0
        self.flags = 0
        self._sent_lengths: dict[int, int] = {}

    @classmethod
    async def connect(cls, address: Path | tuple[str, int]) -> Self:
        if isinstance(address, Path):
            return cls(*await asyncio.open_unix_connection(str(address)))
        return cls(*await asyncio.open_connection(*address))

    @classmethod
    async def open(
        cls, address: Path | tuple[str, int], name: str, structured: bool = True, contexts: tuple[str, ...] = ()
    ) -> Self:
        """Connected and in the transmission phase."""
        peer = await cls.connect(address)
        await peer.greet()
        if structured:
            assert (await peer.option(nbd.OPT_STRUCTURED_REPLY))[-1][0] == nbd.REP_ACK
            peer.structured = True
        if contexts:
            await peer.option(nbd.OPT_SET_META_CONTEXT, nbd.meta_query(nbd.MetaQuery(name, contexts)))
        replies = await peer.option(nbd.OPT_GO, nbd.info_query(nbd.InfoQuery(name, ())))
        assert replies[-1][0] == nbd.REP_ACK, replies
        export = next(data for _, data in replies if data[:2] == b"\0\0")  # NBD_INFO_EXPORT; QEMU tells more
        peer.size, peer.flags = nbd.parse_info_export(export)
        return peer

    async def greet(self, flags: int = nbd.FLAG_C_FIXED_NEWSTYLE | nbd.FLAG_C_NO_ZEROES) -> int:
        handshake = nbd.parse_greeting(await self.reader.readexactly(nbd.GREETING.size))
        self.send(nbd.CLIENT_FLAGS.pack(flags))
        return handshake

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def option(self, option: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        """Send an option; all its replies (type, data) up to the final one."""
        self.send(nbd.option(option, data))
        replies = []
        while True:
            reply = nbd.parse_option_reply(await self.reader.readexactly(nbd.OPTION_REPLY.size))
            assert reply.option == option
            replies.append((reply.kind, await self.reader.readexactly(reply.length)))
            if reply.kind == nbd.REP_ACK or reply.kind & nbd.REP_ERROR_BIT:
                return replies

    def request(
        self, kind: int, cookie: int, offset: int = 0, length: int = 0, flags: int = 0, data: bytes = b""
    ) -> None:
        self._sent_lengths[cookie] = length if kind == nbd.CMD_READ else 0
        self.send(nbd.request(kind, cookie, offset, length, flags) + data)

    async def reply(self) -> Reply:
        """The next reply, whichever request it answers."""
        head = await self.reader.readexactly(nbd.SIMPLE_REPLY.size)
        if head[:4] == nbd.SIMPLE_REPLY_MAGIC.to_bytes(4, "big"):
            cookie, error = nbd.parse_simple_reply(head)
            length = self._sent_lengths.pop(cookie)
            assert not (self.structured and length), "a read was answered by a simple reply"
            return Reply(cookie, error, "", b"" if error else await self.reader.readexactly(length), {}, 0)
        return await self._structured(head)

    async def _structured(self, head: bytes) -> Reply:
        data, text, error, chunks = b"", "", 0, 0
        statuses: dict[int, list[tuple[int, int]]] = {}
        while True:
            head += await self.reader.readexactly(nbd.CHUNK.size - len(head))
            chunk = nbd.parse_chunk(head)
            payload = await self.reader.readexactly(chunk.length)
            if chunk.kind == nbd.REPLY_TYPE_OFFSET_DATA:
                data += payload[8:]
                chunks += 1
            elif chunk.kind == nbd.REPLY_TYPE_BLOCK_STATUS:
                context, extents = nbd.parse_block_status(payload)
                statuses[context] = extents
            elif chunk.kind == nbd.REPLY_TYPE_ERROR:
                error, text = nbd.parse_error(payload)
            if chunk.flags & nbd.REPLY_FLAG_DONE:
                self._sent_lengths.pop(chunk.cookie, None)
                return Reply(chunk.cookie, error, text, data, statuses, chunks)
            head = b""

    async def ask(self, kind: int, offset: int = 0, length: int = 0, flags: int = 0, data: bytes = b"") -> Reply:
        """One request and its reply."""
        self.request(kind, 0xC00C1E, offset, length, flags, data)
        return await self.reply()

    async def write(self, offset: int, data: bytes, flags: int = 0) -> Reply:
        return await self.ask(nbd.CMD_WRITE, offset, len(data), flags, data)

    async def read(self, offset: int, length: int, flags: int = 0) -> Reply:
        return await self.ask(nbd.CMD_READ, offset, length, flags)

    async def ended(self) -> bytes:
        """What still comes until the server closes the connection."""
        try:
            return await self.reader.read(-1)
        except ConnectionError:
            return b""

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()
