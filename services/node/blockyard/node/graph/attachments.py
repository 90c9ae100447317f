"""The attachments there are: made, changed, asked for their medium, and told of to watchers.

An attachment outlives its medium (QEMU's BlockBackend and the device in front of it). How requests go through it is
`attachment_user`, how a tray moves `tray`. Must not know the wire, nor who uses an attachment beyond a name.

Invariants
1. An attachment has one edge: to its medium, or to a node that stands for none.
2. A medium leaves only when its node is drained, in one step with what takes its place.
3. A change is durable (`catalogue`) before a guest sees it or the caller is told; one that cannot be is undone.
4. Every change that clients can see is published once, after it happened, under the name `attachment/NAME`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from blockyard.base.errors import (
    BlockError,
    EtagMismatch,
    FileBusy,
    FileReadOnly,
    InvalidArgument,
    LimitReached,
    MediumActionNotAllowed,
    NodeInUse,
    NodeReadOnly,
    ResourceBusy,
    ResourceExists,
    ResourceNotFound,
    TrayLocked,
)
from blockyard.node.graph.attached import Attachment
from blockyard.node.graph.attachment import (
    AttachmentDefinition,
)
from blockyard.node.graph.attachment_user import AttachmentUser, Failure
from blockyard.node.graph.chain import above_filters
from blockyard.node.graph.drain import drained
from blockyard.node.graph.graph import NodeReport
from blockyard.node.graph.kept_attachments import KIND, AttachmentKind
from blockyard.node.graph.modes import ready_to_write, settle
from blockyard.node.graph.no_medium import no_medium
from blockyard.node.graph.permissions import refresh
from blockyard.node.graph.tray import Action, Plan, Tray, plan

if TYPE_CHECKING:
    from blockyard.node.graph.graph import Graph
    from blockyard.node.graph.node import Node

MAX_ATTACHMENTS: Final = 1024
_BLOCK_SIZES: Final = ("logical_block_size", "physical_block_size")


class Attachments:
    """All attachments of a graph."""

    def __init__(self, graph: "Graph") -> None:
        self._graph = graph
        self._clock = graph.environment.clock
        self._attachments: dict[str, Attachment] = {}
        self._coming: dict[str, Attachment] = {}
        """Those that nobody may use yet: they are being kept."""
        self._leaving: set[str] = set()
        """Names of those that are being deleted."""
        self._nothing = no_medium(graph.environment)
        graph.on_changed.append(self._node_changed)
        graph.kept.catalogue.add(AttachmentKind(self))
        self.on_change: list[Callable[[str, Attachment], None]] = []
        """Told of "added", "modified" and "removed"."""

    # --- looking -----------------------------------------------------------------------------------------

    def get(self, name: str) -> Attachment:
        """Raises ResourceNotFound."""
        attachment = self._attachments.get(name)
        if attachment is None:
            raise ResourceNotFound("attachment", name)
        return attachment

    def all(self) -> list[Attachment]:
        """By name."""
        return [self._attachments[name] for name in sorted(self._attachments)]

    def lasting(self, name: str) -> Attachment | None:
        """As far as the catalogue is concerned."""
        return self._attachments.get(name) or self._coming.get(name)

    def present(self) -> list[tuple[str, Attachment]]:
        """For watchers: each with the name it is published under."""
        return [(published_name(attachment), attachment) for attachment in self.all()]

    # --- making and changing -----------------------------------------------------------------------------

    async def create(
        self, definition: AttachmentDefinition, *, validate_only: bool = False, durable: bool = True
    ) -> Attachment:
        """`durable = False` leaves it to the caller to keep it.

        Raises InvalidArgument, ResourceExists, NodeNotFound, NodeReadOnly, PermissionConflict, LimitReached or
        CatalogueNotWritten.
        """
        definition = definition.filled()
        definition.check()
        if definition.writable:
            await self._prepare(definition.node_name, removable=definition.removable)
        attachment = self._made(definition)
        if validate_only:
            await self._let_go(attachment)
            return attachment
        self._coming[definition.name] = attachment
        try:
            await self._keep(attachment, lambda: self._coming.pop(definition.name), durable=durable)
        except BaseException:
            await self._let_go(attachment)
            raise
        self._attachments[definition.name] = self._coming.pop(definition.name)
        self._publish("added", attachment)
        return attachment

    def _made(self, definition: AttachmentDefinition) -> Attachment:
        if definition.name in {*self._attachments, *self._coming, *self._leaving}:
            raise ResourceExists("attachment", definition.name)
        if len(self._attachments) >= MAX_ATTACHMENTS:
            raise LimitReached("attachments", MAX_ATTACHMENTS)
        user = AttachmentUser(
            definition.name,
            self._medium(definition.node_name),
            writable=definition.writable,
            removable=definition.removable,
            failed=partial(self._failed, definition.name),
        )
        return Attachment(definition, user, self._clock.wall_ns())

    async def update(self, name: str, changes: dict[str, Any], etag: str = "") -> Attachment:
        """Change fields of the definition. Raises ResourceBusy for block sizes while something uses it."""
        attachment = self.get(name)
        _check_etag(attachment, etag)
        before = attachment.definition
        definition = replace(before, **changes).filled()
        definition.check()
        resized = any(getattr(definition, field) != getattr(before, field) for field in _BLOCK_SIZES)
        if resized and attachment.users:
            raise ResourceBusy("attachment", name, ", ".join(sorted(attachment.users)))
        attachment.adopt(definition)
        await self._keep(attachment, lambda: attachment.adopt(before))
        self._publish("modified", attachment)
        return attachment

    async def delete(self, name: str, etag: str = "") -> None:
        """Let its medium go. Raises ResourceNotFound, EtagMismatch, or ResourceBusy that names who uses it."""
        async with self.get(name).moving:
            attachment = self.get(name)
            _check_etag(attachment, etag)
            if attachment.users:
                raise ResourceBusy("attachment", name, ", ".join(sorted(attachment.users)))
            del self._attachments[name]
            self._leaving.add(name)
            try:
                await self._keep(attachment, lambda: self._attachments.update({name: attachment}))
            finally:
                self._leaving.discard(name)
            await self._let_go(attachment)
            self._publish("removed", attachment)

    async def _let_go(self, attachment: Attachment) -> None:
        node = attachment.user.node
        attachment.user.detach()
        await settle(self._graph, node)

    @property
    def nothing(self) -> "Node":
        """What stands for no medium."""
        return self._nothing

    async def make_writable(self, node: "Node") -> None:
        """Of a node that is to be a medium, if it waits for a writer. If it cannot, a drive takes it as it is."""
        with suppress(NodeReadOnly, FileReadOnly, FileBusy):
            await ready_to_write(self._graph, node)

    async def _prepare(self, node_name: str, *, removable: bool) -> None:
        """A node that waits for a writer becomes writable. If it cannot, a drive takes it as it is."""
        if not node_name:
            return
        node = above_filters(self._graph.get(node_name))
        await (self.make_writable(node) if removable else ready_to_write(self._graph, node))

    async def _keep(self, attachment: Attachment, undo: Callable[[], object], *, durable: bool = True) -> None:
        """It comes back after a restart as it is now. Raises CatalogueNotWritten; then the change is undone."""
        self._graph.kept.catalogue.touch(KIND, attachment.name)
        if durable:
            await self._graph.kept.commit(undo)

    def reset(self, name: str) -> Attachment:
        """Forget the latched error; the requests that wait go on in order."""
        attachment = self.get(name)
        if attachment.user.stopped:
            attachment.user.reset()
            self._publish("modified", attachment)
        return attachment

    def close(self) -> None:
        """Let every medium go: the service ends."""
        for attachment in self._attachments.values():
            attachment.user.detach()
        self._attachments.clear()

    # --- using -------------------------------------------------------------------------------------------

    def claim(self, name: str, holder: str) -> Attachment:
        """Use an attachment; it cannot be deleted until `unclaim`."""
        attachment = self.get(name)
        attachment.users[holder] = attachment.users.get(holder, 0) + 1
        return attachment

    def unclaim(self, attachment: Attachment, holder: str) -> None:
        """Give back what `claim` gave."""
        attachment.users[holder] -= 1
        if not attachment.users[holder]:
            del attachment.users[holder]

    @contextmanager
    def used(self, name: str, holder: str) -> Iterator[AttachmentUser]:
        """An attachment's edge while the body runs."""
        attachment = self.claim(name, holder)
        try:
            yield attachment.user
        finally:
            self.unclaim(attachment, holder)

    # --- tray and medium ---------------------------------------------------------------------------------

    async def change_medium(
        self, name: str, action: Action, node_name: str = "", *, force: bool = False
    ) -> Attachment:
        """Move tray or medium, or turn the key; all or nothing.

        Raises MediumActionNotAllowed, TrayLocked, NodeNotFound, InvalidArgument, or NodeInUse for a medium that may
        not leave now.
        """
        inserts = action in (Action.INSERT, Action.CHANGE)
        if inserts is not bool(node_name):
            raise InvalidArgument("node_name", "the medium" if inserts else "nothing", repr(node_name))
        async with self.get(name).moving:
            attachment = self.get(name)
            steps = self._allowed(attachment, action, force)
            if any(tray != attachment.tray for tray in steps.path):
                old = attachment.user.node
                if inserts and attachment.definition.writable:
                    await self._prepare(node_name, removable=True)
                await self._take(attachment, action, steps, node_name)
                await settle(self._graph, old)
            return attachment

    async def _take(self, attachment: Attachment, action: Action, steps: Plan, node_name: str) -> None:
        """Go the steps of a plan. Whoever uses a medium that comes or goes waits meanwhile."""
        leaves = attachment.tray.has_medium and not all(tray.has_medium for tray in steps.path)
        while True:
            old, medium = attachment.user.node, self._medium(node_name)
            if leaves and attachment.user.frozen_reason:
                raise NodeInUse(old.name, str(action), attachment.user.frozen_reason)
            comes = medium if node_name or leaves else None
            held = [node for node in {old.uid: old, medium.uid: medium}.values() if node is not self._nothing]
            async with AsyncExitStack() as stack:
                if comes is not None:
                    await stack.enter_async_context(drained(*held))
                if attachment.user.node is old and medium is self._medium(node_name):
                    await self._move(attachment, steps, comes)
                    return

    def _allowed(self, attachment: Attachment, action: Action, force: bool) -> Plan:
        steps = plan(attachment.tray, action, force)
        if steps.refusal:
            raise MediumActionNotAllowed(attachment.name, action, attachment.tray.place, steps.refusal)
        if steps.asks_guest:
            attachment.tray = steps.path[-1]
            self._publish("modified", attachment)
            self._report(attachment, "eject-request", {"force": "false"})
            owners = ", ".join(sorted(attachment.users)) or "its guest"
            raise TrayLocked(attachment.name, owners)
        return steps

    def _medium(self, node_name: str) -> "Node":
        return above_filters(self._graph.get(node_name)) if node_name else self._nothing

    async def _move(self, attachment: Attachment, steps: Plan, medium: "Node | None") -> None:
        """Tray and edge move in one step and are kept; then the guest sees it, and everyone is told."""
        user, old, first = attachment.user, attachment.user.node, attachment.tray

        def undo() -> None:
            attachment.tray = first
            if user.node is not old:
                user.move(old)
                refresh(old)

        if medium is not None:
            user.move(medium)
            try:
                refresh(old, medium)
            except BlockError:
                undo()
                raise
        attachment.tray = steps.path[-1]
        await self._keep(attachment, undo)
        attachment.show()
        self.tell_of_move(attachment, (first, *steps.path), old)

    def tell_of_move(self, attachment: Attachment, path: Sequence[Tray], old: "Node") -> None:
        """Tray and medium have gone a path, from the node that the medium was."""
        self._publish("modified", attachment)
        if attachment.user.node is not old:
            self._graph.changed(old)
        for before, after in pairwise(path):
            self._tell_of_step(attachment, before, after, old.name)

    def _tell_of_step(self, attachment: Attachment, before: Tray, after: Tray, old_name: str) -> None:
        if after.is_open is not before.is_open:
            self._report(attachment, "tray-moved", {"tray_open": str(after.is_open).lower()})
        if after.has_medium is not before.has_medium:
            inserted = attachment.node_name if after.has_medium else ""
            removed = "" if after.has_medium else old_name
            self._report(attachment, "medium-changed", {"inserted": inserted, "removed": removed})

    # --- telling -----------------------------------------------------------------------------------------

    def _node_changed(self, node: "Node") -> None:
        """A node's users may have come from another: an attachment follows a job's pivot."""
        for edge in node.parents:
            attachment = self._attachments.get(edge.name) if isinstance(edge, AttachmentUser) else None
            if attachment is not None and attachment.user is edge and attachment.told_node is not node:
                self._publish("modified", attachment)

    def _failed(self, name: str, failure: Failure) -> None:
        attachment = self._attachments.get(name)
        if attachment is None:
            return
        if failure.latched:
            self._publish("modified", attachment)
        left_out = attachment.suppressed(failure, self._clock.monotonic_ns())
        if left_out is None:
            return
        details = {
            "operation": failure.operation,
            "offset": str(failure.offset),
            "length": str(failure.length),
            "action": failure.outcome,
            "nospace": str(failure.full_disk).lower(),
            "reason": str(failure.problem),
        }
        self._report(attachment, "io-error", details | ({"suppressed": str(left_out)} if left_out else {}))

    def _report(self, attachment: Attachment, kind: str, details: dict[str, str]) -> None:
        node_name = attachment.node_name
        event = NodeReport(node_name, kind, {"attachment": attachment.name, **details}, self._clock.wall_ns())
        self._graph.hub.publish("event", node_name or published_name(attachment), event)

    def _publish(self, kind: str, attachment: Attachment) -> None:
        """The node tells of its attachments too."""
        hub = self._graph.hub
        attachment.revision = hub.revision + 1
        attachment.told_node = attachment.user.node
        hub.publish(kind, published_name(attachment), attachment)  # type: ignore[arg-type]
        self._graph.changed(attachment.user.node)
        for listener in self.on_change:
            listener(kind, attachment)


def published_name(attachment: Attachment) -> str:
    """No node can have such a name."""
    return f"attachment/{attachment.name}"


def _check_etag(attachment: Attachment, etag: str) -> None:
    if etag and etag != attachment.etag:
        raise EtagMismatch("attachment", attachment.name, etag, attachment.etag)
