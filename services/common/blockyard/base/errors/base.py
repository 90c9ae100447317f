"""What an error is: a stable reason, a canonical code, a message and advice over typed fields; and the families.

Must not hold a concrete error.
"""

import dataclasses
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import ClassVar, Final, Self

DOMAIN: Final = "blockyard"


class Code(StrEnum):
    """The canonical codes of google.rpc.Code that we use."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"
    DATA_LOSS = "DATA_LOSS"
    CANCELLED = "CANCELLED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    UNAUTHENTICATED = "UNAUTHENTICATED"


CATALOGUE: Final[dict[str, type["BlockError"]]] = {}
"""Every concrete error by its reason, in order of definition."""


@dataclass(eq=False)
class BlockError(Exception):
    """Base of all. Concrete classes set `reason`, `code`, `template` and `advice`.

    `template` and `advice` are formatted with the fields of the instance.
    """

    reason: ClassVar[str] = ""
    code: ClassVar[Code] = Code.INTERNAL
    template: ClassVar[str] = ""
    advice: ClassVar[str] = ""
    retryable: ClassVar[bool] = False
    field: ClassVar[str] = ""
    """Name of the request field at fault, for google.rpc.BadRequest; may be formatted with the fields."""

    trace_id: str = dataclasses.field(default="", init=False, repr=False)
    """The trace to look for in the logs, if the error came over the wire with one. No part of the catalogue."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "reason" in cls.__dict__:
            assert cls.reason not in CATALOGUE, cls.reason
            CATALOGUE[cls.reason] = cls

    def __str__(self) -> str:
        return self.template.format(**self.values())

    @property
    def hint(self) -> str:
        """What to do about it, in one sentence."""
        return self.advice.format(**self.values())

    @property
    def bad_field(self) -> str:
        return self.field.format(**self.values())

    def values(self) -> dict[str, object]:
        return {item.name: getattr(self, item.name) for item in fields(self) if item.init}

    def canonical(self) -> Code:
        """The code on the wire: the class's own, but for an error that only stands for a foreign one."""
        return self.code

    def metadata(self) -> dict[str, str]:
        """The fields as ErrorInfo carries them."""
        return {name: str(value) for name, value in self.values().items()}

    @classmethod
    def from_metadata(cls, metadata: dict[str, str]) -> Self:
        """The same error on the other side of the wire. Unknown keys are dropped, missing ones are empty."""
        known = [item for item in fields(cls) if item.init]
        return cls(**{item.name: _parse(item.type, metadata.get(item.name, "")) for item in known})


def _parse(annotation: object, text: str) -> object:
    if annotation in (int, "int"):
        return int(text) if text.lstrip("-").isdigit() else 0
    return text


class RequestError(BlockError):
    """The caller asked for something that cannot be."""


class StateError(BlockError):
    """It could be, but not in the present state."""


class ImageError(BlockError):
    """The bytes of an image are not what they must be."""


class StorageError(BlockError):
    """The world below refused."""


class JobError(BlockError):
    """A job's verb, options or life."""
