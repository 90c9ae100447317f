"""A job's record as text and its options as plain values, and back.

What lives here: the directions and nothing else; tests hold them to be inverse for every kind.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from functools import cache
from typing import Any, get_args, get_type_hints

from blockyard.jobs.kinds import catalogue
from blockyard.jobs.kinds.base import Kind
from blockyard.jobs.store.port import JobRecord, OptionValue, Step


def record_text(record: JobRecord) -> str:
    """JSON, without what is as it is by default."""
    values = {
        name: value
        for name, default in _defaults().items()
        if (value := getattr(record, name)) != default or default is dataclasses.MISSING
    }
    values["history"] = [dataclasses.astuple(step) for step in record.history]
    return json.dumps(values, default=dict)


def read_record(text: str) -> JobRecord:
    """What a later version wrote besides is left out."""
    values = json.loads(text)
    known = {name: values[name] for name in _defaults() if name in values}
    known["history"] = tuple(Step(*step) for step in values.get("history", ()))
    return JobRecord(**known)


@cache
def _defaults() -> Mapping[str, Any]:
    return {
        item.name: item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default
        for item in fields(JobRecord)
    }


def plain_options(kind: Kind) -> dict[str, OptionValue]:
    """Enumerations become their names."""
    values = {item.name: getattr(kind.options, item.name) for item in fields(kind.Options)}
    return {name: str(value) if isinstance(value, StrEnum) else value for name, value in values.items()}


def kind_of(name: str, options: Mapping[str, OptionValue]) -> Kind:
    found = catalogue()[name]
    enums = {option: enum_of(hint) for option, hint in get_type_hints(found.Options).items()}
    given: dict[str, Any] = {}
    for option, value in options.items():
        enum = enums[option]
        given[option] = enum(str(value)) if enum and value is not None else value
    return found(found.Options(**given))


def enum_of(hint: Any) -> type[StrEnum] | None:
    """The enumeration in an annotation `E` or `E | None`."""
    for candidate in (hint, *get_args(hint)):
        if isinstance(candidate, type) and issubclass(candidate, StrEnum):
            return candidate
    return None
