"""The seam for jobs that end together.

What lives here: what a job asks of its transaction while it is WAITING. What must not: the loop.
"""

from typing import Protocol


class Transaction(Protocol):
    """Jobs that go on from WAITING together, or not at all."""

    async def all_ready(self, job_id: str) -> None:
        """Return when every member waits; raise the `BlockError` of a member that failed."""
        ...


class Alone:
    """A job of its own waits for nobody."""

    async def all_ready(self, job_id: str) -> None:
        return
