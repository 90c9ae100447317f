"""Every dependency stands on its page with a reason, and no other does."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WANTED = {
    "At run time": PROJECT["project"]["dependencies"],
    "To develop": PROJECT["dependency-groups"]["dev"],
}


def named(section: str) -> list[str]:
    page = (ROOT / "docs/design/dependencies.md").read_text()
    part = page.partition(f"## {section}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w.-]+)` \| (.+) \| (.+) \|$", part, re.MULTILINE)
    return [name for name, why, considered in rows if why and considered]


@pytest.mark.parametrize("section", WANTED)
def test_every_dependency_has_its_row_and_every_row_its_dependency(section: str):
    packages = [re.match(r"[\w.-]+", requirement)[0] for requirement in WANTED[section]]  # type: ignore[index]
    assert sorted(named(section)) == sorted(packages)
