"""Driver `blkdebug`: breaks things on purpose.

`driver` passes requests on unless a rule strikes them, `options` checks what a client says, `breakpoints` is where
requests wait. The rules themselves are `core.injection`, their text `formats.blkdebug`.
"""

from blockyard.node.drivers.blkdebug.driver import BlkdebugDriver

__all__ = ["BlkdebugDriver"]
