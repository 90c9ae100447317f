"""The error catalogue: everything the world can do to us, as classes with typed fields.

What lives here: one class per stable `reason`, its canonical code, its message and its advice. A raise
site passes data, never sentences. What must not: grpc (see `blockyard.rpc.status`, the only map to the
wire), policy, and errors for our own bugs (those are assertions).

    BlockError
    ├── RequestError        the caller asked for something that cannot be
    ├── StateError          it could be, but not in the present state; says who or what stands in the way
    ├── ImageError          the bytes of an image are not what they must be
    ├── StorageError        the world below (files, disks, networks) refused
    └── JobError            a job's verb, options or life

A class is part of the API: `(reason, domain)` never changes meaning and a field never disappears
(AIP-193). `docs/errors.md` is printed from here.
"""

# ruff: noqa: I001 - the catalogue is printed in the order of these imports
from blockyard.base.errors.base import (
    CATALOGUE,
    DOMAIN,
    BlockError,
    Code,
    ImageError,
    JobError,
    RequestError,
    StateError,
    StorageError,
)
from blockyard.base.errors.requests import (
    InvalidArgument,
    UnknownOption,
    MissingOption,
    RangeOutside,
    SizeTooLarge,
    NotImplementedYet,
    OperationUnsupported,
    DriverUnknown,
    DriverUnavailable,
    ProtocolUnsupported,
    IoctlsDisabled,
)
from blockyard.base.errors.calls import (
    Unauthenticated,
    CallerDenied,
    ServiceDisabled,
    CallCancelled,
    DeadlinePassed,
    RemoteError,
    InternalError,
)
from blockyard.base.errors.state import (
    NodeNotFound,
    NodeExists,
    NodeInUse,
    NodeReadOnly,
    NodeInactive,
    PermissionConflict,
    TransactionFailed,
    GraphCycle,
    ResourceExists,
    ResourceNotFound,
    ResourceBusy,
    OwnerMismatch,
    EtagMismatch,
    RequestIdReused,
    RevisionTooOld,
    LimitReached,
    ShuttingDown,
)
from blockyard.base.errors.images import (
    ImageCorrupt,
    ImageMarkedCorrupt,
    UnsupportedFeature,
    FormatMismatch,
    BackingMissing,
    BackingDenied,
    BackingFormatUnknown,
    BackingLoop,
    ChainTooDeep,
    BackingChanged,
    BackingProtocolDenied,
)
from blockyard.base.errors.storage import (
    PathDenied,
    FileNotFound,
    FileExists,
    FileBusy,
    FileReadOnly,
    NoSpace,
    IoError,
    ProtocolViolation,
    AddressUnavailable,
    PeerUnavailable,
)
from blockyard.base.errors.kept import (
    StateDirectoryUnusable,
    StateDirectoryBusy,
    CatalogueDamaged,
    CatalogueTooNew,
    CatalogueNotWritten,
    EntryNotRestored,
    DependencyNotRestored,
    BitmapInconsistent,
)
from blockyard.base.errors.jobs import (
    JobVerbNotAllowed,
    JobCancelled,
    SnapshotBroken,
)

__all__ = [
    "CATALOGUE",
    "DOMAIN",
    "BlockError",
    "Code",
    "ImageError",
    "JobError",
    "RequestError",
    "StateError",
    "StorageError",
    "InvalidArgument",
    "UnknownOption",
    "MissingOption",
    "RangeOutside",
    "ServiceDisabled",
    "SizeTooLarge",
    "NotImplementedYet",
    "OperationUnsupported",
    "DriverUnknown",
    "DriverUnavailable",
    "ProtocolUnsupported",
    "IoctlsDisabled",
    "Unauthenticated",
    "CallerDenied",
    "CallCancelled",
    "DeadlinePassed",
    "RemoteError",
    "NodeNotFound",
    "NodeExists",
    "NodeInUse",
    "NodeReadOnly",
    "NodeInactive",
    "PermissionConflict",
    "TransactionFailed",
    "GraphCycle",
    "ResourceExists",
    "ResourceNotFound",
    "ResourceBusy",
    "OwnerMismatch",
    "EtagMismatch",
    "RequestIdReused",
    "RevisionTooOld",
    "LimitReached",
    "ShuttingDown",
    "ImageCorrupt",
    "ImageMarkedCorrupt",
    "UnsupportedFeature",
    "FormatMismatch",
    "BackingMissing",
    "BackingDenied",
    "BackingFormatUnknown",
    "BackingLoop",
    "ChainTooDeep",
    "BackingChanged",
    "BackingProtocolDenied",
    "PathDenied",
    "FileNotFound",
    "FileExists",
    "FileBusy",
    "FileReadOnly",
    "NoSpace",
    "IoError",
    "StateDirectoryUnusable",
    "StateDirectoryBusy",
    "CatalogueDamaged",
    "CatalogueTooNew",
    "CatalogueNotWritten",
    "EntryNotRestored",
    "DependencyNotRestored",
    "BitmapInconsistent",
    "JobVerbNotAllowed",
    "JobCancelled",
    "ProtocolViolation",
    "AddressUnavailable",
    "SnapshotBroken",
    "PeerUnavailable",
    "InternalError",
]
