"""Permissions: what a parent does to a child, and what it lets others do to it meanwhile (QEMU's BLK_PERM_*).

Pure algebra over small bit sets; who holds which edge is the graph's to know (`graph.permissions`).

Theory (QEMU's include/block/block-common.h, and the default rules of block.c). Every edge says which permissions it
uses and which it shares. Two edges to one node conflict if one uses what the other does not share. What a node
needs of its own children follows from what its parents, taken together, need of it.
"""

from typing import Final, NamedTuple, Protocol, runtime_checkable

from blockyard.node.interface.flags import Role

CONSISTENT_READ: Final = 1
"""Read a state that makes sense by itself (BLK_PERM_CONSISTENT_READ)."""
WRITE: Final = 2
"""Change what readers see (BLK_PERM_WRITE)."""
WRITE_UNCHANGED: Final = 4
"""Write without changing what readers see (BLK_PERM_WRITE_UNCHANGED)."""
RESIZE: Final = 8
"""Change the size (BLK_PERM_RESIZE)."""
CHANGING: Final = WRITE | WRITE_UNCHANGED | RESIZE
"""What only a node that is open for writing can give."""
ALL: Final = 15
NONE: Final = 0

NAMES: Final = {
    CONSISTENT_READ: "consistent-read",
    WRITE: "write",
    WRITE_UNCHANGED: "write-unchanged",
    RESIZE: "resize",
}


class Permissions(NamedTuple):
    """What an edge uses and what it shares."""

    used: int
    shared: int


@runtime_checkable
class FollowsPermissions(Protocol):
    """A driver that wants to know what its parents together do and share (the seed's bdrv_set_perm)."""

    def permitted(self, above: Permissions) -> None:
        """It may have changed. Does not await."""
        ...


NOTHING: Final = Permissions(NONE, ALL)
"""Holds a node and asks nothing of it."""


def names(permissions: int) -> list[str]:
    """QEMU's names of a set, in the order of the bits."""
    return [name for bit, name in NAMES.items() if permissions & bit]


def together(edges: list[Permissions]) -> Permissions:
    """What all parents of a node use between them, and what all of them share (bdrv_get_cumulative_perm)."""
    used, shared = NONE, ALL
    for edge in edges:
        used |= edge.used
        shared &= edge.shared
    return Permissions(used, shared)


def passed_on(above: Permissions) -> Permissions:
    """A filter's child: as its parents have it (bdrv_filter_default_perms)."""
    return above


def of_backing(above: Permissions) -> Permissions:
    """A backing child is read only, and may be written only by who does not disturb the overlay
    (bdrv_default_perms_for_cow). QEMU reads it only while the overlay is read; here it always is, so that a reader
    that comes and goes changes nothing all the way down a chain."""
    writable = WRITE | RESIZE if above.shared & WRITE else NONE
    return Permissions(CONSISTENT_READ, CONSISTENT_READ | WRITE_UNCHANGED | writable)


def of_image_file(above: Permissions, *, writable: bool) -> Permissions:
    """The file under a format: metadata must be consistent, and nobody else writes it
    (bdrv_default_perms_for_storage)."""
    used = above.used | CONSISTENT_READ | (WRITE | RESIZE if writable else NONE)
    return Permissions(used, above.shared & ~(WRITE | RESIZE))


def of_data(above: Permissions) -> Permissions:
    """A child that holds data and no metadata: a writer may make it grow, and nobody else resizes it."""
    grows = RESIZE if above.used & (WRITE | WRITE_UNCHANGED) else NONE
    return Permissions(above.used | grows, above.shared & ~RESIZE)


def of_target(above: Permissions) -> Permissions:
    """A child that a filter writes copies to: nobody else writes it meanwhile."""
    return Permissions(WRITE, ALL & ~(WRITE | RESIZE))


def by_role(role: Role, above: Permissions, *, writable: bool) -> Permissions:
    """The rule for a child of a role; drivers override it where theirs differs."""
    if role is Role.FILTERED:
        return passed_on(above)
    if role is Role.BACKING:
        return of_backing(above)
    if role is Role.DATA:
        return of_data(above)
    if role is Role.TARGET:
        return of_target(above)
    return of_image_file(above, writable=writable)
