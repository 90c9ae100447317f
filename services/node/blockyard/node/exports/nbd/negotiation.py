"""The handshake and option phase of one connection, without I/O: bytes in, bytes out, and at the end an outcome.

Theory. A stranger speaks here, so the machine has three states only, never buffers more than one option
(`option_bytes`), opens nothing, and holds no node before GO. An option that is well framed but wrong is answered
with an error and the client may try again; a break of the framing ends the connection (`ProtocolViolation`).

Invariants
1. `receive` consumes whole messages; what it leaves is the start of the next one, or of the transmission phase.
2. Contexts count only for the export they were set for ("NBD_OPT_SET_META_CONTEXT").
3. Nothing of the client's is quoted in an answer beyond a few characters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import ClassVar, Final, Protocol

from blockyard.base.errors import ProtocolViolation
from blockyard.node.exports.nbd.export import Export
from blockyard.node.formats import nbd

_KNOWN_CLIENT_FLAGS: Final = nbd.FLAG_C_FIXED_NEWSTYLE | nbd.FLAG_C_NO_ZEROES
_QUOTED: Final = 64
"""Characters of a client's string in an error text (CVE-2020-10761: a text too long for the protocol)."""


class Catalogue(Protocol):
    """The exports that a client may ask for."""

    def find(self, name: str) -> Export | None: ...

    def listed(self) -> list[Export]: ...


class State(Enum):
    """Where the conversation is."""

    CLIENT_FLAGS = auto()
    OPTIONS = auto()
    CHOSEN = auto()
    """The client entered the transmission phase: `session` is set."""
    ENDED = auto()
    """Send what is in the output, then close."""


@dataclass(frozen=True, slots=True)
class Session:
    """What was negotiated."""

    export: Export
    structured: bool
    contexts: tuple[tuple[int, str], ...]
    """Selected metadata contexts: id and name."""
    block_mask: int = 0
    """The minimum block size that the client was told, less one: it is held to that (nbd/server.c, check_align)."""


class _Refused(Exception):
    """An option is answered with an error reply."""

    def __init__(self, kind: int, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Negotiation:
    """One connection's handshake. `output` holds what must be sent; the owner empties it."""

    def __init__(self, catalogue: Catalogue, option_bytes: int) -> None:
        self._catalogue = catalogue
        self._option_bytes = option_bytes
        self._fixed = self._no_zeroes = self._structured = False
        self._contexts: tuple[str, tuple[tuple[int, str], ...]] = ("", ())
        self.state = State.CLIENT_FLAGS
        self.session: Session | None = None
        self.output = bytearray(nbd.greeting(nbd.FLAG_FIXED_NEWSTYLE | nbd.FLAG_NO_ZEROES))

    def receive(self, data: memoryview) -> int:
        """Take at most one message from the start of `data`; bytes consumed, 0 if it is not yet whole."""
        if self.state is State.CLIENT_FLAGS:
            return self._take_client_flags(data)
        assert self.state is State.OPTIONS
        if len(data) < nbd.OPTION.size:
            return 0
        magic, option, length = nbd.OPTION.unpack_from(data)
        if magic != nbd.OPTION_MAGIC:
            raise ProtocolViolation("NBD", "option magic", f"{nbd.OPTION_MAGIC:#x}", f"{magic:#x}")
        if length > self._option_bytes:
            raise ProtocolViolation("NBD", "option length", f"at most {self._option_bytes}", str(length))
        end: int = nbd.OPTION.size + length
        if len(data) < end:
            return 0
        self._answer(option, data[nbd.OPTION.size : end])
        return end

    def _take_client_flags(self, data: memoryview) -> int:
        if len(data) < nbd.CLIENT_FLAGS.size:
            return 0
        (flags,) = nbd.CLIENT_FLAGS.unpack_from(data)
        if flags & ~_KNOWN_CLIENT_FLAGS:
            raise ProtocolViolation("NBD", "client flags", f"within {_KNOWN_CLIENT_FLAGS:#x}", f"{flags:#x}")
        self._fixed = bool(flags & nbd.FLAG_C_FIXED_NEWSTYLE)
        self._no_zeroes = bool(flags & nbd.FLAG_C_NO_ZEROES)
        self.state = State.OPTIONS
        return nbd.CLIENT_FLAGS.size

    def _answer(self, option: int, data: memoryview) -> None:
        if option == nbd.OPT_EXPORT_NAME:
            self._export_name(data)
            return
        if not self._fixed:
            raise ProtocolViolation("NBD", "option", "NBD_OPT_EXPORT_NAME without fixed newstyle", str(option))
        try:
            handler = self._HANDLERS.get(option)
            if handler is None:
                raise _Refused(nbd.REP_ERR_UNSUP, f"option {option} is not known here")
            handler(self, option, data)
        except ProtocolViolation as violation:
            self._reply(option, nbd.REP_ERR_INVALID, nbd.cut_text(str(violation)))
        except _Refused as refusal:
            self._reply(option, refusal.kind, nbd.cut_text(str(refusal)))

    def _reply(self, option: int, kind: int, data: bytes = b"") -> None:
        self.output += nbd.option_reply(option, kind, data)

    # --- options -----------------------------------------------------------------------------------------

    def _export_name(self, data: memoryview) -> None:
        # This option has no error reply: an export that cannot be had ends the connection.
        export = self._catalogue.find(nbd.parse_string(data))
        if export is None or len(export.clients) >= export.config.max_connections:
            raise ProtocolViolation("NBD", "export name", "an export that has room", _quoted(str(data, "utf-8")))
        self.output += nbd.EXPORT_NAME_REPLY.pack(export.source.size, export.flags(self._structured))
        if not self._no_zeroes:
            self.output += bytes(nbd.EXPORT_NAME_PADDING)
        self._choose(export)

    def _abort(self, option: int, _data: memoryview) -> None:
        self._reply(option, nbd.REP_ACK)
        self.state = State.ENDED

    def _list(self, option: int, data: memoryview) -> None:
        _need_empty(data)
        for export in self._catalogue.listed():
            entry = nbd.server_entry(export.config.name, export.config.description)
            self._reply(option, nbd.REP_SERVER, entry)
        self._reply(option, nbd.REP_ACK)

    def _starttls(self, _option: int, data: memoryview) -> None:
        _need_empty(data)
        raise _Refused(nbd.REP_ERR_POLICY, "this server is configured without TLS")

    def _info(self, option: int, data: memoryview) -> None:
        query = nbd.parse_info_query(data)
        export = self._find(query.export)
        if len(export.clients) >= export.config.max_connections:
            raise _Refused(
                nbd.REP_ERR_POLICY, f"the export has all {export.config.max_connections} clients it takes"
            )
        details = [nbd.info_export(export.source.size, export.flags(self._structured))]
        if nbd.INFO_NAME in query.wanted:
            details.append(nbd.info_text(nbd.INFO_NAME, export.config.name))
        if nbd.INFO_DESCRIPTION in query.wanted:
            details.append(nbd.info_text(nbd.INFO_DESCRIPTION, export.config.description))
        if nbd.INFO_BLOCK_SIZE in query.wanted:
            details.append(nbd.info_block_size(export.block_size()))
        for detail in details:
            self._reply(option, nbd.REP_INFO, detail)
        self._reply(option, nbd.REP_ACK)
        if option == nbd.OPT_GO:
            asked = nbd.INFO_BLOCK_SIZE in query.wanted
            self._choose(export, export.block_size().minimum - 1 if asked else 0)

    def _structured_reply(self, option: int, data: memoryview) -> None:
        _need_empty(data)
        self._structured = True
        self._reply(option, nbd.REP_ACK)

    def _list_meta_context(self, option: int, data: memoryview) -> None:
        query = nbd.parse_meta_query(data)
        offered = self._find(query.export).contexts()
        wanted = set(query.queries)
        for name in offered:
            if not wanted or name in wanted or any(wildcard in wanted for wildcard in _wildcards(name)):
                self._reply(option, nbd.REP_META_CONTEXT, nbd.meta_context(0, name))
        self._reply(option, nbd.REP_ACK)

    def _set_meta_context(self, option: int, data: memoryview) -> None:
        self._contexts = ("", ())  # also when this option fails
        if not self._structured:
            raise _Refused(nbd.REP_ERR_INVALID, "negotiate structured replies first")
        query = nbd.parse_meta_query(data)
        offered = self._find(query.export).contexts()
        wanted = set(query.queries)
        chosen = tuple((index, name) for index, name in enumerate(offered) if name in wanted)
        for context in chosen:
            self._reply(option, nbd.REP_META_CONTEXT, nbd.meta_context(*context))
        self._reply(option, nbd.REP_ACK)
        self._contexts = (query.export, chosen)

    _HANDLERS: ClassVar[dict[int, Callable[["Negotiation", int, memoryview], None]]] = {
        nbd.OPT_ABORT: _abort,
        nbd.OPT_LIST: _list,
        nbd.OPT_STARTTLS: _starttls,
        nbd.OPT_INFO: _info,
        nbd.OPT_GO: _info,
        nbd.OPT_STRUCTURED_REPLY: _structured_reply,
        nbd.OPT_LIST_META_CONTEXT: _list_meta_context,
        nbd.OPT_SET_META_CONTEXT: _set_meta_context,
    }

    def _find(self, name: str) -> Export:
        export = self._catalogue.find(name)
        if export is None:
            raise _Refused(nbd.REP_ERR_UNKNOWN, f"no export named {_quoted(name)}")
        return export

    def _choose(self, export: Export, block_mask: int = 0) -> None:
        for_export, contexts = self._contexts
        selected = contexts if for_export == export.config.name else ()
        self.session = Session(export, self._structured, selected, block_mask)
        self.state = State.CHOSEN


def _need_empty(data: memoryview) -> None:
    if data:
        raise _Refused(nbd.REP_ERR_INVALID, f"this option takes no data, found {len(data)} bytes")


def _wildcards(name: str) -> tuple[str, str]:
    """Queries that list a context besides its own name: its namespace, and QEMU's second level."""
    return name[: name.index(":") + 1], name[: name.rindex(":") + 1]


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _QUOTED else text[:_QUOTED] + "...")
