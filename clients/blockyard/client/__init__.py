"""The Python client library: `Client` for programs with an event loop, `SyncClient` for those without.

Builders of node definitions are in `blockyard.client.definitions`, error classes in `blockyard.base.errors`.
Names are loaded when they are first used, so that a program pays only for the parts it touches.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blockyard.client.client import Client
    from blockyard.client.pieces import Piece
    from blockyard.client.session import IoSession
    from blockyard.client.sync import SyncClient

__all__ = ["Client", "SyncClient", "IoSession", "Piece"]

_WHERE = {"Client": "client", "SyncClient": "sync", "IoSession": "session", "Piece": "pieces"}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
