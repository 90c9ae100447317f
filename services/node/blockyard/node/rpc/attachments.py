"""AttachmentService: who uses nodes from outside, with block sizes, policies and a medium that may change."""

from typing import Any, Final

from blockyard.base.errors import InvalidArgument, ResourceNotFound
from blockyard.node.graph.attachments import Attachments
from blockyard.node.graph.tray import Action
from blockyard.node.rpc.attachment_words import MUTABLE, attachment_message, changes_of, definition_of
from blockyard.node.rpc.memory import RequestMemory
from blockyard.v1 import control_pb2 as control
from blockyard.v1 import types_pb2 as types
from blockyard.v1.control_pb2_grpc import AttachmentServiceServicer

_ACTIONS: Final = {
    control.ChangeMediumRequest.ACTION_OPEN_TRAY: Action.OPEN_TRAY,
    control.ChangeMediumRequest.ACTION_CLOSE_TRAY: Action.CLOSE_TRAY,
    control.ChangeMediumRequest.ACTION_INSERT: Action.INSERT,
    control.ChangeMediumRequest.ACTION_REMOVE: Action.REMOVE,
    control.ChangeMediumRequest.ACTION_CHANGE: Action.CHANGE,
    control.ChangeMediumRequest.ACTION_LOCK: Action.LOCK,
    control.ChangeMediumRequest.ACTION_UNLOCK: Action.UNLOCK,
}


def move_of(request: control.ChangeMediumRequest) -> Action:
    """Raises InvalidArgument."""
    action = _ACTIONS.get(request.action)
    if action is None:
        raise InvalidArgument("action", "one of ChangeMediumRequest.Action", str(request.action))
    return action


class AttachmentServicer(AttachmentServiceServicer):
    """Attachments of the graph."""

    def __init__(self, attachments: Attachments, memory: RequestMemory) -> None:
        self._attachments = attachments
        self._memory = memory

    async def CreateAttachment(  # noqa: N802
        self, request: control.CreateAttachmentRequest, context: Any
    ) -> types.Attachment:
        async def work() -> types.Attachment:
            definition = definition_of(request.attachment)
            made = await self._attachments.create(definition, validate_only=request.validate_only)
            return attachment_message(made)

        return await self._memory.once(request, work)

    async def GetAttachment(self, request: control.GetAttachmentRequest, context: Any) -> types.Attachment:  # noqa: N802
        return attachment_message(self._attachments.get(request.name))

    async def ListAttachments(  # noqa: N802
        self, request: control.ListAttachmentsRequest, context: Any
    ) -> control.ListAttachmentsResponse:
        return control.ListAttachmentsResponse(attachments=map(attachment_message, self._attachments.all()))

    async def UpdateAttachment(  # noqa: N802
        self, request: control.UpdateAttachmentRequest, context: Any
    ) -> types.Attachment:
        paths = frozenset(request.update_mask.paths) or MUTABLE
        if unknown := paths - MUTABLE:
            raise InvalidArgument("update_mask", "of " + ", ".join(sorted(MUTABLE)), ", ".join(sorted(unknown)))
        wanted = request.attachment
        changed = await self._attachments.update(wanted.name, changes_of(wanted, paths), wanted.etag)
        return attachment_message(changed)

    async def DeleteAttachment(  # noqa: N802
        self, request: control.DeleteAttachmentRequest, context: Any
    ) -> control.DeleteAttachmentResponse:
        try:
            await self._attachments.delete(request.name, request.etag)
        except ResourceNotFound:
            if not request.allow_missing:
                raise
        return control.DeleteAttachmentResponse()

    async def ChangeMedium(self, request: control.ChangeMediumRequest, context: Any) -> types.Attachment:  # noqa: N802
        async def work() -> types.Attachment:
            changed = await self._attachments.change_medium(
                request.name, move_of(request), request.node_name, force=request.force
            )
            return attachment_message(changed)

        return await self._memory.once(request, work)

    async def ResetIoStatus(self, request: control.ResetIoStatusRequest, context: Any) -> types.Attachment:  # noqa: N802
        return attachment_message(self._attachments.reset(request.name))
