"""Which children a quorum takes, and which of them come and go while it is open."""

from typing import Any

import pytest

from blockyard.base.errors import (
    InvalidArgument,
    LimitReached,
    MissingOption,
    NodeInUse,
)
from blockyard.node.drivers.quorum.driver import CHILDREN_MAX, QuorumDriver
from blockyard.node.interface.child import Child
from blockyard.node.interface.flags import Role
from blockyard.node.interface.permissions import ALL, CONSISTENT_READ, RESIZE, WRITE, WRITE_UNCHANGED, Permissions
from tests.drivers import test_quorum as whole
from tests.drivers.test_quorum import SIZE, House, Moody

house = whole.house


# --- opening and permissions -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "options", "name"),
    [
        (3, {"threshold": 0}, "vote_threshold"),
        (3, {"threshold": -1}, "vote_threshold"),
        (3, {"threshold": 4}, "vote_threshold"),
        (3, {"threshold": 2, "blkverify": True}, "blkverify"),
        (2, {"threshold": 1, "blkverify": True}, "blkverify"),
        (2, {"threshold": 2, "blkverify": True, "rewrite_corrupted": True}, "rewrite_corrupted"),
        (2, {"threshold": 2, "read_pattern": "fifo", "rewrite_corrupted": True}, "read_pattern"),
        (2, {"threshold": 2, "read_pattern": "fifo", "blkverify": True}, "read_pattern"),
        (2, {"threshold": 2, "read_pattern": "lifo"}, "read_pattern"),
    ],
)
async def test_options_that_make_no_sense_are_refused_by_their_name(
    house: House, count: int, options: dict[str, Any], name: str
):
    with pytest.raises(InvalidArgument) as refusal:
        await house.quorum(count, **options)
    assert refusal.value.name == name


async def test_the_threshold_must_be_given(house: House):
    with pytest.raises(MissingOption):
        await house.ground.open("quorum", {}, {"children.0": await house.child(0)})


async def test_children_of_different_sizes_are_refused(house: House):
    with pytest.raises(InvalidArgument) as refusal:
        await house.over(await house.child(0), await house.child(1, SIZE - 512), threshold=1)
    assert refusal.value.name == "children.1"


async def test_no_node_has_two_votes(house: House):
    once = await house.child(0)
    with pytest.raises(NodeInUse):
        await house.over(once, Moody(once, "children.1"), threshold=1)


async def test_there_is_a_greatest_number_of_children(house: House):
    with pytest.raises(LimitReached):
        await house.quorum(CHILDREN_MAX + 1)


async def test_nobody_else_may_write_a_child(house: House):
    node = await house.quorum(3, 2, rewrite_corrupted=True)
    driver = node.driver
    assert isinstance(driver, QuorumDriver)
    reader = Permissions(CONSISTENT_READ, ALL)
    found = driver.child_permissions("children.0", Role.DATA, reader, writable=True)
    assert found == Permissions(CONSISTENT_READ | WRITE, CONSISTENT_READ | WRITE_UNCHANGED)
    plain = (await house.quorum()).driver
    writer = Permissions(CONSISTENT_READ | WRITE | RESIZE, CONSISTENT_READ)
    assert plain.child_permissions("children.0", Role.DATA, writer, writable=True) == Permissions(
        CONSISTENT_READ | WRITE | RESIZE, CONSISTENT_READ
    )


# --- children that come and go ---------------------------------------------------------------------------


async def test_a_name_means_one_child_as_long_as_the_node_is_open(house: House):
    driver = (await house.quorum()).driver
    assert isinstance(driver, QuorumDriver)
    children: dict[str, Child] = {child.name: child for child in house.children}
    children["children.3"] = await house.child(3)
    assert driver.next_child({child.name: child for child in house.children}) == "children.3"
    driver.adopt_children(children)
    del children["children.3"]
    driver.adopt_children(children)
    assert driver.next_child(children) == "children.4"


async def test_what_the_driver_has_against_children(house: House):
    node = await house.quorum(3, 3)
    driver = node.driver
    assert isinstance(driver, QuorumDriver)
    children: dict[str, Child] = {child.name: child for child in house.children}
    with pytest.raises(InvalidArgument):
        driver.check_children({name: children[name] for name in ("children.0", "children.2")})
    with pytest.raises(InvalidArgument) as refusal:
        driver.check_children({**children, "children.3": await house.child(3, 2 * SIZE)})
    assert refusal.value.name == "children.3"
    verifying = (await house.quorum(2, 2, blkverify=True)).driver
    pair: dict[str, Child] = {child.name: child for child in house.children}
    with pytest.raises(InvalidArgument):
        verifying.check_children({**pair, "children.2": await house.child(2)})
