"""`--set PATH=VALUE`: any field of a node definition by its name in the API.

What lives here: finding the field, reading the value by its type, saying what is known when it is not. What must
not: a list of options; the protos are the only source.
"""

from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from blockyard.base.errors import InvalidArgument, UnknownOption
from blockyard.cli.units import parse_size
from blockyard.client.definitions import option_value
from blockyard.client.words import to_number
from blockyard.v1.drivers_pb2 import GenericOptions, NodeDefinition, NodeReference

TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def apply(definition: NodeDefinition, settings: Sequence[str]) -> None:
    """Set fields. A path that is no field of the definition is looked up in its driver's options."""
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise InvalidArgument(name="--set", expected="PATH=VALUE", found=repr(setting))
        _assign(definition, path, text)


def _assign(definition: NodeDefinition, path: str, text: str) -> None:
    message: Any = definition
    names = path.split(".")
    if names[0] not in message.DESCRIPTOR.fields_by_name:
        arm = definition.WhichOneof("driver")
        message = getattr(definition, arm) if arm else definition
        if isinstance(message, GenericOptions) and len(names) == 1:
            message.options[path].CopyFrom(option_value(guessed(text)))
            return
    for depth, name in enumerate(names):
        field = message.DESCRIPTOR.fields_by_name.get(name)
        if field is None:
            raise UnknownOption(
                owner=message.DESCRIPTOR.name, option=path, known=", ".join(message.DESCRIPTOR.fields_by_name)
            )
        if depth < len(names) - 1 and field.message_type is not None and not field.is_repeated:
            message = getattr(message, name)
            continue
        _put(message, field, path, names[depth + 1 :], text)
        return


def _put(message: Any, field: FieldDescriptor, path: str, rest: list[str], text: str) -> None:
    if field.name == "labels" and len(rest) == 1:
        message.labels[rest[0]] = text
    elif rest or field.is_repeated:
        raise InvalidArgument(name=path, expected="a field that holds one value", found=f"{field.name}")
    elif field.message_type is not None:
        if field.message_type.full_name != NodeReference.DESCRIPTOR.full_name:
            known = ", ".join(field.message_type.fields_by_name)
            raise InvalidArgument(name=path, expected=f"one of its fields: {known}", found="no field")
        reference = NodeReference(none=True) if text == "none" else NodeReference(node_name=text)
        getattr(message, field.name).CopyFrom(reference)
    else:
        setattr(message, field.name, _value(field, path, text))


def _value(field: FieldDescriptor, path: str, text: str) -> Any:
    if field.enum_type is not None:
        return to_number(_Enum(field.enum_type), text, path)
    if field.type == FieldDescriptor.TYPE_BOOL:
        if text.lower() not in TRUTH:
            raise InvalidArgument(name=path, expected="true or false", found=repr(text))
        return TRUTH[text.lower()]
    if field.type in (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_INT32):
        try:
            return parse_size(text)
        except ValueError as error:
            raise InvalidArgument(name=path, expected="a whole number or a size", found=repr(text)) from error
    return text


def guessed(text: str) -> bool | int | str:
    """A value whose type is not known here: a truth value, a whole number, or text."""
    if text in ("true", "false"):
        return text == "true"
    return int(text) if text.lstrip("-").isdecimal() else text


class _Enum:
    """An enum by its descriptor, as `words` wants it."""

    def __init__(self, descriptor: Any) -> None:
        self.DESCRIPTOR = descriptor

    def keys(self) -> list[str]:
        return [value.name for value in self.DESCRIPTOR.values]
