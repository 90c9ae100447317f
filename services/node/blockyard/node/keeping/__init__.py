"""What outlives the process: a directory of one process's own, and in it the catalogue's database.

The graph knows `interface.keeper.Keeper` only; `app` alone builds what is here.
"""

from blockyard.keeping.directory import state_directory
from blockyard.node.keeping.sqlite import SqliteKeeper

__all__ = ["SqliteKeeper", "state_directory"]
