"""SecretService: passphrases and keys by name. No message that leaves here has a field for a value."""

from typing import Any, Final

from blockyard.base.errors import ResourceNotFound
from blockyard.node.graph.keeping import Keeping
from blockyard.node.graph.secrets import SECRET, Secret, SecretStore
from blockyard.node.rpc.memory import RequestMemory
from blockyard.node.rpc.words import word_of
from blockyard.v1 import control_pb2
from blockyard.v1.control_pb2_grpc import SecretServiceServicer

_FORMATS: Final = {"raw": control_pb2.SECRET_FORMAT_RAW, "base64": control_pb2.SECRET_FORMAT_BASE64}


class SecretServicer(SecretServiceServicer):
    """Secrets."""

    def __init__(self, secrets: SecretStore, kept: Keeping, memory: RequestMemory) -> None:
        self._secrets = secrets
        self._kept = kept
        self._memory = memory

    async def CreateSecret(  # noqa: N802
        self, request: control_pb2.CreateSecretRequest, context: Any
    ) -> control_pb2.Secret:
        async def work() -> control_pb2.Secret:
            form = word_of(control_pb2.SecretFormat, request.format, "format") or "raw"
            secret = await self._secrets.create(request.name, request.value, request.file, form)
            self._kept.catalogue.touch(SECRET, secret.name)
            await self._kept.commit(lambda: self._secrets.delete(secret.name))
            return _message(secret)

        return await self._memory.once(request, work)

    async def ListSecrets(  # noqa: N802
        self, request: control_pb2.ListSecretsRequest, context: Any
    ) -> control_pb2.ListSecretsResponse:
        return control_pb2.ListSecretsResponse(secrets=map(_message, self._secrets.all()))

    async def DeleteSecret(  # noqa: N802
        self, request: control_pb2.DeleteSecretRequest, context: Any
    ) -> control_pb2.DeleteSecretResponse:
        try:
            secret = self._secrets.delete(request.name)
        except ResourceNotFound:
            if request.allow_missing:
                return control_pb2.DeleteSecretResponse()
            raise
        self._kept.catalogue.touch(SECRET, secret.name)
        await self._kept.commit(lambda: self._secrets.put(secret))
        return control_pb2.DeleteSecretResponse()


def _message(secret: Secret) -> control_pb2.Secret:
    return control_pb2.Secret(name=secret.name, file=secret.file, format=_FORMATS[secret.format])
