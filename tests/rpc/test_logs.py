"""One event, one line."""

import io
import logging

import pytest

from blockyard.rpc import logs
from blockyard.rpc.telemetry import trace_of
from blockyard.rpc.trace_context import TraceContext


@pytest.fixture
def lines():
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    logs.start("node", "info", stream)
    yield lambda: stream.getvalue().splitlines()
    root.handlers[:], _ = before
    root.setLevel(before[1])


def test_a_line_holds_service_level_message_and_fields(lines) -> None:
    logging.getLogger("blockyard.test").info("opened", extra={"node_name": "top", "why": 'said "so" twice'})
    (line,) = lines()
    assert ' INFO node blockyard.test opened node_name=top why="said \\"so\\" twice"' in line


def test_a_line_of_a_call_holds_its_trace_id(lines) -> None:
    with trace_of(TraceContext("ab" * 16, "cd" * 8, False)):
        logging.getLogger("blockyard.test").warning("slow")
    assert lines()[0].endswith(f"trace_id={'ab' * 16}")


def test_a_newline_in_a_value_cannot_forge_an_entry(lines) -> None:
    logging.getLogger("blockyard.test").error("no file %s", "x\n2026 ERROR forged", extra={"path": "a\nb"})
    assert len(lines()) == 1


def test_less_severe_messages_are_left_out(lines) -> None:
    logging.getLogger("blockyard.test").debug("detail")
    assert lines() == []
