"""Storage roots: the only place of the node service that turns a path into a descriptor.

It stands apart from `core`, which stays free of system calls, and is built by `app` alone; everyone else knows
`interface.storage.Storage`.
"""

from blockyard.node.storage.rooted import RootedStorage
from blockyard.node.storage.secret_files import SecretDirectory

__all__ = ["RootedStorage", "SecretDirectory"]
