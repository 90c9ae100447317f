"""`blockyard job`: start, steer and watch long work."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from blockyard.cli.app import sub_app
from blockyard.cli.options import DEFAULTS, Globals, Size
from blockyard.cli.running import connected

if TYPE_CHECKING:
    from blockyard.cli.output import Output
    from blockyard.client.client import Client
    from blockyard.v1.job_pb2 import Job

app = sub_app("job")

JOB_GROUP = Group("Job options", sort_key=50)


@Parameter(name="*", group=JOB_GROUP)
@dataclass(frozen=True, slots=True)
class Start:
    """What every kind of job takes."""

    id: str = ""
    """Name of the job. Without it one is made up and printed."""

    speed: Size = 0
    """Bytes per second at most; 0 is no limit. `blockyard job speed` changes it later."""

    wait: Annotated[bool, Parameter(name=["--wait", "-W"])] = False
    """Stay with progress until the job ended, or needs a decision (a mirror is ready). Ctrl-C leaves it alone."""

    manual_finalize: bool = False
    """Wait for `blockyard job finalize` before the graph is changed."""

    auto_dismiss: bool = False
    """Forget the job as soon as it ended."""

    dry_run: bool = False
    """Check everything, start nothing."""


DEFAULT_START = Start()

Sync = Annotated[str, Parameter(metavar="full | top | none")]
OnError = Annotated[str, Parameter(metavar="report | ignore | enospc | stop")]


@app.command
async def mirror(
    node: str,
    target: str,
    /,
    *,
    sync: Sync = "full",
    copy_mode: Literal["background", "write-blocking"] = "background",
    complete: Literal["pivot", "detach"] | None = None,
    replaces: str = "",
    granularity: Size = 0,
    buf_size: Size = 0,
    target_is_zero: bool = False,
    on_source_error: OnError = "",
    on_target_error: OnError = "",
    start: Start = DEFAULT_START,
    options: Globals = DEFAULTS,
) -> None:
    """Copy a node to another one and follow its writes.

    When both are the same the job is READY and waits for `blockyard job complete`, which moves the users of the
    node to the target (pivot).

    Examples:
      blockyard job mirror disk copy --wait
      blockyard job mirror disk copy --wait --complete pivot --speed 200M
      blockyard job mirror disk remote --sync top --copy-mode write-blocking

    Parameters
    ----------
    node
        The node to copy. It stays in use.
    target
        The open node to copy to.
    sync
        What is copied at first: full: everything (default). top: what the top layer holds. none: only new writes.
    copy_mode
        How writes are followed: background (default): soon. write-blocking: a write ends when both sides have it.
    complete
        Complete the job as soon as it is ready; implies --wait.
    replaces
        The node whose users move at the pivot. Default: the node itself.
    granularity
        Bytes per bit of the map of what is left, a power of two of 4K to 64M.
    buf_size
        Bytes in flight. Default 16M.
    target_is_zero
        The target reads as zeroes now, so that zeroes need not be written.
    on_source_error
        When reading fails: report (default): the job fails. ignore. enospc: pause if the disk is full. stop: pause.
    on_target_error
        When writing fails.
    """
    async with connected(options) as (client, out):
        job = await client.jobs.mirror(
            node,
            target,
            sync=sync,
            copy_mode=copy_mode,
            replaces_node_name=replaces,
            granularity_bytes=granularity,
            buf_size_bytes=buf_size,
            target_is_zero=target_is_zero,
            on_source_error=on_source_error,
            on_target_error=on_target_error,
            **_settings(start),
        )
        await _after(client, out, job, start, options, complete or "")


@app.command
async def backup(
    node: str,
    target: str,
    /,
    *,
    sync: Annotated[str, Parameter(metavar="full | top | none | bitmap")] = "full",
    bitmap: str = "",
    bitmap_mode: Annotated[str, Parameter(metavar="on-success | never | always")] = "",
    compress: bool = False,
    on_cbw_error: Annotated[str, Parameter(metavar="break-guest-write | break-snapshot")] = "",
    on_source_error: OnError = "",
    on_target_error: OnError = "",
    max_workers: int = 0,
    max_chunk: Size = 0,
    target_is_zero: bool = False,
    start: Start = DEFAULT_START,
    options: Globals = DEFAULTS,
) -> None:
    """Copy a node as it is now, while it may be written.

    Examples:
      blockyard job backup disk target --wait
      blockyard bitmap add disk monday
      blockyard job backup disk increment --sync bitmap --bitmap monday --wait

    Parameters
    ----------
    node
        The node to copy. It stays in use.
    target
        The open node to copy to.
    sync
        full: everything (default). top: what the top layer holds. bitmap: what --bitmap says. none: only what is
        overwritten from now on.
    bitmap
        The dirty bitmap of the node, for an incremental backup.
    bitmap_mode
        When the bitmap is cleared of what was copied: on-success (default), never, or always.
    compress
        Store compressed if the target can.
    on_cbw_error
        When old data cannot be saved before a write: fail the guest's write (default), or give the backup up.
    on_source_error
        When reading fails.
    on_target_error
        When writing fails.
    max_workers
        Copies at once. Default 64.
    max_chunk
        Largest copy.
    target_is_zero
        The target reads as zeroes now, so that zeroes need not be written.
    """
    async with connected(options) as (client, out):
        job = await client.jobs.backup(
            node,
            target,
            sync=sync,
            bitmap=bitmap,
            bitmap_mode=bitmap_mode,
            compress=compress,
            on_cbw_error=on_cbw_error,
            on_source_error=on_source_error,
            on_target_error=on_target_error,
            max_workers=max_workers,
            max_chunk_bytes=max_chunk,
            target_is_zero=target_is_zero,
            **_settings(start),
        )
        await _after(client, out, job, start, options)


@app.command
async def stream(
    node: str,
    /,
    *,
    base: str = "",
    backing_file: str = "",
    on_error: OnError = "",
    start: Start = DEFAULT_START,
    options: Globals = DEFAULTS,
) -> None:
    """Copy what lies below a node into it, so that it needs its backing chain no more.

    Examples:
      blockyard job stream disk --wait
      blockyard job stream disk --base golden

    Parameters
    ----------
    node
        The node to stream into. It stays in use.
    base
        The layer that remains below. Without it everything is streamed and no backing file is left.
    backing_file
        What to write into the header as backing file. Default: the base's own name.
    on_error
        When reading or writing fails.
    """
    async with connected(options) as (client, out):
        job = await client.jobs.stream(
            node, base_node_name=base, backing_file=backing_file, on_error=on_error, **_settings(start)
        )
        await _after(client, out, job, start, options)


@app.command
async def commit(
    node: str,
    /,
    *,
    top: str = "",
    base: str = "",
    backing_file: str = "",
    on_error: OnError = "",
    complete: Literal["pivot", "detach"] | None = None,
    start: Start = DEFAULT_START,
    options: Globals = DEFAULTS,
) -> None:
    """Copy layers into a layer below them. Committing the active layer becomes READY, as a mirror does.

    Examples:
      blockyard job commit disk --top snap2 --base snap1 --wait
      blockyard job commit disk --wait --complete pivot

    Parameters
    ----------
    node
        The active layer of the chain.
    top
        The topmost layer to commit. Without it the active layer.
    base
        The layer to commit into. Without it the deepest.
    backing_file
        What to write as backing file above the committed layers.
    on_error
        When reading or writing fails.
    complete
        Complete the job as soon as it is ready; implies --wait. Only for the active layer.
    """
    async with connected(options) as (client, out):
        job = await client.jobs.commit(
            node,
            top_node_name=top,
            base_node_name=base,
            backing_file=backing_file,
            on_error=on_error,
            **_settings(start),
        )
        await _after(client, out, job, start, options, complete or "")


@app.command(name="list")
async def list_(*, options: Globals = DEFAULTS) -> None:
    """List the jobs.

    For example:
      blockyard job list
      blockyard job list --output jsonl | jq -r 'select(.outcome=="JOB_OUTCOME_FAILED").job_id'
    """
    from blockyard.cli.describe import JOBS

    async with connected(options) as (client, out):
        out.many(await client.jobs.list(), JOBS)


@app.command
async def show(job: str, /, *, options: Globals = DEFAULTS) -> None:
    """Show a job: state, progress, error, and what may be asked of it now.

    For example:
      blockyard job show mirror-1

    Parameters
    ----------
    job
        The job.
    """
    async with connected(options) as (client, out):
        _print(out, await client.jobs.get(job))


@app.command
async def watch(
    job: str = "",
    /,
    *,
    complete: Literal["pivot", "detach"] | None = None,
    options: Globals = DEFAULTS,
) -> None:
    """Stay with a job until it ended, with progress; without a name print every change of every job.

    A dropped connection is taken up again. Exits with 1 if the job failed. Ctrl-C leaves the job alone.

    Examples:
      blockyard job watch mirror-1
      blockyard job watch mirror-1 --complete pivot
      blockyard job watch --output jsonl

    Parameters
    ----------
    job
        The job.
    complete
        Complete the job as soon as it is ready.
    """
    from blockyard.cli import progress
    from blockyard.cli.attending import attend

    async with connected(options) as (client, out):
        if job and out.for_people:
            await attend(client, job, options, complete or "")
            return
        async for event in client.jobs.watch(job):
            line = progress.step_of(event.job).line() if event.HasField("job") else ""
            if line or not out.for_people:
                out.live(event, line)


@app.command
async def pause(job: str, /, *, options: Globals = DEFAULTS) -> None:
    """Stop copying. Guests go on.

    Parameters
    ----------
    job
        The job.
    """
    async with connected(options) as (client, out):
        _print(out, await client.jobs.pause(job))


@app.command
async def resume(job: str, /, *, options: Globals = DEFAULTS) -> None:
    """Go on with a paused job.

    Parameters
    ----------
    job
        The job.
    """
    async with connected(options) as (client, out):
        _print(out, await client.jobs.resume(job))


@app.command
async def speed(job: str, limit: Size, /, *, options: Globals = DEFAULTS) -> None:
    """Change the speed limit of a job at once.

    Examples:
      blockyard job speed mirror-1 100M
      blockyard job speed mirror-1 0

    Parameters
    ----------
    job
        The job.
    limit
        Bytes per second; 0 is no limit.
    """
    async with connected(options) as (client, out):
        _print(out, await client.jobs.set_speed(job, limit))


@app.command
async def complete(job: str, /, *, detach: bool = False, wait: bool = False, options: Globals = DEFAULTS) -> None:
    """End a READY job with its effect: the users move to the target.

    Examples:
      blockyard job complete mirror-1 --wait

    Parameters
    ----------
    job
        The job.
    detach
        Leave the users where they are; the target is a copy of this instant.
    wait
        Stay until the job ended.
    """
    from blockyard.cli.attending import attend

    async with connected(options) as (client, out):
        completed = await client.jobs.complete(job, "detach" if detach else "pivot")
        if wait:
            await attend(client, job, options)
            completed = await client.jobs.get(job)
        _print(out, completed)


@app.command
async def cancel(job: str, /, *, force: bool = False, options: Globals = DEFAULTS) -> None:
    """End a job without its effect. The source stays as it is.

    Parameters
    ----------
    job
        The job.
    force
        Do not wait for requests in flight on the target.
    """
    async with connected(options) as (client, out):
        _print(out, await client.jobs.cancel(job, force=force))


@app.command
async def finalize(job: str, /, *, options: Globals = DEFAULTS) -> None:
    """Let a pending job change the graph.

    Parameters
    ----------
    job
        The job.
    """
    async with connected(options) as (client, out):
        _print(out, await client.jobs.finalize(job))


@app.command
async def dismiss(job: str, /, *, allow_missing: bool = False, options: Globals = DEFAULTS) -> None:
    """Forget a job that ended.

    Parameters
    ----------
    job
        The job.
    allow_missing
        No error if there is no such job.
    """
    from blockyard.v1.job_pb2 import DismissJobResponse

    async with connected(options) as (client, out):
        await client.jobs.dismiss(job, allow_missing=allow_missing)
        out.done(DismissJobResponse(), "" if options.quiet else f"dismissed {job}")


def _settings(start: Start) -> Any:
    settings: dict[str, Any] = {
        "speed_bytes_per_second": start.speed,
        "auto_finalize": not start.manual_finalize,
        "auto_dismiss": start.auto_dismiss,
        "validate_only": start.dry_run,
    }
    return {**settings, "job_id": start.id} if start.id else settings


async def _after(
    client: "Client", out: "Output", job: "Job", start: Start, options: Globals, complete: str = ""
) -> None:
    from blockyard.cli.attending import attend

    if start.dry_run or not (start.wait or complete):
        _print(out, job)
        return
    job = await attend(client, job.job_id, options, complete)
    if not out.for_people:
        _print(out, job)


def _print(out: "Output", job: "Job") -> None:
    from blockyard.cli.describe import job_facts

    out.one(job, job_facts)
