"""What the jobs service can be told.

What lives here: its options; the docstring below a field is its manual. What must not: anything that reads them.
"""

import math
from dataclasses import dataclass

from blockyard.base.errors import InvalidArgument
from blockyard.jobs.lifecycle.manager import MAX_JOBS, Limits
from blockyard.jobs.lifecycle.runner import Patience
from blockyard.rpc.address import Address
from blockyard.rpc.config import ServiceConfig


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
    """How long SIGTERM waits for jobs to be cancelled cleanly; the sessions of the rest stay safe at the node."""

    @property
    def node_address(self) -> Address:
        """Raises InvalidArgument."""
        return Address.parse(self.node)

    @property
    def job_limits(self) -> Limits:
        if self.max_jobs < 1:
            raise InvalidArgument("max_jobs", "1 or more", str(self.max_jobs))
        return Limits(max_jobs=self.max_jobs, stop_seconds=_seconds("stop_seconds", self.stop_seconds))

    @property
    def patience(self) -> Patience:
        work = _seconds("node_patience_seconds", self.node_patience_seconds)
        finish = _seconds("finish_patience_seconds", self.finish_patience_seconds)
        return Patience(work_ns=round(work * 1e9), finish_ns=round(finish * 1e9))


def _seconds(name: str, value: float) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise InvalidArgument(name, "0 or more seconds", str(value))
    return value
