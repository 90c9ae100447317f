"""The caller asked for something that cannot be. See `blockyard.base.errors`."""

from dataclasses import dataclass

from blockyard.base.errors.base import Code, RequestError


@dataclass(eq=False)
class InvalidArgument(RequestError):
    """A field has a value that it may never have."""

    name: str
    expected: str
    found: str
    reason = "INVALID_ARGUMENT"
    code = Code.INVALID_ARGUMENT
    field = "{name}"
    template = "{name}: expected {expected}, found {found}"
    advice = "Correct the field and call again."


@dataclass(eq=False)
class UnknownOption(RequestError):
    """A driver or job was given an option it does not have."""

    owner: str
    option: str
    known: str
    reason = "UNKNOWN_OPTION"
    code = Code.INVALID_ARGUMENT
    field = "{option}"
    template = "{owner} has no option {option!r}; it has: {known}"
    advice = "Remove or correct the option; `blockyard driver list` prints every option with its meaning."


@dataclass(eq=False)
class MissingOption(RequestError):
    """A driver or job lacks an option it cannot do without."""

    owner: str
    option: str
    reason = "MISSING_OPTION"
    code = Code.INVALID_ARGUMENT
    field = "{option}"
    template = "{owner} needs the option {option!r}"
    advice = "Give the option and call again."


@dataclass(eq=False)
class RangeOutside(RequestError):
    """A request reaches outside the node (negative, wrapped, or past its end)."""

    node_name: str
    offset: int
    length: int
    size_bytes: int
    reason = "RANGE_OUTSIDE"
    code = Code.OUT_OF_RANGE
    field = "offset"
    template = "range [{offset}, +{length}) lies outside node {node_name!r} of {size_bytes} bytes"
    advice = "Keep offset >= 0 and offset + length <= size_bytes of the node."


@dataclass(eq=False)
class RangeMisaligned(RequestError):
    """A request through an attachment that is no multiple of its logical block size."""

    attachment: str
    offset: int
    length: int
    block_size: int
    reason = "RANGE_MISALIGNED"
    code = Code.INVALID_ARGUMENT
    field = "offset"
    template = (
        "range [{offset}, +{length}) is no multiple of the {block_size}-byte blocks of attachment {attachment!r}"
    )
    advice = "Use whole blocks, or make the attachment with a smaller logical block size."


@dataclass(eq=False)
class SizeTooLarge(RequestError):
    """A size past what the format or the 63-bit offset space can hold."""

    name: str
    found: int
    limit: int
    reason = "SIZE_TOO_LARGE"
    code = Code.OUT_OF_RANGE
    field = "{name}"
    template = "{name} is {found}, the largest possible is {limit}"
    advice = "Choose a smaller size, or a format or cluster size that can hold it."


@dataclass(eq=False)
class NotImplementedYet(RequestError):
    """An RPC whose shape is fixed but whose work comes with a later version."""

    operation: str
    why: str
    reason = "NOT_IMPLEMENTED"
    code = Code.UNIMPLEMENTED
    template = "{operation} is not implemented: {why}"
    advice = "Use a version that has it; the message shapes will not change."


@dataclass(eq=False)
class OperationUnsupported(RequestError):
    """The driver of this node cannot do that."""

    node_name: str
    driver: str
    operation: str
    reason = "OPERATION_UNSUPPORTED"
    code = Code.UNIMPLEMENTED
    template = "driver {driver!r} of node {node_name!r} cannot {operation}"
    advice = "Choose a node whose driver lists the ability (ListDrivers)."


@dataclass(eq=False)
class DriverUnknown(RequestError):
    """No driver of that name."""

    driver: str
    known: str
    reason = "DRIVER_UNKNOWN"
    code = Code.INVALID_ARGUMENT
    field = "driver"
    template = "no driver named {driver!r}; there are: {known}"
    advice = "Name one of the listed drivers."


@dataclass(eq=False)
class DriverUnavailable(RequestError):
    """The driver exists, but a library it needs is not installed."""

    driver: str
    why: str
    reason = "DRIVER_UNAVAILABLE"
    code = Code.UNIMPLEMENTED
    field = "driver"
    template = "driver {driver!r} is disabled here: {why}"
    advice = "Install what it needs and restart the node service."


@dataclass(eq=False)
class ProtocolUnsupported(RequestError):
    """A file name that begins with a protocol of QEMU's for which there is no driver here."""

    protocol: str
    driver: str
    reason = "PROTOCOL_UNSUPPORTED"
    code = Code.UNIMPLEMENTED
    field = "filename"
    template = "a name with {protocol!r} needs the driver {driver!r}, which this service does not have"
    advice = "Use a file beneath a storage root; for a file of that name put ./ before it."


@dataclass(eq=False)
class IoctlsDisabled(RequestError):
    """The operator did not allow ioctls."""

    node_name: str
    reason = "IOCTLS_DISABLED"
    code = Code.PERMISSION_DENIED
    template = "ioctls are switched off; none was sent to node {node_name!r}"
    advice = "Start the node service with --allow-ioctl if its clients may send commands to devices."
