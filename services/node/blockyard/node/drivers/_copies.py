"""The common half of drivers that keep several copies (quorum, blkverify): one request to several children at once.

A child's failure is an answer, no exception: who asks decides what failures of some of them mean.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from blockyard.base.errors import BlockError
from blockyard.node.interface.child import Buffer, Child

Result = TypeVar("Result")
Answer = BlockError | None
"""Why a child could not; None if it did."""
Request = Coroutine[Any, Any, None]
"""What one child is asked."""


async def ask(requests: Sequence[Request]) -> list[Answer]:
    """Ask all at once; the answers in order."""
    if len(requests) == 1:
        return [await _answer(requests[0])]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_answer(request)) for request in requests]
    return [task.result() for task in tasks]


async def to_the_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Who is cancelled meanwhile is so when the work has ended: begun in some copies it must be done in all."""
    whole = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(whole)
    except asyncio.CancelledError:
        while not whole.done():
            try:
                await asyncio.wait([whole])
            except asyncio.CancelledError:
                continue
        if not whole.cancelled():
            whole.exception()  # seen: the cancellation is what is told
        raise


async def read_each(children: Sequence[Child], offset: int, copies: Sequence[bytearray]) -> list[Answer]:
    """Read the same range of all children, each into a buffer of its own."""
    views = [memoryview(copy) for copy in copies]
    answers, late = _inline([partial(child.read_now, offset, views[at]) for at, child in enumerate(children)])
    if late:
        _fill(answers, late, await ask([children[at].read(offset, views[at]) for at in late]))
    return answers


async def write_each(children: Sequence[Child], offset: int, data: Buffer, flags: int) -> list[Answer]:
    """Write the same bytes to all children. What can be done inline is done before anyone waits."""
    answers, late = _inline([partial(child.write_now, offset, data, flags) for child in children])
    if late:
        _fill(answers, late, await to_the_end(ask([children[at].write(offset, data, flags) for at in late])))
    return answers


async def _answer(request: Request) -> Answer:
    try:
        await request
    except BlockError as error:
        return error
    return None


def _inline(attempts: Sequence[Callable[[], bool]]) -> tuple[list[Answer], list[int]]:
    """The answers of those who could at once, and who must be awaited."""
    answers: list[Answer] = [None] * len(attempts)
    late = []
    for at, attempt in enumerate(attempts):
        try:
            if not attempt():
                late.append(at)
        except BlockError as error:
            answers[at] = error
    return answers, late


def _fill(answers: list[Answer], places: Sequence[int], found: Sequence[Answer]) -> None:
    for at, answer in zip(places, found, strict=True):
        answers[at] = answer


def outcome(answer: Answer) -> tuple[str, int]:
    """What two answers are compared by: the kind of failure, and its error number if it has one."""
    return ("", 0) if answer is None else (answer.reason, getattr(answer, "errno", 0))


# --- contents --------------------------------------------------------------------------------------------


def is_same(first: bytearray, second: bytearray | memoryview) -> bool:
    """Whether two buffers hold the same bytes: a memcmp if the first is a bytearray (36 us for 1 MiB; two
    memoryviews are compared byte by byte, 1300 us)."""
    return first == second


def first_difference(first: bytearray, second: bytearray) -> int:
    """Position of the first byte that differs in two buffers of one length; -1 if none does."""
    if is_same(first, second):
        return -1
    return int(np.argmax(np.frombuffer(first, np.uint8) != np.frombuffer(second, np.uint8)))


def bytes_at(children: Sequence[Child], copies: Sequence[bytearray], place: int) -> str:
    """What the children have at one place, in words."""
    found = (f"{child.name} has 0x{copy[place]:02x}" for child, copy in zip(children, copies, strict=True))
    return ", ".join(found)
