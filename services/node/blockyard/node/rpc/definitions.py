"""Definitions and option values between the wire and the graph, without a table of drivers.

The arm of `NodeDefinition.driver` that is set names the driver, `_` for `-`; its fields that are NodeReferences are
children, all others are options under the same name. A field that is left out (empty, or unset where presence is
known) is left to the driver's default. A test holds every driver and its message together.
"""

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.message import Message

from blockyard.base.errors import InvalidArgument, MissingOption, NotImplementedYet
from blockyard.node.graph.definition import NodeDefinition
from blockyard.node.graph.images import ImageOrder
from blockyard.node.interface.flags import DetectZeroes, DiscardMode
from blockyard.node.rpc.words import word_of
from blockyard.v1 import drivers_pb2, node_pb2, types_pb2

MAX_LABELS: Final = 64
MAX_LABEL_BYTES: Final = 1024
MAX_VALUE_DEPTH: Final = 32
"""Lists and maps inside each other; protobuf itself reads 100 levels of messages."""
INSERTED_BY_JOBS: Final = ("mirror_top",)
"""Filters that do nothing without the copy session behind them."""

CREATE_NAMES: Final = {"cluster_size_bytes": "cluster_size", "backing_format": "backing_fmt"}
"""Fields of create messages that say their unit or a whole word where the drivers use QEMU's names."""
_REFERENCE: Final = drivers_pb2.NodeReference.DESCRIPTOR


def definition_of(message: drivers_pb2.NodeDefinition, field: str = "definition") -> NodeDefinition:
    """What a client asks to open. Raises InvalidArgument, MissingOption or NotImplementedYet."""
    arm = message.WhichOneof("driver")
    if arm is None:
        raise MissingOption(field, "driver")
    if arm == "generic":
        driver, options, children = _generic(message.generic)
    else:
        driver = arm.replace("_", "-")
        options, children = _typed(getattr(message, arm))
    _refuse_unserved(message)
    return NodeDefinition(
        driver=driver,
        node_name=message.node_name,
        options=options,
        children=children,
        read_only=message.read_only,
        auto_read_only=message.auto_read_only,
        force_share=message.force_share,
        direct=message.cache.direct,
        no_flush=message.cache.no_flush,
        discard=DiscardMode(word_of(types_pb2.DiscardMode, message.discard, "discard") or DiscardMode.UNMAP),
        detect_zeroes=DetectZeroes(
            word_of(types_pb2.DetectZeroes, message.detect_zeroes, "detect_zeroes") or DetectZeroes.OFF
        ),
        labels=checked_labels(message.labels),
        executor=message.executor,
        ephemeral=message.ephemeral,
    )


def _refuse_unserved(message: drivers_pb2.NodeDefinition) -> None:
    if (
        message.WhichOneof("driver") in INSERTED_BY_JOBS
        or message.generic.driver.replace("-", "_") in INSERTED_BY_JOBS
    ):
        raise NotImplementedYet(
            "a job's filter as a node of its own", "start a backup or mirror: it inserts its filter"
        )


def checked_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Raises InvalidArgument for too many or too long ones."""
    if len(labels) > MAX_LABELS:
        raise InvalidArgument("labels", f"at most {MAX_LABELS}", str(len(labels)))
    for name, value in labels.items():
        if (length := len(name) + len(value)) > MAX_LABEL_BYTES:
            expected = f"name and value of at most {MAX_LABEL_BYTES} characters together"
            raise InvalidArgument(f"labels.{name[:64]}", expected, str(length))
    return dict(labels)


def _typed(message: Message) -> tuple[dict[str, Any], dict[str, NodeDefinition | str | None]]:
    options: dict[str, Any] = {}
    children: dict[str, NodeDefinition | str | None] = {}
    for field, value in message.ListFields():
        name = field.name.replace("_", "-")
        if field.message_type is _REFERENCE and field.is_repeated:
            children |= {f"{name}.{at}": reference_of(item, f"{field.name}.{at}") for at, item in enumerate(value)}
        elif field.message_type is _REFERENCE:
            children[name] = reference_of(value, field.name)
        elif field.is_repeated:
            options[field.name] = [_element(field, item) for item in value]
        else:
            options[field.name] = _element(field, value)
    return options, children


def _element(field: Any, value: Any) -> Any:
    """An option, or one of a repeated one: a word, a plain value, or a map of what is set in a message."""
    if field.enum_type is not None:
        return word_of(field.enum_type, value, field.name)
    return _typed(value)[0] if field.message_type is not None else value


def _generic(
    message: drivers_pb2.GenericOptions,
) -> tuple[str, dict[str, Any], dict[str, NodeDefinition | str | None]]:
    if not message.driver:
        raise MissingOption("generic", "driver")
    options = {name.replace("-", "_"): plain(value) for name, value in message.options.items()}
    return message.driver, options, {name: reference_of(item, name) for name, item in message.children.items()}


def reference_of(message: drivers_pb2.NodeReference, field: str) -> NodeDefinition | str | None:
    """A child: a definition, the name of an open node, or None for explicitly none."""
    kind = message.WhichOneof("reference")
    if kind == "definition":
        return definition_of(message.definition, field)
    if kind == "none":
        return None
    if not message.node_name:
        raise InvalidArgument(field, "the name of an open node, a definition, or none", "nothing")
    return message.node_name


# --- images ----------------------------------------------------------------------------------------------


def image_order(message: node_pb2.CreateImageRequest) -> ImageOrder:
    """An image to create or to measure."""
    arm = message.WhichOneof("format")
    if arm is None:
        raise MissingOption("the request", "format")
    if arm == "generic":
        driver, options, children = _generic(message.generic)
        if children:
            raise InvalidArgument("children", "none: an image is created in a file", ", ".join(children))
    else:
        driver = arm
        options, _ = _typed(getattr(message, arm))
    options = {CREATE_NAMES.get(name, name): value for name, value in options.items()}
    return ImageOrder(message.filename, driver, message.size_bytes, options, message.overwrite)


# --- values ----------------------------------------------------------------------------------------------


def plain(value: types_pb2.OptionValue) -> Any:
    """An option value as Python has it. Unset is an empty string."""
    kind = value.WhichOneof("kind")
    if kind is None:
        return ""
    if kind == "list_value":
        return [plain(item) for item in value.list_value.values]
    if kind == "map_value":
        return {name: plain(item) for name, item in value.map_value.values.items()}
    return getattr(value, kind)


def option_value(value: Any, depth: int = 0) -> types_pb2.OptionValue:
    """A Python value as the wire carries it. Raises InvalidArgument for what it cannot carry."""
    if depth > MAX_VALUE_DEPTH:
        raise InvalidArgument("option", f"at most {MAX_VALUE_DEPTH} levels", "more")
    if isinstance(value, bool):
        return types_pb2.OptionValue(bool_value=value)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise InvalidArgument("option", "an integer of 64 bits", str(value)[:64])
        return types_pb2.OptionValue(int_value=value)
    if isinstance(value, float):
        return types_pb2.OptionValue(double_value=value)
    if isinstance(value, bytes):
        return types_pb2.OptionValue(bytes_value=value)
    if isinstance(value, dict):
        values = {str(name): option_value(item, depth + 1) for name, item in value.items()}
        return types_pb2.OptionValue(map_value=types_pb2.OptionMap(values=values))
    if isinstance(value, list | tuple):
        return types_pb2.OptionValue(
            list_value=types_pb2.OptionList(values=[option_value(item, depth + 1) for item in value])
        )
    return types_pb2.OptionValue(string_value=str(value))
