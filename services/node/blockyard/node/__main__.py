"""`blockyard-node`: the node service as a process of its own."""

from blockyard.node.app import serving
from blockyard.node.config import NodeConfig
from blockyard.rpc.config import run
from blockyard.rpc.ready import announce
from blockyard.rpc.server import until_stopped
from blockyard.rpc.telemetry import Telemetry

NAME = "blockyard-node"


async def serve(config: NodeConfig) -> None:
    """Serve until SIGTERM or SIGINT."""
    telemetry = Telemetry.start(NAME, config.instance_id)
    try:
        async with serving(config, telemetry=telemetry) as running:
            announce(NAME, running.addresses, config.ready_fd)
            await until_stopped()
    finally:
        telemetry.stop()


def main() -> None:
    """Parse options and serve until SIGTERM."""
    run(serve, NodeConfig, NAME)


if __name__ == "__main__":
    main()
