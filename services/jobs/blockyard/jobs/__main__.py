"""`blockyard-jobs`: options in, then `app.serving` until SIGTERM."""

from blockyard.jobs.app import NAME, serving
from blockyard.jobs.config import JobsConfig
from blockyard.rpc.config import run
from blockyard.rpc.server import until_stopped
from blockyard.rpc.telemetry import Telemetry


async def serve(config: JobsConfig) -> None:
    telemetry = Telemetry.start(NAME)
    try:
        async with serving(config, telemetry=telemetry):
            await until_stopped()
    finally:
        telemetry.stop()


def main() -> None:
    run(serve, JobsConfig, NAME)


if __name__ == "__main__":
    main()
