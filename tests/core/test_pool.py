"""The pool runs work in threads, fairly, within bounds, and never lets go of a caller's buffer too early."""

import asyncio
import threading

import pytest

from blockyard.base.errors import LimitReached, ShuttingDown
from blockyard.node.core.pool import AHEAD_PER_THREAD, FairPool


class Gate:
    """Work that a thread cannot end before the test opens it."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> str:
        self.entered.set()
        assert self.opened.wait(30)
        return "through"


async def until(event: threading.Event) -> None:
    assert await asyncio.get_running_loop().run_in_executor(None, event.wait, 30)


async def let_others_run() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
async def pool():
    made = FairPool(threads=1, waiting_limit=8)
    yield made
    await made.close()


async def test_work_runs_in_another_thread_and_its_result_comes_back(pool: FairPool):
    assert await pool.run(threading.get_ident) != threading.get_ident()
    assert await pool.run(lambda a, b: a + b, 2, 3) == 5


async def test_an_error_of_the_work_is_raised_to_the_caller(pool: FairPool):
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 // 0)
    assert await pool.run(int, "7") == 7


async def test_no_more_threads_are_started_than_allowed():
    pool = FairPool(threads=3)
    seen = await asyncio.gather(*(pool.run(threading.get_ident) for _ in range(100)))
    assert len(set(seen)) <= 3
    await pool.close()


async def test_a_full_share_refuses_one_more_job(pool: FairPool):
    gate = Gate()
    jobs = [asyncio.ensure_future(pool.run(gate)) for _ in range(AHEAD_PER_THREAD + 8)]
    await let_others_run()
    with pytest.raises(LimitReached):
        await pool.run(gate)
    gate.opened.set()
    assert await asyncio.gather(*jobs) == ["through"] * len(jobs)


async def test_shares_take_turns(pool: FairPool):
    gate, order = Gate(), []
    held = [asyncio.ensure_future(pool.run(gate)) for _ in range(AHEAD_PER_THREAD)]
    greedy, modest = pool.share("greedy"), pool.share("modest")
    jobs = [asyncio.ensure_future(greedy.run(order.append, f"greedy {turn}")) for turn in range(6)]
    await let_others_run()
    jobs += [asyncio.ensure_future(modest.run(order.append, f"modest {turn}")) for turn in range(2)]
    await let_others_run()
    gate.opened.set()
    await asyncio.gather(*held, *jobs)
    assert order[:4] == ["greedy 0", "modest 0", "greedy 1", "modest 1"]


async def test_a_cancelled_caller_is_not_let_go_while_a_thread_has_its_work(pool: FairPool):
    gate = Gate()
    job = asyncio.ensure_future(pool.run(gate))
    await until(gate.entered)
    job.cancel()
    await let_others_run()
    job.cancel()
    await let_others_run()
    assert not job.done()
    gate.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await job


async def test_a_cancelled_job_that_waits_is_dropped_at_once(pool: FairPool):
    gate, ran = Gate(), []
    held = [asyncio.ensure_future(pool.run(gate)) for _ in range(AHEAD_PER_THREAD)]
    await let_others_run()
    job = asyncio.ensure_future(pool.run(ran.append, 1))
    await let_others_run()
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    gate.opened.set()
    await asyncio.gather(*held)
    assert await pool.run(len, ran) == 0


async def test_jobs_that_come_and_go_while_every_thread_hangs_leave_nothing_behind(pool: FairPool):
    gate = Gate()
    held = [asyncio.ensure_future(pool.run(gate)) for _ in range(AHEAD_PER_THREAD)]
    await let_others_run()
    share = pool.share("restless")
    for _ in range(50):
        job = asyncio.ensure_future(share.run(gate))
        await let_others_run()
        job.cancel()
        await let_others_run()
    assert not pool._turns
    gate.opened.set()
    await asyncio.gather(*held)


async def test_closing_waits_for_accepted_work_and_refuses_new_work():
    pool, gate = FairPool(threads=1), Gate()
    jobs = [asyncio.ensure_future(pool.run(gate)) for _ in range(5)]
    await until(gate.entered)
    closing = asyncio.ensure_future(pool.close())
    await let_others_run()
    with pytest.raises(ShuttingDown):
        await pool.run(gate)
    assert not closing.done()
    gate.opened.set()
    await closing
    assert [job.result() for job in jobs] == ["through"] * 5


async def test_an_unused_pool_closes_and_starts_no_thread():
    before = threading.active_count()
    pool = FairPool()
    assert threading.active_count() == before
    await pool.close()


async def test_a_share_that_is_detached_waits_for_its_work_and_goes_on_in_another_pool(pool: FairPool):
    gate, other = Gate(), FairPool(threads=1, name="other")
    share = pool.share("node")
    inside = asyncio.ensure_future(share.run(gate))
    detaching = asyncio.ensure_future(share.detach())
    await let_others_run()
    held = asyncio.ensure_future(share.run(threading.current_thread))
    await let_others_run()
    assert not detaching.done() and not held.done()
    gate.opened.set()
    assert await inside == "through"
    await detaching
    await let_others_run()
    assert not held.done()
    share.attach(other)
    assert (await held).name == "other-0"
    await other.close()


async def test_a_detaching_that_is_cancelled_leaves_the_share_where_it_was(pool: FairPool):
    gate, share = Gate(), pool.share("node")
    inside = asyncio.ensure_future(share.run(gate))
    detaching = asyncio.ensure_future(share.detach())
    await let_others_run()
    held = asyncio.ensure_future(share.run(threading.current_thread))
    await let_others_run()
    detaching.cancel()
    gate.opened.set()
    assert await inside == "through"
    assert (await held).name == "pool-0" and share.pool is pool


async def test_a_pool_tells_what_runs_and_what_waits(pool: FairPool):
    gate = Gate()
    jobs = [asyncio.ensure_future(pool.run(gate)) for _ in range(AHEAD_PER_THREAD + 3)]
    await let_others_run()
    assert (pool.threads, pool.running, pool.queued) == (1, 1, AHEAD_PER_THREAD + 2)
    gate.opened.set()
    await asyncio.gather(*jobs)
    assert (pool.running, pool.queued) == (0, 0)
