"""What a client asks to open: a node with its options and children, before any of it exists.

Pure data. The wire form is `blockyard.v1.NodeDefinition`; the `json:` form is printed here.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from blockyard.base.errors import InvalidArgument
from blockyard.node.interface.driver import Driver
from blockyard.node.interface.flags import DetectZeroes, DiscardMode
from blockyard.node.interface.options import options_from

NAME_PATTERN: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,127}")
"""QEMU's id_wellformed alphabet; 128 characters where QEMU has 31."""
AUTO_PREFIX: Final = "#"
"""First character of names that the service chooses; no client can take one."""


@dataclass(frozen=True, slots=True)
class NodeDefinition:
    """A node to open. Children are definitions, names of open nodes, or None for "explicitly none"."""

    driver: str
    node_name: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    children: "Mapping[str, NodeDefinition | str | None]" = field(default_factory=dict)
    read_only: bool = False
    auto_read_only: bool = False
    force_share: bool = False
    direct: bool = False
    no_flush: bool = False
    discard: DiscardMode = DiscardMode.UNMAP
    detect_zeroes: DetectZeroes = DetectZeroes.OFF
    labels: Mapping[str, str] = field(default_factory=dict)
    executor: str = ""
    ephemeral: bool = False
    """Under a temporary overlay, which takes the name."""
    inactive: bool = False
    """It was handed over to another process when the catalogue kept it. No client says this."""
    overlays: "NodeDefinition | None" = None
    """What an ephemeral node was asked to be when the catalogue kept it: this is its overlay, to be made anew. No
    client says this."""
    followed: "NodeDefinition | None" = None
    """What the header led to when the catalogue kept it; gives its nodes their names again. No client says this."""

    def check(self) -> None:
        """Raises InvalidArgument for common options that contradict each other."""
        if self.force_share and not (self.read_only or self.ephemeral):
            raise InvalidArgument(
                "force_share", "read_only as well: only a reader can accept a torn view", "a node for writing"
            )
        if self.ephemeral and self.read_only:
            raise InvalidArgument("ephemeral", "a node for writing", "read_only as well")
        if self.detect_zeroes is DetectZeroes.UNMAP and self.discard is not DiscardMode.UNMAP:
            raise InvalidArgument(
                "detect_zeroes", "off or on, or else discard = unmap", "unmap with discard = ignore"
            )

    @property
    def opens_read_only(self) -> bool:
        """Until a writer comes, if one may come, or until it is taken back."""
        return self.read_only or self.auto_read_only or self.inactive

    def specification(self) -> str:
        """QEMU's `json:` form, which opens the same node again."""
        return "json:" + json.dumps(self.as_dict(), sort_keys=True, default=str)

    def as_dict(self) -> dict[str, Any]:
        """The options under QEMU's names, defaults left out."""
        result: dict[str, Any] = {"driver": self.driver}
        if self.node_name and not self.node_name.startswith(AUTO_PREFIX):
            result["node-name"] = self.node_name
        flags = {
            "read-only": self.read_only,
            "auto-read-only": self.auto_read_only,
            "force-share": self.force_share,
            "ephemeral": self.ephemeral,
        }
        result.update({name: True for name, value in flags.items() if value})
        cache = {"direct": self.direct, "no-flush": self.no_flush}
        if any(cache.values()):
            result["cache"] = cache
        if self.discard is not DiscardMode.UNMAP:
            result["discard"] = self.discard.value
        if self.detect_zeroes is not DetectZeroes.OFF:
            result["detect-zeroes"] = self.detect_zeroes.value
        if self.labels:
            result["labels"] = dict(self.labels)
        if self.executor:
            result["executor"] = self.executor
        result.update({name.replace("_", "-"): value for name, value in self.options.items()})
        result.update(
            listed(
                {
                    name: child.as_dict() if isinstance(child, NodeDefinition) else child
                    for name, child in self.children.items()
                }
            )
        )
        return result


def listed(children: Mapping[str, Any]) -> dict[str, Any]:
    """Children as QEMU writes them: those of a driver that takes many are a list without gaps."""
    result: dict[str, Any] = {}
    lists: dict[str, dict[int, Any]] = {}
    for name, child in children.items():
        slot, dot, number = name.rpartition(".")
        if dot and number.isdigit():
            lists.setdefault(slot, {})[int(number)] = child
        else:
            result[name] = child
    for slot, numbered in lists.items():
        result[slot] = [numbered[at] for at in sorted(numbered)]
    return result


def check_name(name: str, field_name: str = "node_name") -> None:
    """Raises InvalidArgument for a name that a client may not choose."""
    if not NAME_PATTERN.fullmatch(name):
        raise InvalidArgument(
            field_name, "1 to 128 characters of [A-Za-z0-9._-], beginning with a letter", repr(name[:160])
        )


def driver_options(driver: type[Driver], given: Mapping[str, Any]) -> Any:
    """The driver's own options object. Raises UnknownOption, MissingOption or InvalidArgument."""
    return options_from(f"driver {driver.name}", driver.Options, given)
