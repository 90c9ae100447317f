"""`blockyard debug` and the client's rules, against a real node service."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.base.errors import InvalidArgument, NoSpace, UnknownOption
from blockyard.cli import setting
from blockyard.cli.exits import Exit
from blockyard.client.definitions import blkdebug, memory
from blockyard.v1.drivers_pb2 import NodeDefinition, QuorumOptions
from tests.support.command import Cli
from tests.support.node_calls import NodeHouse, node_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[NodeHouse]:
    async with node_house(tmp_path, debug=True) as made:
        await made.client.nodes.open(blkdebug(memory(1 << 20), node_name="bug"))
        yield made


@pytest.fixture
def cli(house: NodeHouse, capfdbinary: pytest.CaptureFixture[bytes]) -> Cli:
    return Cli(house.client.address, capfdbinary)


async def test_breakpoints_are_set_listed_resumed_and_removed(cli: Cli):
    assert (await cli("debug", "breakpoint", "set", "bug", "cow_write", "here")).code == 0
    ran = await cli("debug", "breakpoint", "list")
    assert ran.out.splitlines()[1].split() == ["here", "bug", "cow_write", "0"]
    assert (await cli("debug", "breakpoint", "resume", "here", "-o", "json")).json["suspended"] == 0
    assert (await cli("debug", "breakpoint", "remove", "here")).out == "removed breakpoint here\n"
    assert (await cli("debug", "breakpoint", "resume", "here")).code == Exit.NOT_FOUND


async def test_faults_are_injected_listed_and_removed(cli: Cli, house: NodeHouse):
    effect = ("--errno", "28", "--times", "1", "--delay", "1ms", "--offset", "4K")
    ran = await cli("debug", "fault", "inject", "bug", "write", *effect)
    assert ran.out.splitlines()[1].split("  ")[0] == "fault1"
    assert "after 1.00 ms, errno 28 at 0x1000" in ran.out
    await house.client.data.write("bug", 0, b"x")
    with pytest.raises(NoSpace):
        await house.client.data.write("bug", 4096, b"x")
    assert "1 of 1" in (await cli("debug", "fault", "list", "bug")).out
    assert (await cli("debug", "fault", "remove", "fault1")).out == "removed fault fault1\n"
    assert (await cli("debug", "fault", "list", "-o", "json")).json == []


async def test_events_are_a_list(cli: Cli):
    assert "cow_write" in (await cli("debug", "events")).out.splitlines()
    assert {"event": "l2_load"} in (await cli("debug", "events", "-o", "json")).json


async def test_a_service_without_the_option_says_so(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]):
    async with node_house(tmp_path) as house:
        ran = await Cli(house.client.address, capfdbinary)("debug", "events")
    assert ran.code != 0
    assert "DebugService is switched off here" in ran.err
    assert "`debug`" in ran.err


# --- --set with lists -----------------------------------------------------------------------------------------


def test_rules_are_set_by_number_and_lists_of_words_at_once():
    definition = NodeDefinition()
    definition.blkdebug.SetInParent()
    setting.apply(
        definition,
        [
            "inject_error.0.event=l2_load",
            "inject_error.0.rate=0.5",
            "inject_error.1.event=none",
            "take_child_perms=write,resize",
        ],
    )
    assert [rule.event for rule in definition.blkdebug.inject_error] == ["l2_load", "none"]
    assert definition.blkdebug.inject_error[0].rate == 0.5
    assert list(definition.blkdebug.take_child_perms) == [2, 4]


def test_children_of_a_list_are_set_by_number():
    definition = NodeDefinition(quorum=QuorumOptions(vote_threshold=2))
    setting.apply(definition, ["children.0=a", "children.1=b"])
    assert [child.node_name for child in definition.quorum.children] == ["a", "b"]


@pytest.mark.parametrize(
    "wrong",
    ["inject_error=x", "inject_error.1.event=x", "inject_error.0=x", "take_child_perms.0=write", "seed.x=1"],
)
def test_a_path_that_leads_nowhere_is_refused(wrong: str):
    definition = NodeDefinition()
    definition.blkdebug.SetInParent()
    with pytest.raises((InvalidArgument, UnknownOption)):
        setting.apply(definition, [wrong])
