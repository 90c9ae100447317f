"""`blockyardd`: everything in one process."""

from blockyard.daemon import app
from blockyard.daemon.config import DaemonConfig
from blockyard.rpc.config import run


def main() -> None:
    """Parse options and serve until SIGTERM."""
    run(app.main, DaemonConfig, app.NAME)


if __name__ == "__main__":
    main()
