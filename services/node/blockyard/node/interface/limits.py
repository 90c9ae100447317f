"""What sizes and alignments a driver likes or insists on (the seed's BlockLimits, in bytes).

The request path splits, merges and bounces so that a client never must. 0 means "no limit".
"""

from dataclasses import dataclass


@dataclass(slots=True)
class Limits:
    """All values in bytes."""

    request_alignment: int = 1
    """Offset and length of every read and write are multiples of it (power of two, 1 to 64 KiB; a filter that
    compresses says the cluster size, up to 2 MiB)."""
    max_transfer: int = 0
    """Largest read or write; 0 is unlimited."""
    opt_transfer: int = 0
    """Preferred multiple of a read or write."""
    min_mem_alignment: int = 1
    """Buffers are aligned to it, else the request path bounces."""
    opt_mem_alignment: int = 4096
    max_zeroes: int = 0
    """Largest `zero` request; 0 is unlimited."""
    zero_alignment: int = 1
    """`zero` is asked only for multiples; the path writes zero buffers for head and tail. Any number > 0."""
    max_discard: int = 0
    discard_alignment: int = 1
    """`discard` is asked only for multiples; head and tail are dropped. May be no power of two."""
    allocation_unit: int = 0
    """Cluster size: an allocating write serialises against others in the same unit. 0: nothing is allocated."""
    copy_unit: int = 0
    """Subcluster size: what an allocation fills at least where that is less than `allocation_unit`; 0: the same."""
    max_iov: int = 1024
    """Vector length that one system call takes (IOV_MAX)."""
