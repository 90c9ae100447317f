"""Spans as lines of JSON in a file: traces for those who run no collector.

One object per line, in the order in which spans end; several processes may append to one file (O_APPEND, one
write per batch). The file is bounded: past MAX_BYTES nothing is added.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

MAX_BYTES: Final = 256 * 1024 * 1024
"""Of the file: about a million spans."""


class SpanFile(SpanExporter):
    """Appends spans to one file. Raises ValueError without a name, OSError if the file cannot be opened."""

    def __init__(self, path: str) -> None:
        if not path:
            raise ValueError("BLOCKYARD_TRACE_FILE names no file")
        self._descriptor = os.open(Path(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if os.fstat(self._descriptor).st_size > MAX_BYTES:
            return SpanExportResult.FAILURE
        lines = "".join(json.dumps(as_record(span), separators=(",", ":")) + "\n" for span in spans)
        try:
            os.write(self._descriptor, lines.encode())
        except OSError:
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        os.close(self._descriptor)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


def as_record(span: ReadableSpan) -> dict[str, object]:
    """What a line holds: ids in hex, times in nanoseconds since the Unix epoch."""
    context, parent = span.get_span_context(), span.parent
    assert context is not None
    return {
        "trace_id": f"{context.trace_id:032x}",
        "span_id": f"{context.span_id:016x}",
        "parent_id": f"{parent.span_id:016x}" if parent else "",
        "service": span.resource.attributes.get("service.name", ""),
        "name": span.name,
        "kind": span.kind.name,
        "start_ns": span.start_time or 0,
        "end_ns": span.end_time or 0,
        "status": span.status.status_code.name,
        "attributes": dict(span.attributes or {}),
        "links": [f"{link.context.trace_id:032x}-{link.context.span_id:016x}" for link in span.links],
    }
