"""Messages of the API as JSON, out of a file or standard input: what is too long for options.

What must not live here: what a message means.
"""

import sys
from pathlib import Path
from typing import TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from blockyard.cli.exits import Exit
from blockyard.cli.running import CommandFailed

Read = TypeVar("Read", bound=Message)


def read(source: str, message: Read, advice: str) -> Read:
    """Fill a message from a file, or from standard input for `-`. Raises CommandFailed for what is none."""
    text = sys.stdin.read() if source == "-" else Path(source).read_text()
    try:
        return json_format.Parse(text, message)
    except json_format.ParseError as error:
        raise CommandFailed(Exit.USAGE, f"{source} is no {message.DESCRIPTOR.name}: {error}", advice) from error
