"""SIGTERM and SIGINT as something to wait for.

A signal may come at any time: `catch` is called before a service begins to start, so that one that comes during
the start is not lost and everything that was started is stopped in order.
"""

import asyncio
import logging
import signal
from typing import Final
from weakref import WeakKeyDictionary

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_log = logging.getLogger(__name__)
_stops: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Event] = WeakKeyDictionary()


def catch() -> asyncio.Event:
    """An event that the first SIGTERM or SIGINT sets. A second signal has its default effect: the end at once."""
    loop = asyncio.get_running_loop()
    event = _stops.get(loop)
    if event is None:
        event = _stops[loop] = asyncio.Event()
        for number in SIGNALS:
            loop.add_signal_handler(number, _stop, loop, number)
    return event


async def until_stopped() -> None:
    """Return at the first SIGTERM or SIGINT since `catch`, or since now."""
    event = catch()
    try:
        await event.wait()
    finally:
        _release(asyncio.get_running_loop())


def _stop(loop: asyncio.AbstractEventLoop, number: signal.Signals) -> None:
    _log.info("stopping", extra={"signal": number.name})
    event = _stops[loop]
    for each in SIGNALS:
        loop.remove_signal_handler(each)
    event.set()


def _release(loop: asyncio.AbstractEventLoop) -> None:
    if _stops.pop(loop, None) is not None:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
