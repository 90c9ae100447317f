"""Overlay snapshots: a new image takes what is written from now on, the old one stays as it is (QEMU's
blockdev-snapshot and blockdev-snapshot-sync, here as one action).

The image is made, and opened, before anybody is held; then its users move in one step (`graph.actions`). Of several
disks in one transaction all move at one instant, while none of them has a request in flight.

The name of the old image in the new one's header is for whoever opens the chain later, we too after a restart; so
it is checked before a guest depends on it.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from blockyard.base.errors import BlockError, InvalidArgument, MissingOption, NodeInUse
from blockyard.base.ranges import align_up
from blockyard.base.units import SECTOR
from blockyard.node.graph import images
from blockyard.node.graph.actions import InsertOverlay, OpenNode
from blockyard.node.graph.chain import below_filters, overlay_above
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.referring import path_of

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node
    from blockyard.node.graph.transaction import Plan


class BackingNaming(IntEnum):
    """How a header names its backing file."""

    RELATIVE = 0
    """As seen from the directory of the overlay: the chain can be moved as a whole."""
    ABSOLUTE = 1


@dataclass(frozen=True, slots=True)
class OverlayWish:
    """An overlay above a node. `options` are those of the new image, which `existing` has already."""

    node_name: str
    filename: str
    overlay_name: str = ""
    driver: str = "qcow2"
    existing: bool = False
    naming: BackingNaming = BackingNaming.RELATIVE
    backing_file: str = ""
    """The name for the header instead of one that is made."""
    options: Mapping[str, Any] = field(default_factory=dict)


class CreateOverlay(OpenNode):
    """Make an image or take one, open it, and put it above a node, under its users."""

    def __init__(self, wish: OverlayWish) -> None:
        self._wish = wish
        super().__init__(_definition(wish))

    async def prepare(self, plan: "Plan") -> None:
        wish, graph = self._wish, plan.graph
        if not wish.filename:
            raise MissingOption("an overlay", "filename")
        base = plan.get(wish.node_name)
        image = below_filters(base)
        if wish.existing:
            await _check_header(graph, wish, image)
        else:
            await images.create(graph, _order(graph, wish, base, image))
        try:
            await super().prepare(plan)
            try:
                self._insertion = InsertOverlay(wish.node_name, self.node.name)
                await self._insertion.prepare(plan)
            except BaseException:
                await super().abort(plan)
                raise
        except BaseException:
            self._remove(graph)
            raise

    def touches(self, plan: "Plan") -> "list[Node]":
        return self._insertion.touches(plan)

    async def settle_down(self, plan: "Plan") -> None:
        await self._insertion.settle_down(plan)

    def apply(self, plan: "Plan") -> None:
        base = plan.get(self._wish.node_name)
        if (above := overlay_above(base)) is not None:
            raise NodeInUse(base.name, "put an overlay on", f"node/{above.name}, whose header names its image")
        super().apply(plan)
        self._insertion.apply(plan)

    async def abort(self, plan: "Plan") -> None:
        await super().abort(plan)
        self._remove(plan.graph)

    def _remove(self, graph: "Graph") -> None:
        """The image that was made for it."""
        if not self._wish.existing:
            with suppress(BlockError):
                graph.environment.storage.unlink(self._wish.filename)


def _definition(wish: OverlayWish) -> NodeDefinition:
    file = NodeDefinition(images.FILE, options={"filename": wish.filename})
    return NodeDefinition(wish.driver, wish.overlay_name, children={"file": file, "backing": None})


def _order(graph: "Graph", wish: OverlayWish, base: "Node", image: "Node") -> images.ImageOrder:
    name = wish.backing_file
    if name:
        _check_name(graph, wish, image, name, "backing_file")
    else:
        absolute = wish.naming is BackingNaming.ABSOLUTE
        name = graph.environment.storage.name_for(wish.filename, _path(image), absolute=absolute)
    options = {**wish.options, "backing_file": name, "backing_fmt": image.driver.name}
    return images.ImageOrder(wish.filename, wish.driver, align_up(base.driver.size, SECTOR), options)


def _path(image: "Node") -> str:
    if not image.path:
        raise InvalidArgument("node_name", "an image in a file, which a header can name", repr(image.name))
    return image.path


async def _check_header(graph: "Graph", wish: OverlayWish, image: "Node") -> None:
    """An image that is there already must lead to the node, or the chain would be another one after a restart."""
    if wish.options:
        raise InvalidArgument("existing", "no options: the image is there", "options")
    facts = await images.image_facts(graph, wish.filename, wish.driver)
    if facts.backing is None:
        raise InvalidArgument("filename", f"an image whose header names {_path(image)!r}", "one that names nothing")
    if facts.backing.format != image.driver.name:
        raise InvalidArgument(
            "filename", f"an image that says its backing is {image.driver.name}", repr(facts.backing.format)
        )
    path_of(graph.environment.storage, wish.filename, wish.filename, facts.backing)
    _check_name(graph, wish, image, facts.backing.filename, "filename")


def _check_name(graph: "Graph", wish: OverlayWish, image: "Node", name: str, field_: str) -> None:
    storage = graph.environment.storage
    if not storage.is_same(storage.relative_to_image(wish.filename, name), _path(image)):
        raise InvalidArgument(field_, f"a name of {_path(image)!r}, seen from {wish.filename!r}", repr(name))
