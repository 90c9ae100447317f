"""Files beside an image that its header names, other than backing files: an external data file.

A header is hostile. What it names is opened if the client asked for it in the driver's options, the gate for
backing files is open, and it is a file beneath the storage roots.
"""

from blockyard.base.errors import BackingMissing, BackingProtocolDenied, DataFileDenied, DataFileMissing
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.edge import Edge
from blockyard.node.graph.environment import Environment
from blockyard.node.graph.referring import path_of
from blockyard.node.interface.abilities import NamesFiles
from blockyard.node.interface.driver import BackingReference, DriverContext


async def named_files(
    environment: Environment, class_: type[NamesFiles], options: object, context: DriverContext
) -> dict[str, NodeDefinition]:
    """Definitions by child. Raises DataFileDenied or DataFileMissing."""
    file = context.children["file"]
    assert isinstance(file, Edge)
    found: dict[str, NodeDefinition] = {}
    for child, filename in (await class_.named_files(options, context)).items():
        if not environment.follow_backing:
            raise DataFileDenied(file.filename, filename)
        if not file.node.path:
            raise DataFileMissing(file.node_name, filename, "the image is no file, so the name has no directory")
        try:
            path = path_of(environment.storage, file.node.path, file.filename, BackingReference(filename, ""))
        except (BackingMissing, BackingProtocolDenied) as refusal:
            raise DataFileMissing(file.filename, filename, str(refusal)) from refusal
        found[child] = NodeDefinition("file", options={"filename": path})
    return found
