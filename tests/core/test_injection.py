"""The rules of a blkdebug node: against a model that is as plain as it can be, and one by one."""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.base.errors import InvalidArgument, LimitReached, ResourceExists, ResourceNotFound
from blockyard.node.core.injection import (
    EVENTS,
    MAX_FAULTS,
    MAX_RULES,
    REQUESTS,
    USUAL,
    Effect,
    Fault,
    Injection,
    Machine,
    StateChange,
    make_effect,
    make_injection,
    make_state_change,
)

SOME = ("l2_load", "write_aio", "none")


def machine(*rules: Injection | StateChange, seed: int = 0) -> Machine:
    made = Machine(random.Random(seed))
    for rule in rules:
        made.add(rule)
    made.emitted("none")
    return made


def errno_of(made: Machine, request: str = "read", offset: int = 0, length: int = 512) -> int:
    strike = made.struck(request, offset, length)
    return strike.effect.errno if strike is not None else 0


# --- against a model ------------------------------------------------------------------------------------------


@dataclass
class Model:
    """QEMU's machine, written down as its documentation says, without sharing a line with ours."""

    rules: list[Injection | StateChange]
    state: int = 1
    active: list[Injection] = field(default_factory=list)

    def event(self, name: str) -> None:
        fitting = [
            rule for rule in self.rules if rule.event == name and (not rule.state or rule.state == self.state)
        ]
        errors = [rule for rule in fitting if isinstance(rule, Injection)]
        changes = [rule for rule in fitting if isinstance(rule, StateChange)]
        if errors:
            self.active = errors
        if changes:
            self.state = changes[0].new_state

    def request(self, kind: str, offset: int, length: int) -> int:
        for rule in self.active:
            in_range = rule.offset is None or rule.offset in range(offset, offset + length)
            if kind in rule.requests and in_range:
                if rule.once and rule.effect.errno:
                    self.active = [other for other in self.active if other is not rule]
                    self.rules = [other for other in self.rules if other is not rule]
                return rule.effect.errno
        return 0


states = st.integers(0, 3)
injections = st.builds(
    Injection,
    event=st.sampled_from(SOME),
    effect=st.builds(Effect, errno=st.integers(0, 3)),
    state=states,
    requests=st.one_of(st.just(USUAL), st.sampled_from(REQUESTS).map(lambda name: frozenset({name}))),
    offset=st.one_of(st.none(), st.integers(0, 40)),
    once=st.booleans(),
)
changes = st.builds(StateChange, event=st.sampled_from(SOME), state=states, new_state=st.integers(1, 3))
steps = st.one_of(
    st.sampled_from(SOME), st.tuples(st.sampled_from(REQUESTS), st.integers(0, 40), st.integers(0, 20))
)


@given(st.lists(st.one_of(injections, changes), max_size=8), st.lists(steps, max_size=40))
def test_any_rules_do_to_any_requests_what_the_plain_model_says(
    rules: list[Injection | StateChange], life: list[str | tuple[str, int, int]]
):
    ours, model = machine(*rules), Model(list(rules))
    model.event("none")
    for step in life:
        if isinstance(step, str):
            ours.emitted(step)
            model.event(step)
        else:
            assert errno_of(ours, *step) == model.request(*step)
        assert ours.state == model.state


@given(st.integers(0, 1000), st.floats(0, 1))
def test_the_same_seed_gives_the_same_strikes(seed: int, rate: float):
    def strikes() -> list[int]:
        made = machine(Injection("none", rate=rate), seed=seed)
        return [errno_of(made) for _ in range(50)]

    assert strikes() == strikes()


# --- rules ----------------------------------------------------------------------------------------------------


def test_there_are_as_many_events_as_in_qemu_and_none_twice():
    assert len(EVENTS) == len(set(EVENTS)) == 48


def test_an_active_injection_stays_so_until_another_takes_its_place():
    made = machine(Injection("l2_load", Effect(5)), Injection("write_aio", Effect(28)))
    assert errno_of(made) == 0
    made.emitted("l2_load")
    made.emitted("cow_read")
    assert [errno_of(made), errno_of(made)] == [5, 5]
    made.emitted("write_aio")
    assert errno_of(made) == 28


def test_a_new_state_counts_from_the_next_event_on():
    made = machine(StateChange("l2_load", 1, 2), Injection("l2_load", Effect(5), state=2))
    made.emitted("l2_load")
    assert (made.state, errno_of(made)) == (2, 0)
    made.emitted("l2_load")
    assert errno_of(made) == 5


def test_block_status_is_struck_only_if_it_is_named():
    assert errno_of(machine(Injection("none")), "block-status") == 0
    assert errno_of(machine(Injection("none", requests=frozenset({"block-status"}))), "block-status") == 5


def test_a_flush_touches_no_byte():
    made = machine(Injection("none", offset=0))
    assert errno_of(made, "flush", 0, 0) == 0
    assert errno_of(made, "read", 0, 1) == 5


def test_a_rate_strikes_about_so_often():
    made = machine(Injection("none", rate=0.25), seed=7)
    assert 200 < sum(errno_of(made) > 0 for _ in range(1000)) < 300


def test_a_machine_whose_only_rule_is_used_up_is_idle():
    made = machine(Injection("none", once=True))
    assert not made.is_idle
    assert errno_of(made) == 5
    assert made.is_idle


def test_a_corruption_names_a_bit_of_the_request():
    made = machine(Injection("none", Effect(0, corrupt=True), offset=700), seed=3)
    strike = made.struck("read", 512, 512)
    assert strike is not None
    assert strike.byte == 188
    assert strike.bit in range(8)


# --- faults ---------------------------------------------------------------------------------------------------


def test_a_fault_on_a_type_of_request_strikes_all_of_that_type():
    made = machine()
    made.inject(Fault("a", "write", Effect(28)))
    assert [errno_of(made, "write"), errno_of(made, "read"), errno_of(made, "write")] == [28, 0, 28]
    assert made.faults["a"].struck == 2


def test_a_fault_on_an_event_strikes_the_one_request_that_follows_it():
    made = machine()
    made.inject(Fault("a", "l2_update", Effect(5)))
    assert errno_of(made, "write") == 0
    made.emitted("l2_update")
    assert [errno_of(made, "write"), errno_of(made, "write")] == [5, 0]


def test_a_fault_on_none_strikes_everything():
    made = machine()
    made.inject(Fault("a", "none", Effect(5)))
    assert [errno_of(made, request) for request in REQUESTS] == [5, 5, 5, 5, 5, 0]


def test_a_fault_strikes_so_often_as_was_said_and_stays_listed():
    made = machine()
    made.inject(Fault("a", "read", Effect(5), times=2))
    assert [errno_of(made) for _ in range(4)] == [5, 5, 0, 0]
    assert made.faults["a"].struck == 2


def test_chance_that_spares_a_request_uses_up_nothing():
    made = machine(seed=1)
    made.inject(Fault("a", "read", Effect(5), rate=0.01, times=1))
    spared = 0
    while errno_of(made) == 0:
        spared += 1
    assert spared > 0
    assert made.faults["a"].struck == 1


def test_rules_go_on_when_a_fault_is_withdrawn():
    made = machine(Injection("none", Effect(28)))
    made.inject(Fault("a", "read", Effect(5)))
    assert errno_of(made) == 5
    made.withdraw("a")
    assert errno_of(made) == 28


def test_faults_are_found_by_their_id_alone():
    made = machine()
    made.inject(Fault("a", "read", Effect(5)))
    with pytest.raises(ResourceExists):
        made.inject(Fault("a", "write", Effect(5)))
    with pytest.raises(ResourceNotFound):
        made.withdraw("b")


def test_rules_and_faults_are_bounded():
    made = machine(*(Injection("none") for _ in range(MAX_RULES)))
    with pytest.raises(LimitReached):
        made.add(StateChange("none"))
    for number in range(MAX_FAULTS):
        made.inject(Fault(str(number), "read", Effect(5)))
    with pytest.raises(LimitReached):
        made.inject(Fault("one more", "read", Effect(5)))


# --- what people write ----------------------------------------------------------------------------------------


def at(name: str) -> str:
    return f"here.{name}"


@pytest.mark.parametrize(
    ("values", "field_"),
    [
        ({"event": "l2_lode"}, "event"),
        ({"event": "l2_load", "state": -1}, "state"),
        ({"event": "l2_load", "iotype": "readv"}, "iotype"),
        ({"event": "l2_load", "offset": -2}, "offset"),
        ({"event": "l2_load", "rate": 1.5}, "rate"),
        ({"event": "l2_load", "rate": float("nan")}, "rate"),
        ({"event": "l2_load", "errno": -5}, "errno"),
        ({"event": "l2_load", "delay_ns": -1}, "delay_ns"),
        ({"event": "l2_load", "errno": 5, "corrupt": True}, "corrupt"),
        ({"event": "l2_load", "iotype": "flush", "corrupt": True}, "corrupt"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_with_the_place_of_the_mistake(values: dict[str, object], field_: str):
    given_ = dict(values)
    parts = {name: given_.pop(name, None) for name in ("errno",)}
    parts |= {name: given_.pop(name) for name in ("delay_ns", "corrupt") if name in given_}
    with pytest.raises(InvalidArgument) as refusal:
        make_injection(at, effect=make_effect(at, **parts), **given_)  # type: ignore[arg-type]
    assert refusal.value.name == f"here.{field_}"


def test_a_state_below_zero_is_refused():
    with pytest.raises(InvalidArgument) as refusal:
        make_state_change(at, event="l2_load", new_state=-1)
    assert refusal.value.name == "here.new_state"


@pytest.mark.parametrize(
    "fault",
    [
        {"trigger": "nothing"},
        {"trigger": ""},
        {"trigger": "read", "effect": Effect(0)},
        {"trigger": "read", "times": -1},
        {"trigger": "flush", "effect": Effect(0, corrupt=True)},
    ],
)
def test_a_fault_that_cannot_be_is_refused(fault: dict[str, object]):
    with pytest.raises(InvalidArgument):
        Fault("a", **{"effect": Effect(5), **fault})  # type: ignore[arg-type]
