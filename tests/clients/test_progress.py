"""Progress: live on a terminal, lines in a log, nothing if quiet."""

import io

import pytest

from blockyard.base.clock import VirtualClock
from blockyard.cli import progress
from blockyard.cli.options import Globals
from blockyard.cli.output import MEASURED_ROWS, Column, Output
from blockyard.cli.progress import Bar, Lines, Meter, Silent, Step, step_of
from blockyard.client.pieces import Piece
from blockyard.v1 import job_pb2
from blockyard.v1.job_pb2 import Job


def step(done: int, phase: str = "copying") -> Step:
    return Step("m1", phase, done, 100, rate=5 << 20, eta_s=65, zero=1 << 20, skipped=2048)


def test_a_step_is_a_line_with_rate_time_left_zeroes_and_what_was_skipped():
    assert step(50).line() == "m1  copying  50.0%  50 B of 100 B  5 MiB/s  ETA 1:05  zero 1 MiB  skipped 2 KiB"


def test_work_of_unknown_size_has_no_percentage():
    assert Step("read disk", "copying", 2048, 0).line() == "read disk  copying  2 KiB"


async def test_lines_come_at_an_interval_and_at_changes_of_phase():
    sink, clock = io.StringIO(), VirtualClock()
    lines = Lines(sink, clock)
    for second in range(5):
        lines.show(step(second * 10))
        await clock.advance(1)
    lines.show(step(50, "ready"))
    lines.close()
    assert [line.split("  ")[1:3] for line in sink.getvalue().splitlines()] == [
        ["copying", "0.0%"],
        ["copying", "20.0%"],
        ["copying", "40.0%"],
        ["ready", "50.0%"],
    ]


def test_the_last_step_is_always_told():
    sink = io.StringIO()
    lines = Lines(sink, VirtualClock())
    lines.show(step(1))
    lines.show(step(100))
    lines.close()
    assert "100.0%" in sink.getvalue().splitlines()[-1]


def test_a_bar_shows_all_figures():
    from rich.console import Console

    sink = io.StringIO()
    bar = Bar(Console(file=sink, width=140, force_terminal=True, color_system=None))
    bar.show(step(10))
    bar.show(step(50))
    bar.close()
    shown = sink.getvalue()
    for word in ("m1", "copying", "50.0%", "50 B of 100 B", "5 MiB/s", "ETA 1:05", "zero 1 MiB", "skipped 2 KiB"):
        assert word in shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_where_we_are_decides_how_progress_is_shown(monkeypatch: pytest.MonkeyPatch):
    assert isinstance(progress.view(Globals(quiet=True), Terminal()), Silent)
    assert isinstance(progress.view(Globals(), io.StringIO()), Lines)
    bar = progress.view(Globals(), Terminal())
    assert isinstance(bar, Bar)
    bar.close()


async def test_a_meter_tells_the_rate_of_the_last_seconds_and_the_mean_at_the_end():
    clock, shown = VirtualClock(), []

    class Seen:
        def show(self, step: Step) -> None:
            shown.append(step)

        def close(self) -> None:
            shown.append(None)

    meter = Meter("read disk", 1000, Seen(), clock)
    for number in range(10):
        await clock.advance(1)
        meter.add(Piece(number * 50, 50, None if number % 2 else b"x" * 50))
    assert shown[-1].rate == 50
    assert shown[-1].eta_s == 10
    assert shown[-1].zero == 250
    meter.end()
    assert shown[-2].phase == "done"
    assert shown[-2].rate == 50
    assert shown[-1] is None


def test_a_running_job_shows_its_phase_and_an_ended_one_its_outcome():
    job = Job(job_id="mirror-7", state=job_pb2.JOB_STATE_RUNNING)
    job.mirror.node_name = "disk"
    job.progress.phase = "converging"
    assert (step_of(job).title, step_of(job).phase) == ("mirror-7", "converging")
    job.state, job.outcome = job_pb2.JOB_STATE_CONCLUDED, job_pb2.JOB_OUTCOME_SUCCEEDED
    assert step_of(job).phase == "succeeded"


def test_a_long_table_is_printed_before_its_end():
    sink = io.StringIO()
    columns = (Column("NAME", str), Column("N", lambda value: str(len(value)), right=True))
    with Output("table", sink).stream(columns) as add:
        for _ in range(MEASURED_ROWS + 1):
            add("abc")
        assert sink.getvalue().count("\n") > MEASURED_ROWS
        add("a name much longer than those that were measured")
    lines = sink.getvalue().splitlines()
    assert lines[:2] == ["NAME  N", "abc   3"]
    assert lines[-1] == "a name much longer than those that were measured  48"


def test_a_json_array_is_printed_as_it_comes():
    sink = io.StringIO()
    with Output("json", sink).stream(()) as add:
        add({"a": 1})
        add({"a": 2})
        assert '"a": 1' in sink.getvalue()
    assert sink.getvalue() == '[\n  {\n    "a": 1\n  },\n  {\n    "a": 2\n  }\n]\n'
