"""The map of the seed is whole, and every RPC, field, module and test that it names exists."""

import ast
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
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
ABSENT = ("none", "not needed")
HEADS = (
    "| id | item | RPC or field | code | test | state | note |",
    "| item | RPC or field | code | test | state | note |",
)
NAMES = re.compile(r"`[^`]+`(?:, `[^`]+`)*")


@dataclass(frozen=True, slots=True)
class Row:
    id: str
    """Empty for an item that came after 2014."""
    item: str
    rpc: str
    code: str
    test: str
    state: str
    note: str

    @property
    def called(self) -> str:
        return self.id or self.item


def rows() -> list[Row]:
    found: list[Row] = []
    head = ""
    for line in PAGE.splitlines():
        if not line.startswith("|"):
            head = ""
        elif line in HEADS:
            head = line
        elif head and not line.startswith("|---"):
            cells = [cell.strip() for cell in line[1:-1].split(" | ")]
            found.append(Row(*cells) if head == HEADS[0] else Row("", *cells))
    return found


ROWS = rows()
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.called)


def named(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


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


def in_the_api(name: str) -> bool:
    owner, _, member = name.partition(".")
    return owner in KNOWN and (not member or member in members(KNOWN[owner]))


def in_the_code(name: str) -> bool:
    roots = (ROOT, *(ROOT / "services").glob("*/blockyard"))
    return "/" in name and any((root / name).exists() for root in roots)


@cache
def functions_in(path: Path) -> frozenset[str]:
    """Functions of a file that pytest would run, read and not imported."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse(path.read_text()) if path.is_file() else ast.Module([], [])
    return frozenset(
        node.name for node in ast.walk(tree) if isinstance(node, functions) and node.name.startswith("test_")
    )


def is_a_test(name: str) -> bool:
    file, _, function = name.partition("::")
    return function in functions_in(ROOT / "tests" / file)


def test_every_item_has_one_row_in_order():
    assert [row.id for row in ROWS if row.id] == IDS


def test_what_came_later_has_one_row_each():
    later = [row.item for row in ROWS if not row.id]
    assert len(later) == len(set(later)) > 20


@each_row
def test_no_cell_is_empty(row: Row):
    assert all((row.item, row.rpc, row.code, row.test, row.state, row.note)), row
    for cell in (row.rpc, row.code, row.test):
        assert cell == "-" or NAMES.fullmatch(cell), cell


@each_row
def test_what_is_not_there_says_why_and_what_is_there_says_where(row: Row):
    if row.state in ABSENT:
        assert row.note != "-", row
    else:
        assert "-" not in (row.rpc, row.code, row.test), row


@each_row
def test_every_rpc_and_field_that_a_row_names_exists(row: Row):
    assert [name for name in named(row.rpc) if not in_the_api(name)] == []


@each_row
def test_every_module_that_a_row_names_exists(row: Row):
    assert [name for name in named(row.code) if not in_the_code(name)] == []
    assert [name for name in named(row.note) if "/" in name and not in_the_code(name)] == []


@each_row
def test_every_test_that_a_row_names_exists(row: Row):
    assert [name for name in named(row.test) if not is_a_test(name)] == []


def test_every_state_is_one_of_the_table_and_its_number_is_right():
    counted = Counter(row.state for row in ROWS if row.id)
    said = dict(re.findall(r"^\| ([a-z ]+) \| .+ \| (\d+) \|$", PAGE.partition("## A1")[0], re.MULTILINE))
    assert said == {state: str(counted[state]) for state in STATES}
    assert {row.state for row in ROWS} <= set(STATES)


@each_row
def test_a_call_of_a_row_that_works_does_something_and_one_of_mere_shape_does_not(row: Row):
    calls = [coming.served(*call) for call in re.findall(r"`(\w+Service)\.(\w+)`", row.rpc)]
    if row.state in ("works", "in part"):
        assert all(calls)
    if row.state == "shape":
        assert not any(calls)


def test_a_name_that_is_made_up_is_noticed():
    assert not in_the_api("NodeService.OpenDoor")
    assert not in_the_api("Nobody")
    assert not in_the_code("node/graph/nobody.py")
    assert not is_a_test("graph/test_tracking.py::test_nothing_at_all")
    assert not is_a_test("graph/test_nobody.py::test_the_wait_graph_names_both_sides")
