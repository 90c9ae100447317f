"""The NBD protocol: constants in the order and under the names of the specification, messages in and out.

What lives here: every number of the wire, and functions that build or parse one message each, for both sides
(the server in `exports/nbd` and an NBD client driver share this module). What must not: sockets, state,
policy. The specification is `doc/proto.md` of the NBD project; sections are named beside the constants.

All integers are big-endian. A parser trusts no length: it raises `ProtocolViolation` for bytes that cannot be.
"""

from struct import Struct
from typing import Final, NamedTuple

from blockyard.base.errors import ProtocolViolation

Bytes = bytes | bytearray | memoryview

MAX_STRING: Final = 4096
"""Section "Conventions": no string (name, description, error text, context) is longer, in bytes of UTF-8."""
MAX_PAYLOAD: Final = 32 * 1024 * 1024
"""Section "Block size constraints": requests up to 2^25 bytes are never a denial of service."""
MAX_LENGTH: Final = 2**32 - 1
"""Requests carry 32-bit lengths."""

# --- "Newstyle negotiation" --------------------------------------------------------------------------------

INIT_MAGIC: Final = 0x4E42444D41474943
"""The letters NBDMAGIC."""
OPTION_MAGIC: Final = 0x49484156454F5054
"""The letters IHAVEOPT: in the greeting, and before every option."""
OPTION_REPLY_MAGIC: Final = 0x0003E889045565A9
EXPORT_NAME_PADDING: Final = 124
"""Zeroes after the answer to NBD_OPT_EXPORT_NAME, unless NBD_FLAG_C_NO_ZEROES."""

# --- "Handshake flags", "Client flags" ---------------------------------------------------------------------

FLAG_FIXED_NEWSTYLE: Final = 1 << 0
FLAG_NO_ZEROES: Final = 1 << 1

FLAG_C_FIXED_NEWSTYLE: Final = 1 << 0
FLAG_C_NO_ZEROES: Final = 1 << 1

# --- "Transmission flags" ----------------------------------------------------------------------------------

FLAG_HAS_FLAGS: Final = 1 << 0
FLAG_READ_ONLY: Final = 1 << 1
FLAG_SEND_FLUSH: Final = 1 << 2
FLAG_SEND_FUA: Final = 1 << 3
FLAG_ROTATIONAL: Final = 1 << 4
FLAG_SEND_TRIM: Final = 1 << 5
FLAG_SEND_WRITE_ZEROES: Final = 1 << 6
FLAG_SEND_DF: Final = 1 << 7
FLAG_CAN_MULTI_CONN: Final = 1 << 8
FLAG_SEND_RESIZE: Final = 1 << 9
FLAG_SEND_CACHE: Final = 1 << 10
FLAG_SEND_FAST_ZERO: Final = 1 << 11

# --- "Option types" ----------------------------------------------------------------------------------------

OPT_EXPORT_NAME: Final = 1
OPT_ABORT: Final = 2
OPT_LIST: Final = 3
OPT_PEEK_EXPORT: Final = 4
OPT_STARTTLS: Final = 5
OPT_INFO: Final = 6
OPT_GO: Final = 7
OPT_STRUCTURED_REPLY: Final = 8
OPT_LIST_META_CONTEXT: Final = 9
OPT_SET_META_CONTEXT: Final = 10

# --- "Option reply types" ----------------------------------------------------------------------------------

REP_ACK: Final = 1
REP_SERVER: Final = 2
REP_INFO: Final = 3
REP_META_CONTEXT: Final = 4
REP_ERROR_BIT: Final = 1 << 31
REP_ERR_UNSUP: Final = REP_ERROR_BIT + 1
REP_ERR_POLICY: Final = REP_ERROR_BIT + 2
REP_ERR_INVALID: Final = REP_ERROR_BIT + 3
REP_ERR_PLATFORM: Final = REP_ERROR_BIT + 4
REP_ERR_TLS_REQD: Final = REP_ERROR_BIT + 5
REP_ERR_UNKNOWN: Final = REP_ERROR_BIT + 6
REP_ERR_SHUTDOWN: Final = REP_ERROR_BIT + 7
REP_ERR_BLOCK_SIZE_REQD: Final = REP_ERROR_BIT + 8
REP_ERR_TOO_BIG: Final = REP_ERROR_BIT + 9

INFO_EXPORT: Final = 0
INFO_NAME: Final = 1
INFO_DESCRIPTION: Final = 2
INFO_BLOCK_SIZE: Final = 3

# --- "Metadata querying" -----------------------------------------------------------------------------------

BASE_ALLOCATION: Final = "base:allocation"
STATE_HOLE: Final = 1 << 0
STATE_ZERO: Final = 1 << 1

QEMU_DIRTY_BITMAP: Final = "qemu:dirty-bitmap:"
"""QEMU's namespace (its docs/interop/nbd.txt): the bitmap's name follows."""
STATE_DIRTY: Final = 1 << 0
QEMU_ALLOCATION_DEPTH: Final = "qemu:allocation-depth"
"""Status is the depth itself: 0 unallocated, 1 this layer, 2 and more a backing layer."""

# --- "Request message", "Simple reply message", "Structured reply chunk message" ---------------------------

REQUEST_MAGIC: Final = 0x25609513
SIMPLE_REPLY_MAGIC: Final = 0x67446698
STRUCTURED_REPLY_MAGIC: Final = 0x668E33EF

CMD_FLAG_FUA: Final = 1 << 0
CMD_FLAG_NO_HOLE: Final = 1 << 1
CMD_FLAG_DF: Final = 1 << 2
CMD_FLAG_REQ_ONE: Final = 1 << 3
CMD_FLAG_FAST_ZERO: Final = 1 << 4

REPLY_FLAG_DONE: Final = 1 << 0

REPLY_TYPE_NONE: Final = 0
REPLY_TYPE_OFFSET_DATA: Final = 1
REPLY_TYPE_OFFSET_HOLE: Final = 2
REPLY_TYPE_BLOCK_STATUS: Final = 5
REPLY_ERROR_BIT: Final = 1 << 15
REPLY_TYPE_ERROR: Final = REPLY_ERROR_BIT + 1
REPLY_TYPE_ERROR_OFFSET: Final = REPLY_ERROR_BIT + 2

CMD_READ: Final = 0
CMD_WRITE: Final = 1
CMD_DISC: Final = 2
CMD_FLUSH: Final = 3
CMD_TRIM: Final = 4
CMD_CACHE: Final = 5
CMD_WRITE_ZEROES: Final = 6
CMD_BLOCK_STATUS: Final = 7

# --- "Error values" ----------------------------------------------------------------------------------------

EPERM: Final = 1
EIO: Final = 5
ENOMEM: Final = 12
EINVAL: Final = 22
ENOSPC: Final = 28
EOVERFLOW: Final = 75
ENOTSUP: Final = 95
ESHUTDOWN: Final = 108

# --- the fixed parts of messages ---------------------------------------------------------------------------

GREETING: Final = Struct(">QQH")
"""INIT_MAGIC, OPTION_MAGIC, handshake flags."""
CLIENT_FLAGS: Final = Struct(">I")
OPTION: Final = Struct(">QII")
"""OPTION_MAGIC, option, length of the data that follows."""
OPTION_REPLY: Final = Struct(">QIII")
"""OPTION_REPLY_MAGIC, option, reply type, length of the data that follows."""
EXPORT_NAME_REPLY: Final = Struct(">QH")
"""Size in bytes, transmission flags."""
REQUEST: Final = Struct(">IHHQQI")
"""REQUEST_MAGIC, command flags, type, cookie, offset, length."""
SIMPLE_REPLY: Final = Struct(">IIQ")
"""SIMPLE_REPLY_MAGIC, error, cookie."""
CHUNK: Final = Struct(">IHHQI")
"""STRUCTURED_REPLY_MAGIC, reply flags, chunk type, cookie, length of the payload that follows."""
DATA_CHUNK: Final = Struct(">IHHQIQ")
"""A CHUNK of type OFFSET_DATA with its first field, the offset; the data follows."""

_INFO_EXPORT = Struct(">HQH")
_INFO_BLOCK_SIZE = Struct(">HIII")
_U16 = Struct(">H")
_U32 = Struct(">I")
_U64 = Struct(">Q")
_HOLE = Struct(">QI")
_ERROR = Struct(">IH")
_EXTENT = Struct(">II")


class OptionReply(NamedTuple):
    """The header of a reply to an option; `length` bytes of data follow."""

    option: int
    kind: int
    length: int


class Request(NamedTuple):
    """The header of a request; a write's `length` bytes of data follow."""

    flags: int
    kind: int
    cookie: int
    offset: int
    length: int


class Chunk(NamedTuple):
    """The header of a structured reply chunk; `length` bytes of payload follow."""

    flags: int
    kind: int
    cookie: int
    length: int


class InfoQuery(NamedTuple):
    """The data of NBD_OPT_INFO and NBD_OPT_GO."""

    export: str
    wanted: tuple[int, ...]


class MetaQuery(NamedTuple):
    """The data of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT."""

    export: str
    queries: tuple[str, ...]


class BlockSize(NamedTuple):
    """Bytes; see the section "Block size constraints"."""

    minimum: int
    preferred: int
    maximum: int


# --- negotiation: what a server sends ----------------------------------------------------------------------


def greeting(handshake_flags: int) -> bytes:
    return GREETING.pack(INIT_MAGIC, OPTION_MAGIC, handshake_flags)


def option_reply(option: int, kind: int, data: Bytes = b"") -> bytes:
    return OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, kind, len(data)) + data


def server_entry(name: str, description: str) -> bytes:
    """The data of NBD_REP_SERVER."""
    return _counted(name) + description.encode()


def info_export(size: int, transmission_flags: int) -> bytes:
    """The data of NBD_REP_INFO with NBD_INFO_EXPORT; `size` in bytes."""
    return _INFO_EXPORT.pack(INFO_EXPORT, size, transmission_flags)


def info_text(kind: int, text: str) -> bytes:
    """The data of NBD_REP_INFO with NBD_INFO_NAME or NBD_INFO_DESCRIPTION."""
    return _U16.pack(kind) + text.encode()


def info_block_size(sizes: BlockSize) -> bytes:
    return _INFO_BLOCK_SIZE.pack(INFO_BLOCK_SIZE, *sizes)


def meta_context(context_id: int, name: str) -> bytes:
    """The data of NBD_REP_META_CONTEXT."""
    return _U32.pack(context_id) + name.encode()


# --- negotiation: what a server parses ---------------------------------------------------------------------


def parse_string(data: Bytes) -> str:
    """A name or query: bounded, UTF-8."""
    if len(data) > MAX_STRING:
        raise ProtocolViolation("NBD", "string length", f"at most {MAX_STRING}", str(len(data)))
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise ProtocolViolation("NBD", "string", "UTF-8", f"a bad byte at {error.start}") from None


def parse_info_query(data: Bytes) -> InfoQuery:
    """Data of NBD_OPT_INFO and NBD_OPT_GO: counted name, count, that many 16-bit requests, nothing else."""
    name, position = _take_counted(data, 0)
    if len(data) < position + 2:
        raise ProtocolViolation("NBD", "information requests", "a 16-bit count", "end of data")
    (count,) = _U16.unpack_from(data, position)
    _need_exactly(data, position + 2 + 2 * count)
    return InfoQuery(name, tuple(_U16.unpack_from(data, position + 2 + 2 * index)[0] for index in range(count)))


def parse_meta_query(data: Bytes) -> MetaQuery:
    """Data of the meta context options: counted name, count, that many counted queries, nothing else."""
    name, position = _take_counted(data, 0)
    count, position = _take_u32(data, position)
    if count > (len(data) - position) // 4:
        raise ProtocolViolation("NBD", "number of queries", "as many as there is data for", str(count))
    queries = []
    for _ in range(count):
        query, position = _take_counted(data, position)
        queries.append(query)
    _need_exactly(data, position)
    return MetaQuery(name, tuple(queries))


# --- negotiation: what a client sends and parses -----------------------------------------------------------


def option(kind: int, data: Bytes = b"") -> bytes:
    return OPTION.pack(OPTION_MAGIC, kind, len(data)) + data


def info_query(query: InfoQuery) -> bytes:
    return _counted(query.export) + b"".join(map(_U16.pack, (len(query.wanted), *query.wanted)))


def meta_query(query: MetaQuery) -> bytes:
    return _counted(query.export) + _U32.pack(len(query.queries)) + b"".join(map(_counted, query.queries))


def parse_greeting(data: Bytes) -> int:
    """The server's handshake flags."""
    magic, style, flags = GREETING.unpack(data)
    if magic != INIT_MAGIC or style != OPTION_MAGIC:
        raise ProtocolViolation("NBD", "greeting", "newstyle magics", f"{magic:#x} {style:#x}")
    return int(flags)


def parse_option_reply(data: Bytes) -> OptionReply:
    magic, sent, kind, length = OPTION_REPLY.unpack(data)
    if magic != OPTION_REPLY_MAGIC:
        raise ProtocolViolation("NBD", "option reply magic", f"{OPTION_REPLY_MAGIC:#x}", f"{magic:#x}")
    return OptionReply(sent, kind, length)


def parse_server_entry(data: Bytes) -> tuple[str, str]:
    """Name and description of an export."""
    name, position = _take_counted(data, 0)
    return name, parse_string(data[position:])


def parse_info_export(data: Bytes) -> tuple[int, int]:
    """Size in bytes and transmission flags."""
    _need_exactly(data, _INFO_EXPORT.size)
    _, size, flags = _INFO_EXPORT.unpack(data)
    return size, flags


def parse_info_block_size(data: Bytes) -> BlockSize:
    _need_exactly(data, _INFO_BLOCK_SIZE.size)
    return BlockSize(*_INFO_BLOCK_SIZE.unpack(data)[1:])


def parse_meta_context(data: Bytes) -> tuple[int, str]:
    """Id and name of a context."""
    context_id, position = _take_u32(data, 0)
    return context_id, parse_string(data[position:])


# --- transmission: what a server sends ---------------------------------------------------------------------


def simple_reply(cookie: int, error: int = 0) -> bytes:
    return SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, error, cookie)


def chunk(kind: int, cookie: int, payload: Bytes = b"", done: bool = True) -> bytes:
    return CHUNK.pack(STRUCTURED_REPLY_MAGIC, REPLY_FLAG_DONE * done, kind, cookie, len(payload)) + payload


def error_chunk(cookie: int, error: int, message: str) -> bytes:
    text = cut_text(message)
    return chunk(REPLY_TYPE_ERROR, cookie, _ERROR.pack(error, len(text)) + text)


def block_status_chunk(cookie: int, context_id: int, extents: list[tuple[int, int]], done: bool) -> bytes:
    """`extents` are (length in bytes, status flags)."""
    descriptors = b"".join(_EXTENT.pack(length, status) for length, status in extents)
    return chunk(REPLY_TYPE_BLOCK_STATUS, cookie, _U32.pack(context_id) + descriptors, done)


def cut_text(text: str, limit: int = 1024) -> bytes:
    """An error text as bytes, cut between characters: well under MAX_STRING whatever was quoted in it."""
    return text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore").encode()


# --- transmission: what a client sends and parses ----------------------------------------------------------


def request(kind: int, cookie: int, offset: int = 0, length: int = 0, flags: int = 0) -> bytes:
    return REQUEST.pack(REQUEST_MAGIC, flags, kind, cookie, offset, length)


def parse_request(data: Bytes) -> Request:
    magic, *rest = REQUEST.unpack(data)
    if magic != REQUEST_MAGIC:
        raise ProtocolViolation("NBD", "request magic", f"{REQUEST_MAGIC:#x}", f"{magic:#x}")
    return Request(*rest)


def parse_simple_reply(data: Bytes) -> tuple[int, int]:
    """Cookie and error."""
    magic, error, cookie = SIMPLE_REPLY.unpack(data)
    if magic != SIMPLE_REPLY_MAGIC:
        raise ProtocolViolation("NBD", "simple reply magic", f"{SIMPLE_REPLY_MAGIC:#x}", f"{magic:#x}")
    return cookie, error


def parse_chunk(data: Bytes) -> Chunk:
    magic, *rest = CHUNK.unpack(data)
    if magic != STRUCTURED_REPLY_MAGIC:
        raise ProtocolViolation("NBD", "chunk magic", f"{STRUCTURED_REPLY_MAGIC:#x}", f"{magic:#x}")
    return Chunk(*rest)


def parse_data(payload: Bytes) -> int:
    """The offset in front of an OFFSET_DATA chunk's data, which begins at byte 8."""
    if len(payload) < 9:
        raise ProtocolViolation("NBD", "data chunk", "an offset and at least one byte", f"{len(payload)} bytes")
    return int(_U64.unpack_from(payload)[0])


def parse_hole(payload: Bytes) -> tuple[int, int]:
    """Offset and length of an OFFSET_HOLE chunk."""
    _need_exactly(payload, _HOLE.size)
    offset, length = _HOLE.unpack(payload)
    return offset, length


def parse_error(payload: Bytes) -> tuple[int, str]:
    """Error value and text of an ERROR or ERROR_OFFSET chunk."""
    if len(payload) < _ERROR.size:
        raise ProtocolViolation("NBD", "error chunk", f"at least {_ERROR.size} bytes", str(len(payload)))
    error, length = _ERROR.unpack_from(payload)
    if length > len(payload) - _ERROR.size:
        raise ProtocolViolation("NBD", "error text length", "inside the chunk", str(length))
    return error, parse_string(payload[_ERROR.size : _ERROR.size + length])


def parse_block_status(payload: Bytes) -> tuple[int, list[tuple[int, int]]]:
    """Context id, and (length in bytes, status flags) per extent."""
    if len(payload) < 12 or (len(payload) - 4) % _EXTENT.size:
        raise ProtocolViolation("NBD", "block status chunk", "an id and whole extents", f"{len(payload)} bytes")
    extents = list(_EXTENT.iter_unpack(payload[4:]))
    if any(not length for length, _ in extents):
        raise ProtocolViolation("NBD", "block status extent", "a length above 0", "0")
    return _U32.unpack_from(payload)[0], extents


# --- counted strings ---------------------------------------------------------------------------------------


def _counted(text: str) -> bytes:
    raw = text.encode()
    return _U32.pack(len(raw)) + raw


def _take_u32(data: Bytes, position: int) -> tuple[int, int]:
    if len(data) < position + 4:
        raise ProtocolViolation("NBD", "option data", "a 32-bit number", "end of data")
    return _U32.unpack_from(data, position)[0], position + 4


def _take_counted(data: Bytes, position: int) -> tuple[str, int]:
    length, position = _take_u32(data, position)
    if length > len(data) - position:
        raise ProtocolViolation("NBD", "string length", f"at most {len(data) - position} here", str(length))
    return parse_string(data[position : position + length]), position + length


def _need_exactly(data: Bytes, size: int) -> None:
    if len(data) != size:
        raise ProtocolViolation("NBD", "message length", str(size), str(len(data)))
