"""Driver `file`: the bytes of a regular file or block device of the host.

`driver` serves requests, `creating` makes files and changes sizes, `locks` keeps other processes out,
`syscalls` holds what the standard library lacks.
"""

from blockyard.node.drivers.file.driver import FileDriver

__all__ = ["FileDriver"]
