"""Throttle groups and the catalogue: what is kept, and what happens when it cannot be."""

import json

import pytest

from blockyard.base.clock import VirtualClock
from blockyard.base.errors import CatalogueNotWritten, InvalidArgument, ResourceNotFound
from blockyard.node.core.throttle import Rate, ThrottleLimits
from blockyard.node.graph.catalogue import Catalogue
from blockyard.node.graph.keeping import Keeping
from blockyard.node.graph.kept_throttling import ThrottleGroupKind
from blockyard.node.graph.throttling import ThrottleGroups
from blockyard.node.rpc.memory import RequestMemory
from blockyard.node.rpc.throttle import ThrottleServicer
from blockyard.v1 import control_pb2 as control
from tests.support.kept_graph import MemoryKeeper


class Kept:
    """The service over groups and a catalogue of nothing else."""

    def __init__(self) -> None:
        self.groups = ThrottleGroups(VirtualClock())
        self.keeper = MemoryKeeper()
        catalogue = Catalogue(self.keeper)
        catalogue.add(ThrottleGroupKind(self.groups))
        self._service = ThrottleServicer(self.groups, Keeping(catalogue, {}), RequestMemory())

    async def create(self, name: str, avg: int) -> None:
        await self._service.CreateThrottleGroup(control.CreateThrottleGroupRequest(group=_group(name, avg)), None)

    async def update(self, name: str, avg: int) -> None:
        await self._service.UpdateThrottleGroup(control.UpdateThrottleGroupRequest(group=_group(name, avg)), None)

    async def delete(self, name: str) -> None:
        await self._service.DeleteThrottleGroup(control.DeleteThrottleGroupRequest(name=name), None)

    def durable(self) -> dict[str, int]:
        """Mean rates by name, as they would come back."""
        return {
            key.name: json.loads(entry.definition).get("iops-total", 0) for key, entry in self.keeper.rows.items()
        }

    def live(self) -> dict[str, int]:
        return {name: limits.iops_total.avg for name, limits in self.groups.definitions().items()}


def _group(name: str, avg: int) -> control.ThrottleGroup:
    return control.ThrottleGroup(name=name, iops_total=control.ThrottleLimit(avg=avg))


@pytest.fixture
async def kept() -> Kept:
    made = Kept()
    await made.create("a", 1)
    return made


async def test_what_is_told_is_durable(kept: Kept):
    assert kept.durable() == kept.live() == {"a": 1}
    await kept.update("a", 2)
    await kept.create("b", 3)
    assert kept.durable() == kept.live() == {"a": 2, "b": 3}
    await kept.delete("a")
    assert kept.durable() == kept.live() == {"b": 3}


@pytest.mark.parametrize("change", ["create", "update", "delete"])
async def test_what_cannot_be_kept_is_undone(kept: Kept, change: str):
    kept.keeper.fail_from(kept.keeper.commits + 1)
    arguments = {"create": ("b", 2), "update": ("a", 2), "delete": ("a",)}[change]
    with pytest.raises(CatalogueNotWritten):
        await getattr(kept, change)(*arguments)
    assert kept.durable() == kept.live() == {"a": 1}
    await kept.update("a", 5)
    assert kept.durable() == kept.live() == {"a": 5}


async def test_what_changes_nothing_writes_nothing(kept: Kept):
    commits = kept.keeper.commits
    await kept.update("a", 1)
    with pytest.raises(ResourceNotFound):
        await kept.delete("b")
    assert kept.keeper.commits == commits


async def test_an_entry_that_is_none_is_refused():
    kind = ThrottleGroupKind(groups := ThrottleGroups(VirtualClock()))
    for definition in ("[]", "{", '{"iops": 1}', '{"iops-total": 1, "iops-read": 1}'):
        with pytest.raises(InvalidArgument):
            await kind.restore("g", definition)
    await kind.restore("g", '{"iops-total": 7}')
    assert groups.definitions() == {"g": ThrottleLimits(iops_total=Rate(7))}
