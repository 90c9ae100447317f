"""This incarnation among the others that share a store: it shows that it lives, and takes over from those that do
not.

What lives here: the beat, the judging of other beats, the adoption of orphans. What must not: what a job does then.

Theory. Whoever sees the same beat for a whole lease, by its own monotonic clock, ends that incarnation, and only if
the beat is still that one (`store.port`). The jobs of an incarnation that lives no more are orphans; each is
adopted by whoever is first. An incarnation that was only asleep finds its beat refused: it begins again under a
new number and keeps those jobs that nobody has adopted. What it lost it hears from the store and from the node,
which refuse its tokens.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from blockyard.base.clock import Clock
from blockyard.base.errors import JobStoreUnavailable, OwnerMismatch
from blockyard.jobs.store.port import JobRecord, JobStore

BEATS: Final = 3
"""In a lease: two may be late or lost."""

_log = logging.getLogger(__name__)


class Tenancy:
    """The life of one incarnation."""

    def __init__(
        self,
        store: JobStore,
        clock: Clock,
        number: int,
        *,
        address: str = "",
        lease_seconds: float,
        adopted: Callable[[JobRecord], Awaitable[None]],
    ) -> None:
        self.number = number
        self._store = store
        self._clock = clock
        self._address = address
        self._lease_ns = round(lease_seconds * 1e9)
        self._adopted = adopted
        self._seen: dict[int, tuple[int, int]] = {}
        """Others: the latest beat, and when it was new."""

    async def run(self) -> None:
        """Until it is cancelled. Alone in its store an incarnation needs no beat."""
        while self._store.shared:
            await self._clock.sleep(self._lease_ns / 1e9 / BEATS)
            try:
                await self.turn()
            except JobStoreUnavailable as problem:
                _log.warning("the lease of this jobs service is not renewed: %s", problem)

    async def turn(self) -> None:
        """Show that we live, end who does not, adopt what is left behind. Raises JobStoreUnavailable."""
        try:
            await self._store.beat(self.number)
        except OwnerMismatch:
            _log.warning("this jobs service (#%d) was thought dead; it begins again", self.number)
            self.number = await self._store.begin(self._address, 0)
        await self._end_the_silent()
        await self.adopt_orphans()

    async def adopt_orphans(self) -> None:
        """Take over every job whose owner lives no more, as far as nobody else does."""
        for orphan in await self._store.orphans():
            adopted = await self._store.adopt(orphan.job_id, orphan.fencing_token, self.number)
            if adopted is not None:
                await self._adopted(adopted)

    async def end(self) -> None:
        """Leave what we have to others now. Raises JobStoreUnavailable; then they wait for a lease."""
        await self._store.end(self.number)

    async def _end_the_silent(self) -> None:
        now_ns, seen = self._clock.monotonic_ns(), self._seen
        self._seen = {}
        for other in await self._store.incarnations():
            if other.number == self.number:
                continue
            beat, since_ns = seen.get(other.number, (-1, now_ns))
            if beat != other.beat:
                since_ns = now_ns
            elif now_ns - since_ns >= self._lease_ns and await self._store.end(other.number, other.beat):
                _log.warning("jobs service #%d at %r is silent: its jobs are free", other.number, other.address)
                continue
            self._seen[other.number] = other.beat, since_ns
