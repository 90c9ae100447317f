"""`blockyard-stats`: the stats service as a process of its own."""

from blockyard.rpc.config import run
from blockyard.stats import app


def main() -> None:
    """Parse options and serve until SIGTERM."""
    run(app.main, app.StatsConfig, app.NAME)


if __name__ == "__main__":
    main()
