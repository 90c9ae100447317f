"""Runs `blockyard` inside the test's own loop (grpc.aio knows only one) and tells how it ended."""

import asyncio
import inspect
import json
from dataclasses import dataclass
from typing import Any

import pytest

from blockyard.cli.app import build
from blockyard.cli.running import begin, explained


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Cli:
    """`await cli("node", "list")`."""

    def __init__(self, address: str, captured: pytest.CaptureFixture[bytes]) -> None:
        self.address, self._captured = address, captured

    async def __call__(self, *tokens: str) -> Ran:
        code = 0
        try:
            result, timeout = begin(build(), [*tokens, "--address", self.address])
            if inspect.iscoroutine(result):
                async with asyncio.timeout(timeout):
                    await result
        except Exception as error:
            code = explained(error)
        out, err = self._captured.readouterr()
        return Ran(code, out.decode(errors="surrogateescape"), err.decode())
