"""The traces of a job: segments linked to who made it and to each other, phases and calls to the node inside."""

import random

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from blockyard.client import Client
from blockyard.jobs import app
from blockyard.jobs.config import JobsConfig
from blockyard.jobs.lifecycle.tracing import SEGMENT_NS
from blockyard.rpc.otel import SdkTracing
from blockyard.rpc.telemetry import Telemetry, trace_of
from blockyard.rpc.trace_context import TraceContext
from blockyard.v1 import job_pb2 as job
from tests.support.living_jobs import living
from tests.support.real_services import House, node_service

CALLER = TraceContext("ab" * 16, "cd" * 8, True)
SIZE = 1 << 20


class Recorded:
    """Telemetry whose spans a test can look at."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        tracing = SdkTracing(Resource({}), [SimpleSpanProcessor(self._exporter)], {})
        self.telemetry = Telemetry("blockyard-jobs", tracing=tracing)

    @property
    def spans(self):
        return self._exporter.get_finished_spans()

    def named(self, name: str):
        return [span for span in self.spans if span.name == name]


def trace_id(span) -> str:
    return f"{span.context.trace_id:032x}"


async def test_a_job_is_a_trace_of_its_own_linked_to_its_creator(tmp_path):
    recorded = Recorded()
    config = JobsConfig(listen=(f"unix:{tmp_path}/j.sock",), node=f"unix:{tmp_path}/node.sock", grace_seconds=0.2)
    async with (
        node_service(tmp_path) as (running, node),
        app.serving(config, telemetry=recorded.telemetry),
        Client.connect(config.listen[0]) as client,
    ):
        yard = House(tmp_path, node, client, running)
        await yard.memory("a", random.Random(1).randbytes(SIZE))
        await yard.memory("t", SIZE)
        with trace_of(CALLER):
            made = await yard.jobs.backup("a", "t", job_id="b", auto_dismiss=False)
        async for shown in yard.jobs.follow("b"):
            last = shown
    assert last.outcome == job.JOB_OUTCOME_SUCCEEDED
    [segment] = recorded.named("job backup")
    assert trace_id(segment) == made.trace_id != CALLER.trace_id
    assert segment.parent is None
    assert CALLER.trace_id in {f"{link.context.trace_id:032x}" for link in segment.links}
    phases = [span for span in recorded.spans if span.parent and span.parent.span_id == segment.context.span_id]
    assert {"creating", "copying", "finishing"} <= {span.name for span in phases}
    [finish] = [span for span in recorded.spans if "FinishCopySession" in span.name]
    assert trace_id(finish) == trace_id(segment)
    [summary] = recorded.named("job backup summary")
    assert summary.attributes["blockyard.job.outcome"] == "SUCCEEDED"
    assert summary.attributes["blockyard.job.copied_bytes"] == SIZE
    assert segment.context.trace_id in {link.context.trace_id for link in summary.links}


async def test_a_pause_ends_a_segment_and_the_next_is_linked_to_it():
    recorded = Recorded()
    async with living() as scene:
        scene.tracer = recorded.telemetry
        scene.manager = scene.another_manager(1)
        scene.node.disk("a", fill=b"a")
        await scene.start("stream", node_name="a", speed_bytes_per_second=1)
        await scene.manager.pause("job")
        await scene.until("PAUSED")
        assert len(recorded.named("job stream")) == 1
        await scene.manager.resume("job")
        await scene.until("CONCLUDED")
    first, second = recorded.named("job stream")
    assert first.context.trace_id != second.context.trace_id
    assert first.context.trace_id in {link.context.trace_id for link in second.links}
    assert [span.attributes["blockyard.job.segment"] for span in (first, second)] == [1, 2]


async def test_a_long_stretch_of_work_is_cut_into_segments():
    recorded = Recorded()
    async with living() as scene:
        scene.tracer = recorded.telemetry
        scene.manager = scene.another_manager(1)
        scene.node.disk("a", fill=b"a")
        scene.node.disk("t")
        scene.node.bytes_per_second = 100
        await scene.start("backup", node_name="a", target_node_name="t", sync="FULL", max_chunk_bytes=4096)
        for _ in range(30):
            await scene.clock.advance(SEGMENT_NS / 1e9 / 10)
        assert len(recorded.named("job backup")) >= 2
        await scene.manager.cancel("job", force=True)
        await scene.until("CONCLUDED")
    assert len({trace_id(span) for span in recorded.named("job backup")}) >= 2
