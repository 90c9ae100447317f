"""The text of a blkdebug configuration: sections of `key = "value"` lines (QEMU's util/qemu-config.c and
block/blkdebug.c). Pure.

```
[inject-error]
event = "l2_load"
errno = "5"
sector = "16"

[set-state]
event = "read_aio"
state = "1"
new_state = "2"
```

QEMU's `sector` counts 512 bytes; `offset`, `rate`, `delay_ns` and `corrupt` are ours. Every complaint names its
line.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from blockyard.base.errors import InvalidArgument
from blockyard.base.units import SECTOR
from blockyard.node.core.injection import Injection, StateChange, make_effect, make_injection, make_state_change

MAX_TEXT: Final = 64 * 1024
"""Characters: a thousand rules of usual length."""
_SECTION: Final = re.compile(r'\[\s*([^\s\]"]+)\s*(?:"[^"]*")?\s*\]\s*(?:#.*)?')
_ENTRY: Final = re.compile(r'([^\s=]+)\s*=\s*"([^"]*)"\s*(?:#.*)?')
_NUMBER: Final = re.compile(r"-?(?:0[xX][0-9a-fA-F]+|[0-9]+)")
_TRUE: Final = ("on", "yes", "true", "y")
_FALSE: Final = ("off", "no", "false", "n")


@dataclass(slots=True)
class _Section:
    name: str
    line: int
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    def where(self, name: str) -> str:
        """What an error says of the place of a key."""
        key = "sector" if name == "offset" and "sector" in self.lines else name
        return f"config, line {self.lines.get(key, self.line)}, {key}"


def parse(text: str) -> list[Injection | StateChange]:
    """The rules in QEMU's order: injections first. Raises InvalidArgument that names the line."""
    sections = _sections(text)
    return [_RULES[section.name](section) for name in _RULES for section in sections if section.name == name]


def _sections(text: str) -> list[_Section]:
    if len(text) > MAX_TEXT:
        raise InvalidArgument("config", f"at most {MAX_TEXT} characters", str(len(text)))
    found: list[_Section] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if (section := _SECTION.fullmatch(line)) is not None:
            if section[1] not in _RULES:
                raise InvalidArgument(
                    f"config, line {number}", " or ".join(f"[{name}]" for name in _RULES), line[:64]
                )
            found.append(_Section(section[1], number))
        elif (entry := _ENTRY.fullmatch(line)) is None:
            raise InvalidArgument(f"config, line {number}", '[section] or key = "value"', repr(line[:64]))
        elif not found:
            raise InvalidArgument(f"config, line {number}", "a section before the first key", repr(line[:64]))
        else:
            _enter(found[-1], number, entry[1], entry[2])
    return found


def _enter(section: _Section, number: int, key: str, value: str) -> None:
    known = _KEYS[section.name]
    if key not in known:
        raise InvalidArgument(f"config, line {number}", f"one of {', '.join(known)}", repr(key[:64]))
    if key in section.lines:
        raise InvalidArgument(f"config, line {number}", f"{key} once in a section", "a second time")
    section.lines[key] = number
    section.values[key] = known[key](f"config, line {number}, {key}", value)


def _number(where: str, value: str) -> int:
    """Decimal, or hexadecimal with 0x."""
    if _NUMBER.fullmatch(value) is None or len(value) > 24:
        raise InvalidArgument(where, "a number", repr(value[:64]))
    return int(value, 16 if "x" in value.lower() else 10)


def _chance(where: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise InvalidArgument(where, "a number from 0 to 1", repr(value[:64])) from None


def _truth(where: str, value: str) -> bool:
    if value in _TRUE or value in _FALSE:
        return value in _TRUE
    raise InvalidArgument(where, "on or off", repr(value[:64]))


def _word(where: str, value: str) -> str:
    return value


_Read = Callable[[str, str], Any]
_KEYS: Final[dict[str, dict[str, _Read]]] = {
    "inject-error": {
        "event": _word,
        "state": _number,
        "iotype": _word,
        "errno": _number,
        "sector": _number,
        "offset": _number,
        "once": _truth,
        "immediately": _truth,
        "rate": _chance,
        "delay_ns": _number,
        "corrupt": _truth,
    },
    "set-state": {"event": _word, "state": _number, "new_state": _number},
}


def _injection(section: _Section) -> Injection:
    values = {"event": "", "errno": None, **section.values}
    if "sector" in values:
        if "offset" in values:
            raise InvalidArgument(section.where("sector"), "sector or offset", "both")
        sector = values.pop("sector")
        values["offset"] = sector if sector == -1 else sector * SECTOR
    parts = {name: values.pop(name) for name in ("errno", "delay_ns", "corrupt", "immediately") if name in values}
    return make_injection(section.where, effect=make_effect(section.where, **parts), **values)


def _state_change(section: _Section) -> StateChange:
    return make_state_change(section.where, **{"event": "", **section.values})


_RULES: Final[dict[str, Callable[[_Section], Injection | StateChange]]] = {
    "inject-error": _injection,
    "set-state": _state_change,
}
