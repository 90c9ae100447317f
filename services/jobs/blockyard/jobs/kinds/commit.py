"""commit: copy layers into a layer below them.

Theory: committing layers under the active one (`top` given and not the active layer) is a plain copy into
`base`; at its end the layer above `top` refers to `base` (COMPLETE). Committing the active layer cannot end by
itself, because the guest writes to it: it is a mirror of the active layer into its own base that becomes READY
and ends by a pivot, after which the guest works on `base`. QEMU draws the same line (blockdev.c,
qmp_block_commit).
"""

from dataclasses import dataclass

from blockyard.jobs.copying.policy import ErrorPolicies, OnError
from blockyard.jobs.kinds.base import Kind, layers_below
from blockyard.jobs.node.port import CopyKind, FinishAction, NodePort, SessionRequest


@dataclass(frozen=True, slots=True)
class CommitOptions:
    """job.proto, CommitOptions."""

    node_name: str = ""
    top_node_name: str = ""
    base_node_name: str = ""
    backing_file: str = ""
    on_error: OnError = OnError.REPORT


class Commit(Kind):
    """Push layers down into their base."""

    name = "commit"
    Options = CommitOptions
    options: CommitOptions

    @property
    def active(self) -> bool:
        return self.options.top_node_name in ("", self.options.node_name)

    @property
    def converges(self) -> bool:
        return self.active

    @property
    def policies(self) -> ErrorPolicies:
        return ErrorPolicies(self.options.on_error, self.options.on_error)

    @property
    def node_names(self) -> tuple[str, ...]:
        options = self.options
        named = (options.node_name, options.top_node_name, options.base_node_name)
        return tuple(dict.fromkeys(filter(None, named)))

    def check(self) -> None:
        options = self.options
        self.need(node_name=options.node_name)
        top = options.top_node_name or options.node_name
        self.refuse_unless(
            options.base_node_name != top, "base_node_name", "a layer below the top", f"{top!r} itself"
        )
        if self.active:
            no_string = not options.backing_file
            self.refuse_unless(no_string, "backing_file", "empty for the active layer", repr(options.backing_file))

    async def session(self, job_id: str, filter_node_name: str, node: NodePort) -> SessionRequest:
        options = self.options
        top = options.top_node_name or options.node_name
        below = await layers_below(node, options.node_name)
        listed = ", ".join(below) or "it has none"
        expected = f"a layer below {options.node_name!r}: {listed}"
        self.refuse_unless(self.active or top in below, "top_node_name", expected, repr(top))
        below_top = below if self.active else below[below.index(top) + 1 :]
        self.refuse_unless(bool(below_top), "base_node_name", f"a layer below {top!r}", "none: it has no backing")
        base = options.base_node_name or below_top[-1]
        self.refuse_unless(base in below_top, "base_node_name", f"a layer below {top!r}", repr(base))
        return SessionRequest(
            session_id=job_id,
            kind=CopyKind.MIRROR if self.active else CopyKind.COMMIT,
            source=top,
            target=base,
            backing_file=options.backing_file,
            filter_node_name=filter_node_name,
        )

    def finish(self, chosen: FinishAction | None) -> FinishAction:
        if not self.active:
            return FinishAction.COMPLETE
        return chosen or FinishAction.PIVOT
