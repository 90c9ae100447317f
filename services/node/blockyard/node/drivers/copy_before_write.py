"""Driver `copy-before-write`: old data goes to the target before a guest overwrites it (QEMU's
block/copy-before-write.c). What is copied, and what happens when that fails, is behind its interposer.
"""

from blockyard.node.drivers._interposing import InterposingFilter


class CopyBeforeWriteDriver(InterposingFilter):
    """The point in time of a backup."""

    name = "copy-before-write"
