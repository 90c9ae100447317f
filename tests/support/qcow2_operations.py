"""What the crash tests do to qcow2 images with long operations: amendments, compaction, rebases."""

import json
from typing import Any

from blockyard.base.units import KIB, MIB
from blockyard.node.drivers.qcow2.amending import Qcow2AmendOptions
from blockyard.node.interface.operations import untold
from tests.support import peers
from tests.support.qcow2_scenarios import IMAGE, Scenario, Scene, delete_snapshot, take_snapshot


async def amend(scene: Scene, **options: Any) -> None:
    """One amendment, with marks for `Amended` around it."""
    scene.recorder.log.mark("amend", what="begun", **options)
    for step in scene.driver.amendment(Qcow2AmendOptions(**options), False):
        if step.run is None:
            await scene.guest.resize(step.size)
        else:
            await step.run(untold)
    scene.recorder.log.mark("amend", what="made", **options)


async def up_and_down(scene: Scene) -> None:
    guest = scene.guest
    await guest.write(8 * KIB, 40 * KIB)
    await amend(scene, compat="v3")
    await guest.zero(64 * KIB, 128 * KIB)
    await guest.write(300 * KIB, 16 * KIB)
    await guest.flush()
    await guest.zero(304 * KIB, 4 * KIB)
    await amend(scene, compat="v2")
    await guest.write(70 * KIB, 12 * KIB)
    await guest.flush()
    await guest.write(0, 512)
    await amend(scene, compat="v3", lazy_refcounts=True)
    await amend(scene, lazy_refcounts=False)
    await guest.flush()


async def up_and_down_with_a_snapshot(scene: Scene) -> None:
    await scene.guest.zero(64 * KIB, 128 * KIB)
    await scene.guest.write(8 * KIB, 40 * KIB)
    await take_snapshot(scene, "one")
    await scene.guest.write(100 * KIB, 8 * KIB)
    await amend(scene, compat="v2")
    await scene.guest.write(64 * KIB, 8 * KIB)
    await scene.guest.flush()
    await amend(scene, compat="v3")
    await scene.guest.flush()


async def other_widths(scene: Scene) -> None:
    guest = scene.guest
    for number, bits in enumerate((1, 64, 8, 2, 16)):
        await guest.write(number * 100 * KIB, 24 * KIB)
        await amend(scene, refcount_bits=bits)
        await guest.discard(number * 100 * KIB, 8 * KIB)
        await guest.write(number * 100 * KIB + 4 * KIB, 16 * KIB)
        await guest.flush()
    await scene.driver.close()


async def many_options(scene: Scene) -> None:
    await scene.guest.write(0, 24 * KIB)
    await amend(scene, compat="v3", refcount_bits=32, lazy_refcounts=True, size=2 * MIB)
    await scene.guest.write(MIB, 24 * KIB)
    await scene.guest.flush()
    await amend(scene, compat="v2", refcount_bits=16, lazy_refcounts=False)
    await scene.guest.flush()


async def compact(scene: Scene) -> None:
    """All steps, as the graph takes them."""
    await scene.driver.check(True, False)
    await scene.driver.reclaim()
    last = -1
    while not (step := await scene.driver.compact()).done and step.end != last:
        last = step.end


async def compacted(scene: Scene) -> None:
    guest = scene.guest
    await guest.write(300 * KIB, 200 * KIB)
    await guest.flush()
    await guest.discard(0, 256 * KIB)
    await guest.zero(310 * KIB, 40 * KIB)
    await guest.flush()
    await guest.write(700 * KIB, 12 * KIB)
    await compact(scene)
    await guest.write(704 * KIB, 8 * KIB)
    await guest.write(0, 24 * KIB)
    await guest.flush()
    await guest.discard(300 * KIB, 100 * KIB)
    await guest.flush()
    await compact(scene)
    await guest.write(320 * KIB, 24 * KIB)
    await guest.flush()
    await scene.driver.close()


async def compacted_with_a_snapshot(scene: Scene) -> None:
    guest = scene.guest
    await guest.write(300 * KIB, 100 * KIB)
    await take_snapshot(scene, "one")
    await guest.write(350 * KIB, 100 * KIB)
    await guest.flush()
    await guest.discard(0, 200 * KIB)
    await take_snapshot(scene, "two")
    await delete_snapshot(scene, "one")
    await compact(scene)
    await guest.write(340 * KIB, 24 * KIB)
    await guest.flush()
    await delete_snapshot(scene, "two")
    await compact(scene)
    await guest.write(0, 24 * KIB)
    await guest.flush()


class Amended:
    """An amendment that was told of is in the header; one under way is there in any of its steps."""

    def problems(self, crash: Any) -> list[str]:
        marks = crash.marks("amend")
        if not marks or marks[-1].detail["what"] != "made":
            return []
        wanted = {name: value for mark in marks for name, value in mark.detail.items() if name != "what"}
        told = peers.run("qemu-img", "info", "-U", "--output=json", crash.directory / IMAGE, check=False)
        if told.returncode:
            return [f"the header cannot be read: {told.stderr}"]
        data = json.loads(told.stdout)["format-specific"]["data"]
        found = {
            "compat": {"0.10": "v2", "1.1": "v3"}[data["compat"]],
            "refcount_bits": data.get("refcount-bits", 16),
            "lazy_refcounts": data.get("lazy-refcounts", False),
        }
        return [
            f"{name} is {found[name]}, and was amended to {value}"
            for name, value in wanted.items()
            if name in found and found[name] != value
        ]


class Rebased:
    """Once the mark "rebased" was set the header names the new chain: somebody may have deleted the old one."""

    def __init__(self, backing: str, image: str = "top.qcow2") -> None:
        self._backing = backing
        self._image = image

    def problems(self, crash: Any) -> list[str]:
        if not crash.marks("rebased"):
            return []
        told = peers.run("qemu-img", "info", "-U", "--output=json", crash.directory / self._image, check=False)
        if told.returncode:
            return [f"the header cannot be read: {told.stderr}"]
        found = json.loads(told.stdout).get("backing-filename", "")
        return [] if found == self._backing else [f"the header names {found!r}"]


AMEND_SCENARIOS = {
    "versions": Scenario(up_and_down, ("compat=0.10", "cluster_size=4k"), filled=256 * KIB),
    "versions over a backing file": Scenario(up_and_down, ("compat=0.10", "cluster_size=4k"), base=512 * KIB),
    "versions with a snapshot": Scenario(up_and_down_with_a_snapshot, base=512 * KIB),
    "widths": Scenario(other_widths, filled=128 * KIB),
    "widths of small clusters": Scenario(other_widths, ("cluster_size=512",), filled=64 * KIB),
    "many options": Scenario(many_options, ("compat=0.10", "cluster_size=4k"), base=256 * KIB),
}

COMPACT_SCENARIOS = {
    "data": Scenario(compacted, filled=256 * KIB),
    "small clusters": Scenario(compacted, ("cluster_size=512",), filled=256 * KIB),
    "over a backing file": Scenario(compacted, filled=256 * KIB, base=512 * KIB),
    "version 2": Scenario(compacted, ("compat=0.10", "cluster_size=4k"), filled=256 * KIB),
    "lazy refcounts": Scenario(compacted, ("cluster_size=4k", "lazy_refcounts=on"), filled=256 * KIB, lazy=True),
    "snapshots": Scenario(compacted_with_a_snapshot, filled=256 * KIB),
}
