"""How people see messages of the API: columns of tables and facts of single objects.

What must not live here: calls and printing. Every function is pure, so that golden tests can hold them still.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from blockyard.cli import units
from blockyard.cli.output import Column, first
from blockyard.client.definitions import plain_value
from blockyard.client.words import to_word
from blockyard.v1 import job_pb2, types_pb2
from blockyard.v1.bitmap_pb2 import Checkpoint
from blockyard.v1.data_pb2 import BlockExtent
from blockyard.v1.export_pb2 import Export
from blockyard.v1.job_pb2 import Job
from blockyard.v1.node_pb2 import (
    CatalogueEntry,
    CheckImageResponse,
    ChecksumImageResponse,
    CompactImageResponse,
    CompareNodesResponse,
    DriverInfo,
    GetServerInfoResponse,
    ImageInfo,
    MeasureImageResponse,
    ScrubImageResponse,
)
from blockyard.v1.types_pb2 import BlockDriverState, DirtyBitmap

Facts = Iterable[tuple[str, str]]


def size_fact(value: int) -> str:
    """A size for people and for copying: `64 KiB (65536 bytes)`."""
    return units.size(value) if value < 1024 else f"{units.size(value)} ({value} bytes)"


def moment(timestamp: Timestamp) -> str:
    """A point in time, or nothing if it was not."""
    if not timestamp.seconds and not timestamp.nanos:
        return ""
    return timestamp.ToDatetime().strftime("%Y-%m-%d %H:%M:%S UTC")


def nanoseconds(duration: Duration) -> int:
    """A duration as a whole number."""
    return duration.seconds * 1_000_000_000 + duration.nanos


def users(node: BlockDriverState) -> str:
    """Who keeps a node: `node top (backing), export disk`."""
    return first((_user(holder) for holder in node.holders), 3)


def _user(holder: types_pb2.Holder) -> str:
    named = f"{holder.kind} {holder.name}".strip()
    return f"{named} ({holder.edge})" if holder.edge else named


def access(node: BlockDriverState) -> str:
    """`ro` or `rw`."""
    return "ro" if node.read_only else "rw"


NODES: Final[Sequence[Column]] = (
    Column("NODE", lambda node: node.node_name),
    Column("DRIVER", lambda node: node.driver),
    Column("SIZE", lambda node: units.size(node.size_bytes), right=True),
    Column("MODE", access),
    Column("FILE", lambda node: node.filename),
    Column("USED BY", users),
    Column("JOBS", lambda node: first(node.jobs, 3)),
)


def node_facts(node: BlockDriverState) -> Facts:
    """One node."""
    yield "node", node.node_name
    yield "driver", node.driver
    yield "size", size_fact(node.size_bytes)
    waits = node.read_only and node.auto_read_only
    yield "mode", "read-only until a writer comes" if waits else "read-only" if node.read_only else "read-write"
    yield "handed over", "" if node.active else "yes: `blockyard node activate` takes it back"
    yield "file", node.filename
    yield "cluster size", size_fact(node.cluster_size_bytes) if node.cluster_size_bytes else ""
    yield "disk usage", size_fact(node.allocated_bytes) if node.allocated_bytes > 0 else ""
    yield "backing file", node.backing_file
    yield "backing format", node.backing_format
    for child in node.children:
        yield f"child {child.name}", child.node_name
    yield "executor", node.executor
    yield "used by", ", ".join(_user(holder) for holder in node.holders)
    yield "jobs", ", ".join(node.jobs)
    yield "bitmaps", ", ".join(bitmap.name for bitmap in node.dirty_bitmaps)
    yield "in flight", str(node.in_flight or "")
    yield "throttle group", node.throttle.group
    waiting = node.throttle.queued_reads + node.throttle.queued_writes
    yield "waiting there", units.count(waiting) if waiting else ""
    yield "copy on read", str(node.copy_on_read or "")
    threshold = node.write_threshold_bytes
    yield "write threshold", size_fact(threshold) if threshold else ""
    yield "blocked", "; ".join(f"{blocker.operation}: {blocker.reason}" for blocker in node.op_blockers)
    yield "state", ", ".join(name for name in ("dirty", "corrupt", "encrypted", "implicit") if getattr(node, name))
    yield "opened", moment(node.create_time)
    yield "labels", ", ".join(f"{key}={value}" for key, value in sorted(node.labels.items()))
    for key, value in sorted(node.format_specific.items()):
        yield key, str(plain_value(value))


def image_facts(image: ImageInfo) -> Facts:
    """One image file."""
    yield "file", image.filename
    yield "format", image.format
    yield "size", size_fact(image.size_bytes)
    yield "disk usage", size_fact(image.allocated_bytes) if image.allocated_bytes >= 0 else "unknown"
    yield "cluster size", size_fact(image.cluster_size_bytes) if image.cluster_size_bytes else ""
    yield "backing file", image.backing_file
    yield "backing format", image.backing_format
    yield "state", ", ".join(name for name in ("dirty", "corrupt", "encrypted") if getattr(image, name))
    for key, value in sorted(image.format_specific.items()):
        yield key, str(plain_value(value))


def check_facts(check: CheckImageResponse) -> Facts:
    """The result of a check."""
    yield "errors", str(check.corruptions)
    yield "leaks", str(check.leaks)
    yield "not checked", str(check.check_errors or "")
    yield "errors repaired", str(check.corruptions_fixed or "")
    yield "leaks repaired", str(check.leaks_fixed or "")
    yield "allocated", f"{check.allocated_clusters} of {check.total_clusters} clusters"
    yield "fragmented", f"{check.fragmented_clusters} clusters" if check.fragmented_clusters else ""
    yield "compressed", f"{check.compressed_clusters} clusters" if check.compressed_clusters else ""
    yield "image ends at", size_fact(check.image_end_offset_bytes)
    for number, finding in enumerate(check.findings, start=1):
        yield f"finding {number}", finding


def comparison_facts(result: CompareNodesResponse.Result) -> Facts:
    """Whether two nodes are the same."""
    word = CompareNodesResponse.Result.Difference.Name(result.difference).removeprefix("DIFFERENCE_").lower()
    yield "identical", "yes" if result.identical else "no"
    yield "they differ in", "" if result.identical else word
    yield "from", f"{result.offset_bytes:#x} ({result.offset_bytes})" if result.offset_bytes >= 0 else ""
    yield "sizes", f"{result.first_size_bytes} and {result.second_size_bytes}"
    yield "bytes read", str(result.compared_bytes)


def checksum_facts(result: ChecksumImageResponse.Result) -> Facts:
    """What names a content."""
    yield "checksum", result.checksum
    yield "size", size_fact(result.size_bytes)
    yield "chunks of", units.size(result.chunk_bytes)
    yield "bytes read", size_fact(result.hashed_bytes)
    yield "kept in", f"{units.size(result.file_bytes)} of hashes" if result.file_bytes else ""


def scrub_facts(result: ScrubImageResponse.Result) -> Facts:
    """What a scrub found."""
    yield "intact", "yes" if result.intact else "no"
    yield "damaged", size_fact(result.damaged_bytes) if result.damaged_bytes else ""
    yield "expected", result.expected_checksum
    yield "found", result.checksum if result.checksum != result.expected_checksum else ""
    for each in result.extents:
        word = ScrubImageResponse.Extent.Damage.Name(each.damage).removeprefix("DAMAGE_").lower()
        place = f" in {each.node_name}" if each.node_name else ""
        at = f" at {each.host_offset_bytes:#x}" if each.host_offset_bytes >= 0 else ""
        why = f": {each.detail}" if each.detail else ""
        yield f"{each.offset_bytes:#x} +{each.length_bytes:#x}", f"{word}{place}{at}{why}"
    yield "more", "extents beyond these" if result.truncated else ""


def compaction_facts(result: CompactImageResponse.Result) -> Facts:
    """What a compaction gained."""
    yield "before", size_fact(result.before_bytes)
    yield "after", size_fact(result.after_bytes)
    yield "moved", size_fact(result.moved_bytes) if result.moved_bytes else ""
    yield "zeroes", size_fact(result.zeroed_bytes) if result.zeroed_bytes else ""
    yield "leaks", f"{result.leaked_clusters} clusters" if result.leaked_clusters else ""


def measure_facts(result: MeasureImageResponse) -> Facts:
    """How large an image would become."""
    yield "required", size_fact(result.required_bytes)
    yield "fully allocated", size_fact(result.fully_allocated_bytes)


GUESSES: Final[Sequence[Column]] = (
    Column("FORMAT", lambda guess: guess.driver),
    Column("CERTAINTY", lambda guess: f"{guess.score}%", right=True),
)

EXTENTS: Final[Sequence[Column]] = (
    Column("OFFSET", lambda extent: f"{extent.offset_bytes:#x}", right=True),
    Column("LENGTH", lambda extent: f"{extent.length_bytes:#x}", right=True),
    Column("KIND", lambda extent: extent_kind(extent)),
    Column("LAYER", lambda extent: f"{extent.depth} {extent.node_name}".strip() if extent.allocated else ""),
    Column("IN FILE AT", lambda extent: f"{extent.host_offset_bytes:#x}" if extent.host_offset_bytes >= 0 else ""),
)


def extent_kind(extent: BlockExtent) -> str:
    """`data`, `data compressed`, `zero`, or `hole` for what no layer holds."""
    if extent.data:
        return "data compressed" if extent.compressed else "data"
    return "zero" if extent.allocated else "hole"


BITMAPS: Final[Sequence[Column]] = (
    Column("NODE", lambda bitmap: bitmap.node_name),
    Column("BITMAP", lambda bitmap: bitmap.name),
    Column("DIRTY", lambda bitmap: units.size(bitmap.dirty_bytes), right=True),
    Column("GRANULARITY", lambda bitmap: units.size(bitmap.granularity_bytes), right=True),
    Column("STATE", lambda bitmap: bitmap_state(bitmap)),
)

SNAPSHOTS: Final[Sequence[Column]] = (
    Column("ID", lambda snapshot: snapshot.id, right=True),
    Column("NAME", lambda snapshot: snapshot.name),
    Column("SIZE", lambda snapshot: units.size(snapshot.size_bytes), right=True),
    Column("VM STATE", lambda snapshot: units.size(snapshot.vm_state_bytes), right=True),
    Column("TAKEN", lambda snapshot: snapshot.create_time.ToJsonString()),
)

CHECKPOINTS: Final[Sequence[Column]] = (
    Column("NODE", lambda checkpoint: checkpoint.node_name),
    Column("CONSUMER", lambda checkpoint: checkpoint.consumer),
    Column("CHECKPOINT", lambda checkpoint: checkpoint.name),
    Column("TAKEN", lambda checkpoint: checkpoint.create_time.ToJsonString()),
    Column("CHANGED AFTER", lambda checkpoint: units.size(checkpoint.changed_bytes), right=True),
    Column("STATE", lambda checkpoint: checkpoint_state(checkpoint)),
)

DIRTY_EXTENTS: Final[Sequence[Column]] = (
    Column("OFFSET", lambda extent: f"{extent.offset_bytes:#x}", right=True),
    Column("LENGTH", lambda extent: f"{extent.length_bytes:#x}", right=True),
)

SNAPSHOT_EXTENTS: Final[Sequence[Column]] = (
    *DIRTY_EXTENTS,
    Column("IS", lambda extent: "zero" if extent.zero else "data"),
)


def bitmap_state(bitmap: DirtyBitmap) -> str:
    """What a bitmap does now."""
    words = ["recording" if bitmap.recording else "not recording"]
    words += [word for word in ("persistent", "inconsistent") if getattr(bitmap, word)]
    if bitmap.busy:
        words.append(f"used by {bitmap.owner or 'someone'}")
    return ", ".join(words)


def checkpoint_state(checkpoint: Checkpoint) -> str:
    """What may become of a checkpoint."""
    words = [word for word in ("persistent", "inconsistent") if getattr(checkpoint, word)]
    if checkpoint.HasField("expire_time"):
        words.append(f"until {checkpoint.expire_time.ToJsonString()}")
    if checkpoint.holders:
        words.append(f"held by {', '.join(checkpoint.holders)}")
    return ", ".join(words)


IN_FLIGHT: Final[Sequence[Column]] = (
    Column("REQUEST", lambda request: str(request.request_id), right=True),
    Column("NODE", lambda request: request.node_name),
    Column("OWNER", lambda request: request.owner),
)

EXECUTORS: Final[Sequence[Column]] = (
    Column("EXECUTOR", lambda executor: executor.name),
    Column("THREADS", lambda executor: str(executor.threads), right=True),
    Column("RUNNING", lambda executor: str(executor.running), right=True),
    Column("WAITING", lambda executor: str(executor.waiting), right=True),
    Column("NODES", lambda executor: first(executor.node_names, 4)),
)

EXPORTS: Final[Sequence[Column]] = (
    Column("EXPORT", lambda export: export.export_id),
    Column("NODE", lambda export: export.node_name),
    Column("MODE", lambda export: "rw" if export.writable else "ro"),
    Column("CLIENTS", lambda export: str(len(export.clients)), right=True),
    Column("URI", lambda export: first(export.uris, 2)),
)


def export_facts(export: Export) -> Facts:
    """One export."""
    yield "export", export.export_id
    yield "node", export.node_name
    yield "attachment", export.attachment
    yield "name", export.nbd.name
    yield "mode", "read-write" if export.writable else "read-only"
    yield "bitmaps", ", ".join(export.nbd.bitmaps)
    yield "started", moment(export.create_time)
    for uri in export.uris:
        yield "uri", uri
    for client in export.clients:
        yield "client", f"{client.address or 'local'}, {client.requests} requests, {client.in_flight} in flight"


CATALOGUE: Final[Sequence[Column]] = (
    Column("KIND", lambda entry: entry.kind),
    Column("NAME", lambda entry: entry.name),
    Column("STATE", lambda entry: f"failed: {entry.failure}" if entry.failure else "there"),
)


def catalogue_facts(entry: CatalogueEntry) -> Facts:
    """One entry of the catalogue."""
    yield entry.kind, entry.name
    yield "state", "failed" if entry.failure else "there"
    yield "failure", entry.failure
    yield "definition", entry.definition


DRIVERS: Final[Sequence[Column]] = (
    Column("DRIVER", lambda driver: driver.name),
    Column("KIND", lambda driver: driver.kind),
    Column("ABILITIES", lambda driver: first(driver.abilities, 8)),
    Column(
        "ABOUT",
        lambda driver: f"disabled: {driver.disabled_reason}" if driver.disabled_reason else driver.description,
    ),
)

OPTIONS: Final[Sequence[Column]] = (
    Column("OPTION", lambda option: option.name),
    Column("TYPE", lambda option: option.type),
    Column("DEFAULT", lambda option: "required" if option.required else option.default_value),
    Column("ABOUT", lambda option: option.description),
)


def driver_facts(driver: DriverInfo) -> Facts:
    """One driver, without its options."""
    yield "driver", driver.name
    yield "kind", driver.kind
    yield "about", driver.description
    yield "disabled", driver.disabled_reason
    yield "children", ", ".join(driver.children)
    yield "backing", "yes" if driver.supports_backing else ""
    yield "abilities", ", ".join(driver.abilities)


def server_facts(info: GetServerInfoResponse) -> Facts:
    """The service."""
    yield "version", info.version
    yield "instance", info.instance_id
    yield "drivers", ", ".join(info.drivers)
    for name, limit in sorted(info.limits.items()):
        yield f"limit {name}", str(limit)


JOBS: Final[Sequence[Column]] = (
    Column("JOB", lambda job: job.job_id),
    Column("KIND", lambda job: job_kind(job)),
    Column("STATE", lambda job: job_state(job)),
    Column("DONE", lambda job: percent(job), right=True),
    Column("RATE", lambda job: units.rate(job.progress.rate_bytes_per_second) if running(job) else "", right=True),
    Column("ETA", lambda job: eta(job) if running(job) else "", right=True),
    Column("WORK", lambda job: job_work(job)),
)


def running(job: Job) -> bool:
    """Whether rate and time left mean something."""
    return job.state in (job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_STATE_READY)


def job_kind(job: Job) -> str:
    """mirror, backup, stream or commit."""
    return job.WhichOneof("kind") or ""


def job_state(job: Job) -> str:
    """The state, or how it ended, with the present phase of a running job."""
    if job.outcome:
        return to_word(job_pb2.JobOutcome, job.outcome)
    return to_word(job_pb2.JobState, job.state)


def job_work(job: Job) -> str:
    """What it does to which node."""
    kind = job_kind(job)
    if not kind:
        return ""
    options: Any = getattr(job, kind)
    if kind in ("mirror", "backup"):
        return f"{options.node_name} -> {options.target_node_name}"
    if kind == "commit":
        return f"{options.top_node_name or options.node_name} -> {options.base_node_name or 'base'}"
    return f"{options.base_node_name or 'chain'} -> {options.node_name}"


def percent(job: Job) -> str:
    """How far, or nothing if the work is unknown."""
    total = job.progress.total_bytes
    if not total:
        return "100.0%" if job.outcome == job_pb2.JOB_OUTCOME_SUCCEEDED else ""
    return f"{min(job.progress.done_bytes / total, 1) * 100:.1f}%"


def eta(job: Job) -> str:
    """Time left, or nothing if it cannot be told."""
    return units.clock_time(job.progress.eta.ToTimedelta().total_seconds()) if job.progress.HasField("eta") else ""


def job_facts(job: Job) -> Facts:
    """One job."""
    progress = job.progress
    yield "job", job.job_id
    yield "kind", job_kind(job)
    yield "work", job_work(job)
    yield "state", to_word(job_pb2.JobState, job.state)
    yield "outcome", to_word(job_pb2.JobOutcome, job.outcome) if job.outcome else ""
    yield "phase", progress.phase
    yield "done", f"{percent(job)} ({units.size(progress.done_bytes)} of {units.size(progress.total_bytes)})"
    yield "copied", units.size(progress.copied_bytes)
    yield "zeroes", units.size(progress.zero_bytes) if progress.zero_bytes else ""
    yield "skipped", units.size(progress.skipped_bytes) if progress.skipped_bytes else ""
    yield "rate", units.rate(progress.rate_bytes_per_second) if running(job) else ""
    yield "time left", eta(job) if running(job) else ""
    yield "speed limit", units.rate(job.speed_bytes_per_second) if job.speed_bytes_per_second else "none"
    yield "error", job.error.message
    yield "advice", job.error.advice
    yield "ignored errors", str(job.ignored_errors or "")
    yield "may be asked", ", ".join(to_word(job_pb2.JobVerb, verb) for verb in job.allowed_verbs)
    yield "started", moment(job.start_time)
    yield "ended", moment(job.end_time)
    yield "trace", job.trace_id
