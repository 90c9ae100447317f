"""Passphrases and keys by name: `client.secrets`.

await client.secrets.create("disk-key", value=passphrase)
await client.secrets.create("disk-key", file="disk.key")     # beneath the service's secret directory
await client.nodes.open(luks(file("disk.luks"), key_secret="disk-key", node_name="disk"))
"""

from collections.abc import Sequence

from blockyard.client.calls import Service
from blockyard.v1 import control_pb2 as control
from blockyard.v1.control_pb2 import Secret


class Secrets:
    """Stores and forgets secrets. What was stored never comes back."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def create(
        self, name: str, *, value: bytes | str = b"", file: str = "", base64: bool = False, request_id: str = ""
    ) -> Secret:
        """A new secret: a value, which is gone with the service's process, or the name of a file of its own."""
        request = control.CreateSecretRequest(
            name=name,
            value=value.encode() if isinstance(value, str) else value,
            file=file,
            format=control.SECRET_FORMAT_BASE64 if base64 else control.SECRET_FORMAT_RAW,
            request_id=request_id,
        )
        return await self._service.unary("CreateSecret", request, Secret)

    async def list(self) -> Sequence[Secret]:
        """All secrets by name, without their values."""
        request = control.ListSecretsRequest()
        found = await self._service.unary("ListSecrets", request, control.ListSecretsResponse)
        return tuple(found.secrets)

    async def remove(self, name: str, *, allow_missing: bool = False) -> None:
        """Forget a secret. Open nodes go on."""
        request = control.DeleteSecretRequest(name=name, allow_missing=allow_missing)
        await self._service.unary("DeleteSecret", request, control.DeleteSecretResponse)
