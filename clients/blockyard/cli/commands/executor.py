"""`blockyard executor`: named pools of threads, so that a slow disk does not delay nodes on others."""

from blockyard.cli.app import sub_app
from blockyard.cli.options import DEFAULTS, Globals
from blockyard.cli.running import connected

app = sub_app("executor")


@app.command
async def create(name: str, /, *, threads: int = 0, options: Globals = DEFAULTS) -> None:
    """Make an executor.

    Nodes are opened on it with `--set executor=NAME`, or moved to it with `blockyard node set-executor`.

    Examples:
      blockyard executor create slow --threads 8

    Parameters
    ----------
    name
        Its name.
    threads
        How many threads, 1 to 64. Default 4.
    """
    from blockyard.cli.describe import EXECUTORS

    async with connected(options) as (client, out):
        out.single(await client.executors.create(name, threads), EXECUTORS)


@app.command(name="list")
async def list_(*, options: Globals = DEFAULTS) -> None:
    """List the executors with what they do now. `main` is always there.

    For example:
      blockyard executor list
    """
    from blockyard.cli.describe import EXECUTORS

    async with connected(options) as (client, out):
        out.many(await client.executors.list(), EXECUTORS)


@app.command
async def delete(name: str, /, *, allow_missing: bool = False, options: Globals = DEFAULTS) -> None:
    """Remove an executor that runs no node.

    Examples:
      blockyard executor delete slow

    Parameters
    ----------
    name
        The executor.
    allow_missing
        No error if there is none.
    """
    from blockyard.v1.control_pb2 import DeleteExecutorResponse

    async with connected(options) as (client, out):
        await client.executors.delete(name, allow_missing=allow_missing)
        out.done(DeleteExecutorResponse(), "" if options.quiet else f"removed executor {name}")
