"""Which class makes a kind of session. A new kind is a module beside this one and a row here."""

from typing import TYPE_CHECKING

from blockyard.node.copying.backup import BackupSession
from blockyard.node.copying.chain import CommitSession, StreamSession
from blockyard.node.copying.mirror import MirrorSession
from blockyard.node.copying.session import Session
from blockyard.node.copying.spec import CopyKind
from blockyard.node.graph.chain import below_filters, overlay_above

if TYPE_CHECKING:
    from blockyard.node.graph.node import Node


def session_class(kind: CopyKind, source: "Node") -> "type[Session]":
    """The class for a kind; to commit the active layer is to mirror it into its base."""
    if kind is CopyKind.COMMIT and overlay_above(below_filters(source)) is None:
        return MirrorSession
    return _CLASSES[kind]


_CLASSES: "dict[CopyKind, type[Session]]" = {
    CopyKind.MIRROR: MirrorSession,
    CopyKind.BACKUP: BackupSession,
    CopyKind.STREAM: StreamSession,
    CopyKind.COMMIT: CommitSession,
}
