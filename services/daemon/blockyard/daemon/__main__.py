"""`blockyardd`: everything in one process."""

import gc


def main() -> None:
    """Parse options and serve until SIGTERM."""
    # Nothing that is imported is garbage; looking for it takes a quarter of the start. `run` turns it on again.
    gc.disable()
    from blockyard.daemon import app
    from blockyard.daemon.config import DaemonConfig
    from blockyard.rpc.config import run

    run(app.main, DaemonConfig, app.NAME)


if __name__ == "__main__":
    main()
