"""What an operator may choose for the node service. Plain values; where they are read from is `rpc.config`'s."""

from dataclasses import dataclass

from blockyard.base.units import MIB
from blockyard.rpc.config import ServiceConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig(ServiceConfig):
    """Own image files and the live graph of block nodes, and serve them to other services and to guests."""

    storage_roots: tuple[str, ...] = (".",)
    """Directories that hold images. Nothing outside them is ever opened; relative names begin in the first."""
    state_directory: str = ""
    """Directory where a service keeps what comes back after a restart: nodes, exports, names of bitmaps, copy
    sessions; of the jobs service, jobs. Empty keeps nothing."""
    bitmap_hot_bytes: int = 256 << 20
    """How much of a node may be marked dirty too much after a power cut, in bitmaps that survive one. More means
    fewer waits for the disk when writes are spread."""
    temporary_directory: str = ""
    """Where the overlays of ephemeral nodes lie, as files without a name; empty means the first storage root."""
    secret_directory: str = ""
    """Directory whose files may be secrets (CreateSecret with a file). Empty is systemd's $CREDENTIALS_DIRECTORY,
    or none."""
    allow_ioctl: bool = False
    """Let clients send ioctls to the devices and files of nodes (SendIoctl)."""
    nbd: tuple[str, ...] = ()
    """Where NBD exports are served that name no address of their own: unix:/path or host:port."""
    export_addresses: bool = True
    """Exports may name addresses of their own."""
    follow_backing: bool = True
    """Open the backing files that images name in their headers, beneath the roots; false refuses such images."""
    max_chain_depth: int = 200
    """Longest chain of backing files."""
    max_nodes: int = 10_000
    """Open nodes at once."""
    pool_threads: int = 16
    """Threads for system calls that block and for work on data."""
    executors: tuple[str, ...] = ()
    """Executors to make at the start, each NAME or NAME:THREADS: pools of their own, so that a slow disk on one
    does not delay nodes on another."""
    session_in_flight: int = 256
    """Requests in flight that one I/O session may be granted."""
    session_bytes_in_flight: int = 16 * MIB
    """Bytes of data in flight of one I/O session, both directions together."""
    nbd_connections: int = 100
    """NBD clients at once, of all exports together."""
    nbd_total_bytes: int = 256 * MIB
    """Payloads and replies in bytes that all NBD clients together may have waiting."""
    stall_seconds: float = 30.0
    """A node whose oldest request is older than this is stalled: an event tells, and health of `node/NAME` is
    NOT_SERVING until it is over. 0 switches it off."""
    heartbeat_seconds: float = 15.0
    """How often a silent watch is told that it is up to date."""
    debug: bool = False
    """Serve DebugService, with which clients make requests fail, wait, lie or stop at blkdebug nodes. For tests."""
    instance_id: str = ""
    """Identity of the process, for whoever gathers its figures; empty chooses one."""
