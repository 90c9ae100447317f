"""Driver `quorum`: several nodes with the same content; what most of them say is read (QEMU's block/quorum.c).

`driver` serves requests, `voting` counts, `reporting` tells watchers which children failed or lost.
"""

from blockyard.node.drivers.quorum.driver import QuorumDriver

__all__ = ["QuorumDriver"]
