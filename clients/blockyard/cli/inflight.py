"""Requests in flight as a tree: below each what serves it in lower layers, and who waits for it. Pure functions.

A request that belongs in two places is drawn once; later it is only named.
"""

from collections import defaultdict
from collections.abc import Sequence

from blockyard.cli import units
from blockyard.cli.describe import nanoseconds
from blockyard.cli.tree import LINES, Strokes
from blockyard.client.words import to_word
from blockyard.v1 import types_pb2
from blockyard.v1.types_pb2 import TrackedRequest

SERVES, WAITS = "", "waits: "


def drawn(requests: Sequence[TrackedRequest], strokes: Strokes = LINES) -> str:
    """All of them, the oldest first."""
    picture = _Picture(requests, strokes)
    for request in picture.roots():
        picture.draw(request, "", "", "")
    # Should there ever be a circle, it must show.
    for request in requests:
        if request.request_id not in picture.seen:
            picture.draw(request, "in a circle: ", "", "")
    return "\n".join(picture.lines) if picture.lines else "no requests are in flight"


class _Picture:
    def __init__(self, requests: Sequence[TrackedRequest], strokes: Strokes) -> None:
        self._requests = {request.request_id: request for request in requests}
        self._strokes = strokes
        self._below: dict[int, list[tuple[str, TrackedRequest]]] = defaultdict(list)
        for request in requests:
            if request.parent_request_id in self._requests:
                self._below[request.parent_request_id].append((SERVES, request))
        for request in requests:
            if request.waiting_for in self._requests:
                self._below[request.waiting_for].append((WAITS, request))
        self.seen: set[int] = set()
        self.lines: list[str] = []

    def roots(self) -> list[TrackedRequest]:
        return [
            request
            for request in self._requests.values()
            if request.parent_request_id not in self._requests and request.waiting_for not in self._requests
        ]

    def draw(self, request: TrackedRequest, relation: str, lead: str, below: str) -> None:
        seen = request.request_id in self.seen
        self.seen.add(request.request_id)
        words = f"#{request.request_id} {self._strokes.above}" if seen else line(request)
        self.lines.append(f"{lead}{relation}{words}")
        if seen:
            return
        items = self._below[request.request_id]
        for index, (kind, item) in enumerate(items):
            last = index == len(items) - 1
            self.draw(
                item,
                kind,
                below + (self._strokes.last if last else self._strokes.branch),
                below + (self._strokes.nothing if last else self._strokes.through),
            )


def line(request: TrackedRequest) -> str:
    """One request: `#7 write 4 KiB at 0x1000  disk  export/vm  1.2 s  throttled`."""
    what = to_word(types_pb2.RequestType, request.type) if request.type else "request"
    where = f" {units.size(request.range.length_bytes)} at {request.range.offset_bytes:#x}"
    words = [f"#{request.request_id} {what}{where if request.range.length_bytes else ''}", request.node_name]
    words += [request.owner] if request.owner else []
    words.append(f"{nanoseconds(request.age) / 1e9:.3g} s")
    words += [to_word(types_pb2.WaitReason, request.wait_reason)] if request.wait_reason else []
    words += ["serialising"] if request.serialising else []
    words += [f"trace {request.trace_id}"] if request.trace_id else []
    return "  ".join(words)
