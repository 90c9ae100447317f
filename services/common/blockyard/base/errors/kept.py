"""What services keep over restarts: a directory, databases, entries. See `blockyard.base.errors`."""

from dataclasses import dataclass

from blockyard.base.errors.base import Code, StateError, StorageError


@dataclass(eq=False)
class StateDirectoryUnusable(StorageError):
    """The directory for what outlives the process cannot be made or used."""

    path: str
    detail: str
    reason = "STATE_DIRECTORY_UNUSABLE"
    code = Code.FAILED_PRECONDITION
    template = "the state directory {path!r} cannot be used: {detail}"
    advice = "Give the service a directory that it may write (`--state-directory`), or none to keep nothing."


@dataclass(eq=False)
class StateDirectoryBusy(StorageError):
    """Another process keeps its state in the same directory."""

    path: str
    owner: str
    reason = "STATE_DIRECTORY_BUSY"
    code = Code.FAILED_PRECONDITION
    template = "the state directory {path!r} is in use by {owner}"
    advice = "Stop that process, or give each service a state directory of its own."


@dataclass(eq=False)
class CatalogueDamaged(StorageError):
    """The database of the catalogue is not what it must be. Nothing was changed in it."""

    path: str
    detail: str
    reason = "CATALOGUE_DAMAGED"
    code = Code.DATA_LOSS
    template = "the catalogue {path!r} is damaged: {detail}"
    advice = (
        "Put a copy from a backup in its place, or move it away together with its -wal and -shm files to begin "
        "with an empty catalogue; images are not touched by either."
    )


@dataclass(eq=False)
class CatalogueTooNew(StorageError):
    """The catalogue was written by a later version."""

    path: str
    found: int
    known: int
    reason = "CATALOGUE_TOO_NEW"
    code = Code.FAILED_PRECONDITION
    template = "the catalogue {path!r} has schema version {found}; this version knows {known} and older"
    advice = "Start the version that wrote it, or a later one."


@dataclass(eq=False)
class CatalogueNotWritten(StorageError):
    """A change could not be made durable, so it was not made."""

    path: str
    detail: str
    reason = "CATALOGUE_NOT_WRITTEN"
    code = Code.UNAVAILABLE
    retryable = True
    template = "the catalogue {path!r} cannot be written, so nothing was changed: {detail}"
    advice = "Make room or repair the file system of the state directory, then call again."


@dataclass(eq=False)
class JobStoreDamaged(StorageError):
    """The database of jobs is not what it must be. Nothing was changed in it."""

    path: str
    detail: str
    reason = "JOB_STORE_DAMAGED"
    code = Code.DATA_LOSS
    template = "the job store {path!r} is damaged: {detail}"
    advice = (
        "Put a copy from a backup in its place, or move it away together with its -wal and -shm files to begin "
        "with no jobs; sessions of jobs that are forgotten so stay at the node."
    )


@dataclass(eq=False)
class JobStoreTooNew(StorageError):
    """The job store was written by a later version."""

    path: str
    found: int
    known: int
    reason = "JOB_STORE_TOO_NEW"
    code = Code.FAILED_PRECONDITION
    template = "the job store {path!r} has schema version {found}; this version knows {known} and older"
    advice = "Start the version that wrote it, or a later one."


@dataclass(eq=False)
class JobStoreUnavailable(StorageError):
    """The database of jobs does not answer, or cannot write. What jobs do at the node goes on."""

    store: str
    detail: str
    reason = "JOB_STORE_UNAVAILABLE"
    code = Code.UNAVAILABLE
    retryable = True
    template = "the job store {store!r} cannot be used: {detail}"
    advice = "Bring the database back or make room for it, then call again; jobs go on by themselves."


@dataclass(eq=False)
class VaultUnusable(StorageError):
    """A file of the state directory that keeps a dirty bitmap cannot be made, read or written."""

    path: str
    detail: str
    reason = "VAULT_UNUSABLE"
    code = Code.UNAVAILABLE
    retryable = True
    template = "the bitmap file {path!r} cannot be used: {detail}"
    advice = "Make room or repair the file system of the state directory, then call again."


@dataclass(eq=False)
class EntryNotRestored(StateError):
    """A name belongs to something that could not be opened again after a restart."""

    kind: str
    name: str
    failure: str
    reason = "ENTRY_NOT_RESTORED"
    code = Code.ALREADY_EXISTS
    template = "{kind} {name!r} is kept in the catalogue and could not be restored: {failure}"
    advice = (
        "`blockyard catalogue restore {kind} {name}` tries again; `blockyard catalogue forget {kind} {name}` gives "
        "the name up."
    )


@dataclass(eq=False)
class DependencyNotRestored(StateError):
    """Something waits for something else that could not be restored."""

    kind: str
    name: str
    needs_kind: str
    needs_name: str
    failure: str
    reason = "DEPENDENCY_NOT_RESTORED"
    code = Code.FAILED_PRECONDITION
    template = "{kind} {name!r} needs {needs_kind} {needs_name!r}, which could not be restored: {failure}"
    advice = "`blockyard catalogue restore {needs_kind} {needs_name}` tries again, with all that need it."


@dataclass(eq=False)
class BitmapInconsistent(StateError):
    """A bitmap missed writes, so it says nothing."""

    name: str
    reason = "BITMAP_INCONSISTENT"
    code = Code.FAILED_PRECONDITION
    template = "bitmap {name!r} is inconsistent: its bits were lost when the service ended"
    advice = "Delete it, create it again, and begin with a full backup."
