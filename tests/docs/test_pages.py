"""What the written pages name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for path in (ROOT / "docs").rglob("*.md")
    if path.name not in ("cli.md", "errors.md", "options.md", "drivers.md", "job-states.md")
)
SOURCE_ROOTS = [
    *(ROOT / "services").glob("*/blockyard"),
    ROOT / "clients/blockyard",
    ROOT / "services/node/blockyard/node",
    ROOT / "protos/blockyard/v1",
    ROOT,
]
CODE = re.compile(r"`([\w.-]+(?:/[\w.-]+)+/?)`")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def found(name: str) -> bool:
    return any((root / name).exists() or (root / f"{name}.py").exists() for root in SOURCE_ROOTS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_that_a_page_names_exists(page: Path):
    text = page.read_text()
    named = [name for name in CODE.findall(text) if re.search(r"\.(py|proto|md)$|/$|^(services|tests|docs)/", name)]
    assert [name for name in named if not found(name)] == []
    assert [link for link in LINK.findall(text) if not (page.parent / link).exists()] == []


def test_every_invariant_is_numbered_and_has_a_keeper():
    rows = [
        line for line in (ROOT / "docs/architecture.md").read_text().splitlines() if re.match(r"^\| \d+ \|", line)
    ]
    assert [int(row.split("|")[1]) for row in rows] == list(range(1, len(rows) + 1))
    for row in rows:
        keepers = CODE.findall(row.split("|")[3])
        assert keepers and all(map(found, keepers)), row


def test_every_folder_of_the_node_is_a_layer_of_the_picture():
    text = (ROOT / "docs/architecture.md").read_text()
    node = ROOT / "services/node/blockyard/node"
    layers = [path.name for path in node.iterdir() if (path / "__init__.py").exists()]
    picture = text.partition("## Layers of the node")[2].partition("## The way")[0]
    assert [name for name in layers if f'["{name}: ' not in picture] == []


def test_every_example_and_word_about_a_command_is_in_its_help():
    """docstring_parser guesses the style of a docstring, and `Examples:` with more lines than there are parameters
    looks like another one to it: then `For example:` keeps them."""
    shown = (ROOT / "docs/cli.md").read_text()
    lost = [
        f"{path.name}: {line.strip()}"
        for path in sorted((ROOT / "clients/blockyard/cli/commands").glob("*.py"))
        for line in path.read_text().splitlines()
        if line.startswith(("      blockyard ", "      echo ")) and line.strip() not in shown
    ]
    assert not lost
    assert not re.findall(r"^  [A-Z_]+ *(?:\[required\])?$", shown, re.MULTILINE), "an argument without a word"
