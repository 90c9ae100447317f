"""`blockyard driver`: what can be opened and with which options."""

from blockyard.cli.app import sub_app
from blockyard.cli.exits import Exit
from blockyard.cli.options import DEFAULTS, Globals
from blockyard.cli.running import CommandFailed, connected

app = sub_app("driver")


@app.command(name="list")
async def list_(driver: str = "", /, *, options: Globals = DEFAULTS) -> None:
    """List the drivers; with a name, that driver's options and what they mean.

    For example:
      blockyard driver list
      blockyard driver list qcow2

    Parameters
    ----------
    driver
        A driver.
    """
    from blockyard.cli.describe import DRIVERS, OPTIONS, driver_facts

    async with connected(options) as (client, out):
        drivers = await client.server.drivers()
        if not driver:
            out.many(drivers, DRIVERS)
            return
        found = next((item for item in drivers if item.name == driver), None)
        if found is None:
            known = ", ".join(item.name for item in drivers)
            raise CommandFailed(Exit.NOT_FOUND, f"no driver named {driver!r}", f"There are: {known}.")
        out.one(found, driver_facts)
        if out.for_people:
            for title, items in (
                ("options for opening", found.options),
                ("options for creating", found.create_options),
            ):
                if items:
                    out.text(f"\n{title}:")
                    out.many(items, OPTIONS)
