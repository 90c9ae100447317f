"""`blockyard-jobs`: the jobs service as a process of its own."""

from blockyard.jobs.app import NAME, serving
from blockyard.jobs.config import JobsConfig
from blockyard.rpc.config import run
from blockyard.rpc.ready import announce
from blockyard.rpc.server import until_stopped
from blockyard.rpc.telemetry import Telemetry


async def serve(config: JobsConfig) -> None:
    """Serve until SIGTERM or SIGINT."""
    telemetry = Telemetry.start(NAME)
    try:
        async with serving(config, telemetry=telemetry) as running:
            announce(NAME, running.addresses, config.ready_fd)
            await until_stopped()
    finally:
        telemetry.stop()


def main() -> None:
    """Parse options and serve until SIGTERM."""
    run(serve, JobsConfig, NAME)


if __name__ == "__main__":
    main()
