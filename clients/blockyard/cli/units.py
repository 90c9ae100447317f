"""Sizes, rates and times as people write and read them.

Sizes are binary: 64K is 65536, 10G is 10 GiB; `KiB`, `kb`, `B` are accepted and mean the same. What is printed
with three digits is for people only; JSON carries bytes.
"""

import re
from typing import Final

PREFIXES: Final = "KMGTPE"
MAX_SIZE: Final = 2**63 - 1
_SIZE: Final = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<prefix>[kmgtpe]?)(?:i?b)?", re.IGNORECASE)
_TIME: Final = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>ms|s|m|h)?")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0}


def parse_size(text: str) -> int:
    """Bytes of `4096`, `64K`, `1.5G`, `10GiB`. ValueError says what is wrong."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"{text!r} is no size; write bytes, or a number with K, M, G, T, P or E (binary): 64K, 1.5G"
        )
    factor = 1024 ** (PREFIXES.find(match["prefix"].upper()) + 1) if match["prefix"] else 1
    size = _scaled(match["number"], factor)
    if size is None:
        raise ValueError(f"{text!r} is no whole number of bytes")
    if size > MAX_SIZE:
        raise ValueError(f"{text!r} is more than the largest size, 2^63 - 1 bytes")
    return size


def _scaled(number: str, factor: int) -> int | None:
    # Exact: a float would lose the low bits of large sizes.
    whole, _, fraction = number.partition(".")
    size, rest = divmod(int(whole + fraction) * factor, 10 ** len(fraction))
    return None if rest else size


def parse_time(text: str) -> float:
    """Seconds of `30`, `1.5s`, `200ms`, `5m`, `1h`."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no time; write seconds, or a number with ms, s, m or h")
    return float(match["number"]) * _SECONDS[match["unit"]]


def parse_count(text: str) -> int:
    """A number of things: `500`, `20k`, `1.5M`; prefixes are decimal here. ValueError says what is wrong."""
    match = re.fullmatch(r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<prefix>[kmg]?)", text.strip(), re.IGNORECASE)
    factor = 1000 ** (" kmg".index(match["prefix"].lower()) if match and match["prefix"] else 0)
    number = _scaled(match["number"], factor) if match else None
    if number is None:
        raise ValueError(f"{text!r} is no number; write 500, or a number with k, M or G (decimal): 20k")
    return number


def size(value: int) -> str:
    """Bytes in three digits: 0 B, 512 B, 64 KiB, 1.5 GiB."""
    if abs(value) < 1024:
        return f"{value} B"
    power = 1
    while abs(value) / 1024**power >= 999.5 and power < len(PREFIXES):
        power += 1
    scaled = abs(value) / 1024**power
    text = f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return f"{'-' if value < 0 else ''}{text} {PREFIXES[power - 1]}iB"


def rate(bytes_per_second: float) -> str:
    """Bytes per second in three digits."""
    return f"{size(round(bytes_per_second))}/s"


def clock_time(seconds: float) -> str:
    """A long time: 0:07, 12:34, 1:02:03."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def short_time(nanoseconds: float) -> str:
    """A latency in three digits: 850 ns, 12.3 us, 1.25 ms, 3.4 s."""
    value, unit = nanoseconds, "ns"
    for unit in ("ns", "us", "ms", "s"):
        if value < 999.5 or unit == "s":
            break
        value /= 1000
    digits = 0 if unit == "ns" or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {unit}"


def count(value: float) -> str:
    """A number of things: 999, 12,345."""
    return f"{value:,.0f}"
