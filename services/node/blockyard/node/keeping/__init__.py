"""What outlives the process: a directory of one process's own, and in it the catalogue's database.

The graph knows `interface.keeper.Keeper` only; `app` alone builds what is here.
"""

from blockyard.keeping.directory import state_directory
from blockyard.node.keeping.sqlite import SqliteKeeper
from blockyard.node.keeping.vault import DirectoryVault

__all__ = ["DirectoryVault", "SqliteKeeper", "state_directory"]
