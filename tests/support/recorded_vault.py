"""A vault whose files are under the clock of a crash recorder, and the judge of what a crash may leave of them.

A store through memory may reach the disk at any time after it was made. So whatever changed in a file's memory is
entered in the log before anything else is, sector by sector, and a power cut may keep it or not.
"""

from typing import Any

from blockyard.node.core.dirty import DirtyBitmap
from blockyard.node.core.heat import MAX_SLOTS, REGION, HeatLog, length_for
from tests.support.crash import Recorder, Timeline
from tests.support.crash.log import Op

SECTOR = 512
BOOT = b"the present boot"


class RecordedFile:
    """An `interface.vault.VaultFile`."""

    def __init__(self, vault: "RecordedVault", name: str, length: int) -> None:
        self.name = name
        self._vault = vault
        self.buffer = bytearray(length)
        self.logged = b""
        self.is_deaf = False

    def room(self, length: int) -> memoryview:
        assert length == len(self.buffer), "files keep their size in these tests"
        return memoryview(self.buffer)

    async def sync(self) -> None:
        log = self._vault.recorder.log
        if self._vault.is_recording and not self.is_deaf:
            self._vault.capture()
            covers = len(log)
            await self._vault.delay()
            log.append(Op.FLUSH, self.name, covers=covers, missing=frozenset())

    def close(self) -> None:
        return


class RecordedVault:
    """An `interface.vault.Vault`. Files are made before recording begins."""

    boot = BOOT

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.files: list[RecordedFile] = []
        self.is_recording = False
        self._capturing = False

    async def create(self, length: int) -> RecordedFile:
        assert not self.is_recording
        self.files.append(RecordedFile(self, f"vault{len(self.files)}", length))
        return self.files[-1]

    async def open(self, name: str) -> RecordedFile:
        return next(file for file in self.files if file.name == name)

    def remove(self, name: str) -> None:
        return

    def sweep(self, kept: set[str]) -> None:
        return

    def start(self) -> None:
        """Everything so far is durable; from now on all is recorded."""
        for file in self.files:
            file.logged = bytes(file.buffer)
            self.recorder.add(file.name, file.logged)
        self.is_recording = True
        append = self.recorder.log.append

        def append_after_stores(op: Op, file: str = "", **facts: Any) -> int:
            if not self._capturing:
                self.capture()
            return append(op, file, **facts)

        self.recorder.log.append = append_after_stores  # type: ignore[method-assign]

    def stop(self) -> None:
        """No more is recorded; the log is as others again."""
        self.capture()
        self.is_recording = False
        del self.recorder.log.append

    def capture(self) -> None:
        """Enter stores in the log."""
        self._capturing = True
        for file in self.files:
            now = bytes(file.buffer)
            for at in range(0, len(now), SECTOR):
                if now[at : at + SECTOR] != file.logged[at : at + SECTOR]:
                    data = now[at : at + SECTOR]
                    self.recorder.log.append(Op.WRITE, file.name, offset=at, length=len(data), data=data)
            file.logged = now
        self._capturing = False

    async def delay(self) -> None:
        import asyncio

        for _ in range(self.recorder.numbers.randrange(4)):
            await asyncio.sleep(0)


class NothingMissed:
    """What a restart would make of the files of a bitmap covers every change of the disk since it was clean.

    And not much more: after the death of the process what was being written, after a power cut the hot bytes.
    """

    def __init__(self, disk: str, bits: str, heat: str, granularity: int, hot_bytes: int) -> None:
        self._disk, self._bits, self._heat = disk, bits, heat
        self._granularity = granularity
        self._hot_bytes = hot_bytes
        self._volatile: tuple[Any, Timeline] | None = None

    def problems(self, crash: Any) -> list[str]:
        with (crash.directory / self._disk).open("rb") as disk:
            size = disk.seek(0, 2)
            baselines, begun, ever = self._history(crash, size)
            content: dict[int, bytes] = {}
            for granule in sorted(ever):  # nothing else can differ
                disk.seek(granule * self._granularity)
                content[granule] = disk.read(self._granularity)
        found = self._restored(crash, size, after_power_cut=True)
        problems = self._judged("after a power cut", content, baselines, begun, found, self._hot_bytes)
        if self._is_process_death(crash):
            found = self._restored(crash, size, after_power_cut=False)
            problems += self._judged("after a kill", content, baselines, begun, found, 0)
        return problems

    def _history(self, crash: Any, size: int) -> tuple[list[dict[int, bytes]], set[int], set[int]]:
        """What the bitmap may be about, the granules whose writing began since, and those since ever."""
        baselines: list[dict[int, bytes]] = [{}]
        begun, ever = set[int](), set[int]()
        for entry in crash.log.entries[: crash.cut]:
            if entry.op is not Op.MARK:
                continue
            if entry.name == "clearing":
                baselines.append(entry.detail["content"])
            elif entry.name == "cleared":
                del baselines[:-1]
                begun.clear()
            elif entry.name == "guest" and entry.detail["what"] in ("write", "zero", "discard"):
                first = entry.detail["offset"] // self._granularity
                end = entry.detail["offset"] + entry.detail["length"]
                granules = range(first, -(-end // self._granularity))
                begun.update(granules)
                ever.update(granules)
        return baselines, begun, ever

    def _restored(self, crash: Any, size: int, *, after_power_cut: bool) -> DirtyBitmap:
        bits = DirtyBitmap(size, self._granularity)
        bits.deserialize((crash.directory / self._bits).read_bytes())
        log = HeatLog(memoryview(bytearray((crash.directory / self._heat).read_bytes())[: length_for(MAX_SLOTS)]))
        if after_power_cut and not log.is_clean:
            for region in log.regions():
                bits.mark(region * REGION, min(REGION, size - region * REGION))
        return bits

    def _is_process_death(self, crash: Any) -> bool:
        """Whether nothing that was written is missing."""
        if self._volatile is None or self._volatile[0] is not crash.log:
            self._volatile = (crash.log, Timeline(crash.log))
        volatile = self._volatile[1].volatile(crash.cut)
        return crash.state.torn is None and set(volatile) == set(crash.state.applied)

    def _judged(
        self,
        when: str,
        content: dict[int, bytes],
        baselines: list[dict[int, bytes]],
        begun: set[int],
        found: DirtyBitmap,
        allowed: int,
    ) -> list[str]:
        zeroes = bytes(self._granularity)
        missed = [
            [
                granule
                for granule, now in content.items()
                if now != baseline.get(granule, zeroes) and not found.is_dirty(granule * self._granularity)
            ]
            for baseline in baselines
        ]
        problems = []
        if all(missed):
            problems.append(f"{when} the changed granules {missed[-1][:5]} are clean")
        if len(baselines) == 1:
            dirty = {
                granule
                for run in found.extents()
                for granule in range(run.offset // self._granularity, -(-run.end // self._granularity))
            }
            too_many = len(dirty - begun) * self._granularity
            if too_many > allowed:
                problems.append(f"{when} {too_many} bytes are dirty that nobody wrote")
        return problems

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_volatile": None}
