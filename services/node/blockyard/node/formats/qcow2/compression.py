"""Compressed clusters: raw deflate with a 12-bit window, or one zstd frame.

ISA-L is used when it is there (500 MB/s against zlib's 60 at nearly the same ratio, design section 3.4);
zlib otherwise. Output is bounded by the cluster size whatever the input claims.
"""

import zlib
from collections.abc import Callable
from typing import Any, Final

from blockyard.node.formats.qcow2.header import ZSTD

try:
    from isal import isal_zlib

    _deflate_module: Any = isal_zlib
    _LEVEL = 3
    """Text to 0.293 of its size, 300 MB/s on a core; level 1: 0.304, 455 MB/s; zlib 6, as QEMU: 0.275, 42 MB/s."""
except ImportError:  # pragma: no cover - a platform without the wheel
    _deflate_module = zlib
    _LEVEL = 1

try:
    from compression import zstd as _zstd_found  # type: ignore[import-not-found]
except ImportError:
    from backports import zstd as _zstd_found
_zstd: Any = _zstd_found

_WINDOW_BITS: Final = -12
"""Raw deflate, 4 KiB window: QEMU's inflate accepts no larger one (block/qcow2-threads.c)."""
_ZSTD_LEVEL: Final = 1
"""466 MB/s at ratio 0.33 (design, section 3.4)."""


def _deflate(data: bytes | memoryview) -> bytes:
    encoder = _deflate_module.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW_BITS)
    first: bytes = encoder.compress(data)
    return first + bytes(encoder.flush())


def _inflate(data: bytes | memoryview, size: int) -> bytes | None:
    decoder = zlib.decompressobj(_WINDOW_BITS) if size < 4096 else _deflate_module.decompressobj(_WINDOW_BITS)
    try:
        return bytes(decoder.decompress(data, size))
    except (zlib.error, _deflate_module.error):
        return None


def _zstd_compress(data: bytes | memoryview) -> bytes:
    return bytes(_zstd.compress(data, _ZSTD_LEVEL))


def _zstd_decompress(data: bytes | memoryview, size: int) -> bytes | None:
    decoder = _zstd.ZstdDecompressor()
    try:
        return bytes(decoder.decompress(data, size))
    except (_zstd.ZstdError, EOFError):
        return None


Compressor = Callable[[bytes | memoryview], bytes]
Decompressor = Callable[[bytes | memoryview, int], bytes | None]


def compressor(compression_type: int) -> Compressor:
    return _zstd_compress if compression_type == ZSTD else _deflate


def decompressor(compression_type: int) -> Decompressor:
    """A function of (bytes, size) that gives at most `size` bytes, or None for a broken stream.

    Bytes after the end of the stream are ignored: entries count whole sectors.
    """
    return _zstd_decompress if compression_type == ZSTD else _inflate
