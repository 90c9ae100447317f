"""The numbers in docs/limits.md are those of the code, where a row names one constant."""

from pathlib import Path

import pytest

from blockyard.base.units import GIB, KIB, MIB
from blockyard.jobs.config import JobsConfig
from blockyard.jobs.copying import window
from blockyard.jobs.lifecycle import manager, orphans
from blockyard.jobs.rpc import forwarding, operations
from blockyard.jobs.store import port as job_store
from blockyard.jobs.store import postgres
from blockyard.keeping import sqlite as kept_sqlite
from blockyard.node.config import NodeConfig
from blockyard.node.copying import session, sessions, work
from blockyard.node.core import accounting, dirty, heat, injection, pointintime, pool, throttle
from blockyard.node.drivers import _encrypting, _preserving, blkverify, memory, preallocate
from blockyard.node.drivers.blkdebug import breakpoints
from blockyard.node.drivers.blkdebug import options as blkdebug_options
from blockyard.node.drivers.file import ioctls
from blockyard.node.drivers.nbd import driver as nbd_driver
from blockyard.node.drivers.nbd import handshake, transmission, unflushed
from blockyard.node.drivers.nbd import options as nbd_options
from blockyard.node.drivers.nbd import session as nbd_session
from blockyard.node.drivers.qcow2 import bitmaps as qcow2_bitmaps
from blockyard.node.drivers.qcow2 import compacting as qcow2_compacting
from blockyard.node.drivers.qcow2 import flattening, tallying, views, vmstate
from blockyard.node.drivers.qcow2 import places as qcow2_places
from blockyard.node.drivers.quorum import driver as quorum
from blockyard.node.drivers.quorum import reporting
from blockyard.node.exports.nbd import limits as nbd
from blockyard.node.formats import blkdebug, checksums
from blockyard.node.formats.luks import limits as luks
from blockyard.node.formats.luks import luks2
from blockyard.node.formats.qcow2 import limits as qcow2
from blockyard.node.graph import attachment as attachment_definition
from blockyard.node.graph import attachments as attachment_resources
from blockyard.node.graph import (
    checkpoints,
    checksumming,
    compacting,
    comparing,
    contents,
    debugging,
    events,
    executors,
    filenames,
    graph,
    guarding,
    hashing,
    leases,
    reading,
    recording,
    restoring,
    secrets,
    stalls,
    throttling,
    transaction,
    writing,
)
from blockyard.node.graph import held as held_requests
from blockyard.node.interface import internal_snapshots, options
from blockyard.node.keeping import vault
from blockyard.node.rpc import bitmaps, copy, data, definitions, merging, snapshots, telling
from blockyard.node.rpc import memory as answers
from blockyard.node.rpc import session as io_session
from blockyard.rpc import interceptors, measures, retries, server, span_file, status, wire
from blockyard.stats.collect import remote
from blockyard.stats.model import ledger

ROOT = Path(__file__).parents[2]
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in (ROOT / "docs" / "limits.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| where")
]


def size(value: int) -> str:
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if value >= unit and value % unit == 0:
            return f"{value // unit} {name}"
    return str(value)


def number(value: float) -> str:
    return f"{value:,g}" if value >= 10_000 else f"{value:g}"


EXPECTED: dict[tuple[str, str], list[str]] = {
    ("quorum", "children"): [str(quorum.CHILDREN_MAX)],
    ("quorum", "bytes of one vote; seen by an inline read in all copies together"): [
        size(quorum.VOTE_MAX), size(quorum.INLINE_MAX)
    ],
    ("quorum", "reports of one child, of one kind of request"): [f"{10**9 // reporting.INTERVAL_NS} a second"],
    ("blkverify", "an inline read"): [size(blkverify.INLINE_MAX)],
    ("copy-before-write", "bytes of one copy"): [size(_preserving.CHUNK)],
    ("copy-before-write", "memory of each of its two maps"): [size(pointintime.MAP_BITS // 8), "16 PiB"],
    ("copy-before-write", "copies that outlast"): [str(_preserving.LATE_MAX)],
    ("preallocate", "its alignment"): [f"{preallocate.MAX_AHEAD >> 40} TiB"],
    ("node service", "age of a node's oldest request"): [
        f"{NodeConfig().stall_seconds:g} s", f"{stalls.LOOKS} times"
    ],
    ("node service", "adjacent writes of a batch"): [size(merging.MERGED_MAX), size(merging.SMALL)],
    ("node service", "a `json:` filename"): [
        f"{filenames.MAX_JSON_CHARACTERS // KIB} Ki", f"{filenames.MAX_NESTING} levels", str(filenames.MAX_ENTRIES)
    ],
    ("node service", "argument of an ioctl"): [
        size(ioctls.MAX_ARGUMENT_BYTES), f"{ioctls.SG_TIMEOUT_MAX_MS // 1000} s"
    ],
    ("node service", "name of a breakpoint"): [str(debugging.MAX_NAME)],
    ("node service", "ended drains"): [str(leases.REMEMBERED)],
    ("node service", "open nodes"): [number(NodeConfig().max_nodes)],
    ("node service", "backing files that headers chain"): [number(NodeConfig().max_chain_depth)],
    ("graph", "frames of Python for one request"): [str(graph._FRAMES_PER_LAYER), number(graph._FRAMES_MAX)],
    ("graph", "data and surroundings of an allocation"): [size(writing.JOIN_MAX)],
    ("qcow2", "clusters of snapshots' L1"): [f"{qcow2_places.MAX_INACTIVE_L1_CLUSTERS:,}"],
    ("qcow2", "clusters counted at a time"): [f"{tallying.WINDOW:,}", f"{tallying.FEW:,}"],
    ("graph", "pieces of one read"): [str(reading.PIECES_AT_ONCE)],
    ("graph", "a copy on read"): [size(writing.POPULATE_STEP)],
    ("node service", "entries restored"): [str(restoring.AT_ONCE)],
    ("node service", "wait for a reader of the catalogue"): [f"{kept_sqlite.BUSY_MS // 1000} s"],
    ("node service", "changes kept for watchers"): [str(events.HISTORY), number(events.QUEUE)],
    ("node service", "attachments"): [str(attachment_resources.MAX_ATTACHMENTS)],
    ("node service", "secrets; bytes of one value"): [number(secrets.MAX_SECRETS), size(secrets.MAX_BYTES)],
    ("node service", "requests of an attachment that wait"): [str(held_requests.MAX_HELD)],
    ("node service", "logical block size"): [
        size(attachment_definition.MAX_LOGICAL_BLOCK), size(attachment_definition.MAX_PHYSICAL_BLOCK)
    ],
    ("NBD server", "the same of a client whose attachment"): [size(nbd.NbdLimits().stopped_bytes)],
    ("node service", "drains held by clients"): [
        str(leases.MAX_LEASES), f"{leases.MAX_SECONDS:g} s"
    ],
    ("node service", "dirty bitmaps of a node"): [str(recording.MAX_BITMAPS), str(recording.MAX_NAME_BYTES)],
    ("node service", "checkpoints of a node"): [
        str(checkpoints.MAX_CHECKPOINTS), str(checkpoints.MAX_HOLDERS), str(checkpoints.MAX_HOLDER_BYTES)
    ],
    ("graph", "regions that are hot for a node's bitmaps"): [
        size(NodeConfig().bitmap_hot_bytes), f"{heat.MIN_SLOTS} to {heat.MAX_SLOTS} of {size(heat.REGION)}"
    ],
    ("graph", "regions of a write that are heated"): [str(guarding.BULK + 1)],
    ("state directory", "syncs of bitmap files at once"): [str(vault.THREADS)],
    ("graph", "memory of one dirty bitmap"): [size(dirty.MAX_BYTES)],
    ("throttle", "groups"): [str(throttling.MAX_GROUPS), number(throttling.MAX_WAITING)],
    ("throttle", "a rate"): [f"10^{len(str(throttle.VALUE_MAX)) - 1}"],
    ("pool", "threads"): [str(pool.DEFAULT_THREADS), str(NodeConfig().pool_threads)],
    ("pool", "executors, `main` included; threads of one"): [
        str(executors.EXECUTORS_MAX),
        f"1 to {executors.THREADS_MAX}",
        str(executors.THREADS),
    ],
    ("pool", "jobs of one node that wait"): [str(pool.DEFAULT_WAITING)],
    ("pool", "jobs that left the loop"): [str(pool.AHEAD_PER_THREAD)],
    ("blkdebug", "rules; faults; breakpoints of one node"): [
        str(injection.MAX_RULES), str(injection.MAX_FAULTS), str(breakpoints.MAX_BREAKPOINTS)
    ],
    ("blkdebug", "text of a configuration; an injected delay"): [
        size(blkdebug.MAX_TEXT), f"{injection.MAX_DELAY_NS // 3_600_000_000_000} h"
    ],
    ("blkdebug", "demanded request alignment"): [size(blkdebug_options.MAX_ALIGN)],
    ("node service", "items of one list among a driver's options"): [str(options.MAX_ITEMS)],
    ("driver memory", "memory of one node"): [size(memory.MEMORY_LIMIT)],
    ("copy sessions", "sessions"): [str(sessions.MAX_SESSIONS), str(sessions.REMEMBERED)],
    ("copy sessions", "one order"): [size(session.ORDER_MAX), str(copy.ORDERS_IN_FLIGHT)],
    ("copy sessions", "copied and not yet flushed"): [size(session.CHECKPOINT_BYTES)],
    ("copy sessions", "bytes read at a time"): [size(work.READ_CHUNK), str(work.EXTENTS)],
    ("node service", "a chunk of Read or Write"): [size(data.CHUNK), size(data.MAX_CHUNK)],
    ("operations on images", "messages of progress"): [f"{telling.INTERVAL_NS // 1_000_000} ms"],
    ("checksum, scrub", "bytes read and hashed at a time"): [size(hashing.BATCH)],
    ("checksum", "chunk"): [size(checksums.MIN_CHUNK), size(checksums.MAX_CHUNK)],
    ("checksum", "hashes of one run"): [number(checksums.MAX_RUN)],
    ("scrub", "damaged extents that are told"): [number(checksumming.MAX_EXTENTS)],
    ("compact", "bytes moved while guests wait"): [size(qcow2_compacting.LEAST_BYTES)],
    ("compact", "bytes searched for zeroes"): [size(compacting.PIECE)],
    ("compare, rebase", "bytes read of each side"): [size(contents.CHUNK)],
    ("qcow2", "entries that share one cluster of zeroes"): [number(flattening.SHARED)],
    ("snapshots", "bytes of a snapshot's name"): [str(internal_snapshots.MAX_NAME_BYTES)],
    ("snapshots", "VM state in one message"): [size(snapshots.STATE_PIECE)],
    ("snapshots", "VM state read or written at a time"): [size(vmstate.PIECE)],
    ("snapshots", "L2 tables in memory of each snapshot that is compared"): [str(views.CACHED_TABLES)],
    ("snapshots", "extents per message of what is allocated or changed"): [number(snapshots.MAX_EXTENTS)],
    ("snapshots", "look-ups for one such message"): [f"{comparing.STEPS_MAX:,}"],
    ("node service", "dirty extents, block status"): [str(bitmaps.DEFAULT_EXTENTS), number(bitmaps.MAX_EXTENTS)],
    ("node service", "requests in flight of an I/O session"): [str(NodeConfig().session_in_flight)],
    ("node service", "bytes in flight of an I/O session"): [size(NodeConfig().session_bytes_in_flight)],
    ("node service", "a request of an I/O session"): [size(io_session.MAX_REQUEST)],
    ("node service", "answers remembered"): [str(answers.REMEMBERED)],
    ("node service", "labels of a node"): [str(definitions.MAX_LABELS), size(definitions.MAX_LABEL_BYTES)],
    ("graph", "figures of intervals"): [str(accounting.MAX_INTERVALS)],
    ("graph", "actions of a transaction"): [str(transaction.MAX_ACTIONS)],
    ("jobs", "jobs, those that ended included"): [str(JobsConfig().max_jobs)],
    ("jobs", "answers remembered"): [number(manager.MAX_REQUESTS)],
    ("jobs", "wait of WaitOperation"): [f"{operations.MAX_WAIT_SECONDS:g} s"],
    ("jobs", "between two looks"): [f"{orphans.ROUND_SECONDS:g} s"],
    ("jobs", "replicas that calls are forwarded to"): [
        str(forwarding.MAX_PEERS), f"{forwarding.FORWARD_SECONDS:g} s"
    ],
    ("jobs", "steps of a job's history"): [str(job_store.MAX_STEPS)],
    ("jobs", "silence of a replica"): [f"{JobsConfig().lease_seconds:g} s"],
    ("jobs", "wait for the database"): [f"{postgres.CONNECT_SECONDS + postgres.SCRIPT_SECONDS:g} s"],
    ("jobs", "bytes in flight of one job"): [size(window.MAX_WINDOW_BYTES)],
    ("jobs", "wait for a node"): [f"{JobsConfig().node_patience_seconds:g} s"],
    ("driver nbd", "requests on the wire"): [
        str(nbd_session.MAX_IN_FLIGHT), f"{nbd_session.HANDSHAKE_SECONDS:g} s"
    ],
    ("driver nbd", "data of one reply to an option"): [size(handshake.MAX_REPLY), str(handshake.MAX_REPLIES)],
    ("driver nbd", "one read or write"): [size(nbd_driver.MAX_TRANSFER), size(nbd_driver.MAX_ZEROES)],
    ("driver nbd", "payload of a reply that is no data"): [
        size(transmission.MAX_CHUNK), size(transmission.INBOX_BYTES)
    ],
    ("driver nbd", "acknowledged and not flushed"): [size(unflushed.FLUSH_BYTES), size(unflushed.MAX_BYTES)],
    ("driver nbd", "pause between attempts"): [
        f"{nbd_session.FIRST_PAUSE_SECONDS:g} to {nbd_session.LONGEST_PAUSE_SECONDS:g} s"
    ],
    ("driver nbd", "wait of requests for a lost connection"): [str(nbd_options.MAX_SECONDS)],
    ("NBD server", "connections, all exports together"): [str(NodeConfig().nbd_connections)],
    ("NBD server", "exports"): [str(nbd.NbdLimits().exports)],
    ("LUKS", "iterations of PBKDF2"): [f"{luks.MAX_ITERATIONS:,}"],
    ("LUKS", "memory, and memory times passes"): [
        size(luks.MAX_ARGON2_KIB * KIB), size(luks.MAX_ARGON2_WORK_KIB * KIB)
    ],
    ("LUKS", "header of LUKS1"): [size(luks.MAX_HEADER_LUKS1), size(luks2.COPY_SIZES[-1])],
    ("LUKS", "a request enciphered in the loop"): [size(_encrypting.INLINE_MAX), size(_encrypting.PIECE)],
    ("qcow2", "bitmaps of an image that are used"): [
        number(qcow2_bitmaps.MAX_LOADED), size(qcow2_bitmaps.MAX_LOADED_BYTES), size(qcow2.MAX_BITMAP_BYTES)
    ],
    ("qcow2", "bitmaps; their directory"): [number(qcow2.MAX_BITMAPS), size(qcow2.MAX_BITMAP_DIRECTORY_BYTES)],
    ("qcow2", "L1 table"): [size(qcow2.MAX_L1_BYTES), size(qcow2.MAX_REFCOUNT_TABLE_BYTES)],
    ("every service", "control calls at once"): [str(NodeConfig().max_control_calls)],
    ("every service", "calls at once that move data"): [str(NodeConfig().max_data_calls)],
    ("every service", "watches at once"): [str(NodeConfig().max_watches)],
    ("every service", "one message"): [size(wire.MAX_MESSAGE)],
    ("every service", "an error's details"): [str(status.MAX_DETAILS), str(status.MAX_MESSAGE)],
    ("every service", "kept handlers"): [str(interceptors.MAX_METHODS), str(measures.MAX_SERIES)],
    ("every service", "time for calls after SIGTERM"): [f"{server.GRACE_SECONDS:g} s"],
    ("every channel", "attempts of a read"): [str(retries.MAX_ATTEMPTS)],
    ("trace file", "its size"): [size(span_file.MAX_BYTES)],
    ("stats", "open nodes of one source"): [str(ledger.MAX_NODES)],
    ("stats", "closed nodes that are remembered"): [str(ledger.MAX_CLOSED)],
    ("stats", "buckets of one histogram"): [str(remote.MAX_BUCKETS)],
}  # fmt: skip


@pytest.mark.parametrize("row", EXPECTED, ids=" ".join)
def test_a_bound_is_what_the_page_says(row: tuple[str, str]):
    found = [bound for where, what, bound, _ in ROWS if where == row[0] and what.startswith(row[1])]
    assert len(found) == 1, f"rows that say {row}: {found}"
    assert all(expected in found[0] for expected in EXPECTED[row]), (found[0], EXPECTED[row])


def test_bounds_that_share_a_row_are_the_same():
    assert debugging.MAX_NAME == io_session.MAX_CLIENT_NAME
    assert pointintime.MAP_BITS * dirty.MAX_GRANULARITY == 16 << 50


def test_every_row_has_a_reason():
    assert all(len(row) == 4 and all(row) for row in ROWS)


def test_defaults_of_the_graph_are_those_of_the_service():
    from dataclasses import fields

    from blockyard.node.graph.environment import Environment

    defaults = {item.name: item.default for item in fields(Environment)}
    assert defaults["max_chain_depth"] == NodeConfig().max_chain_depth
    assert defaults["max_nodes"] == NodeConfig().max_nodes
    assert JobsConfig().max_jobs == manager.MAX_JOBS
