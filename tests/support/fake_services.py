"""The services in memory, for tests of clients: true gRPC, true error details, no storage.

Honest where a client could tell the difference: ranges are checked, credits are counted, names are unique, a
watch has revisions and can be broken off. Nothing is drained, mirrored or durable here; that is tested against
the real services.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from blockyard.base.errors import (
    DriverUnknown,
    FileExists,
    FileNotFound,
    InvalidArgument,
    NodeExists,
    NodeInUse,
    NodeNotFound,
    NodeReadOnly,
    RangeOutside,
    ResourceExists,
    ResourceNotFound,
)
from blockyard.client.definitions import option_value
from blockyard.rpc.address import Address
from blockyard.rpc.server import Service, serving
from blockyard.v1 import (
    bitmap_pb2,
    bitmap_pb2_grpc,
    control_pb2,
    data_pb2_grpc,
    export_pb2,
    export_pb2_grpc,
    job_pb2_grpc,
    node_pb2,
    node_pb2_grpc,
    stats_pb2,
    stats_pb2_grpc,
    types_pb2,
)
from tests.support.fake_data import FakeData
from tests.support.fake_jobs import FakeJobs

LARGEST_CONTENT = 8 << 20
"""Bytes that a node really holds; a larger one is for listings only."""

DRIVERS = ("file", "memory", "null", "qcow2", "raw")


@dataclass
class FakeNode:
    """A node: what was asked for, and its bytes."""

    state: types_pb2.BlockDriverState
    content: bytearray
    data_ranges: set[int] = field(default_factory=set)
    """Numbers of the 4 KiB blocks that were ever written."""

    def check(self, offset: int, length: int, writing: bool = False) -> None:
        if writing and self.state.read_only:
            raise NodeReadOnly(self.state.node_name)
        if offset < 0 or length < 0 or offset + length > self.state.size_bytes:
            raise RangeOutside(self.state.node_name, offset, length, self.state.size_bytes)


class FakeGraph:
    """The nodes, files, bitmaps and exports that all services of one fake share."""

    def __init__(self) -> None:
        self.nodes: dict[str, FakeNode] = {}
        self.files: dict[str, node_pb2.ImageInfo] = {}
        self.opened: list[node_pb2.OpenNodeRequest] = []
        self.bitmaps: dict[tuple[str, str], types_pb2.DirtyBitmap] = {}
        self.checkpoints: dict[tuple[str, str], bitmap_pb2.Checkpoint] = {}
        self.dirty: dict[tuple[str, str], list[tuple[int, int]]] = {}
        self.exports: dict[str, export_pb2.Export] = {}
        self.revision = 1
        self.metadata: list[tuple[str, str]] = []

    def node(self, name: str) -> FakeNode:
        if name not in self.nodes:
            raise NodeNotFound(name)
        return self.nodes[name]

    def add(self, name: str, size: int, driver: str = "memory", **fields: object) -> FakeNode:
        """A node for a test, without a call."""
        state = types_pb2.BlockDriverState(node_name=name, driver=driver, size_bytes=size, active=True, **fields)
        self.nodes[name] = FakeNode(state, bytearray(min(size, LARGEST_CONTENT)))
        return self.nodes[name]


class FakeNodeService(node_pb2_grpc.NodeServiceServicer):
    """Nodes without storage."""

    def __init__(self, graph: FakeGraph) -> None:
        self.graph = graph
        self.page_size = 2
        self.answers = asyncio.Event()
        """Cleared, GetServerInfo waits."""
        self.answers.set()

    async def CreateImage(self, request, context):  # noqa: N802
        if request.filename in self.graph.files and not request.overwrite:
            raise FileExists(request.filename)
        kind = request.WhichOneof("format")
        options = getattr(request, kind)
        image = node_pb2.ImageInfo(
            filename=request.filename, format=kind, size_bytes=request.size_bytes, allocated_bytes=196_616
        )
        if kind == "qcow2":
            image.cluster_size_bytes = options.cluster_size_bytes or 65536
            image.backing_file, image.backing_format = options.backing_file, options.backing_format
            image.format_specific["compat"].CopyFrom(option_value("1.1"))
        if not request.validate_only:
            self.graph.files[request.filename] = image
        return node_pb2.CreateImageResponse(image=image)

    async def GetImageInfo(self, request, context):  # noqa: N802
        images = []
        name = request.filename
        while name:
            if name not in self.graph.files:
                raise FileNotFound(name)
            images.append(self.graph.files[name])
            name = images[-1].backing_file if request.backing_chain else ""
        return node_pb2.GetImageInfoResponse(images=images)

    async def ProbeImage(self, request, context):  # noqa: N802
        guess = node_pb2.ProbeImageResponse.Guess
        return node_pb2.ProbeImageResponse(guesses=[guess(driver="qcow2", score=100), guess(driver="raw", score=1)])

    async def CheckImage(self, request, context):  # noqa: N802
        if request.filename not in self.graph.files:
            raise FileNotFound(request.filename)
        damaged = "damaged" in request.filename and not request.repair
        return node_pb2.CheckImageResponse(
            corruptions=2 if damaged else 0,
            leaks=1 if "leaky" in request.filename else 0,
            corruptions_fixed=2 if request.repair and "damaged" in request.filename else 0,
            image_end_offset_bytes=327680,
            total_clusters=16,
            allocated_clusters=4,
            findings=["L2 entry 3 points past the end"] if damaged else [],
        )

    async def OpenNode(self, request, context):  # noqa: N802
        self.graph.opened.append(request)
        definition = request.definition
        driver = definition.WhichOneof("driver")
        if driver == "generic" and definition.generic.driver not in DRIVERS:
            raise DriverUnknown(definition.generic.driver, ", ".join(DRIVERS))
        name = definition.node_name or f"node{len(self.graph.nodes)}"
        if name in self.graph.nodes:
            raise NodeExists(name)
        options = getattr(definition, driver)
        size = getattr(options, "size", 0) or 4 << 20
        state = types_pb2.BlockDriverState(
            node_name=name, driver=driver, size_bytes=size, read_only=definition.read_only, active=True
        )
        state.create_time.FromSeconds(1_700_000_000)
        if driver in ("raw", "qcow2") and options.file.HasField("definition"):
            state.filename = options.file.definition.file.filename
        if not request.validate_only:
            self.graph.nodes[name] = FakeNode(state, bytearray(size))
        return state

    async def GetNode(self, request, context):  # noqa: N802
        return self.graph.node(request.node_name).state

    async def ListNodes(self, request, context):  # noqa: N802
        # Small pages, so that a client that forgets the next page is found out.
        states = [node.state for _, node in sorted(self.graph.nodes.items())]
        if request.explicit_only:
            states = [state for state in states if not state.implicit]
        begin = int(request.page_token or 0)
        end = begin + self.page_size
        token = str(end) if end < len(states) else ""
        return node_pb2.ListNodesResponse(nodes=states[begin:end], next_page_token=token)

    async def CloseNode(self, request, context):  # noqa: N802
        if request.allow_missing and request.node_name not in self.graph.nodes:
            return node_pb2.CloseNodeResponse()
        node = self.graph.node(request.node_name)
        if node.state.holders:
            owners = ", ".join(f"{holder.kind} {holder.name}" for holder in node.state.holders)
            raise NodeInUse(request.node_name, "close", owners)
        if not request.validate_only:
            del self.graph.nodes[request.node_name]
        return node_pb2.CloseNodeResponse(closed=[request.node_name])

    async def ResizeNode(self, request, context):  # noqa: N802
        node = self.graph.node(request.node_name)
        if request.size_bytes < node.state.size_bytes and not request.allow_shrink:
            raise InvalidArgument("size_bytes", f"at least {node.state.size_bytes}", str(request.size_bytes))
        node.state.size_bytes = request.size_bytes
        return node.state

    async def SetWriteThreshold(self, request, context):  # noqa: N802
        node = self.graph.node(request.node_name)
        node.state.write_threshold_bytes = request.threshold_bytes
        return node.state

    async def GetGraph(self, request, context):  # noqa: N802
        edge = node_pb2.GetGraphResponse.Edge
        edges = [
            edge(parent=name, child=child)
            for name, node in self.graph.nodes.items()
            for child in node.state.children
        ]
        edges += [
            edge(
                child=types_pb2.BlockChild(name="root", node_name=export.node_name),
                holder=types_pb2.Holder(kind="export", name=export.export_id),
            )
            for export in self.graph.exports.values()
        ]
        states = [node.state for node in self.graph.nodes.values()]
        return node_pb2.GetGraphResponse(nodes=states, edges=edges, revision=self.graph.revision)

    async def ListDrivers(self, request, context):  # noqa: N802
        option = node_pb2.OptionInfo(name="lazy_refcounts", type="bool", default_value="as the image says")
        option.description = "Postpone refcount updates."
        qcow2 = node_pb2.DriverInfo(
            name="qcow2", kind="format", description="QEMU's copy-on-write format.", options=[option]
        )
        qcow2.abilities.extend(["creatable", "resizable"])
        vmdk = node_pb2.DriverInfo(name="vmdk", kind="format", disabled_reason="library missing")
        return node_pb2.ListDriversResponse(drivers=[qcow2, vmdk])

    async def GetServerInfo(self, request, context):  # noqa: N802
        self.graph.metadata = list(context.invocation_metadata())
        await self.answers.wait()
        return node_pb2.GetServerInfoResponse(
            version="0.1.0", instance_id="fake", drivers=DRIVERS, limits={"max_nodes": 1000}
        )


class FakeBitmapService(bitmap_pb2_grpc.BitmapServiceServicer):
    """Bitmaps whose dirty ranges a test sets."""

    def __init__(self, graph: FakeGraph) -> None:
        self.graph = graph

    def _bitmap(self, request) -> types_pb2.DirtyBitmap:
        key = (request.node_name, request.name)
        if key not in self.graph.bitmaps:
            raise ResourceNotFound("bitmap", request.name)
        return self.graph.bitmaps[key]

    async def CreateBitmap(self, request, context):  # noqa: N802
        self.graph.node(request.node_name)
        key = (request.node_name, request.name)
        if key in self.graph.bitmaps:
            raise ResourceExists("bitmap", request.name)
        self.graph.bitmaps[key] = types_pb2.DirtyBitmap(
            name=request.name,
            node_name=request.node_name,
            granularity_bytes=request.granularity_bytes or 65536,
            recording=not request.disabled,
        )
        return self.graph.bitmaps[key]

    async def GetBitmap(self, request, context):  # noqa: N802
        return self._bitmap(request)

    async def ListBitmaps(self, request, context):  # noqa: N802
        found = [item for (node, _), item in sorted(self.graph.bitmaps.items()) if request.node_name in ("", node)]
        return bitmap_pb2.ListBitmapsResponse(bitmaps=found)

    async def ClearBitmap(self, request, context):  # noqa: N802
        bitmap = self._bitmap(request)
        bitmap.dirty_bytes = 0
        return bitmap

    async def DeleteBitmap(self, request, context):  # noqa: N802
        if not (request.allow_missing and (request.node_name, request.name) not in self.graph.bitmaps):
            self._bitmap(request)
            del self.graph.bitmaps[request.node_name, request.name]
        return bitmap_pb2.DeleteBitmapResponse()

    async def SetBitmapRecording(self, request, context):  # noqa: N802
        bitmap = self._bitmap(request)
        bitmap.recording = request.recording
        return bitmap

    async def MergeBitmaps(self, request, context):  # noqa: N802
        bitmap = self._bitmap(request.target)
        bitmap.dirty_bytes = sum(self._bitmap(source).dirty_bytes for source in request.sources)
        return bitmap

    async def CreateCheckpoint(self, request, context):  # noqa: N802
        made = request.checkpoint
        made.sequence = len(self.graph.checkpoints) + 1
        made.create_time.FromSeconds(1_700_000_000)
        self.graph.checkpoints[made.consumer, made.name] = made
        return made

    async def GetCheckpoint(self, request, context):  # noqa: N802
        return self._checkpoint(request)

    async def ListCheckpoints(self, request, context):  # noqa: N802
        found = [each for each in self.graph.checkpoints.values() if request.consumer in ("", each.consumer)]
        return bitmap_pb2.ListCheckpointsResponse(checkpoints=found)

    async def DeleteCheckpoint(self, request, context):  # noqa: N802
        wanted = request.checkpoint
        if not (request.allow_missing and (wanted.consumer, wanted.name) not in self.graph.checkpoints):
            self._checkpoint(request)
            del self.graph.checkpoints[wanted.consumer, wanted.name]
        return bitmap_pb2.DeleteCheckpointResponse()

    async def HoldCheckpoint(self, request, context):  # noqa: N802
        found = self._checkpoint(request)
        if request.release:
            found.holders.remove(request.holder)
        else:
            found.holders.append(request.holder)
        return found

    async def SetCheckpointExpiry(self, request, context):  # noqa: N802
        found = self._checkpoint(request)
        found.expire_time.CopyFrom(request.expire_time)
        if not request.HasField("expire_time"):
            found.ClearField("expire_time")
        return found

    async def StreamCheckpointDelta(self, request, context):  # noqa: N802
        if (request.base.consumer, request.base.name) not in self.graph.checkpoints:
            raise ResourceNotFound("checkpoint", request.base.name)
        reply = control_pb2.StreamChangedExtentsResponse(size_bytes=1 << 20, next_offset_bytes=1 << 20)
        reply.extents.add(offset_bytes=0x10000, length_bytes=0x20000 if request.HasField("target") else 0x30000)
        yield reply

    def _checkpoint(self, request):
        wanted = request.checkpoint
        if (wanted.consumer, wanted.name) not in self.graph.checkpoints:
            raise ResourceNotFound("checkpoint", f"{wanted.consumer}/{wanted.name}")
        return self.graph.checkpoints[wanted.consumer, wanted.name]

    async def HashBitmap(self, request, context):  # noqa: N802
        self._bitmap(request)
        return bitmap_pb2.HashBitmapResponse(
            sha256="af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc"
        )

    async def StreamDirtyExtents(self, request, context):  # noqa: N802
        self._bitmap(request)
        for offset, length in self.graph.dirty[request.node_name, request.name]:
            extent = types_pb2.ByteRange(offset_bytes=offset, length_bytes=length)
            yield bitmap_pb2.StreamDirtyExtentsResponse(extents=[extent], size_bytes=1 << 20)


class FakeExportService(export_pb2_grpc.ExportServiceServicer):
    """Exports that nobody can connect to."""

    def __init__(self, graph: FakeGraph) -> None:
        self.graph = graph

    async def CreateExport(self, request, context):  # noqa: N802
        export = request.export
        self.graph.node(export.node_name)
        if export.export_id in self.graph.exports:
            raise ResourceExists("export", export.export_id)
        export.uris.append(f"nbd+unix:///{export.nbd.name or export.export_id}?socket=/run/nbd.sock")
        self.graph.exports[export.export_id] = export
        return export

    async def GetExport(self, request, context):  # noqa: N802
        if request.export_id not in self.graph.exports:
            raise ResourceNotFound("export", request.export_id)
        return self.graph.exports[request.export_id]

    async def ListExports(self, request, context):  # noqa: N802
        return export_pb2.ListExportsResponse(exports=self.graph.exports.values())

    async def DeleteExport(self, request, context):  # noqa: N802
        await self.GetExport(request, context)
        del self.graph.exports[request.export_id]
        return export_pb2.DeleteExportResponse()


class FakeStatsService(stats_pb2_grpc.StatsServiceServicer):
    """Fixed figures."""

    def __init__(self) -> None:
        self.streams = 0

    def _account(self) -> types_pb2.BlockAcctStats:
        read = types_pb2.OperationStats(
            type=types_pb2.REQUEST_TYPE_READ, operations=1500, transferred_bytes=6_144_000
        )
        read.total_time.FromNanoseconds(30_000_000)
        return types_pb2.BlockAcctStats(node_name="disk", driver="qcow2", operations=[read])

    async def QueryStats(self, request, context):  # noqa: N802
        return stats_pb2.QueryStatsResponse(stats=[self._account()])

    async def WatchStats(self, request, context):  # noqa: N802
        self.streams += 1
        rate = stats_pb2.OperationRate(
            node_name="disk", type=types_pb2.REQUEST_TYPE_WRITE, operations_per_second=1234.5, bytes_per_second=5e6
        )
        rate.mean_latency.FromNanoseconds(25_000)
        yield stats_pb2.WatchStatsResponse(stats=[self._account()], rates=[rate])

    async def GetLatencyReport(self, request, context):  # noqa: N802
        rows = []
        for name, total_ns in (("base", 1_000_000), ("disk", 90_000_000)):
            row = stats_pb2.GetLatencyReportResponse.Row(node_name=name, driver="raw", operations=100)
            row.type = types_pb2.REQUEST_TYPE_READ
            row.total_time.FromNanoseconds(total_ns)
            row.mean_latency.FromNanoseconds(total_ns // 100)
            rows.append(row)
        return stats_pb2.GetLatencyReportResponse(rows=rows)


@dataclass
class FakeServices:
    """All of them, and the address."""

    address: str
    graph: FakeGraph
    node: FakeNodeService
    data: FakeData
    jobs: FakeJobs
    stats: FakeStatsService


@asynccontextmanager
async def fake_services(directory: Path) -> AsyncIterator[FakeServices]:
    """Serve on a private socket beneath `directory`."""
    graph = FakeGraph()
    address = f"unix:{directory}/fake.sock"
    fakes = FakeServices(address, graph, FakeNodeService(graph), FakeData(graph), FakeJobs(), FakeStatsService())
    table = {
        "NodeService": (node_pb2_grpc.add_NodeServiceServicer_to_server, fakes.node),
        "DataService": (data_pb2_grpc.add_DataServiceServicer_to_server, fakes.data),
        "JobService": (job_pb2_grpc.add_JobServiceServicer_to_server, fakes.jobs),
        "BitmapService": (bitmap_pb2_grpc.add_BitmapServiceServicer_to_server, FakeBitmapService(graph)),
        "ExportService": (export_pb2_grpc.add_ExportServiceServicer_to_server, FakeExportService(graph)),
        "StatsService": (stats_pb2_grpc.add_StatsServiceServicer_to_server, fakes.stats),
    }
    services = [Service(f"blockyard.v1.{name}", add, servicer) for name, (add, servicer) in table.items()]
    async with serving([Address.parse(address)], services, grace_seconds=0.2):
        yield fakes
        fakes.jobs.closing = True
        await asyncio.sleep(0)
