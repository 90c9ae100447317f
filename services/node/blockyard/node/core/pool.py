"""The bounded pool: threads for system calls that block and for CPU work that releases the GIL.

What must not live here: what the work is. The pool knows callables and shares only.

Theory. All bookkeeping happens in the event loop's thread, so there are no locks: worker threads only take jobs
from one C-implemented queue and hand results back in batches. A hop costs some 40 us, ten times a request that
is served inline; callers try `*_now` first (design, section 3).

Invariants:
1. At most `threads * 2` jobs have left the loop: enough that no thread idles while the loop turns, few enough
   that fairness is decided here. The others wait in their share, and the shares take turns, one job each: a node
   whose disk hangs delays the others by no more than its turn.
2. A share holds at most `waiting_limit` jobs; one more is refused with LimitReached.
3. `run` never ends before the work has: a cancelled caller is told so only when no thread uses its buffers or
   descriptors any more. A job that still waits is dropped at once.
4. `close` lets everything that was accepted finish.
5. Of a share that is detached nothing runs or waits in a pool; new work waits for the pool that comes.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from blockyard.base.errors import LimitReached, ShuttingDown

Result = TypeVar("Result")

DEFAULT_THREADS: Final = 16
"""Disks like depth; QEMU's thread pool allows 64, its measured gain past 16 is small on files."""
DEFAULT_WAITING: Final = 4096
"""Jobs of one share: more than all exports together may have in flight."""
AHEAD_PER_THREAD: Final = 2


class _Job:
    __slots__ = ("args", "error", "future", "late", "result", "state", "work")

    WAITING: Final = 0
    STARTED: Final = 1
    ENDED: Final = 2

    def __init__(self, future: asyncio.Future[Any], work: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.future = future
        self.work = work
        self.args = args
        self.state = _Job.WAITING
        self.result: Any = None
        self.error: BaseException | None = None
        self.late: asyncio.Future[None] | None = None
        """Made for a caller that was cancelled while a thread has the job."""


class PoolShare:
    """One user's fair part of a pool, such as a node's: an `interface.driver.Pool` that can change its pool."""

    def __init__(self, pool: "FairPool", name: str) -> None:
        self.name = name
        self.pool = pool
        self.waiting: deque[_Job] = deque()
        self._unfinished = 0
        self._at_rest: asyncio.Future[None] | None = None
        self._attached: asyncio.Future[None] | None = None
        """While it is detached."""

    async def run(self, work: Callable[..., Result], *args: Any) -> Result:
        """What `work(*args)` returns or raises, done in a thread."""
        while self._attached is not None:
            await asyncio.shield(self._attached)
        self._unfinished += 1
        try:
            return await self._run(work, args)
        finally:
            self._unfinished -= 1
            if not self._unfinished and self._at_rest is not None:
                self._at_rest.set_result(None)
                self._at_rest = None

    async def detach(self) -> None:
        """Hold new work and wait until what was accepted has ended. Cancelled, it is as if it had not been."""
        assert self._attached is None, "a share is detached once"
        loop = asyncio.get_running_loop()
        self._attached = loop.create_future()
        try:
            while self._unfinished:
                self._at_rest = self._at_rest or loop.create_future()
                await asyncio.shield(self._at_rest)
        except BaseException:
            self.attach(self.pool)
            raise

    def attach(self, pool: "FairPool") -> None:
        """Work in that pool from now on; what was held goes there."""
        assert self._attached is not None, "only a detached share can be attached"
        self.pool = pool
        self._attached.set_result(None)
        self._attached = None

    async def _run(self, work: Callable[..., Result], args: tuple[Any, ...]) -> Result:
        loop = asyncio.get_running_loop()
        job = _Job(loop.create_future(), work, args)
        self.pool.accept(self, job, loop)
        try:
            result: Result = await job.future
        except asyncio.CancelledError:
            if job.state == _Job.WAITING:
                self.pool.drop(self, job)
            elif job.state == _Job.STARTED:
                job.late = loop.create_future()
                await _outlast(job.late)
            raise
        return result


class FairPool:
    """Threads, started as needed, and the shares that take turns on them. Belongs to one event loop."""

    def __init__(
        self, threads: int = DEFAULT_THREADS, waiting_limit: int = DEFAULT_WAITING, name: str = "pool"
    ) -> None:
        assert threads > 0
        self._limit = threads
        self._waiting_limit = waiting_limit
        self._name = name
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._started = 0
        self._turns: deque[PoolShare] = deque()
        self._ended: deque[_Job] = deque()
        self._awake = False
        self._closed = False
        self._drained: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._own = PoolShare(self, name)

    @property
    def threads(self) -> int:
        """How many at most."""
        return self._limit

    @property
    def running(self) -> int:
        """Jobs that threads work on now."""
        return min(self._started, self._limit)

    @property
    def queued(self) -> int:
        """Jobs that wait for a thread."""
        return self._started - self.running + sum(len(share.waiting) for share in self._turns)

    def share(self, name: str) -> PoolShare:
        """A new fair part. It costs nothing while it has no work and needs no closing."""
        return PoolShare(self, name)

    async def run(self, work: Callable[..., Result], *args: Any) -> Result:
        """For users without a share of their own."""
        return await self._own.run(work, *args)

    def accept(self, share: PoolShare, job: _Job, loop: asyncio.AbstractEventLoop) -> None:
        if self._closed:
            raise ShuttingDown("node")
        assert self._loop is None or self._loop is loop, "a pool belongs to one event loop"
        self._loop = loop
        if self._started < self._limit * AHEAD_PER_THREAD and not self._turns:
            self._start(job)
            return
        if len(share.waiting) >= self._waiting_limit:
            raise LimitReached("requests that wait for the pool", self._waiting_limit)
        if not share.waiting:
            self._turns.append(share)
        share.waiting.append(job)

    def drop(self, share: PoolShare, job: _Job) -> None:
        share.waiting.remove(job)
        if not share.waiting:
            self._turns.remove(share)

    async def close(self) -> None:
        """Wait for all accepted work, then end the threads."""
        self._closed = True
        if self._started:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _start(self, job: _Job) -> None:
        job.state = _Job.STARTED
        if self._started >= len(self._threads) < self._limit:
            thread = threading.Thread(target=self._serve, name=f"{self._name}-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._started += 1
        self._queue.put(job)

    def _serve(self) -> None:
        """A worker thread's life."""
        assert self._loop is not None
        while (job := self._queue.get()) is not None:
            try:
                job.result = job.work(*job.args)
            except BaseException as problem:
                job.error = problem
            self._ended.append(job)
            # One wake-up of the loop serves all jobs that end before it comes round. The flag is cleared
            # before the queue is emptied, so that a job is never left behind.
            if not self._awake:
                self._awake = True
                try:
                    self._loop.call_soon_threadsafe(self._collect)
                except RuntimeError:
                    return  # the loop is gone, and with it everyone who could have waited
            del job

    def _collect(self) -> None:
        """Back in the loop: answer the callers and give the free places to the shares in turn."""
        self._awake = False
        while self._ended:
            job = self._ended.popleft()
            self._started -= 1
            _answer(job)
        while self._turns and self._started < self._limit * AHEAD_PER_THREAD:
            share = self._turns.popleft()
            self._start(share.waiting.popleft())
            if share.waiting:
                self._turns.append(share)
        if self._drained is not None and not self._started and not self._drained.done():
            self._drained.set_result(None)


def _answer(job: _Job) -> None:
    job.state = _Job.ENDED
    if job.late is not None:
        job.late.set_result(None)
    if job.future.done():
        return
    if job.error is not None:
        job.future.set_exception(job.error)
    else:
        job.future.set_result(job.result)


async def _outlast(end: asyncio.Future[None]) -> None:
    """Wait for `end` however often the caller is cancelled meanwhile."""
    while not end.done():
        try:
            await asyncio.wait((end,))
        except asyncio.CancelledError:
            continue
