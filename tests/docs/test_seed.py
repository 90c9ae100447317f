"""The map of the seed is whole, and everything it names exists."""

import re
from collections import Counter
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, ServiceDescriptor

from blockyard.v1 import drivers_pb2, types_pb2
from tests.support import coming

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/seed.md").read_text()
FILES = (*coming.FILES, drivers_pb2, types_pb2)
ITEMS = {"A1": 28, "A2": 9, "A3": 72, "A4": 12, "A5": 49, "A6": 14}
"""How many items each part of the header has."""
IDS = [f"{part}.{number}" for part, count in ITEMS.items() for number in range(1, count + 1)]
STATES = ("works", "in part", "shape", "none", "not needed")
COLUMNS = re.compile(r"^\| (?:(A\d\.\d+) \| )?(.+?) \| (-|`.+?`) \| ([a-z ]+) \| ?(.*?) ?\|$", re.MULTILINE)
ROWS = COLUMNS.findall(PAGE)


def known() -> dict[str, Descriptor | EnumDescriptor | ServiceDescriptor]:
    found: dict[str, Descriptor | EnumDescriptor | ServiceDescriptor] = {}
    for file in FILES:
        described = file.DESCRIPTOR
        found |= described.message_types_by_name
        found |= described.enum_types_by_name
        found |= described.services_by_name
    return found


KNOWN = known()


def members(described: Descriptor | EnumDescriptor | ServiceDescriptor) -> set[str]:
    if isinstance(described, Descriptor):
        return {*described.fields_by_name, *described.enum_types_by_name, *described.nested_types_by_name}
    if isinstance(described, EnumDescriptor):
        return set(described.values_by_name)
    return set(described.methods_by_name)


def exists(name: str) -> bool:
    if "::" in name:
        file, _, test = name.partition("::")
        return (ROOT / file).exists() and re.search(rf"def {test}\(", (ROOT / file).read_text()) is not None
    if "/" in name:
        roots = (ROOT, *(ROOT / "services").glob("*/blockyard"))
        return any((root / name).exists() for root in roots)
    owner, _, member = name.partition(".")
    return owner in KNOWN and (not member or member in members(KNOWN[owner]))


def test_every_item_has_one_row_in_order():
    assert [id_ for id_, *_ in ROWS if id_] == IDS


@pytest.mark.parametrize(("item", "where"), [(row[0] or row[1], row[2]) for row in ROWS])
def test_what_a_row_names_exists(item: str, where: str):
    assert [name for name in re.findall(r"`([^`]+)`", where) if not exists(name)] == [], item


def test_every_state_is_one_of_the_table_and_its_number_is_right():
    counted = Counter(state for id_, _, _, state, _ in ROWS if id_)
    said = dict(re.findall(r"^\| ([a-z ]+) \| .+ \| (\d+) \|$", PAGE.partition("## A1")[0], re.MULTILINE))
    assert said == {state: str(counted[state]) for state in STATES}
    assert {state for *_, state, _ in ROWS} <= set(STATES)


def test_nothing_works_without_a_place():
    assert [row for row in ROWS if row[3] in ("works", "in part", "shape") and row[2] == "-"] == []


@pytest.mark.parametrize(("item", "where", "state"), [(row[0] or row[1], row[2], row[3]) for row in ROWS])
def test_a_call_of_a_row_that_works_does_something_and_one_of_mere_shape_does_not(
    item: str, where: str, state: str
):
    calls = [coming.served(*call) for call in re.findall(r"`(\w+Service)\.(\w+)`", where)]
    if state in ("works", "in part"):
        assert all(calls), item
    if state == "shape":
        assert not any(calls), item
