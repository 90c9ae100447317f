"""Driver `nbd`: an export of another server, with NBD as the wire (QEMU's block/nbd.c).

`options` what can be said of it, `handshake` from a connected socket to an agreed export, `transmission` requests
and replies of one connection, `unflushed` what a server may still lose, `session` connections that follow one
another, `driver` what the graph sees.
"""

from blockyard.node.drivers.nbd.driver import NbdDriver

__all__ = ["NbdDriver"]
