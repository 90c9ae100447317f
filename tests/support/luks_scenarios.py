"""What the crash tests do to key slots, and who judges what is left."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from blockyard.base.errors import BlockError
from blockyard.node.drivers._luks import header as headers
from blockyard.node.drivers.luks import Luks, LuksCreateOptions, LuksOptions
from blockyard.node.formats.luks import derivation
from blockyard.node.formats.luks.volume import KeyDigest, KeySlot
from blockyard.node.interface.abilities import KeySlotChange
from tests.support.crash import Crash, Recorder
from tests.support.ground import Ground

IMAGE = "disk.luks"
SECRETS = {"old": b"old passphrase", "new": b"new passphrase", "third": b"third passphrase"}
VERSIONS: dict[str, dict[str, object]] = {
    "luks1": {"cipher_alg": "aes-128", "cipher_mode": "cbc"},
    "luks2": {"cipher_alg": "aes-128", "cipher_mode": "cbc", "version": "luks2", "pbkdf": "pbkdf2"},
}
MATERIAL = 16384
"""Bytes of a slot's key material that are looked for when it should be gone."""
Steps = Callable[[Luks, Recorder], Awaitable[None]]


async def add(driver: Luks, recorder: Recorder, name: str = "new", slot: int | None = None) -> None:
    recorder.log.mark("begin")
    await driver.change_keys(KeySlotChange(True, new_secret=name, keyslot=slot, iter_time=1))
    recorder.log.mark("opens", secret=name)
    await told(driver, recorder)


async def erase(driver: Luks, recorder: Recorder, name: str = "old", slot: int = 0, force: bool = False) -> None:
    recorder.log.mark("begin")
    closing(driver, recorder, name, slot)
    await driver.change_keys(KeySlotChange(False, old_secret=name, force=force))
    recorder.log.mark("closed", secret=name, slot=slot)
    await told(driver, recorder)


async def told(driver: Luks, recorder: Recorder) -> None:
    """A change is over; then a guest writes, so that a crash may come before the next one."""
    recorder.log.mark("end")
    assert driver._view is not None
    await driver._view.write(0, bytes(512))


def closing(driver: Luks, recorder: Recorder, name: str, slot: int) -> None:
    """Say what may go from now on, and what is to be gone in the end."""
    found = driver._header.volume.slot(slot)
    assert found is not None and found.active
    material = bytes(recorder.contents[IMAGE][found.area.offset : found.area.offset + MATERIAL])
    recorder.log.mark("may close", secret=name, slot=slot, at=found.area.offset, material=material)


async def rotated(driver: Luks, recorder: Recorder) -> None:
    """A new passphrase, then the old one goes; and once more, into the slot that is free now."""
    await add(driver, recorder)
    await erase(driver, recorder)
    await add(driver, recorder, "third")
    await erase(driver, recorder, "new", 1)


async def across_the_sector(driver: Luks, recorder: Recorder) -> None:
    """Slot 6 of LUKS1 begins in one sector and ends in the next."""
    await add(driver, recorder, slot=6)
    await erase(driver, recorder)
    await erase(driver, recorder, "new", 6, force=True)


async def overwritten(driver: Luks, recorder: Recorder) -> None:
    """A slot that is active gets another passphrase by force; another slot opens all the while."""
    await add(driver, recorder, "new")
    recorder.log.mark("begin")
    closing(driver, recorder, "old", 0)
    await driver.change_keys(KeySlotChange(True, new_secret="third", keyslot=0, iter_time=1, force=True))
    recorder.log.mark("closed", secret="old", slot=0)
    recorder.log.mark("opens", secret="third")
    await told(driver, recorder)


SCENARIOS: dict[str, Steps] = {
    "rotated": rotated,
    "across the sector": across_the_sector,
    "overwritten": overwritten,
}


@dataclass(slots=True)
class Found:
    """A header as a crash left it."""

    version: int
    openers: dict[int, set[str]]
    """Of each slot that is on, and of LUKS1 also of those that are off, the secrets that its material gives in
    to."""
    active: set[int]
    broken: bool
    """Of LUKS2: the two copies are not alike."""

    @property
    def opens(self) -> set[str]:
        return {name for slot in self.active for name in self.openers[slot]}


class _Bytes:
    """As much of a child as reading a header needs."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    async def read(self, offset: int, into: memoryview) -> None:
        into[:] = self.content[offset : offset + len(into)].ljust(len(into), b"\0")


@lru_cache(maxsize=4096)
def _gives(slot: KeySlot, material: bytes, name: str, size: int, digest: KeyDigest) -> bool:
    """Whether key material gives in to a secret. Remembered, for most states of a crash have most of it alike."""
    return derivation.is_key(digest, derivation.key_in(slot, material, SECRETS[name], size, IMAGE))


async def looked_at(folder: Path) -> Found:
    """Raises what a broken header raises."""
    content = (folder / IMAGE).read_bytes()
    place = headers.Place(_Bytes(content), 0, len(content), IMAGE)  # type: ignore[arg-type]
    header = await headers.read(place)
    volume = header.volume
    openers: dict[int, set[str]] = {}
    for slot in volume.slots:
        openers[slot.number] = set()
        if slot.derivation is None or not slot.derivation.iterations:
            continue
        length = derivation.material_bytes(slot, volume.key_bytes)
        material = content[slot.area.offset : slot.area.offset + length].ljust(length, b"\0")
        openers[slot.number] = {
            name
            for name in SECRETS
            if _gives(replace(slot, active=True), material, name, volume.key_bytes, volume.digest)
        }
    active = {slot.number for slot in volume.slots if slot.active}
    return Found(volume.version, openers, active, header.broken)


async def recorded(version: str, steps: Steps, place: Path) -> Recorder:
    """The log of the steps on an image that the secret `old` opens."""
    ground, recorder = Ground(place), Recorder(seed=1)
    ground.secrets.values = SECRETS
    scratch = await ground.open("memory", {})
    await ground.create(
        "luks", {"size": 4096, "key_secret": "old", "iter_time": 1, **VERSIONS[version]}, {"file": scratch}
    )
    recorder.add(IMAGE, await scratch.content())
    context = ground.context({"file": await recorder.child(ground, IMAGE)})
    driver = await Luks.open(LuksOptions(key_secret="old"), context)
    await steps(driver, recorder)
    await ground.leave()
    return recorder


async def created(version: str, place: Path) -> Recorder:
    """The log of a creation."""
    ground, recorder = Ground(place), Recorder(seed=1)
    ground.secrets.values = SECRETS
    recorder.add(IMAGE)
    context = ground.context({"file": await recorder.child(ground, IMAGE)})
    options = LuksCreateOptions(size=4096, key_secret="old", iter_time=1, **VERSIONS[version])  # type: ignore[arg-type]
    await Luks.create(options, context)
    recorder.log.mark("opens", secret="old")
    await ground.leave()
    return recorder


class KeysThatOpen:
    """What was told to open does, until it may have been erased; what was told to be erased is gone.

    No slot is on that opens nothing, and of LUKS1 none is off that was not wiped, but for the one that is changing.
    """

    def problems(self, crash: Crash) -> list[str]:
        try:
            found = _run(crash.directory)
        except BlockError as problem:
            return [f"the header is broken: {problem}"]
        may_close, closed = crash.marks("may close"), crash.marks("closed")
        going = {mark.detail["secret"] for mark in may_close}
        must = {"old", *(mark.detail["secret"] for mark in crash.marks("opens"))} - going
        gone = {mark.detail["secret"] for mark in closed} - must
        changing = {mark.detail["slot"] for mark in may_close[len(closed) :]} if found.version == 1 else set()
        return [
            *(f"{name} does not open" for name in must - found.opens),
            *(f"{name} still opens" for name in gone & found.opens),
            *(f"slot {slot} opens nothing" for slot in found.active - changing if not found.openers[slot]),
            *(
                f"slot {slot} is off and not wiped"
                for slot, names in found.openers.items()
                if slot not in found.active and names & going
            ),
            *_remains(crash),
            *(
                ["the copies differ"]
                if found.broken and len(crash.marks("begin")) == len(crash.marks("end"))
                else []
            ),
        ]


def _remains(crash: Crash) -> list[str]:
    """Material of slots that were told to be erased."""
    whole = (crash.directory / IMAGE).read_bytes()
    marks = crash.marks("may close")[: len(crash.marks("closed"))]
    return [
        f"material of slot {mark.detail['slot']} is still there"
        for mark in marks
        for at in range(0, MATERIAL, 512)
        if whole[mark.detail["at"] + at :][:512] == mark.detail["material"][at : at + 512]
    ][:1]


class VolumeOrNothing:
    """A creation leaves a volume that its key opens, or a file that is none."""

    def problems(self, crash: Crash) -> list[str]:
        head = (crash.directory / IMAGE).read_bytes()[:6]
        done = bool(crash.marks("opens"))
        try:
            found = "old" in _run(crash.directory).opens
        except BlockError as problem:
            # LUKS2 is found by its second copy as well.
            return [f"half a volume: {problem}"] if done or head.startswith(b"LUKS") else []
        return [] if found else ["a volume that its key does not open"]


def _run(folder: Path) -> Found:
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, looked_at(folder)).result()
