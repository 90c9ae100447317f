"""What a blkdebug node does to requests: events, states, rules and faults. Pure; the driver carries effects out.

Theory (QEMU's block/blkdebug.c, docs/devel/testing/blkdebug.rst). Drivers emit *events* ("an L2 table is about to
be written"). A node is in a *state*, a number that begins at 1. An event looks at the rules that name it and that
hold in the present state:

- Its injections, if there are any, become the *active* ones, in place of those that were. Active injections stay
  so, whatever events come that have none. A request is struck by the first active one that matches its type and
  range.
- Its first state change, if there is one, takes effect when all rules of the event have been looked at.

*Faults* are ours. They come and go by id while the node is in use, and no state or rule touches them. A fault on a
type of request strikes requests of that type; one on an event strikes the one request that follows each such event;
one on the event `none` strikes any.

Invariants
1. A rule's `once` and a fault's `times` are used up by a strike, not by a match that chance spared.
2. The same seed and the same calls give the same strikes.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from blockyard.base.errors import InvalidArgument, LimitReached, ResourceExists, ResourceNotFound

NO_EVENT: Final = "none"
"""Rules on it are active from the beginning: it is emitted once, when the node is opened."""
EVENTS: Final = (
    "l1_update",
    "l1_grow_alloc_table",
    "l1_grow_write_table",
    "l1_grow_activate_table",
    "l2_load",
    "l2_update",
    "l2_update_compressed",
    "l2_alloc_cow_read",
    "l2_alloc_write",
    "read_aio",
    "read_backing_aio",
    "read_compressed",
    "write_aio",
    "write_compressed",
    "vmstate_load",
    "vmstate_save",
    "cow_read",
    "cow_write",
    "reftable_load",
    "reftable_grow",
    "reftable_update",
    "refblock_load",
    "refblock_update",
    "refblock_update_part",
    "refblock_alloc",
    "refblock_alloc_hookup",
    "refblock_alloc_write",
    "refblock_alloc_write_blocks",
    "refblock_alloc_write_table",
    "refblock_alloc_switch_table",
    "cluster_alloc",
    "cluster_alloc_bytes",
    "cluster_free",
    "flush_to_os",
    "flush_to_disk",
    "pwritev_rmw_head",
    "pwritev_rmw_after_head",
    "pwritev_rmw_tail",
    "pwritev_rmw_after_tail",
    "pwritev",
    "pwritev_zero",
    "pwritev_done",
    "empty_image_prepare",
    "l1_shrink_write_table",
    "l1_shrink_free_l2_clusters",
    "cor_write",
    "cluster_alloc_space",
    NO_EVENT,
)
"""QEMU's BlkdebugEvent (qapi/block-core.json), in its order."""

REQUESTS: Final = ("read", "write", "write-zeroes", "discard", "flush", "block-status")
"""QEMU's BlkdebugIOType."""
USUAL: Final = frozenset(REQUESTS) - {"block-status"}
"""What is struck if nothing is said (blkdebug.c, add_rule)."""
WITH_DATA: Final = frozenset({"read", "write"})

EIO: Final = 5
MAX_ERRNO: Final = 4095
"""The kernel's MAX_ERRNO."""
MAX_DELAY_NS: Final = 3600 * 10**9
"""An hour: longer than any deadline whose passing is worth a test."""
MAX_RULES: Final = 1024
"""Of one node: QEMU's own tests have at most a few dozen."""
MAX_FAULTS: Final = 256
"""Of one node: every request looks at all of them."""

Where = Callable[[str], str]
"""The place of a field in what a person wrote, for errors."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What happens to a request that is struck: it waits, then it fails, or goes on with a bit flipped."""

    errno: int = EIO
    """0 does not fail."""
    delay_ns: int = 0
    corrupt: bool = False
    immediately: bool = False
    """Fail without giving others a turn first."""

    @property
    def is_nothing(self) -> bool:
        return not (self.errno or self.delay_ns or self.corrupt)


class Strike(NamedTuple):
    """An effect, and for a corruption the bit that it flips."""

    effect: Effect
    byte: int = 0
    """Counted from the request's start."""
    bit: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Injection:
    """A rule that strikes requests (the section `inject-error`)."""

    event: str
    effect: Effect = Effect()
    state: int = 0
    """0 is any."""
    requests: frozenset[str] = USUAL
    offset: int | None = None
    """Only requests that touch this byte."""
    once: bool = False
    rate: float = 1.0


@dataclass(frozen=True, slots=True)
class StateChange:
    """A rule that changes the state (the section `set-state`)."""

    event: str
    state: int = 0
    new_state: int = 0


@dataclass(slots=True, eq=False)
class Fault:
    """What a client injects into a node that is in use."""

    fault_id: str
    trigger: str
    """An event or a type of request."""
    effect: Effect
    rate: float = 1.0
    times: int = 0
    """0 is always."""
    offset: int | None = None
    struck: int = 0
    armed: bool = False
    """Its event came, and no request since."""

    def __post_init__(self) -> None:
        if self.trigger not in EVENTS and self.trigger not in REQUESTS:
            raise InvalidArgument("event", f"one of {', '.join((*REQUESTS, *EVENTS))}", repr(self.trigger))
        if self.effect.is_nothing:
            raise InvalidArgument("errno", "an error, a delay or corrupt", "none of them")
        if self.times < 0:
            raise InvalidArgument("times", "0 or more", str(self.times))
        if self.effect.corrupt and self.trigger in REQUESTS and self.trigger not in WITH_DATA:
            raise InvalidArgument("corrupt", "false for requests without data", "true")

    def meets(self, request: str, offset: int, length: int) -> bool:
        """Whether it may strike such a request now."""
        if self.times and self.struck >= self.times:
            return False
        if self.trigger in REQUESTS:
            wanted = request == self.trigger
        else:
            wanted = request in USUAL and (self.armed or self.trigger == NO_EVENT)
        return wanted and touches(self.offset, offset, length) and (request in WITH_DATA or not self.effect.corrupt)


def touches(wanted: int | None, offset: int, length: int) -> bool:
    """Whether a request of that range is meant by a rule's offset. A flush touches no byte."""
    return wanted is None or offset <= wanted < offset + length


class Machine:
    """The rules and faults of one node. `numbers` decides where a rate is below 1, and which bit is flipped."""

    def __init__(self, numbers: random.Random) -> None:
        self._numbers = numbers
        self._injections: dict[str, list[Injection]] = {}
        self._changes: dict[str, list[StateChange]] = {}
        self._active: list[Injection] = []
        self._rules = 0
        self.state = 1
        self.faults: dict[str, Fault] = {}

    @property
    def is_idle(self) -> bool:
        """Whether nothing can ever happen as it is now."""
        return not self._injections and not self._changes and not self.faults

    def add(self, rule: Injection | StateChange) -> None:
        """Raises LimitReached."""
        if self._rules >= MAX_RULES:
            raise LimitReached("rules of a blkdebug node", MAX_RULES)
        self._rules += 1
        if isinstance(rule, Injection):
            self._injections.setdefault(rule.event, []).append(rule)
        else:
            self._changes.setdefault(rule.event, []).append(rule)

    def inject(self, fault: Fault) -> None:
        """Raises ResourceExists or LimitReached."""
        if fault.fault_id in self.faults:
            raise ResourceExists("fault", fault.fault_id)
        if len(self.faults) >= MAX_FAULTS:
            raise LimitReached("faults of a blkdebug node", MAX_FAULTS)
        self.faults[fault.fault_id] = fault

    def withdraw(self, fault_id: str) -> None:
        """Raises ResourceNotFound."""
        if self.faults.pop(fault_id, None) is None:
            raise ResourceNotFound("fault", fault_id)

    def emitted(self, event: str) -> None:
        """An event happened."""
        state = self.state
        armed = [rule for rule in self._injections.get(event, ()) if rule.state in (0, state)]
        if armed:
            self._active = armed
        for change in self._changes.get(event, ()):
            if change.state in (0, state):
                self.state = change.new_state
                break
        for fault in self.faults.values():
            fault.armed = fault.armed or fault.trigger == event

    def struck(self, request: str, offset: int, length: int) -> Strike | None:
        """What happens to a request; None if it goes its way. Counts as a strike."""
        fault = self._fault(request, offset, length)
        if fault is not None:
            fault.struck += 1
            return self._strike(fault.effect, fault.offset, offset, length)
        for rule in self._active:
            if request not in rule.requests or not touches(rule.offset, offset, length):
                continue
            if rule.effect.is_nothing:
                return None  # it shields requests from the rules behind it, as in QEMU
            if not self._chance(rule.rate):
                continue
            if rule.once:
                self._forget(rule)
            return self._strike(rule.effect, rule.offset, offset, length)
        return None

    def _strike(self, effect: Effect, wanted: int | None, offset: int, length: int) -> Strike:
        if not effect.corrupt or not length:
            return Strike(effect)
        byte = wanted - offset if wanted is not None else self._numbers.randrange(length)
        return Strike(effect, byte, self._numbers.randrange(8))

    def _fault(self, request: str, offset: int, length: int) -> Fault | None:
        for fault in self.faults.values():
            if fault.meets(request, offset, length):
                fault.armed = False  # the chance is one for each event
                if self._chance(fault.rate):
                    return fault
        return None

    def _chance(self, rate: float) -> bool:
        return rate >= 1.0 or self._numbers.random() < rate

    def _forget(self, rule: Injection) -> None:
        self._rules -= 1
        self._active = [other for other in self._active if other is not rule]
        left = [other for other in self._injections[rule.event] if other is not rule]
        if left:
            self._injections[rule.event] = left
        else:
            del self._injections[rule.event]


# --- what people write ----------------------------------------------------------------------------------------


def make_effect(
    where: Where, *, errno: int | None, delay_ns: int = 0, corrupt: bool = False, immediately: bool = False
) -> Effect:
    """Checked. `errno` None is EIO, or nothing if it shall corrupt. Raises InvalidArgument."""
    code = (0 if corrupt else EIO) if errno is None else errno
    if not 0 <= code <= MAX_ERRNO:
        raise InvalidArgument(where("errno"), f"0 to {MAX_ERRNO}", str(errno))
    if corrupt and code:
        raise InvalidArgument(where("corrupt"), "an error or a corruption", "both")
    if not 0 <= delay_ns <= MAX_DELAY_NS:
        raise InvalidArgument(where("delay_ns"), f"0 to {MAX_DELAY_NS}", str(delay_ns))
    return Effect(code, delay_ns, corrupt, immediately)


def make_injection(
    where: Where,
    *,
    event: str,
    effect: Effect,
    state: int = 0,
    iotype: str = "",
    offset: int | None = None,
    once: bool = False,
    rate: float | None = None,
) -> Injection:
    """Checked. Raises InvalidArgument."""
    _check(where, event, state=state)
    if iotype and iotype not in REQUESTS:
        raise InvalidArgument(where("iotype"), f"one of {', '.join(REQUESTS)}", repr(iotype[:64]))
    requests = frozenset({iotype}) if iotype else USUAL
    if effect.corrupt:
        requests &= WITH_DATA
        if not requests:
            raise InvalidArgument(where("corrupt"), "false for requests without data", "true")
    if offset is not None and offset < -1:
        raise InvalidArgument(where("offset"), "-1 (any) or more", str(offset))
    return Injection(
        event,
        effect,
        state,
        requests,
        None if offset == -1 else offset,
        once,
        checked_rate(where("rate"), rate),
    )


def make_state_change(where: Where, *, event: str, state: int = 0, new_state: int = 0) -> StateChange:
    """Checked. Raises InvalidArgument."""
    _check(where, event, state=state, new_state=new_state)
    return StateChange(event, state, new_state)


def checked_rate(name: str, rate: float | None) -> float:
    """A chance; None is always. Raises InvalidArgument."""
    if rate is None:
        return 1.0
    if not 0.0 <= rate <= 1.0:
        raise InvalidArgument(name, "0 to 1", str(rate))
    return rate


def _check(where: Where, event: str, **states: int) -> None:
    if event not in EVENTS:
        raise InvalidArgument(where("event"), f"one of {', '.join(EVENTS)}", repr(event[:64]))
    for name, value in states.items():
        if value < 0:
            raise InvalidArgument(where(name), "0 or more", str(value))
