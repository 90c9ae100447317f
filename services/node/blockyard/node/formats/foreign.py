"""First bytes of formats that no driver here reads: such a file is not taken for raw by a guess. Pure.

A file that a person names raw is raw whatever it holds; this is for guesses alone. Nothing else of these formats is
looked at. Sources: the probe functions of QEMU's block drivers, and the formats' own specifications.
"""

import re
from typing import Final

_SIGNATURES: Final[tuple[tuple[str, re.Pattern[bytes]], ...]] = (
    ("vmdk", re.compile(rb"KDMV|COWD|(#[^\n]*\n|\s)*# Disk DescriptorFile")),
    ("vhdx", re.compile(rb"vhdxfile")),
    ("vpc", re.compile(rb"conectix")),
    ("vdi", re.compile(rb"(?s).{64}\x7f\x10\xda\xbe")),
    ("qed", re.compile(rb"QED\0")),
    ("qcow", re.compile(rb"QFI\xfb")),
    ("parallels", re.compile(rb"WithoutFreeSpace|WithouFreSpacExt")),
    ("bochs", re.compile(rb"Bochs Virtual HD Image")),
    ("luks", re.compile(rb"LUKS\xba\xbe")),
    ("cloop", re.compile(rb"#!/bin/sh\n#V2\.0 Format\nmodprobe cloop")),
)
"""Name and what the file begins with. Two never fit at once: all are literals from the first byte on, but VDI's."""


def looks_like(head: bytes) -> str:
    """The format's name, as QEMU calls it; empty for what may be raw."""
    return next((name for name, begin in _SIGNATURES if begin.match(head)), "")
