"""`blockyard server`: who answers."""

from blockyard.cli.app import sub_app
from blockyard.cli.options import DEFAULTS, Globals
from blockyard.cli.running import connected

app = sub_app("server")


@app.command
async def info(*, options: Globals = DEFAULTS) -> None:
    """Show the version, the drivers and the limits of the service.

    For example:
      blockyard server info
      blockyard server info --output json | jq .limits
    """
    from blockyard.cli.describe import server_facts

    async with connected(options) as (client, out):
        out.one(await client.server.info(), server_facts)
