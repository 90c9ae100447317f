"""The same client for programs without an event loop: `SyncClient`.

Theory. grpc.aio knows one event loop per process, so this face runs that loop, in a thread of its own that all
SyncClients share, and nothing else in the process may use grpc.aio on another loop. A program that has a loop
uses `Client`; SyncClient refuses to start there.

What lives here: the loop's thread and a face that turns coroutines into calls, async iterators into iterators
and async context managers into context managers. What must not: anything about the API.
"""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from functools import wraps
from types import TracebackType
from typing import Any, ClassVar, Self

from blockyard.client.calls import DEFAULT_TIMEOUT_S
from blockyard.client.client import Client


class LoopThread:
    """The one loop, begun when it is first needed."""

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _shared: ClassVar["LoopThread | None"] = None

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="blockyard-client", daemon=True).start()

    @classmethod
    def shared(cls) -> "LoopThread":
        with cls._lock:
            if cls._shared is None:
                cls._shared = cls()
            return cls._shared

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine over there and wait. An interrupt here cancels it there."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


class SyncClient:
    """`with SyncClient.connect(address) as client: client.nodes.list()`; the methods are those of `Client`."""

    def __init__(self, address: str, timeout: float | None) -> None:
        if _has_loop():
            raise RuntimeError(
                "SyncClient runs the process's only grpc.aio loop in a thread; here a loop runs already: use Client"
            )
        self._client = Client.connect(address, timeout=timeout)
        self._thread = LoopThread.shared()

    @classmethod
    def connect(cls, address: str = "", *, timeout: float | None = DEFAULT_TIMEOUT_S) -> Self:
        """See `Client.connect`."""
        return cls(address, timeout)

    def __enter__(self) -> Self:
        self._thread.run(self._client.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.run(self._client.close())

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if callable(found):
            return _blocking(found, self._thread)
        return found if isinstance(found, str) else Face(found, self._thread)


class Face:
    """An object whose coroutines are plain methods here."""

    def __init__(self, behind: Any, thread: LoopThread) -> None:
        self._behind, self._thread = behind, thread

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._behind, name)
        return _blocking(found, self._thread) if callable(found) else found


class Context:
    """An async context manager, such as an I/O session, as a context manager."""

    def __init__(self, behind: AbstractAsyncContextManager[Any], thread: LoopThread) -> None:
        self._behind, self._thread = behind, thread

    def __enter__(self) -> Face:
        return Face(self._thread.run(self._behind.__aenter__()), self._thread)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.run(self._behind.__aexit__(kind, error, trace))


def _blocking(method: Any, thread: LoopThread) -> Any:
    @wraps(method)
    def call(*arguments: Any, **keywords: Any) -> Any:
        async def there() -> Any:
            # Made on the loop's own thread: some of what is called needs a running loop.
            result = method(*arguments, **keywords)
            return await result if inspect.isawaitable(result) else result

        result = thread.run(there())
        if isinstance(result, AbstractAsyncContextManager):
            return Context(result, thread)
        return _iterated(result, thread) if isinstance(result, AsyncIterator) else result

    return call


def _iterated(iterator: AsyncIterator[Any], thread: LoopThread) -> Iterator[Any]:
    async def following() -> tuple[bool, Any]:
        try:
            return True, await anext(iterator)
        except StopAsyncIteration:
            return False, None

    try:
        while True:
            more, item = thread.run(following())
            if not more:
                return
            yield item
    finally:
        if inspect.isasyncgen(iterator):
            thread.run(iterator.aclose())


def _has_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
