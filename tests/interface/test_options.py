"""Option values by name become a driver's options, or an error that names the option."""

from dataclasses import dataclass

import pytest

from blockyard.base.errors import InvalidArgument, MissingOption, UnknownOption
from blockyard.node.interface.describe import options_of
from blockyard.node.interface.flags import Preallocation
from blockyard.node.interface.options import options_from, required_names


@dataclass(frozen=True, slots=True)
class Options:
    filename: str
    size: int = 7
    lazy: bool | None = None
    preallocation: Preallocation = Preallocation.OFF


def test_values_become_fields_and_the_rest_has_its_defaults():
    assert options_from("driver x", Options, {"filename": "a", "lazy": True}) == Options("a", lazy=True)


def test_enums_are_given_by_value():
    options = options_from("driver x", Options, {"filename": "a", "preallocation": "full"})
    assert options.preallocation is Preallocation.FULL


def test_none_is_a_value_where_it_may_be():
    assert options_from("driver x", Options, {"filename": "a", "lazy": None}).lazy is None


def test_an_unknown_option_is_named_with_those_that_there_are():
    with pytest.raises(UnknownOption) as refusal:
        options_from("driver x", Options, {"filename": "a", "siez": 1})
    assert (refusal.value.option, refusal.value.owner) == ("siez", "driver x")
    assert "preallocation" in refusal.value.known


def test_a_missing_option_is_named():
    with pytest.raises(MissingOption) as refusal:
        options_from("driver x", Options, {})
    assert refusal.value.option == "filename"
    with pytest.raises(MissingOption):
        options_from("driver x", Options, {"filename": ""})
    assert required_names(Options) == ["filename"]


@pytest.mark.parametrize(
    "wrong",
    [{"filename": 1}, {"size": "7"}, {"size": True}, {"lazy": 1}, {"preallocation": "half"}, {"size": None}],
)
def test_a_value_of_the_wrong_kind_is_named(wrong: dict[str, object]):
    with pytest.raises(InvalidArgument) as refusal:
        options_from("driver x", Options, {"filename": "a", **wrong})
    assert refusal.value.name == next(iter(wrong))


@dataclass(frozen=True, slots=True)
class Rule:
    event: str
    rate: float = 1.0
    kinds: tuple[Preallocation, ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    rules: tuple[Rule, ...] = ()
    names: tuple[str, ...] = ()


def test_a_list_of_maps_becomes_a_tuple_of_options():
    given = {"rules": [{"event": "a", "kinds": ["off", "full"]}, {"event": "b", "rate": 1}], "names": ["x"]}
    kinds = (Preallocation.OFF, Preallocation.FULL)
    assert options_from("driver x", Rules, given) == Rules((Rule("a", kinds=kinds), Rule("b", 1.0)), ("x",))


def test_options_that_were_made_already_are_taken_as_they_are():
    made = Rules((Rule("a"),))
    assert options_from("driver x", Rules, {"rules": made.rules}) == made


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"rules": "a"}, "rules"),
        ({"rules": ["a"]}, "rules.0"),
        ({"rules": [{"event": "a"}, {"event": 1}]}, "rules.1.event"),
        ({"rules": [{"event": "a", "kinds": ["half"]}]}, "rules.0.kinds.0"),
        ({"names": [1]}, "names.0"),
        ({"names": ["x"] * 1025}, "names"),
    ],
)
def test_a_wrong_value_inside_a_list_is_named_by_its_place(given: dict[str, object], place: str):
    with pytest.raises(InvalidArgument) as refusal:
        options_from("driver x", Rules, given)
    assert refusal.value.name == place


def test_a_missing_and_an_unknown_option_inside_a_list_are_named_by_their_place():
    with pytest.raises(MissingOption) as missing:
        options_from("driver x", Rules, {"rules": [{"rate": 0.5}]})
    assert missing.value.option == "rules.0.event"
    with pytest.raises(UnknownOption) as unknown:
        options_from("driver x", Rules, {"rules": [{"evnet": "a"}]})
    assert unknown.value.option == "rules.0.evnet"


def test_a_list_of_maps_is_described_with_what_the_maps_hold():
    facts = {item.name: item for item in options_of(Rules)}
    assert list(facts) == ["rules", "rules.N.event", "rules.N.rate", "rules.N.kinds", "names"]
    assert facts["rules"].type == "list of map"
    assert facts["rules.N.event"].required
    assert facts["rules.N.kinds"].type == "list of off|metadata|falloc|full"
