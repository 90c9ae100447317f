"""What the graph is built on: storage, pool, clock, bounds. Given by `app`, shared by all nodes of one graph."""

from dataclasses import dataclass, field

from blockyard.base.clock import Clock
from blockyard.node.core.heat import DEFAULT_HOT_BYTES
from blockyard.node.core.pool import FairPool
from blockyard.node.graph.secrets import NoSecretFiles, SecretFiles, SecretStore
from blockyard.node.graph.throttling import ThrottleGroups
from blockyard.node.interface.storage import Storage
from blockyard.node.interface.vault import Vault


@dataclass(frozen=True, slots=True)
class Environment:
    """Everything outside the graph that opening a node needs."""

    storage: Storage
    pool: FairPool
    """The main executor's."""
    clock: Clock
    follow_backing: bool = True
    """The gate for backing files that headers name: follow beneath the roots, or deny."""
    max_chain_depth: int = 200
    """Longest chain that headers may build; a deeper one is an attack or a mistake (QEMU has no bound)."""
    max_nodes: int = 10_000
    """Nodes at once; each costs a few KiB and often a descriptor."""
    allow_ioctl: bool = False
    """Clients may send ioctls to what nodes stand on."""
    vault: Vault | None = None
    """Where the bits of bitmaps are that survive a crash; None if none do."""
    hot_bytes: int = DEFAULT_HOT_BYTES
    """Bytes of each node that its activity log may have hot: as many may be dirty too much after a power cut."""
    secret_files: SecretFiles = field(default_factory=NoSecretFiles)
    """Where secrets may be read from."""
    secrets: SecretStore = field(init=False)
    """Passphrases and keys by name."""
    throttling: ThrottleGroups = field(init=False)
    """Limits that nodes share."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "throttling", ThrottleGroups(self.clock))
        object.__setattr__(self, "secrets", SecretStore(self.secret_files, self.pool))
