"""Server reflection, v1 beside v1alpha. The library has only v1alpha; the messages of both are the same bytes.

Must not list or describe anything but what the server was given.
"""

from collections.abc import Iterable
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer

ALPHA: Final = "grpc.reflection.v1alpha"
STABLE: Final = "grpc.reflection.v1"
NAMES: Final = (f"{STABLE}.ServerReflection", f"{ALPHA}.ServerReflection")


def add(server: grpc.aio.Server, names: Iterable[str]) -> None:
    """Let clients list and describe the services `names`, and reflection itself."""
    _describe_stable()
    servicer = _MethodsToo([*names, *NAMES])
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    handler: Any = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    generic = grpc.method_handlers_generic_handler(NAMES[0], {"ServerReflectionInfo": handler})
    server.add_generic_rpc_handlers((generic,))


class _MethodsToo(ReflectionServicer):  # type: ignore[misc]
    """The library finds the file of messages and services by name, but of methods not (`grpcurl describe S.M`)."""

    def _file_containing_symbol(
        self, request: reflection_pb2.ServerReflectionRequest, name: str
    ) -> reflection_pb2.ServerReflectionResponse:
        service, _, method = name.rpartition(".")
        try:
            known = method in descriptor_pool.Default().FindServiceByName(service).methods_by_name
        except KeyError:
            known = False
        return super()._file_containing_symbol(request, service if known else name)


def _describe_stable() -> None:
    """Make v1's descriptor out of v1alpha's, so that clients can describe it as well."""
    pool = descriptor_pool.Default()
    name = "grpc/reflection/v1/reflection.proto"
    try:
        pool.FindFileByName(name)
    except KeyError:
        described = descriptor_pb2.FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(described)
        described.name, described.package = name, STABLE
        for field in (field for message in described.message_type for field in message.field):
            if field.type_name:
                field.type_name = field.type_name.replace(f".{ALPHA}.", f".{STABLE}.")
        for method in (method for service in described.service for method in service.method):
            method.input_type = method.input_type.replace(f".{ALPHA}.", f".{STABLE}.")
            method.output_type = method.output_type.replace(f".{ALPHA}.", f".{STABLE}.")
        pool.Add(described)
