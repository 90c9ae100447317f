"""A span starter for tests: what the request path says of itself while someone looks."""

from collections.abc import Iterator
from contextlib import contextmanager


class Spans:
    """A span starter that remembers the nesting of what it started."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._depth = 0

    @contextmanager
    def __call__(self, name: str, attributes: dict[str, str | int]) -> Iterator[None]:
        self.seen.append("  " * self._depth + name)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
