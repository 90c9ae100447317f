"""`python -m blockyard.rpc.health [ADDRESS [NAME]]`: status 0 if the service there says that it serves.

For health checks of containers and supervisors, which have no gRPC of their own. Without an address it asks the
first one of BLOCKYARD_LISTEN, at this host. NAME asks for one service, or for one node as `node/NAME`.
"""

import os
import sys
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from blockyard.base.errors import InvalidArgument
from blockyard.rpc.address import Address

TIMEOUT_S: Final = 3.0
_EVERYWHERE: Final = ("0.0.0.0", "::")
_STATUS = health_pb2.HealthCheckResponse.ServingStatus


def check(address: Address, timeout_s: float = TIMEOUT_S, name: str = "") -> str:
    """What the server says of itself as a whole, or of what is named: SERVING, or why not."""
    with grpc.insecure_channel(address.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=timeout_s, wait_for_ready=True)
        except grpc.RpcError as problem:
            return str(problem.details())
    return str(_STATUS.Name(answer.status))


def local(listening: str) -> Address:
    """Where to reach, on this host, what listens there."""
    address = Address.parse(listening)
    return Address(host="127.0.0.1", port=address.port) if address.host in _EVERYWHERE else address


def main(arguments: list[str]) -> int:
    named = arguments[:1] or os.environ.get("BLOCKYARD_LISTEN", "").split()[:1]
    try:
        found = (
            check(local(named[0]), name="".join(arguments[1:2]))
            if named
            else "no address: name one, or set BLOCKYARD_LISTEN"
        )
    except InvalidArgument as problem:
        found = str(problem)
    print(found, file=sys.stderr)  # noqa: T201
    return 0 if found == "SERVING" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
