"""Definitions as the catalogue stores them, and as clients see them."""

import pytest
from hypothesis import given, strategies

from blockyard.base.errors import InvalidArgument
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.kept_form import decoded, encoded
from blockyard.node.graph.present import full_definition
from blockyard.node.interface.flags import DiscardMode
from tests.support.yard import Yard, yard

VALUES = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers(-(2**63), 2**63 - 1)
    | strategies.text(max_size=20)
    | strategies.binary(max_size=20),
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(strategies.text(max_size=8), inner),
    max_leaves=8,
)
NAMES = strategies.from_regex(r"[a-z#][a-z0-9]{0,8}", fullmatch=True)


def definitions(depth: int = 3) -> strategies.SearchStrategy[NodeDefinition]:
    below = definitions(depth - 1) if depth else strategies.none()
    return strategies.builds(
        NodeDefinition,
        driver=NAMES,
        node_name=NAMES | strategies.just(""),
        options=strategies.dictionaries(NAMES, VALUES, max_size=3),
        children=strategies.dictionaries(NAMES, below | NAMES | strategies.none(), max_size=3),
        read_only=strategies.booleans(),
        discard=strategies.sampled_from(DiscardMode),
        labels=strategies.dictionaries(NAMES, strategies.text(max_size=8), max_size=2),
        followed=below | strategies.none(),
        overlays=below | strategies.none(),
    )


@given(definitions())
def test_a_stored_definition_is_the_same_when_it_is_read(definition: NodeDefinition):
    assert decoded(encoded(definition)) == definition


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"driver": 5}',
        '{"driver": "raw", "later": 1}',
        '{"driver": "raw", "discard": "perhaps"}',
        '{"driver": "raw", "children": 5}',
        '{"driver": "raw", "children": {"file": {"x": 1}}}',
        '{"driver": "raw", "options": {"a": {"$bytes": "zz"}}}',
        "[" * 100_000,
    ],
)
def test_what_is_no_definition_is_refused(text: str):
    with pytest.raises(InvalidArgument):
        decoded(text)


@pytest.fixture
async def ground(tmp_path):
    async with yard(tmp_path) as made:
        yield made


async def test_the_full_options_open_the_same_chain_from_nothing(ground: Yard):
    await ground.create_qcow2("base.qcow2", 1 << 20)
    await ground.create_qcow2("top.qcow2", 1 << 20)
    await ground.open("qcow2", "base", "base.qcow2", read_only=True)
    await ground.open("qcow2", "top", "top.qcow2", backing="base")
    whole = full_definition(ground.graph.get("top"))
    backing = whole.children["backing"]
    assert isinstance(backing, NodeDefinition)
    assert (backing.driver, backing.node_name, backing.read_only) == ("qcow2", "", True)
    await ground.graph.close("top")
    await ground.graph.close("base")
    again = await ground.graph.open(whole)
    assert again.backing is not None
    assert again.backing.node.filename == "base.qcow2"


async def test_the_full_options_say_that_there_is_no_backing_file(ground: Yard):
    await ground.create_qcow2("top.qcow2", 1 << 20, backing_file="gone.qcow2", backing_fmt="qcow2")
    node = await ground.open("qcow2", "top", "top.qcow2", backing=None)
    assert full_definition(node).children["backing"] is None
