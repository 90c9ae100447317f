"""Driver `copy-on-read` alone: it asks its child to populate, and passes everything else on."""

from blockyard.node.interface.child import Child
from blockyard.node.interface.flags import Role
from blockyard.node.interface.permissions import (
    ALL,
    CONSISTENT_READ,
    NONE,
    RESIZE,
    WRITE,
    WRITE_UNCHANGED,
    Permissions,
)
from tests.support.contract import DriverContract
from tests.support.ground import Ground


class TestCopyOnRead(DriverContract):
    driver = "copy-on-read"
    survives_close = False

    async def children(self, ground: Ground, read_only: bool) -> dict[str, Child]:
        return {"file": await ground.open("memory", {"size": self.size}, name="file", read_only=read_only)}

    async def test_it_always_writes_unchanged_and_lets_others_do_so(self, ground: Ground):
        driver = (await self.node(ground)).driver

        def below(used: int, shared: int) -> Permissions:
            return driver.child_permissions("file", Role.FILTERED, Permissions(used, shared), writable=True)

        assert below(NONE, ALL) == (WRITE_UNCHANGED, ALL)
        assert below(CONSISTENT_READ | WRITE | RESIZE, CONSISTENT_READ) == (ALL, CONSISTENT_READ | WRITE_UNCHANGED)
