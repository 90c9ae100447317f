"""The NBD server: guests and tools read and write exported nodes.

`formats.nbd` is the wire; `negotiation` the handshake without I/O; `transmission` the requests, inline where
possible; `commands` what they mean; `connection` one client's socket; `server` all of it together.
"""

from blockyard.node.exports.nbd.connection import ClientInfo, Phase
from blockyard.node.exports.nbd.export import ExportConfig
from blockyard.node.exports.nbd.limits import NbdLimits
from blockyard.node.exports.nbd.listener import Address
from blockyard.node.exports.nbd.server import ExportInfo, NbdServer

__all__ = ["NbdServer", "NbdLimits", "ExportConfig", "ExportInfo", "ClientInfo", "Phase", "Address"]
