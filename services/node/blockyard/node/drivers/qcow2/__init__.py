"""The qcow2 format driver."""

from blockyard.node.drivers.qcow2.driver import Qcow2

__all__ = ["Qcow2"]
