"""The bytes of an image are not what they must be. See `blockyard.base.errors`."""

from dataclasses import dataclass

from blockyard.base.errors.base import Code, ImageError


@dataclass(eq=False)
class ImageCorrupt(ImageError):
    """A field of an image has a value that cannot be."""

    image: str
    what: str
    expected: str
    found: str
    reason = "IMAGE_CORRUPT"
    code = Code.DATA_LOSS
    template = "{image}: {what}: expected {expected}, found {found}"
    advice = "Run `blockyard image check` on a copy; restore from a backup if it cannot be repaired."


@dataclass(eq=False)
class ImageMarkedCorrupt(ImageError):
    """The image's corrupt bit is set; it may not be written."""

    image: str
    reason = "IMAGE_MARKED_CORRUPT"
    code = Code.FAILED_PRECONDITION
    template = "{image} is marked corrupt and may not be opened for writing"
    advice = "Open it read-only to save the data, or repair it with `blockyard image check --repair all`."


@dataclass(eq=False)
class UnsupportedFeature(ImageError):
    """The image needs something this version does not know."""

    image: str
    features: str
    reason = "UNSUPPORTED_FEATURE"
    code = Code.FAILED_PRECONDITION
    template = "{image} uses features that are not supported: {features}"
    advice = "Convert the image without these features, or use a version that knows them."


@dataclass(eq=False)
class FormatMismatch(ImageError):
    """The image is not of the format that was named."""

    image: str
    driver: str
    found: str
    reason = "FORMAT_MISMATCH"
    code = Code.INVALID_ARGUMENT
    field = "driver"
    template = "{image} is not a {driver} image: {found}"
    advice = "Name the right format; `blockyard image info --probe` tells what it looks like."


@dataclass(eq=False)
class BackingMissing(ImageError):
    """The backing file named in an image's header cannot be opened."""

    image: str
    backing: str
    why: str
    reason = "BACKING_MISSING"
    code = Code.FAILED_PRECONDITION
    template = "{image}: its backing file {backing!r} cannot be opened: {why}"
    advice = "Put the file where the header says, give `backing` explicitly, or rebase the image."


@dataclass(eq=False)
class DataFileMissing(ImageError):
    """An image keeps its data in another file, and that is not there."""

    image: str
    data_file: str
    why: str
    reason = "DATA_FILE_MISSING"
    code = Code.FAILED_PRECONDITION
    template = "{image}: its external data file {data_file!r} cannot be used: {why}"
    advice = "Put the file where the header says, or give `data_file` explicitly."


@dataclass(eq=False)
class DataFileDenied(ImageError):
    """An image's header names a data file, and nobody allowed to follow that."""

    image: str
    data_file: str
    reason = "DATA_FILE_DENIED"
    code = Code.PERMISSION_DENIED
    template = "{image} names the data file {data_file!r}; data files that headers name are not opened unasked"
    advice = "Give `data_file` explicitly in the definition, or set `follow_data_file` if you trust the image."


@dataclass(eq=False)
class BackingDenied(ImageError):
    """The gate for backing files named in headers is closed."""

    image: str
    backing: str
    reason = "BACKING_DENIED"
    code = Code.PERMISSION_DENIED
    template = "{image} names the backing file {backing!r}, and opening backing files from headers is denied"
    advice = "Give `backing` explicitly in the definition, or allow it in the node's configuration."


@dataclass(eq=False)
class BackingFormatUnknown(ImageError):
    """A header names a backing file but not its format, and formats are not guessed."""

    image: str
    backing: str
    reason = "BACKING_FORMAT_UNKNOWN"
    code = Code.FAILED_PRECONDITION
    template = "{image} names the backing file {backing!r} without its format"
    advice = "Give `backing` explicitly with its driver, or write the format into the header (rebase)."


@dataclass(eq=False)
class BackingLoop(ImageError):
    """A backing chain that comes back to itself."""

    image: str
    backing: str
    reason = "BACKING_LOOP"
    code = Code.FAILED_PRECONDITION
    template = "{image}: its backing file {backing!r} is part of the same chain"
    advice = "Rebase the image onto the right backing file (`qemu-img rebase -u`)."


@dataclass(eq=False)
class ChainTooDeep(ImageError):
    """More backing files than the configured depth."""

    image: str
    limit: int
    reason = "CHAIN_TOO_DEEP"
    code = Code.RESOURCE_EXHAUSTED
    template = "{image}: the backing chain is deeper than {limit}"
    advice = "Shorten the chain with a commit or stream job, or raise max_chain_depth."


@dataclass(eq=False)
class BackingChanged(ImageError):
    """While an image was handed over, someone gave it another backing file."""

    image: str
    was: str
    found: str
    reason = "BACKING_CHANGED"
    code = Code.FAILED_PRECONDITION
    template = "{image}: its header names the backing file {found!r} now, and named {was!r} before the hand-over"
    advice = "Close the node and open it again: it must be opened with its new chain."


@dataclass(eq=False)
class BackingProtocolDenied(ImageError):
    """An image's header names something else than a file."""

    image: str
    backing_file: str
    protocol: str
    reason = "BACKING_PROTOCOL_DENIED"
    code = Code.PERMISSION_DENIED
    template = "{image}: its header names {backing_file!r}, of protocol {protocol!r}; headers may only name files"
    advice = "Open it with an explicit `backing` child, or with none."
