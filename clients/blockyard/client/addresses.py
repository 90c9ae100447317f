"""Where the service is when nobody says so.

The daemon listens at the same place by default: a socket in the user's runtime directory, or in /run where there
is none. Must not connect.
"""

import os
from collections.abc import Mapping
from typing import Final

from blockyard.rpc.address import default_socket

VARIABLE: Final = "BLOCKYARD_ADDRESS"


def default_address(environment: Mapping[str, str] = os.environ) -> str:
    """`$BLOCKYARD_ADDRESS`, else `$XDG_RUNTIME_DIR/blockyard/blockyard.sock`, else the same beneath /run."""
    if given := environment.get(VARIABLE):
        return given
    return default_socket(environment)
