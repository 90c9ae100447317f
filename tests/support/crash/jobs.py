"""Judges of crash states of jobs: where the guest's data must be found depends on what the world was told."""

import json

from tests.support import peers
from tests.support.crash.oracles import Crash, GuestContent
from tests.support.crash.reading import read_by_qemu

ENDED = "job ended"
"""The mark that a job's end was reported, with its effect."""


class GuestContentMoves:
    """The guest's bytes are in one image until the job's end is reported, and in another from then on."""

    def __init__(self, before: GuestContent, after: GuestContent) -> None:
        self._before = before
        self._after = after

    def problems(self, crash: Crash) -> list[str]:
        return (self._after if crash.marks(ENDED) else self._before).problems(crash)


class TargetHolds:
    """Once the job's end is reported, the target durably holds exactly these bytes."""

    def __init__(self, image: str, image_format: str, content: bytes) -> None:
        self._image = image
        self._format = image_format
        self._content = content

    def problems(self, crash: Crash) -> list[str]:
        if not crash.marks(ENDED):
            return []
        found = read_by_qemu(crash.directory / self._image, self._format, crash.scratch)
        return [] if found == self._content else [f"{self._image} does not hold what the reported end promised"]


class BackingIs:
    """Once the job's end is reported, the image's header durably names this backing file (empty: none)."""

    def __init__(self, image: str, backing: str) -> None:
        self._image = image
        self._backing = backing

    def problems(self, crash: Crash) -> list[str]:
        if not crash.marks(ENDED):
            return []
        printed = peers.run("qemu-img", "info", "-U", "--output=json", crash.directory / self._image).stdout
        found = json.loads(printed).get("backing-filename", "")
        return [] if found == self._backing else [f"{self._image} names {found!r}, reported was {self._backing!r}"]
