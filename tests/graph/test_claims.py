"""One change of mode or options at a time, for a node and what is below it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from blockyard.base.errors import BlockError, NodeInUse
from blockyard.base.units import MIB
from blockyard.node.graph.claims import alone, claim
from blockyard.node.graph.modes import ready_to_write
from blockyard.node.graph.reopening import Reopen
from blockyard.node.graph.transaction import Action, Plan, run
from blockyard.node.interface.flags import DiscardMode
from tests.support.yard import Yard, yard


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Yard]:
    async with yard(tmp_path) as ground:
        yield ground


class Waits(Action):
    """Says when it was reached, and goes on when it is told."""

    def __init__(self) -> None:
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def prepare(self, plan: Plan) -> None:
        self.reached.set()
        await self.go_on.wait()


class Writes(Action):
    """Wants to write to a node."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def prepare(self, plan: Plan) -> None:
        await ready_to_write(plan.graph, plan.get(self._name))


async def waiting(ground: Yard, name: str) -> None:
    """A node that becomes writable when a writer comes."""
    await ground.create_qcow2(f"{name}.qcow2", MIB)
    await ground.open("qcow2", name, f"{name}.qcow2", auto_read_only=True)


def reopening(ground: Yard, *names: str) -> Reopen:
    return Reopen(
        [
            replace(ground.graph.get(name).definition, node_name=name, children={}, discard=DiscardMode.IGNORE)
            for name in names
        ]
    )


async def test_a_writer_that_comes_during_a_reopen_waits_for_its_end(ground: Yard):
    await waiting(ground, "disk")
    waits, node = Waits(), ground.graph.get("disk")
    change = asyncio.create_task(run(ground.graph, [reopening(ground, "disk"), waits]))
    await waits.reached.wait()
    writer = asyncio.create_task(ready_to_write(ground.graph, node))
    await asyncio.sleep(0)
    assert node.read_only and not writer.done()
    waits.go_on.set()
    await asyncio.gather(change, writer)
    assert not node.read_only and node.discard is DiscardMode.IGNORE and not node.context.read_only


async def test_a_reopen_that_failed_lets_the_next_change_in(ground: Yard):
    await waiting(ground, "disk")

    class Fails(Action):
        async def prepare(self, plan: Plan) -> None:
            raise NodeInUse("disk", "fail", "a test")

    with pytest.raises(BlockError):
        await run(ground.graph, [reopening(ground, "disk"), Fails()])
    await ready_to_write(ground.graph, ground.graph.get("disk"))
    assert not ground.graph.get("disk").read_only


async def test_a_reopen_that_is_given_up_lets_the_next_change_in(ground: Yard):
    await waiting(ground, "disk")
    waits = Waits()
    change = asyncio.create_task(run(ground.graph, [reopening(ground, "disk"), waits]))
    await waits.reached.wait()
    change.cancel()
    with pytest.raises(asyncio.CancelledError):
        await change
    await ready_to_write(ground.graph, ground.graph.get("disk"))


async def test_an_action_of_the_same_transaction_changes_the_mode_of_a_node_that_is_reopened(ground: Yard):
    await waiting(ground, "disk")
    await run(ground.graph, [Writes("disk"), reopening(ground, "disk"), Writes("disk")])
    assert ground.graph.get("disk").discard is DiscardMode.IGNORE


async def test_two_transactions_that_want_each_others_nodes_do_not_wait_for_ever(ground: Yard):
    for name in ("one", "two"):
        await waiting(ground, name)
    waits = Waits()
    first = asyncio.create_task(run(ground.graph, [reopening(ground, "one"), waits, reopening(ground, "two")]))
    await waits.reached.wait()
    second = asyncio.create_task(run(ground.graph, [reopening(ground, "two"), reopening(ground, "one")]))
    while ground.graph.get("two").claim is None and not second.done():
        await asyncio.sleep(0)
    waits.go_on.set()
    done = await asyncio.gather(first, second, return_exceptions=True)
    refused = [each for each in done if isinstance(each, BaseException)]
    assert refused and all("is changing its mode or options" in str(each) for each in refused)


async def test_a_claim_covers_what_is_below(ground: Yard):
    await waiting(ground, "disk")
    file = ground.graph.get("disk").children["file"].node
    mine = await claim(ground.graph.get("disk"))
    assert file.claim is mine
    mine.release()
    assert file.claim is None


async def test_a_task_that_outlives_the_claim_it_was_started_in_waits_like_any_other(ground: Yard):
    await waiting(ground, "disk")
    node, go_on = ground.graph.get("disk"), asyncio.Event()

    async def later() -> None:
        await go_on.wait()
        async with alone(node):
            pass

    async with alone(node):
        task = asyncio.create_task(later())
    mine = await claim(node)
    go_on.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()
    mine.release()
    await task
