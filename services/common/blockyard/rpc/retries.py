"""Which calls a channel may repeat on its own: reads that a repetition cannot harm.

gRPC retries only what the service config names, method by method. Must not list anything that changes state:
mutations are repeated by clients, who know their request_id. A test holds this table and the protos together.
"""

import json
from typing import Final

IDEMPOTENT: Final[dict[str, tuple[str, ...]]] = {
    "AttachmentService": ("GetAttachment", "ListAttachments"),
    "BitmapService": ("GetBitmap", "ListBitmaps", "GetCheckpoint", "ListCheckpoints"),
    "CopyService": ("GetCopySession", "ListCopySessions"),
    "DebugService": ("ListBreakpoints", "ListDebugEvents", "ListFaults"),
    "ExecutorService": ("GetExecutor", "ListExecutors"),
    "ExportService": ("GetExport", "ListExports"),
    "JobService": ("DescribeStateMachine", "GetJob", "ListJobs"),
    "NodeService": (
        *("GetGraph", "GetImageInfo", "GetNode", "GetServerInfo", "ListCatalogue", "ListDrivers", "ListInFlight"),
        *("ListNodes", "MeasureImage", "ParseFilename", "ProbeImage"),
    ),
    "SecretService": ("ListSecrets",),
    "SnapshotService": ("ListSnapshots",),
    "StatsService": ("GetLatencyReport", "ListSources", "QueryStats"),
    "ThrottleService": ("GetThrottleGroup", "ListThrottleGroups"),
}
"""Service of `blockyard.v1` -> its unary methods that only read."""

MAX_ATTEMPTS: Final = 4
"""gRPC counts more than five as five."""


def service_config() -> str:
    """JSON for the channel option `grpc.service_config`."""
    names = [
        {"service": f"blockyard.v1.{service}", "method": method}
        for service, methods in IDEMPOTENT.items()
        for method in methods
    ]
    policy = {
        "maxAttempts": MAX_ATTEMPTS,
        "initialBackoff": "0.1s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    throttling = {"maxTokens": 10, "tokenRatio": 0.1}
    return json.dumps({"methodConfig": [{"name": names, "retryPolicy": policy}], "retryThrottling": throttling})
