"""The table of commands. Each group is a module that is imported when it is used; `--help` imports none.

What must not live here: code of commands.
"""

from typing import Final

from cyclopts import App, Parameter

from blockyard.cli.manual import Manual

ABOUT: Final = """Images, the live node graph, jobs and statistics of a Blockyard service.

A node is a layer of an open image: a file, a format above it, a filter. Jobs (mirror, backup, stream, commit) work
on nodes while they are read and written. Sizes are bytes, or binary with K, M, G, T: 64K is 65536.

Every command takes --address, --output, --timeout and --quiet (`blockyard node list --help` tells more).
`blockyard completion bash|zsh|fish` prints a completion script; --install-completion installs it.
Exit codes: 0 done, 1 a job or check failed, 2 usage, 3 not found, 4 not in this state, 5 no service; all of them
stand in docs/cli.md.

To begin:
  blockyard image create disk.qcow2 --format qcow2 --size 10G
  blockyard node open disk.qcow2 --format qcow2 --name disk
  blockyard export add disk --writable
  blockyard job mirror disk copy --wait --complete pivot
  blockyard node graph"""

GROUPS: Final = {
    "image": "Create, inspect, map and check image files.",
    "node": "Open, show, resize and close nodes; draw the graph.",
    "graph": "Overlays, filters, replacement, options: change the graph under its users.",
    "io": "Read, write, zero, discard and flush a node.",
    "bitmap": "Record which parts of a node were written.",
    "checkpoint": "Remember points in time, and list what changed between two.",
    "snapshot": "Snapshots inside images: take, apply, delete, open them; VM state.",
    "key": "Key slots of encrypted images: add, erase, rotate.",
    "secret": "Passphrases and keys of encrypted images, by name.",
    "throttle": "Limit the rate of requests; groups of nodes share limits.",
    "attachment": "What a guest's disk or drive is: policies, cache, tray and medium.",
    "export": "Make nodes available to guests over NBD.",
    "executor": "Pools of threads of their own for nodes on slow disks.",
    "catalogue": "What comes back after a restart, and what did not.",
    "job": "Mirror, back up, stream and commit; steer and watch jobs.",
    "stats": "Requests, bytes and latencies of every node.",
    "debug": "Break things on purpose: stop requests, make them fail, wait or lie.",
    "driver": "The drivers and their options.",
    "server": "What the service is.",
    "completion": "Print or install shell completion.",
}


DEFAULT_PARAMETER: Final = Parameter(negative="", show_default=False)
"""Flags have no --no- form; defaults are told in words."""


def _version() -> str:
    from importlib import metadata  # 50 ms that only this needs

    return metadata.version("blockyard")


def sub_app(name: str) -> App:
    """An empty group of commands, as the table describes it."""
    return App(name=name, help=GROUPS[name], default_parameter=DEFAULT_PARAMETER, help_format="plaintext")


def build() -> App:
    """The whole command, without loading any group."""
    app = App(
        name="blockyard",
        help=ABOUT,
        version=_version,
        help_format="plaintext",
        help_formatter=Manual(),
        default_parameter=DEFAULT_PARAMETER,
    )
    for name, description in GROUPS.items():
        app.command(f"blockyard.cli.commands.{name}:app", name=name, help=description)
    return app
