"""From a connected socket to an agreed export: the specification's "Fixed newstyle negotiation", client's side.

Must not know requests. Reads not one byte beyond what it was promised, so whoever transmits afterwards finds the
stream at its beginning. Every length that the server sends is bounded before it is used.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from blockyard.base.errors import PeerUnavailable, ProtocolViolation, ResourceNotFound
from blockyard.base.units import KIB, MAX_SIZE
from blockyard.node.formats import nbd
from blockyard.node.formats.nbd import BlockSize, InfoQuery, MetaQuery

MAX_REPLY: Final = 64 * KIB
"""Data of one reply to an option. The longest that means something to us is an error text, at most 4096 bytes."""
MAX_REPLIES: Final = 64
"""Replies to one option: information items that nobody asked for are passed over, but not for ever."""
MAX_ALIGNMENT: Final = 64 * KIB
"""Largest minimum block size that the request path works with (`Limits.request_alignment`)."""


@dataclass(frozen=True, slots=True)
class Export:
    """What was agreed."""

    size: int
    flags: int
    """Transmission flags."""
    block: BlockSize | None
    """None if the server did not say."""
    structured: bool
    allocation_id: int | None
    """Id of the context base:allocation; None if the server cannot tell holes."""

    def can(self, flag: int) -> bool:
        return bool(self.flags & flag)


async def negotiate(sock: socket.socket, name: str, address: str) -> Export:
    """Agree on an export.

    Raises ProtocolViolation, ResourceNotFound for a name that the server does not know, PeerUnavailable for a
    server that refuses or goes away, OSError.
    """
    return await _Handshake(sock, name, address).run()


class _Handshake:
    def __init__(self, sock: socket.socket, name: str, address: str) -> None:
        self._sock = sock
        self._name = name
        self._address = address
        self._loop = asyncio.get_running_loop()

    async def run(self) -> Export:
        flags = nbd.parse_greeting(await self._exactly(nbd.GREETING.size))
        if not flags & nbd.FLAG_FIXED_NEWSTYLE:
            raise ProtocolViolation("NBD", "handshake flags", "fixed newstyle", f"{flags:#x}")
        no_zeroes = flags & nbd.FLAG_NO_ZEROES
        await self._send(nbd.CLIENT_FLAGS.pack(nbd.FLAG_C_FIXED_NEWSTYLE | no_zeroes))
        structured = await self._structured()
        allocation = await self._allocation() if structured else None
        size, transmission, block = await self._go(bool(no_zeroes))
        _check(size, transmission, block)
        return Export(size, transmission, block, structured, allocation)

    async def _structured(self) -> bool:
        await self._send(nbd.option(nbd.OPT_STRUCTURED_REPLY))
        kind, _ = await self._reply(nbd.OPT_STRUCTURED_REPLY)
        return kind == nbd.REP_ACK

    async def _allocation(self) -> int | None:
        query = MetaQuery(self._name, (nbd.BASE_ALLOCATION,))
        await self._send(nbd.option(nbd.OPT_SET_META_CONTEXT, nbd.meta_query(query)))
        found: int | None = None
        async for kind, data in self._replies(nbd.OPT_SET_META_CONTEXT):
            if kind == nbd.REP_META_CONTEXT:
                context_id, context = nbd.parse_meta_context(data)
                if context != nbd.BASE_ALLOCATION:
                    raise ProtocolViolation("NBD", "metadata context", nbd.BASE_ALLOCATION, context[:64])
                found = context_id
            elif kind & nbd.REP_ERROR_BIT:
                return None
        return found

    async def _go(self, no_zeroes: bool) -> tuple[int, int, BlockSize | None]:
        query = InfoQuery(self._name, (nbd.INFO_BLOCK_SIZE,))
        await self._send(nbd.option(nbd.OPT_GO, nbd.info_query(query)))
        export: tuple[int, int] | None = None
        block: BlockSize | None = None
        async for kind, data in self._replies(nbd.OPT_GO):
            if kind == nbd.REP_ERR_UNSUP:
                return await self._export_name(no_zeroes)
            if kind & nbd.REP_ERROR_BIT:
                raise self._refusal(kind, data)
            if kind != nbd.REP_INFO or len(data) < 2:
                continue
            item = int.from_bytes(data[:2], "big")
            if item == nbd.INFO_EXPORT:
                export = nbd.parse_info_export(data)
            elif item == nbd.INFO_BLOCK_SIZE:
                block = nbd.parse_info_block_size(data)
        if export is None:
            raise ProtocolViolation("NBD", "answer to NBD_OPT_GO", "NBD_INFO_EXPORT", "none")
        return *export, block

    async def _export_name(self, no_zeroes: bool) -> tuple[int, int, None]:
        """For servers older than NBD_OPT_GO: they hang up if they do not know the name."""
        await self._send(nbd.option(nbd.OPT_EXPORT_NAME, self._name.encode()))
        size, flags = nbd.EXPORT_NAME_REPLY.unpack(await self._exactly(nbd.EXPORT_NAME_REPLY.size))
        if not no_zeroes:
            await self._exactly(nbd.EXPORT_NAME_PADDING)
        return size, flags, None

    def _refusal(self, kind: int, data: bytes) -> ResourceNotFound | PeerUnavailable:
        if kind == nbd.REP_ERR_UNKNOWN:
            return ResourceNotFound(f"export of the NBD server at {self._address}", self._name)
        text = data[:1024].decode("utf-8", "replace")
        why = _REFUSALS.get(kind, f"error {kind:#x}")
        return PeerUnavailable("NBD", self._address, f"{why}: {text}" if text else why)

    # --- the stream --------------------------------------------------------------------------------------

    async def _replies(self, option: int) -> AsyncIterator[tuple[int, bytes]]:
        """Up to the acknowledgement, or to an error, which is the last that is given."""
        for _ in range(MAX_REPLIES):
            kind, data = await self._reply(option)
            if kind == nbd.REP_ACK:
                return
            yield kind, data
            if kind & nbd.REP_ERROR_BIT:
                return
        raise ProtocolViolation("NBD", "replies to an option", f"at most {MAX_REPLIES}", "more")

    async def _reply(self, option: int) -> tuple[int, bytes]:
        header = nbd.parse_option_reply(await self._exactly(nbd.OPTION_REPLY.size))
        if header.option != option:
            raise ProtocolViolation("NBD", "reply to option", str(option), str(header.option))
        if header.length > MAX_REPLY:
            raise ProtocolViolation("NBD", "length of an option reply", f"at most {MAX_REPLY}", str(header.length))
        return header.kind, await self._exactly(header.length)

    async def _send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._sock, data)

    async def _exactly(self, count: int) -> bytes:
        data = bytearray(count)
        view, filled = memoryview(data), 0
        while filled < count:
            received = await self._loop.sock_recv_into(self._sock, view[filled:])
            if not received:
                raise PeerUnavailable("NBD", self._address, "it hung up during the handshake")
            filled += received
        return bytes(data)


_REFUSALS: Final = {
    nbd.REP_ERR_POLICY: "its policy forbids it",
    nbd.REP_ERR_TLS_REQD: "it wants TLS, which this client does not speak",
    nbd.REP_ERR_SHUTDOWN: "it is shutting down",
    nbd.REP_ERR_BLOCK_SIZE_REQD: "it wants a client that keeps its block sizes",
}


def _check(size: int, flags: int, block: BlockSize | None) -> None:
    """Raises ProtocolViolation for what cannot be, or what the request path cannot work with."""
    if size > MAX_SIZE:
        raise ProtocolViolation("NBD", "export size", f"at most {MAX_SIZE}", str(size))
    if not flags & nbd.FLAG_HAS_FLAGS:
        raise ProtocolViolation("NBD", "transmission flags", "NBD_FLAG_HAS_FLAGS", f"{flags:#x}")
    if block is None:
        return
    least = block.minimum
    if not 1 <= least <= MAX_ALIGNMENT or least & (least - 1):
        raise ProtocolViolation("NBD", "minimum block size", f"a power of two up to {MAX_ALIGNMENT}", str(least))
    if block.maximum < least:
        raise ProtocolViolation("NBD", "maximum block size", f"at least the minimum {least}", str(block.maximum))
    if size % least:
        raise ProtocolViolation("NBD", "export size", f"a multiple of the block size {least}", str(size))
