"""The page of weaknesses is as honest as the code: what can be counted is counted, what is gone is gone."""

import re
from pathlib import Path

from blockyard.node.drivers.catalogue import all_drivers
from tests.support.coming import LATER, SERVICES, missing_in_node_service

PAGE = " ".join((Path(__file__).resolve().parents[2] / "docs/critiques.md").read_text().split())


def test_the_number_of_rpcs_that_come_later_is_right():
    services = sum(len(SERVICES[f"{name}Service"].methods) for name in LATER)
    every = sum(len(service.methods) for service in SERVICES.values())
    assert f"{services + len(missing_in_node_service())} of {every} RPCs" in PAGE


def test_each_rpc_of_the_node_that_comes_later_is_named():
    named = re.search(r"of NodeService \(([^)]*)\)", PAGE)
    assert (named[1].split(", ") if named else []) == missing_in_node_service()


def test_each_service_that_comes_later_is_named_with_its_size():
    assert [name for name in LATER if f"{name} ({len(SERVICES[f'{name}Service'].methods)})" not in PAGE] == []


def test_the_drivers_are_those_that_are_there():
    names = {name for name, found in all_drivers() if not isinstance(found, str)}
    listed = re.search(r"\*\*The drivers that are there\*\*: ([^.]*)\.", PAGE)
    assert listed and {*listed[1].split(", ")} == names
