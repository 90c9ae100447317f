"""Logs: one line per event to stderr, `key=value` after the message, the trace id on every line that has one.

Services run under a supervisor that adds files and rotation. Must not know what is logged.
"""

import logging
import sys
import time
from typing import Final, TextIO

from blockyard.rpc import trace_context

LEVELS: Final = ("debug", "info", "warning", "error")
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LineFormatter(logging.Formatter):
    """`2026-01-01T00:00:00.000Z INFO blockyard.rpc.server serving address=unix:/run/b.sock trace_id=...`."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        context = trace_context.running.get()
        if context is not None and "trace_id" not in extra:
            extra["trace_id"] = context.trace_id
        pairs = "".join(f" {key}={_quoted(str(value))}" for key, value in extra.items())
        message = _one_line(record.getMessage())
        line = f"{when}.{int(record.msecs):03d}Z {record.levelname} {self._service} {record.name} {message}{pairs}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def start(service: str, level: str = "info", stream: TextIO | None = None) -> None:
    """Send everything that is logged from `level` up to stderr. Replaces what was set up before."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # gRPC prints a traceback for every call that a stop cancels; the call's own log line says more.
    logging.getLogger("grpc._cython.cygrpc").addFilter(_no_cancellations)


def _no_cancellations(record: logging.LogRecord) -> bool:
    return "CancelledError" not in str(record.exc_info or record.msg)


def _one_line(text: str) -> str:
    # A name may hold a newline; it must not forge a second entry.
    return text.replace("\n", "\\n").replace("\r", "\\r")


def _quoted(text: str) -> str:
    plain = text and not any(character.isspace() or character in '"=' for character in text)
    return text if plain else '"' + _one_line(text).replace('"', '\\"') + '"'
