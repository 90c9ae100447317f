"""Sound images that the fuzzer starts from: of our own writer, and of QEMU with every feature that it has."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.corpus.writer import KIB, MIB, Image, plain, with_bitmap, with_snapshot
from tests.support import peers

Maker = Callable[[Path], None]
QEMU: Final = ("qemu-img", "qemu-io")


def _written(build: Callable[[], Image]) -> Maker:
    return lambda path: build().save(path)


def _qemu(*options: str, size: str = "1M", then: tuple[tuple[str, ...], ...] = ()) -> Maker:
    """qemu-img create with options, some data, and further commands with `{}` for the image."""

    def make(path: Path) -> None:
        chosen = ["-o", ",".join(options)] if options else []
        peers.run("qemu-img", "create", "-q", "-f", "qcow2", *chosen, path, size)
        peers.run(
            "qemu-io", "-c", "write -P 7 0 40k", "-c", "write -z 64k 32k", "-c", "write -P 9 200k 9k",
            "-c", "discard 8k 8k", "-c", "write -P 3 900k 64k", path,
        )  # fmt: skip
        for command in then:
            peers.run(*(part.format(path) for part in command))

    return make


def _compressed(*options: str) -> Maker:
    def make(path: Path) -> None:
        raw = path.with_suffix(".raw")
        raw.write_bytes(b"".join(bytes([number]) * 700 + b"text %d " % number * 90 for number in range(256)))
        peers.run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", ",".join(options), raw, path)
        raw.unlink()

    return make


SNAPSHOTS: Final = (
    ("qemu-img", "snapshot", "-c", "one", "{}"),
    ("qemu-io", "-c", "write -P 5 4k 70k", "{}"),
    ("qemu-img", "snapshot", "-c", "two", "{}"),
    ("qemu-io", "-c", "write -P 6 0 4k", "{}"),
)
BITMAPS: Final = (
    ("qemu-img", "bitmap", "--add", "-g", "4096", "{}", "one"),
    ("qemu-img", "bitmap", "--add", "--disable", "{}", "two"),
    ("qemu-io", "-c", "write -P 5 4k 70k", "{}"),
)
SEEDS: Final[dict[str, Maker]] = {
    "plain": _written(plain),
    "plain-of-512": _written(lambda: plain(cluster_bits=9, size=32 * KIB, written=(0, 1, 5, 9), packed=(3,))),
    "plain-of-version-2": _written(lambda: plain(version=2, cluster_bits=12, packed=(4, 5))),
    "plain-of-2-mib": _written(lambda: plain(cluster_bits=21, size=8 * MIB, written=(1,))),
    "snapshot": _written(lambda: with_snapshot(plain(cluster_bits=12, packed=(5,)))),
    "bitmap": _written(lambda: with_bitmap(cluster_bits=12, size=MIB)),
    "dirty": _written(lambda: plain(fields={"incompatible_features": 1, "compatible_features": 1})),
    "qemu": _qemu(),
    "qemu-of-512": _qemu("cluster_size=512"),
    "qemu-refcounts-of-1": _qemu("cluster_size=4k", "refcount_bits=1"),
    "qemu-refcounts-of-64": _qemu("cluster_size=4k", "refcount_bits=64", "lazy_refcounts=on"),
    "qemu-snapshots": _qemu("cluster_size=4k", then=SNAPSHOTS),
    "qemu-bitmaps": _qemu("cluster_size=4k", then=BITMAPS),
    "qemu-snapshots-and-bitmaps": _qemu("cluster_size=4k", then=(*SNAPSHOTS, *BITMAPS)),
    "qemu-compressed": _compressed("cluster_size=4k"),
    "qemu-zstd": _compressed("cluster_size=64k", "compression_type=zstd"),
    "qemu-extended-l2": _qemu("cluster_size=16k", "extended_l2=on"),
    "qemu-extended-l2-snapshots": _qemu("cluster_size=16k", "extended_l2=on", then=SNAPSHOTS),
}
"""By name. The first seven need no peer."""
OWN: Final = tuple(name for name in SEEDS if not name.startswith("qemu"))
