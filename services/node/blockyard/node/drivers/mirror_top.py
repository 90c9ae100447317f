"""Driver `mirror-top`: stands above the source of a mirror, so that a pivot can move its users, and so that in copy
mode write-blocking a guest's write ends when both sides have it (QEMU's block/mirror.c, bdrv_mirror_top).
"""

from blockyard.node.drivers._interposing import InterposingFilter


class MirrorTopDriver(InterposingFilter):
    """The top of a mirror."""

    name = "mirror-top"
