"""What was answered to which request_id, so that a repeated mutation is harmless (AIP-155).

Remembers successes only: a call that failed may be tried again under the same id. Belongs to one process; a restart
forgets.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from blockyard.base.errors import InvalidArgument, RequestIdReused

Response = TypeVar("Response")

REMEMBERED: Final = 4096
"""Answers; a client that repeats a call does so within seconds."""
MAX_ID: Final = 128


@dataclass(slots=True)
class _Entry:
    fingerprint: bytes
    answer: asyncio.Future[Any]


class RequestMemory:
    """The answers of one service."""

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()

    async def once(self, request: Any, work: Callable[[], Awaitable[Response]]) -> Response:
        """The answer of `work`, run at most once per request_id. Raises RequestIdReused.

        A repetition that comes while the first call runs waits for it, and takes over if that one fails.
        """
        if not request.request_id:
            return await work()
        if len(request.request_id) > MAX_ID:
            raise InvalidArgument("request_id", f"at most {MAX_ID} characters", f"{len(request.request_id)}")
        key = (type(request).__name__, request.request_id)
        fingerprint = _fingerprint(request)
        while (entry := self._entries.get(key)) is not None:
            if entry.fingerprint != fingerprint:
                raise RequestIdReused(request.request_id)
            if entry.answer.done():
                answer: Response = entry.answer.result()
                return answer
            await asyncio.wait((entry.answer,))
        return await self._first(key, fingerprint, work)

    async def _first(
        self, key: tuple[str, str], fingerprint: bytes, work: Callable[[], Awaitable[Response]]
    ) -> Response:
        entry = _Entry(fingerprint, asyncio.get_running_loop().create_future())
        self._entries[key] = entry
        try:
            answer = await work()
        except BaseException:
            del self._entries[key]
            entry.answer.cancel()
            raise
        entry.answer.set_result(answer)
        self._forget_oldest()
        return answer

    def _forget_oldest(self) -> None:
        while len(self._entries) > REMEMBERED:
            oldest = next((key for key, entry in self._entries.items() if entry.answer.done()), None)
            if oldest is None:
                return  # all are running; admission bounds those
            del self._entries[oldest]


def _fingerprint(request: Message) -> bytes:
    return hashlib.blake2b(request.SerializeToString(deterministic=True), digest_size=16).digest()
