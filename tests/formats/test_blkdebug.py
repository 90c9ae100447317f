"""The text of a blkdebug configuration: what QEMU reads we read, and every mistake names its line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.base.errors import InvalidArgument
from blockyard.node.core.injection import USUAL, Effect, Injection, StateChange
from blockyard.node.formats.blkdebug import MAX_TEXT, parse

TEXT = """\
# comments and empty lines are nothing

[set-state]
event = "read_aio"
state = "1"
new_state = "0x2"

[inject-error "with a name"]
  event = "l2_update"     # and a comment behind it
  errno = "28"
  sector = "3"
  once = "on"
  immediately = "yes"
  iotype = "write"

[inject-error]
event = "none"
delay_ns = "1000"
errno = "0"
rate = "0.5"
"""


def fields(rule: Injection | StateChange) -> tuple[object, ...]:
    if isinstance(rule, StateChange):
        return rule.event, rule.state, rule.new_state
    return rule.event, rule.effect, rule.state, rule.requests, rule.offset, rule.once, rule.rate


def test_a_text_becomes_rules_with_injections_first():
    assert [fields(rule) for rule in parse(TEXT)] == [
        ("l2_update", Effect(28, immediately=True), 0, frozenset({"write"}), 3 * 512, True, 1.0),
        ("none", Effect(0, 1000), 0, USUAL, None, False, 0.5),
        ("read_aio", 1, 2),
    ]


def test_nothing_is_a_text_without_rules():
    assert parse("") == parse("\n# nothing\n") == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('event = "l2_load"', "line 1: expected a section"),
        ("[inject-error]\nevent = l2_load", "line 2: expected [section] or key"),
        ("[inject-error]\n\nevnt = 'x'", "line 3"),
        ('[inject-error]\nevnt = "x"', "line 2: expected one of event, state"),
        ('[inject-error]\nevent = "l2_lode"', "line 2, event: expected one of l1_update"),
        ("\n[inject-errors]", "line 2: expected [inject-error] or [set-state]"),
        ("\n[inject-error]", "line 2, event"),
        ('[inject-error]\nevent = "none"\nerrno = "EIO"', "line 3, errno: expected a number"),
        ('[inject-error]\nevent = "none"\nonce = "maybe"', "line 3, once: expected on or off"),
        ('[inject-error]\nevent = "none"\nsector = "-2"', "line 3, sector: expected -1"),
        ('[inject-error]\nevent = "none"\nsector = "1"\noffset = "1"', "line 3, sector: expected sector or offset"),
        ('[inject-error]\nevent = "none"\nevent = "none"', "line 3: expected event once"),
        ('[inject-error]\nevent = "none"\nrate = "often"', "line 3, rate"),
        ('[set-state]\nevent = "none"\nnew_state = "-1"', "line 3, new_state: expected 0 or more"),
        ('[set-state]\nevent = "none"\nerrno = "1"', "line 3: expected one of event, state, new_state"),
        ("#" * (MAX_TEXT + 1), "config: expected at most"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, complaint: str):
    with pytest.raises(InvalidArgument) as refusal:
        parse(text)
    assert complaint in str(refusal.value)


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str):
    for candidate in (text, f"[inject-error]\n{text}", f'[set-state]\nevent = "{text}"'):
        try:
            parse(candidate)
        except InvalidArgument:
            continue
