"""One node service that is listened to: connect, listen, and again after a while when that ends."""

import logging
from contextlib import aclosing
from typing import Final

from blockyard.base.clock import Clock
from blockyard.base.errors import BlockError
from blockyard.rpc.channel import Channel
from blockyard.stats.collect.remote import readings
from blockyard.stats.model.ledger import Ledger

FIRST_BACKOFF_SECONDS: Final = 0.2
MAX_BACKOFF_SECONDS: Final = 10.0
"""A node that comes back is heard again within this."""

_log = logging.getLogger(__name__)


class Source:
    """Fills a ledger until it is cancelled."""

    def __init__(self, ledger: Ledger, channel: Channel, clock: Clock, interval_seconds: float) -> None:
        self._ledger = ledger
        self._channel = channel
        self._clock = clock
        self._interval_seconds = interval_seconds

    async def run(self) -> None:
        """Never returns."""
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            if await self._listen():
                backoff = FIRST_BACKOFF_SECONDS
            await self._clock.sleep(backoff)
            backoff = min(2 * backoff, MAX_BACKOFF_SECONDS)

    async def _listen(self) -> bool:
        """One subscription from its beginning to its end; whether anything was heard."""
        heard = False
        why: object = "the stream ended"
        try:
            async with aclosing(readings(self._channel, self._interval_seconds)) as stream:
                async for reading in stream:
                    if not heard:
                        heard = True
                        self._ledger.connected()
                        _log.info("hearing a node service", extra={"address": self._ledger.state.address})
                    now_ns = self._clock.monotonic_ns()
                    self._ledger.take(reading.instance_id, reading.accounts, reading.sample_ns, now_ns)
        except BlockError as error:
            why = error
        finally:
            self._ledger.disconnected()
        level = logging.WARNING if heard else logging.DEBUG
        _log.log(level, "a node service is silent", extra={"address": self._ledger.state.address, "why": why})
        return heard
