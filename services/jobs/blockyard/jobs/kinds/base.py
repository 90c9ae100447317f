"""What a kind of job is.

What lives here: the base class of all kinds, and the checks they share. What must not: states, streams, protobuf.

A kind says what its options mean in terms of the node port; the runner (`lifecycle.runner`) does the rest alike
for all:

    check        everything about the options that can be told without asking the node session      the copy
    session that does the work; may ask the node about the chain converges    the job becomes READY when nothing
    is left, and ends by COMPLETE (mirror, active commit) endless      the job never runs out of work and ends
    only by CANCEL (backup with sync NONE) passes_over  with policy IGNORE a failed range is left out and the
    job fails at its end (stream); otherwise it is
                 tried again until it works
    finish       how its session ends with the job's effect
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from blockyard.base.errors import InvalidArgument, MissingOption
from blockyard.base.ranges import is_power_of_two
from blockyard.jobs.copying.policy import ErrorPolicies
from blockyard.jobs.copying.window import Window
from blockyard.jobs.node.port import MAX_GRANULARITY, MIN_GRANULARITY, FinishAction, NodePort, SessionRequest

MAX_CHAIN_DEPTH = 200
"""As the node's own bound for backing chains; a longer walk is a loop."""


class Kind(ABC):
    """One job's kind with its options. Immutable."""

    name: ClassVar[str]
    """The name of the field in job.proto's oneof `kind`."""

    Options: ClassVar[type]
    """A frozen dataclass, equal to the message field for field."""

    options: Any

    def __init__(self, options: Any) -> None:
        self.options = options

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.options == other.options

    __hash__ = None  # type: ignore[assignment]

    @property
    def converges(self) -> bool:
        return False

    @property
    def endless(self) -> bool:
        return False

    @property
    def passes_over(self) -> bool:
        return False

    @property
    @abstractmethod
    def policies(self) -> ErrorPolicies: ...

    @property
    @abstractmethod
    def node_names(self) -> tuple[str, ...]:
        """Nodes that the options name."""

    @abstractmethod
    def check(self) -> None:
        """Raise `RequestError` for options that can never be."""

    @abstractmethod
    async def session(self, job_id: str, filter_node_name: str, node: NodePort) -> SessionRequest:
        """The session that does this job."""

    def window(self) -> Window:
        return Window()

    def finish(self, chosen: FinishAction | None) -> FinishAction:
        """How the session ends; `chosen` is what COMPLETE asked of a job that converges."""
        return FinishAction.COMPLETE

    def with_copy_mode(self, mode: Any) -> "Kind":
        """The kind after ChangeJob. Only a mirror has a mode."""
        raise InvalidArgument("copy_mode", "a mirror", f"a {self.name}, which has no copy mode")

    # --- checks that kinds share ---

    def need(self, **names: str) -> None:
        for option, value in names.items():
            if not value:
                raise MissingOption(f"job kind {self.name!r}", f"{self.name}.{option}")

    def refuse_unless(self, holds: bool, option: str, expected: str, found: object) -> None:
        if not holds:
            raise InvalidArgument(f"{self.name}.{option}", expected, str(found))

    def check_granularity(self, granularity_bytes: int) -> None:
        fits = MIN_GRANULARITY <= granularity_bytes <= MAX_GRANULARITY and is_power_of_two(granularity_bytes)
        self.refuse_unless(
            granularity_bytes == 0 or fits,
            "granularity_bytes",
            f"0, or a power of two from {MIN_GRANULARITY} to {MAX_GRANULARITY}",
            granularity_bytes,
        )


async def layers_below(node: NodePort, node_name: str) -> list[str]:
    """The chain under a node, from the first layer below it to the deepest."""
    found: list[str] = []
    below = (await node.get_node(node_name)).below
    while below and len(found) < MAX_CHAIN_DEPTH:
        found.append(below)
        below = (await node.get_node(below)).below
    return found
