"""Every driver and its message in drivers.proto say the same, field for field."""

import dataclasses
import types
from collections.abc import Iterator
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest

from blockyard.node.drivers import catalogue
from blockyard.node.interface.driver import Driver
from blockyard.v1 import drivers_pb2, node_pb2

DEFINITION = drivers_pb2.NodeDefinition.DESCRIPTOR
REFERENCE = drivers_pb2.NodeReference.DESCRIPTOR
ARMS = {field.name: field for field in DEFINITION.oneofs_by_name["driver"].fields if field.name != "generic"}
CREATE_ARMS = {
    field.name: field
    for field in node_pb2.CreateImageRequest.DESCRIPTOR.oneofs_by_name["format"].fields
    if field.name != "generic"
}
TYPES = {
    int: ("TYPE_INT64", "TYPE_INT32"),
    float: ("TYPE_DOUBLE",),
    str: ("TYPE_STRING",),
    bool: ("TYPE_BOOL",),
    bytes: ("TYPE_BYTES",),
}


def arm_of(driver: str) -> Any:
    return ARMS[driver.replace("-", "_")].message_type


def drivers() -> list[type[Driver]]:
    return [found for _, found in catalogue.all_drivers() if not isinstance(found, str)]


def wanted_type(hint: Any) -> Any:
    """What a field holds: of an optional one the other half, of a list its element."""
    if get_origin(hint) in (Union, types.UnionType):
        return next(part for part in get_args(hint) if part is not type(None))
    return get_args(hint)[0] if get_origin(hint) is tuple else hint


def options_of(message: Any, options: Any) -> Iterator[tuple[Any, Any, Any]]:
    """(field of the message, its hint, its dataclass field) of all options, those of maps in lists included."""
    hints = get_type_hints(options)
    items = {item.name: item for item in dataclasses.fields(options)}
    for field in message.fields:
        if field.message_type is not REFERENCE and field.name in items:
            yield field, hints[field.name], items[field.name]
            if field.message_type is not None:
                yield from options_of(field.message_type, wanted_type(hints[field.name]))


def test_every_driver_has_a_message_and_every_message_a_driver():
    assert set(ARMS) == {name.replace("-", "_") for name in catalogue.driver_names()}


@pytest.mark.parametrize("driver", drivers(), ids=lambda driver: driver.name)
def test_a_message_has_the_drivers_options_and_children_and_nothing_else(driver: type[Driver]):
    fields = arm_of(driver.name).fields
    children = {(field.name, field.is_repeated) for field in fields if field.message_type is REFERENCE}
    assert children == {(slot.name.replace("-", "_"), slot.many) for slot in driver.children}
    assert not any("_" in slot.name for slot in driver.children), "slots are named as QEMU names them"
    assert_same_names(arm_of(driver.name), driver.Options)


def assert_same_names(message: Any, options: Any) -> None:
    named = {field.name: field for field in message.fields if field.message_type is not REFERENCE}
    assert set(named) == {item.name for item in dataclasses.fields(options)}
    for name, hint in get_type_hints(options).items():
        if named[name].message_type is not None:
            assert_same_names(named[name].message_type, wanted_type(hint))


@pytest.mark.parametrize("driver", drivers(), ids=lambda driver: driver.name)
def test_an_options_type_is_its_fields_type(driver: type[Driver]):
    for field, hint, _ in options_of(arm_of(driver.name), driver.Options):
        wanted = wanted_type(hint)
        assert field.is_repeated == (get_origin(hint) is tuple), field.name
        if dataclasses.is_dataclass(wanted):
            assert field.message_type is not None, field.name
        elif isinstance(wanted, type) and issubclass(wanted, Enum):
            assert field.enum_type is not None, field.name
        else:
            assert field.type in {getattr(field, name) for name in TYPES[wanted]}, field.name


@pytest.mark.parametrize("driver", drivers(), ids=lambda driver: driver.name)
def test_what_is_left_out_can_be_told_from_what_is_false(driver: type[Driver]):
    for field, _, item in options_of(arm_of(driver.name), driver.Options):
        if item.default is True or item.default is None:
            assert field.has_presence, f"{driver.name}.{item.name} must be optional"


def test_an_enum_of_a_message_has_the_words_of_the_option():
    from blockyard.node.rpc.words import word_of

    for driver in drivers():
        for field, hint, _ in options_of(arm_of(driver.name), driver.Options):
            if field.enum_type is None:
                continue
            words = {word_of(field.enum_type, value.number, field.name) for value in field.enum_type.values} - {""}
            assert words == {member.value for member in wanted_type(hint)}


@pytest.mark.parametrize("name", sorted(CREATE_ARMS))
def test_a_create_message_has_only_options_that_the_driver_or_its_file_takes(name: str):
    from blockyard.node.rpc.definitions import CREATE_NAMES

    taken = {
        item.name
        for driver in (name, "file")
        for item in dataclasses.fields(catalogue.driver_class(driver).CreateOptions)  # type: ignore[attr-defined]
    }
    for field in CREATE_ARMS[name].message_type.fields:
        assert CREATE_NAMES.get(field.name, field.name) in taken


@pytest.mark.parametrize("name", sorted(CREATE_ARMS))
def test_every_create_option_can_be_said_in_the_message(name: str):
    from blockyard.node.rpc.definitions import CREATE_NAMES

    said = {CREATE_NAMES.get(field.name, field.name) for field in CREATE_ARMS[name].message_type.fields}
    driver: Any = catalogue.driver_class(name)
    assert {item.name for item in dataclasses.fields(driver.CreateOptions)} - said == {"size"}
