"""What a header's name of a backing file means, and what a header shall name: a path beside the image.

A header is hostile: what it names is opened as a file beneath the storage roots, or not at all. A name with a
protocol (`nbd:`, `json:` ...) would choose a driver, a host or options, so it is refused, where QEMU opens it.
`file:` and an absolute path is that path.
"""

import posixpath
from typing import TYPE_CHECKING

from blockyard.base.errors import BackingMissing, BackingProtocolDenied, InvalidArgument, PathDenied
from blockyard.node.core.filenames import protocol_of
from blockyard.node.interface.driver import BackingReference
from blockyard.node.interface.storage import Storage

if TYPE_CHECKING:
    from blockyard.node.graph.node import Node


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


def reference_between(
    storage: Storage, node: "Node", base: "Node", name: str = "", form: str = ""
) -> BackingReference:
    """How the header of `node` shall name `base`. Raises InvalidArgument if that must be said, and is not."""
    name = name or _name_from(storage, node, base)
    if not name:
        why = "is no file" if not base.path else "lies beneath another storage root"
        raise InvalidArgument("backing_file", f"a name, because {base.name} {why}", "none")
    return BackingReference(name, form or base.driver.name)


def _name_from(storage: Storage, node: "Node", base: "Node") -> str:
    """The base as seen from the node, if that leads there, or else by its whole path; empty if unknown.

    What clients see of two paths may be alike although they lie beneath different roots.
    """
    if not base.path or not node.path:
        return ""
    name = posixpath.relpath(base.filename, posixpath.dirname(node.filename) or ".")
    try:
        if storage.is_same(storage.relative_to_image(node.path, name), base.path):
            return name
    except PathDenied:
        pass  # it leads out of the node's root
    return base.path if base.path.startswith("/") else ""
