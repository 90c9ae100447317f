"""NBD exports as file names: URIs (the NBD project's doc/uri.md) and QEMU's older `nbd:` form. Pure text."""

from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from blockyard.base.errors import InvalidArgument, ProtocolUnsupported

_SCHEMES: Final = ("nbd", "nbd+tcp", "nbd+unix")
_SECURE: Final = ("nbds", "nbds+tcp", "nbds+unix")
_EXPECTED: Final = (
    "nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH, nbd:HOST:PORT[:exportname=EXPORT] or "
    "nbd:unix:PATH[:exportname=EXPORT]"
)


def address_and_export(filename: str) -> tuple[str, str]:
    """What an `nbd` node is opened with. Raises InvalidArgument, or ProtocolUnsupported for TLS."""
    scheme, _, rest = filename.partition(":")
    if scheme in _SECURE:
        raise ProtocolUnsupported(f"{scheme}:", "nbd with TLS")
    if scheme == "nbd" and not rest.startswith("//"):
        return _older(rest, filename)
    if scheme not in _SCHEMES:
        raise _refusal(filename)
    try:
        parts = urlsplit(filename)
        port = parts.port
        query = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), max_num_fields=8)
    except ValueError as problem:
        raise _refusal(filename) from problem
    export = unquote(parts.path.removeprefix("/"))
    sockets = query.pop("socket", [])
    if query or parts.fragment or parts.username is not None:
        raise _refusal(filename)
    if scheme == "nbd+unix":
        if len(sockets) != 1 or parts.netloc:
            raise _refusal(filename)
        return f"unix:{sockets[0]}", export
    if sockets or not parts.hostname:
        raise _refusal(filename)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port}" if port is not None else host, export


def _older(rest: str, filename: str) -> tuple[str, str]:
    address, marker, export = rest.partition(":exportname=")
    if not address or (marker and not export):
        raise _refusal(filename)
    return address, export


def _refusal(filename: str) -> InvalidArgument:
    return InvalidArgument("filename", _EXPECTED, repr(filename[:128]))
