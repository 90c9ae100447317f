"""`--set PATH=VALUE`: any field of a node definition by its name in the API; lists by number, as in QEMU.

What lives here: finding the field, reading the value by its type, saying what is known when it is not. What must
not: a list of options; the protos are the only source.
"""

from collections.abc import Sequence
from typing import Any, NoReturn

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


def add_children(definition: NodeDefinition, names: Sequence[str]) -> None:
    """Open nodes as the children of a driver that takes any number."""
    arm = definition.WhichOneof("driver")
    message: Any = getattr(definition, arm) if arm else definition
    field = message.DESCRIPTOR.fields_by_name.get("children")
    if field is None or not field.is_repeated or field.message_type.full_name != NodeReference.DESCRIPTOR.full_name:
        raise InvalidArgument(name="--child", expected="a driver that takes any number of children", found=f"{arm}")
    message.children.extend(NodeReference(node_name=name) for name in names)


def _assign(definition: NodeDefinition, path: str, text: str) -> None:
    message: Any = definition
    names = path.split(".")
    arm = definition.WhichOneof("driver")
    own = message.DESCRIPTOR.fields_by_name.get(names[0])
    # `file` is a child of the driver at hand, not the driver of that name.
    if own is None or (own.containing_oneof is not None and own.name != arm):
        message = getattr(definition, arm) if arm else definition
        if isinstance(message, GenericOptions) and len(names) == 1:
            message.options[path].CopyFrom(option_value(guessed(text)))
            return
    _into(message, names, path, text)


def _into(message: Any, names: list[str], path: str, text: str) -> None:
    """Follow a path from a message down to the field that holds the value."""
    name, *rest = names
    field = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        raise UnknownOption(
            owner=message.DESCRIPTOR.name, option=path, known=", ".join(message.DESCRIPTOR.fields_by_name)
        )
    if field.is_repeated and not _is_map(field):
        _item(getattr(message, name), field, path, rest, text)
    elif rest and field.message_type is not None and not _is_map(field):
        _into(getattr(message, name), rest, path, text)
    else:
        _put(message, field, path, rest, text)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _item(items: Any, field: FieldDescriptor, path: str, rest: list[str], text: str) -> None:
    """One of a list of messages, by its number (`inject_error.0.event`), or a whole list of plain values."""
    if field.message_type is None:
        if rest:
            raise InvalidArgument(name=path, expected=f"{field.name}=VALUE,VALUE", found="a number in the path")
        del items[:]
        items.extend(_value(field, path, part) for part in text.split(","))
        return
    if not rest or not rest[0].isdecimal() or int(rest[0]) > len(items):
        raise InvalidArgument(
            name=path, expected=f"{field.name}.N with N from 0 to {len(items)}", found=".".join(rest) or "none"
        )
    item = items[int(rest[0])] if int(rest[0]) < len(items) else items.add()
    if len(rest) > 1:
        _into(item, rest[1:], path, text)
    elif field.message_type.full_name == NodeReference.DESCRIPTOR.full_name:
        item.CopyFrom(_reference(text))
    else:
        _refuse_whole(field, path)


def _reference(text: str) -> NodeReference:
    return NodeReference(none=True) if text == "none" else NodeReference(node_name=text)


def _refuse_whole(field: FieldDescriptor, path: str) -> NoReturn:
    known = ", ".join(field.message_type.fields_by_name) if field.message_type else ""
    raise InvalidArgument(name=path, expected=f"one of its fields: {known}", found="no field")


def _put(message: Any, field: FieldDescriptor, path: str, rest: list[str], text: str) -> None:
    if field.name == "labels" and len(rest) == 1:
        message.labels[rest[0]] = text
    elif rest or field.is_repeated:
        raise InvalidArgument(name=path, expected="a field that holds one value", found=f"{field.name}")
    elif field.message_type is not None:
        if field.message_type.full_name != NodeReference.DESCRIPTOR.full_name:
            _refuse_whole(field, path)
        getattr(message, field.name).CopyFrom(_reference(text))
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
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        try:
            return float(text)
        except ValueError as error:
            raise InvalidArgument(name=path, expected="a number", found=repr(text)) from error
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
