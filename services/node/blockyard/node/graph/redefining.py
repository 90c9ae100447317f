"""What a reopen means for each node: new definitions against old ones, and what children inherit of the change.

Here: checks and planning. The change itself is `graph.reopening`. Opens nothing; new children are opened by the
caller, whom `Step.links` tells.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from blockyard.base.errors import InvalidArgument, MissingOption, NodeInactive, NodeInUse, UnknownOption
from blockyard.node.graph.definition import NodeDefinition, driver_options
from blockyard.node.interface.flags import Role

if TYPE_CHECKING:
    from blockyard.node.graph.edge import Edge
    from blockyard.node.graph.node import Node
    from blockyard.node.interface.driver import ChildSlot, DriverContext

Reference = NodeDefinition | str | None

_FLAGS = ("read_only", "auto_read_only", "direct", "no_flush", "force_share")
"""What a child that was defined inside its parent takes over of it."""
_FLAGS_OF_BACKING = ("direct", "force_share")


@dataclass(slots=True)
class Step:
    """One node that changes."""

    node: "Node"
    definition: NodeDefinition
    present: Any
    """The driver's own options as they are."""
    options: Any
    """As they will be; checked."""
    context: "DriverContext"
    links: dict[str, Reference] = field(default_factory=dict)
    """Children that change: where the edge will lead, or None."""

    @property
    def keeps_options(self) -> bool:
        """Whether the driver's own options stay as they are."""
        return bool(self.present == self.options)

    @property
    def changes_driver(self) -> bool:
        """Whether the driver must learn of it."""
        return not self.keeps_options or self.context != self.node.context


def steps_for(node: "Node", wanted: NodeDefinition) -> list[Step]:
    """The node's own step, and those of children that inherit or are redefined inside it; parents first.

    Raises InvalidArgument, UnknownOption, MissingOption, NodeInUse or NodeInactive.
    """
    _check_free(node)
    if wanted.driver != node.driver.name:
        raise InvalidArgument("driver", node.driver.name, wanted.driver)
    before = node.definition
    if wanted.ephemeral or wanted.executor not in ("", node.executor):
        raise InvalidArgument(node.name, "ephemeral and executor as they are", "another value")
    wanted.check()
    links, below = _links(node, wanted)
    given = {name: child for name, child in before.children.items() if name not in wanted.children}
    definition = replace(
        wanted, node_name=before.node_name, children={**given, **wanted.children}, followed=before.followed
    )
    present, options = (driver_options(type(node.driver), each.options) for each in (before, definition))
    _check_fixed(node, present, options)
    step = Step(node, definition, present, options, _context(node, definition), links)
    steps = [step]
    for edge in node.children.values():
        if edge.name in links or not _is_part(edge):
            continue
        inherited = _inherited(edge, before, definition, below.get(edge.name))
        if inherited != edge.node.definition:
            steps += steps_for(edge.node, inherited)
    return steps


def _check_free(node: "Node") -> None:
    """Raises NodeInUse for what a job has in hand, NodeInactive for what another process has."""
    if node.of_job:
        raise NodeInUse(node.name, "reopen", "the job that inserted it")
    if node.lent_for_writing:
        raise NodeInUse(node.name, "reopen", "a job that writes to it")
    if not node.active:
        raise NodeInactive(node.name)


def _check_fixed(node: "Node", present: Any, options: Any) -> None:
    """Raises InvalidArgument for an option that an open driver cannot change."""
    class_ = type(node.driver)
    for name in class_.Options.__dataclass_fields__:
        before, after = getattr(present, name), getattr(options, name)
        if before != after and (name in class_.fixed_options or not class_.reopens):
            raise InvalidArgument(f"{node.name}.{name}", f"{before!r}, as it is: open another node", repr(after))


def _context(node: "Node", definition: NodeDefinition) -> "DriverContext":
    """How the driver is open afterwards. A node that waits for writers keeps the mode that they gave it."""
    waits = definition.auto_read_only and not definition.read_only
    return replace(
        node.context,
        read_only=node.context.read_only if waits else definition.read_only,
        discard=definition.discard,
        direct=definition.direct,
        no_flush=definition.no_flush,
        force_share=definition.force_share,
    )


def _links(node: "Node", wanted: NodeDefinition) -> tuple[dict[str, Reference], dict[str, NodeDefinition]]:
    """Children that become others, and new definitions of children that stay."""
    links: dict[str, Reference] = {}
    below: dict[str, NodeDefinition] = {}
    for name, reference in wanted.children.items():
        slot, edge = slot_of(node, name), node.children.get(name)
        if reference is None:
            if slot.required and not slot.many:
                raise MissingOption(node.driver.name, name)
            if edge is not None:
                links[name] = None
        elif isinstance(reference, NodeDefinition) and edge is not None and _same(edge, reference):
            below[name] = replace(reference, node_name=edge.node.definition.node_name)
        elif edge is None or edge.node.name != reference:
            links[name] = reference
    if any(slot_of(node, name).many for name in links):
        raise InvalidArgument(
            f"{node.name}.children", "as they are: AddChild and RemoveChild change them", "others"
        )
    for name in links:
        if not type(node.driver).reopens or slot_of(node, name).stays:
            kept = edge.node.name if (edge := node.children.get(name)) is not None else "none"
            raise InvalidArgument(f"{node.name}.{name}", f"{kept}, as it is: open another node", "another")
    return links, below


def _same(edge: "Edge", reference: NodeDefinition) -> bool:
    """Whether a definition speaks of the child that is there, and not of another one to be opened."""
    named = reference.node_name in ("", edge.node.name)
    return named and _is_part(edge) and edge.node.driver.name == reference.driver and _same_file(edge, reference)


def _same_file(edge: "Edge", reference: NodeDefinition) -> bool:
    fixed = type(edge.node.driver).fixed_options
    before: Mapping[str, Any] = edge.node.definition.options
    return all(before.get(name) == reference.options.get(name) for name in fixed if name in reference.options)


def slot_of(node: "Node", child: str) -> "ChildSlot":
    """Where a child of this name belongs. Raises UnknownOption."""
    found = next((slot for slot in node.driver.children if slot.takes(child)), None)
    if found is None:
        slots = ", ".join(slot.name for slot in node.driver.children)
        raise UnknownOption(node.driver.name, child, slots or "no children")
    return found


def _is_part(edge: "Edge") -> bool:
    """Whether the child was made for this parent, and goes with it."""
    return edge.node.implicit and edge.node.parents[0] is edge


def _inherited(
    edge: "Edge", before: NodeDefinition, after: NodeDefinition, said: NodeDefinition | None
) -> NodeDefinition:
    """A child's definition under the changed parent: its own wishes stay, what it had of the parent follows.

    Its own wishes are what was said of it inside the parent, now or when the parent was opened; without that, what
    the parent did not have.
    """
    nested = said or before.children.get(edge.name)
    present = edge.node.definition
    values: dict[str, bool] = {}
    for name in _FLAGS_OF_BACKING if edge.role is Role.BACKING else _FLAGS:
        if isinstance(nested, NodeDefinition):
            own = getattr(nested, name)
        else:
            own = getattr(present, name) and not getattr(before, name)
        values[name] = own or getattr(after, name)
    return replace(said or present, **values)  # type: ignore[arg-type]
