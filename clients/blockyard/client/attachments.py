"""Users of nodes from outside with a medium that may change: `client.attachments`."""

from collections.abc import Mapping, Sequence

from google.protobuf.field_mask_pb2 import FieldMask

from blockyard.client.calls import Service
from blockyard.client.words import to_number
from blockyard.v1 import control_pb2 as control
from blockyard.v1 import types_pb2 as types
from blockyard.v1.control_pb2 import ChangeMediumRequest
from blockyard.v1.types_pb2 import Attachment


class Attachments:
    """Makes, shows and changes attachments. Policies are words: report, ignore, enospc, stop, auto."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def create(
        self,
        name: str,
        node_name: str = "",
        *,
        writable: bool = False,
        removable: bool = False,
        trayless: bool = False,
        tray_open: bool = False,
        locked: bool = False,
        logical_block_size_bytes: int = 0,
        physical_block_size_bytes: int = 0,
        write_cache: bool = True,
        on_read_error: str = "",
        on_write_error: str = "",
        labels: Mapping[str, str] | None = None,
        request_id: str = "",
        validate_only: bool = False,
    ) -> Attachment:
        """Attach to a node; without one, an empty drive. A size of 0 or an empty policy is the default."""
        wanted = Attachment(
            name=name,
            node_name=node_name,
            writable=writable,
            removable=removable,
            trayless=trayless,
            tray_open=tray_open,
            locked=locked,
            logical_block_size_bytes=logical_block_size_bytes,
            physical_block_size_bytes=physical_block_size_bytes,
            write_cache=write_cache,
            on_read_error=to_number(types.OnError, on_read_error, "on_read_error"),
            on_write_error=to_number(types.OnError, on_write_error, "on_write_error"),
            labels=labels,
        )
        request = control.CreateAttachmentRequest(
            attachment=wanted, request_id=request_id, validate_only=validate_only
        )
        return await self._service.unary("CreateAttachment", request, Attachment)

    async def get(self, name: str) -> Attachment:
        """One attachment."""
        return await self._service.unary("GetAttachment", control.GetAttachmentRequest(name=name), Attachment)

    async def list(self) -> Sequence[Attachment]:
        """All attachments by name."""
        request = control.ListAttachmentsRequest()
        response = await self._service.unary("ListAttachments", request, control.ListAttachmentsResponse)
        return tuple(response.attachments)

    async def update(
        self,
        name: str,
        *,
        write_cache: bool | None = None,
        on_read_error: str | None = None,
        on_write_error: str | None = None,
        logical_block_size_bytes: int | None = None,
        physical_block_size_bytes: int | None = None,
        labels: Mapping[str, str] | None = None,
        etag: str = "",
    ) -> Attachment:
        """Change what is given; an empty policy or a size of 0 returns to the default."""
        wanted = Attachment(name=name, etag=etag, labels=labels)
        given = {
            "write_cache": write_cache,
            "on_read_error": on_read_error,
            "on_write_error": on_write_error,
            "logical_block_size_bytes": logical_block_size_bytes,
            "physical_block_size_bytes": physical_block_size_bytes,
            "labels": labels,
        }
        paths = [field for field, value in given.items() if value is not None]
        if not paths:
            return await self.get(name)
        for field in paths:
            if field != "labels":
                value = given[field]
                number = to_number(types.OnError, value, field) if isinstance(value, str) else value
                setattr(wanted, field, number)
        request = control.UpdateAttachmentRequest(attachment=wanted, update_mask=FieldMask(paths=paths))
        return await self._service.unary("UpdateAttachment", request, Attachment)

    async def delete(self, name: str, *, etag: str = "", allow_missing: bool = False) -> None:
        """Let the node go. Refused while an export, a session or a call uses the attachment."""
        request = control.DeleteAttachmentRequest(name=name, etag=etag, allow_missing=allow_missing)
        await self._service.unary("DeleteAttachment", request, control.DeleteAttachmentResponse)

    async def open_tray(self, name: str, *, force: bool = False) -> Attachment:
        """Open the tray; `force` breaks the guest's lock."""
        return await self._move(name, ChangeMediumRequest.ACTION_OPEN_TRAY, force=force)

    async def close_tray(self, name: str) -> Attachment:
        """Close the tray."""
        return await self._move(name, ChangeMediumRequest.ACTION_CLOSE_TRAY)

    async def insert(self, name: str, node_name: str) -> Attachment:
        """Put a medium into the open tray."""
        return await self._move(name, ChangeMediumRequest.ACTION_INSERT, node_name)

    async def remove(self, name: str, *, timeout: float | None = None) -> Attachment:
        """Take the medium out of the open tray, when its running requests have ended."""
        return await self._move(name, ChangeMediumRequest.ACTION_REMOVE, timeout=timeout)

    async def change(
        self,
        name: str,
        node_name: str,
        *,
        force: bool = False,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Attachment:
        """Open, remove, insert and close in one step."""
        return await self._move(
            name, ChangeMediumRequest.ACTION_CHANGE, node_name, force=force, request_id=request_id, timeout=timeout
        )

    async def lock(self, name: str) -> Attachment:
        """Lock the tray, as the guest does."""
        return await self._move(name, ChangeMediumRequest.ACTION_LOCK)

    async def unlock(self, name: str) -> Attachment:
        """Unlock the tray."""
        return await self._move(name, ChangeMediumRequest.ACTION_UNLOCK)

    async def reset(self, name: str) -> Attachment:
        """Clear the latched error; requests that wait go on in order."""
        request = control.ResetIoStatusRequest(name=name)
        return await self._service.unary("ResetIoStatus", request, Attachment)

    async def _move(
        self,
        name: str,
        action: ChangeMediumRequest.Action,
        node_name: str = "",
        *,
        force: bool = False,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Attachment:
        request = ChangeMediumRequest(
            name=name, action=action, node_name=node_name, force=force, request_id=request_id
        )
        return await self._service.unary("ChangeMedium", request, Attachment, timeout)
