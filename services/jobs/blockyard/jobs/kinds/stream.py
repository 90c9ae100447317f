"""stream: copy the chain below a node into it, so that it needs the chain no more.

Theory: the session's work map is what the layers between the node and `base` hold; everything else is passed
over. When it is empty the backing reference changes to `base` (COMPLETE), mapping first, as the node promises.
Until then the image reads the same whatever happens, so an aborted stream only leaves data that was copied
early.

With policy IGNORE QEMU's stream leaves a failed range out, goes on, keeps the backing reference and fails in
the end (block/stream.c; seen on 7.2); so does this one.
"""

from dataclasses import dataclass

from blockyard.jobs.copying.policy import ErrorPolicies, OnError
from blockyard.jobs.kinds.base import Kind, layers_below
from blockyard.jobs.node.port import CopyKind, NodePort, SessionRequest


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """job.proto, StreamOptions."""

    node_name: str = ""
    base_node_name: str = ""
    backing_file: str = ""
    on_error: OnError = OnError.REPORT


class Stream(Kind):
    """Pull the backing chain into an overlay."""

    name = "stream"
    Options = StreamOptions
    options: StreamOptions

    @property
    def passes_over(self) -> bool:
        return True

    @property
    def policies(self) -> ErrorPolicies:
        return ErrorPolicies(self.options.on_error, self.options.on_error)

    @property
    def node_names(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.options.node_name, self.options.base_node_name)))

    def check(self) -> None:
        options = self.options
        self.need(node_name=options.node_name)
        different = options.base_node_name != options.node_name
        self.refuse_unless(different, "base_node_name", "a layer below node_name", "node_name itself")

    async def session(self, job_id: str, filter_node_name: str, node: NodePort) -> SessionRequest:
        options = self.options
        if options.base_node_name:
            below = await layers_below(node, options.node_name)
            self.refuse_unless(
                options.base_node_name in below,
                "base_node_name",
                f"a layer below {options.node_name!r}: {', '.join(below) or 'it has none'}",
                repr(options.base_node_name),
            )
        return SessionRequest(
            session_id=job_id,
            kind=CopyKind.STREAM,
            source=options.node_name,
            base=options.base_node_name,
            backing_file=options.backing_file,
            filter_node_name=filter_node_name,
        )
