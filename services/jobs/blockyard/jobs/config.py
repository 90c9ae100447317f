"""What the jobs service can be told.

What lives here: its options; the docstring below a field is its manual. What must not: anything that reads them.
"""

import math
from dataclasses import dataclass
from typing import Final

from blockyard.base.errors import InvalidArgument
from blockyard.jobs.lifecycle.manager import LEASE_SECONDS, MAX_JOBS, Limits
from blockyard.jobs.lifecycle.runner import Patience
from blockyard.rpc.address import Address
from blockyard.rpc.config import ServiceConfig

MIN_LEASE_SECONDS: Final = 0.3
"""A shorter one ends services that only wait for a disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsConfig(ServiceConfig):
    """The jobs service: stream, commit, mirror and backup on the graph of a node service."""

    node: str = ""
    """Address of the node service: unix:/path, host:port or [ipv6]:port."""
    max_jobs: int = MAX_JOBS
    """Jobs at once, ended ones that were not dismissed included."""
    node_patience_seconds: float = 30.0
    """How long a job waits for a node that does not answer before its error policy decides."""
    finish_patience_seconds: float = 60.0
    """How long a job asks for the end of its session before it gives up without knowing."""
    stop_seconds: float = 10.0
    """How long SIGTERM waits for jobs to be cancelled cleanly, where they are not kept; the sessions of the rest
    stay safe at the node."""
    state_directory: str = ""
    """Directory where a service keeps what comes back after a restart; a node and a jobs service may share one.
    Empty keeps nothing."""
    database: str = ""
    """Where jobs are kept instead: a PostgreSQL URL, postgresql://user@host/name. Several jobs services that share
    one share the work: when one dies, the others take its jobs over."""
    lease_seconds: float = LEASE_SECONDS
    """How long a jobs service may be silent in a shared database before others take its jobs over."""
    advertise: str = ""
    """The address under which other services of a shared database reach this one; empty is its first address."""

    @property
    def node_address(self) -> Address:
        """Raises InvalidArgument."""
        return Address.parse(self.node)

    @property
    def job_limits(self) -> Limits:
        if self.max_jobs < 1:
            raise InvalidArgument("max_jobs", "1 or more", str(self.max_jobs))
        if not self.lease_seconds >= MIN_LEASE_SECONDS:
            raise InvalidArgument("lease_seconds", f"{MIN_LEASE_SECONDS} or more", str(self.lease_seconds))
        return Limits(
            max_jobs=self.max_jobs,
            stop_seconds=_seconds("stop_seconds", self.stop_seconds),
            lease_seconds=_seconds("lease_seconds", self.lease_seconds),
        )

    @property
    def patience(self) -> Patience:
        work = _seconds("node_patience_seconds", self.node_patience_seconds)
        finish = _seconds("finish_patience_seconds", self.finish_patience_seconds)
        return Patience(work_ns=round(work * 1e9), finish_ns=round(finish * 1e9))


def _seconds(name: str, value: float) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise InvalidArgument(name, "0 or more seconds", str(value))
    return value
