"""What a header's name of a backing file means: a path beside the image, or nothing that is followed.

A header is hostile: what it names is opened as a file beneath the storage roots, or not at all. A name with a
protocol (`nbd:`, `json:` ...) would choose a driver, a host or options, so it is refused, where QEMU opens it.
`file:` and an absolute path is that path.
"""

from blockyard.base.errors import BackingMissing, BackingProtocolDenied, PathDenied
from blockyard.node.core.filenames import protocol_of
from blockyard.node.interface.driver import BackingReference
from blockyard.node.interface.storage import Storage


def path_of(storage: Storage, image_path: str, shown: str, reference: BackingReference) -> str:
    """The path to open. Raises BackingProtocolDenied, or BackingMissing for one outside the roots."""
    name = reference.filename
    if name.startswith("file:/"):
        name = name.removeprefix("file:")
    elif protocol := protocol_of(name):
        raise BackingProtocolDenied(shown, name, protocol)
    try:
        return storage.relative_to_image(image_path, name)
    except PathDenied as refusal:
        raise BackingMissing(shown, reference.filename, refusal.why) from refusal
