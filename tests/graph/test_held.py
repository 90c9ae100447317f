"""The line of requests that wait for an attachment, under random comings, failures, cancellations and resets."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.node.graph.held import HeldRequests

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.integers(0, 3)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.sampled_from(["stop", "go on", "turn"]), st.just(0)),
    ),
    max_size=40,
)


class Guests:
    """Requests that fail so many times before they succeed."""

    def __init__(self) -> None:
        self.line = HeldRequests()
        self.tasks: list[asyncio.Task[None]] = []
        self.waiting: set[int] = set()
        """Tickets of those that wait."""
        self.done: list[int] = []

    def come(self, failures: int) -> None:
        self.tasks.append(asyncio.create_task(self._request(self.line.ticket(), failures)))

    async def _request(self, ticket: int, failures: int) -> None:
        while True:
            if self.line.must_wait(ticket):
                self.waiting.add(ticket)
                try:
                    await self.line.wait(ticket)
                finally:
                    self.waiting.discard(ticket)
            assert not self.line.stopped
            assert not [other for other in self.waiting if other < ticket], "it passed one that came before it"
            if not failures:
                self.done.append(ticket)
                return
            failures -= 1
            self.line.stop()


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_nobody_passes_and_nobody_is_forgotten(steps: list[tuple[str, int]]):
    async def story() -> None:
        guests = Guests()
        for step, number in steps:
            if step == "come":
                guests.come(number)
            elif step == "cancel" and guests.tasks:
                guests.tasks[number % len(guests.tasks)].cancel()
            elif step == "stop":
                guests.line.stop()
            elif step == "go on":
                guests.line.go_on()
            else:
                await _turns()
        for _ in range(4 * len(guests.tasks) + 1):
            guests.line.go_on()
            await _turns()
        while any(not task.done() for task in guests.tasks):
            guests.line.go_on()
            await _turns()
        assert len(guests.line) == 0 and not guests.waiting
        problems = [task.exception() for task in guests.tasks if not task.cancelled()]
        assert problems == [None] * len(problems) and len(guests.done) == len(problems)

    asyncio.run(story())
