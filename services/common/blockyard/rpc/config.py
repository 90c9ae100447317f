"""Options of a service: one frozen dataclass, filled from flags, then BLOCKYARD_* variables, then a TOML file.

A service derives its options from `ServiceConfig`; the docstring below a field is its manual. Earlier sources win:

    --grace-seconds 10        BLOCKYARD_GRACE_SECONDS=10        grace_seconds = 10   (in the file of --config)
    --listen A --listen B     BLOCKYARD_LISTEN="A B"            listen = ["A", "B"]

An unknown or malformed option ends the program with status 2 and names the option and where it came from.
Must not know the options of any service.
"""

import asyncio
import gc
import os
import sys
import tomllib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import cyclopts

from blockyard.base.errors import BlockError
from blockyard.rpc import logs, stopping
from blockyard.rpc.address import Address
from blockyard.rpc.admission import Limits

ENVIRONMENT_PREFIX: Final = "BLOCKYARD_"
EXIT_USAGE: Final = 2
"""Status for wrong options, as getopt programs have it."""
EXIT_FAILURE: Final = 1

Level = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """What every service can be told."""

    listen: tuple[str, ...] = ()
    """Addresses to serve on: unix:/path, host:port or [ipv6]:port. Port 0 takes a free one."""
    log_level: Level = "info"
    """Least severe messages that are logged."""
    grace_seconds: float = 5.0
    """How long calls may go on after SIGTERM before they are cut off."""
    max_control_calls: int = 256
    """Control calls at once; more are refused with LIMIT_REACHED."""
    max_data_calls: int = 512
    """Calls at once that move data; a slow reader holds up to 8 MiB of buffers each."""
    max_watches: int = 256
    """Watches at once."""
    channelz: bool = False
    """Serve grpc.channelz.v1, which tells about connections and their traffic."""
    ready_fd: int = -1
    """File descriptor that is told `ready ADDRESS...` once the service serves."""
    config: Path | None = None
    """TOML file with options by their names; flags and environment win over it."""

    @property
    def addresses(self) -> list[Address]:
        """`listen`, parsed. Raises InvalidArgument."""
        return [Address.parse(text) for text in self.listen]

    @property
    def limits(self) -> Limits:
        return Limits(control=self.max_control_calls, data=self.max_data_calls, watch=self.max_watches)


Config = TypeVar("Config", bound=ServiceConfig)


def parse(
    config_class: type[Config],
    name: str,
    arguments: Sequence[str] | None = None,
) -> Config | None:
    """The options, or None if the manual or the version was asked for and printed.

    Raises cyclopts.CycloptsError, whose text names the option and its source, or OSError for the file.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    sources: list[Any] = [cyclopts.config.Env(ENVIRONMENT_PREFIX, command=False)]
    path = _config_path(given)
    if path:
        sources.append(cyclopts.config.Dict(_file(path), source=path))
    app = cyclopts.App(
        name=name,
        help=config_class.__doc__ or "",
        config=sources,
        version=_version,
        default_parameter=cyclopts.Parameter(negative_iterable=()),
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        help_format="plaintext",
    )
    found: list[Config] = []

    def take(config: Config) -> None:
        found.append(config)

    take.__annotations__["config"] = Annotated[config_class, cyclopts.Parameter(name="*")]
    take.__defaults__ = (config_class(),)
    app.default(take)
    app(given)
    return found[0] if found else None


def run(
    main: Callable[[Config], Awaitable[None]],
    config_class: type[Config],
    name: str,
    arguments: Sequence[str] | None = None,
) -> None:
    """A service's `main()`: options, logs, the event loop. Ends the process."""
    try:
        config = parse(config_class, name, arguments)
    except (cyclopts.CycloptsError, OSError) as error:
        sys.stderr.write(f"{name}: {error}\n{name}: `{name} --help` explains every option\n")
        sys.exit(EXIT_USAGE)
    if config is None:
        return
    logs.start(name, config.log_level)
    # What is there now lives as long as the process: the collector need never look at it, nor hold a request up.
    gc.freeze()
    gc.enable()
    try:
        asyncio.run(_caught(main, config))
    except BlockError as error:
        sys.stderr.write(f"{name}: {error}\n{name}: {error.hint}\n")
        sys.exit(EXIT_USAGE if error.code == "INVALID_ARGUMENT" else EXIT_FAILURE)
    except KeyboardInterrupt:
        sys.exit(128 + 2)


async def _caught(main: Callable[[Config], Awaitable[None]], config: Config) -> None:
    # A signal during the start must end what was started in order.
    stopping.catch()
    await main(config)


def _config_path(arguments: Sequence[str]) -> str:
    """The file must be known before options are parsed, because it is one of their sources."""
    for index, argument in enumerate(arguments):
        if argument == "--config" and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.startswith("--config="):
            return argument.partition("=")[2]
    return os.environ.get(f"{ENVIRONMENT_PREFIX}CONFIG", "")


def _file(path: str) -> dict[str, Any]:
    try:
        with Path(path).open("rb") as file:
            return tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OSError(f"{path} is not TOML: {error}") from error


def _version() -> str:
    from importlib.metadata import version

    return version("blockyard")
