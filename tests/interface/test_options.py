"""Option values by name become a driver's options, or an error that names the option."""

from dataclasses import dataclass

import pytest

from blockyard.base.errors import InvalidArgument, MissingOption, UnknownOption
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
