"""Points in time that a filter keeps while its disk is written. See `blockyard.base.errors`."""

from dataclasses import dataclass

from blockyard.base.errors.base import Code, StateError, StorageError


@dataclass(eq=False)
class PointInTimeLost(StateError):
    """A copy-before-write filter no longer has all of what it was to keep."""

    node_name: str
    failure: str
    reason = "POINT_IN_TIME_LOST"
    code = Code.DATA_LOSS
    template = "the point in time that node {node_name!r} kept is lost: {failure}"
    advice = "Guests are not concerned. Mend the target if it failed, then remove the filter and insert a new one."


@dataclass(eq=False)
class RangeNotKept(StateError):
    """A part of a point in time that is not to be read: outside its bitmap, or dropped."""

    node_name: str
    offset: int
    length: int
    reason = "RANGE_NOT_KEPT"
    code = Code.PERMISSION_DENIED
    template = (
        "bytes {offset} to {offset}+{length} of the point in time that node {node_name!r} keeps cannot be read: "
        "its bitmap leaves part of them out, or they were discarded"
    )
    advice = "Read what the bitmap marks, before it is discarded; without a bitmap everything is kept."


@dataclass(eq=False)
class CopyTooSlow(StorageError):
    """Old data was not on the target in the time that a guest's write may be held up for it."""

    node_name: str
    seconds: int
    reason = "COPY_TOO_SLOW"
    code = Code.DEADLINE_EXCEEDED
    template = "node {node_name!r} could not copy old data to its target within {seconds} s (cbw_timeout)"
    advice = "Look whether the target hangs; raise cbw_timeout, or choose on_cbw_error=break-snapshot."
