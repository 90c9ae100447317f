"""Names for sizes. Bytes are the only unit outside the format codecs.

Must not hold arithmetic on ranges (`ranges`) or anything that formats for people (`clients`).
"""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
TIB: Final = 1024 * GIB

SECTOR: Final = 512
"""The seed's unit; used by codecs whose on-disk fields count sectors, and nowhere else."""

MAX_SIZE: Final = 2**63 - 1
"""Largest offset a file or an NBD client can name (off_t)."""
