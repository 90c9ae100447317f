"""Exports of attachments, and the guests of them."""

import asyncio
import errno
from pathlib import Path

from blockyard.base.errors import (
    IoError,
    NoSpace,
)
from blockyard.node.formats import nbd
from tests.support import peers
from tests.support.nbd_peer import NbdPeer
from tests.support.node_calls import NodeHouse

MIB = 1 << 20
FULL = NoSpace("a", "write")
EIO = IoError("a", "pwrite", errno.EIO, "Input/output error")


def at(house: NodeHouse) -> list[str]:
    return [f"unix:{house.folder.parent}/nbd.sock"]


async def served(house: NodeHouse, attachment: str, **fields) -> str:
    """The URI of an export of an attachment."""
    fields = {"writable": True, "addresses": at(house), **fields}
    made = await house.client.exports.add_nbd("", attachment, attachment=attachment, **fields)
    return made.uris[0]


async def guest(house: NodeHouse, attachment: str, *, asking: bool = False) -> NbdPeer:
    """A client of an export of an attachment; `asking` for block sizes."""
    await served(house, attachment)
    peer = await NbdPeer.connect(Path(at(house)[0].removeprefix("unix:")))
    await peer.greet()
    wanted = (nbd.INFO_BLOCK_SIZE,) if asking else ()
    replies = await peer.option(nbd.OPT_GO, nbd.info_query(nbd.InfoQuery(attachment, wanted)))
    assert replies[-1][0] == nbd.REP_ACK
    peer.size, peer.flags = nbd.parse_info_export(replies[0][1])
    return peer


async def qemu_io(uri: str, *commands: str, check: bool = True) -> str:
    words = [word for command in commands for word in ("-c", command)]
    return (await asyncio.to_thread(peers.run, "qemu-io", "-f", "raw", *words, uri, check=check)).stdout
