"""Drivers `copy-before-write` and `mirror-top`: they pass requests on, and ask their interposer around writes."""

import pytest

from blockyard.node.interface.child import Child
from blockyard.node.interface.interposer import Apply, Interposable
from tests.support.contract import DriverContract
from tests.support.ground import DriverChild, Ground

SIZE = 1 << 20


class JobFilterContract(DriverContract):
    survives_close = False
    grows_by_writing = True

    def options(self) -> dict[str, object]:
        return {}

    async def children(self, ground: Ground, read_only: bool) -> dict[str, Child]:
        return {
            "file": await ground.open("memory", {"size": self.size}, name="file", read_only=read_only),
            "target": await ground.open("memory", {"size": self.size}, name="target"),
        }

    async def node(self, ground: Ground, read_only: bool = False, **changed: object) -> DriverChild:
        children = await self.children(ground, read_only)
        return await ground.open(self.driver, changed, children, read_only=read_only, of_job=True)

    async def test_a_write_that_the_interposer_holds_back_is_not_done_inline(self, ground: Ground):
        node = await self.node(ground)
        assert isinstance(node.driver, Interposable)
        node.driver.interposer = interposer = Holding()
        assert not node.write_now(4096, b"x")
        assert await node.content(4096, 1) == b"\0"
        interposer.free = True
        assert node.write_now(4096, b"x")
        assert await node.content(4096, 1) == b"x"

    @pytest.mark.parametrize("request_", ["write", "zero", "discard"])
    async def test_every_change_goes_through_the_interposer(self, ground: Ground, request_: str):
        node = await self.node(ground)
        await node.write(0, b"y" * 8192)
        node.driver.interposer = interposer = Holding()
        arguments = (0, b"x" * 4096) if request_ == "write" else (0, 4096)
        await getattr(node, request_)(*arguments)
        assert interposer.asked == [(0, 4096)]
        assert await node.content(0, 4096) == b"y" * 4096

    async def test_without_an_interposer_changes_reach_the_file_and_not_the_target(self, ground: Ground):
        node = await self.node(ground)
        await node.write(0, b"x" * 4096)
        assert await node.content(0, 4096) == b"x" * 4096


class Holding:
    """An interposer that notes what it is asked and does nothing."""

    def __init__(self) -> None:
        self.free = False
        self.asked: list[tuple[int, int]] = []

    def free_now(self, offset: int, length: int) -> bool:
        return self.free

    async def guest_write(self, offset: int, length: int, apply: Apply, *, exact: bool = True) -> None:
        self.asked.append((offset, length))


class TestCopyBeforeWrite(JobFilterContract):
    driver = "copy-before-write"


class TestMirrorTop(JobFilterContract):
    driver = "mirror-top"
