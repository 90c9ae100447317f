"""The rules of the house that a linter does not know."""

import ast
import configparser
import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter.application import use_cases
from importlinter.cli import configuration

from blockyard.node.drivers.catalogue import driver_names
from docs import generate

ROOT = Path(__file__).resolve().parents[2]
SOURCE_ROOTS = ("services", "clients", "protos/python", "tests", "docs")
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 70

WIRE_ALLOWED = re.compile(
    r"services/[a-z]+/blockyard/[a-z]+/(rpc/|app\.py$)"
    r"|services/common/blockyard/rpc/"
    r"|services/jobs/blockyard/jobs/node/remote\.py$"
    r"|services/stats/blockyard/stats/collect/"
    r"|clients/"
)
"""Where a generated module may be named. An `app` names them only to add servicers to a server."""

REGISTRIES = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("files", "python" + "hosted", "org"),
        ("registry", "npmjs", "org"),
        ("proxy", "golang", "org"),
        ("index", "crates", "io"),
        ("rubygems", "org"),
    )
]
"""Hosts of package registries; spelled apart so that this file does not name them."""


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git work tree")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def sources() -> list[Path]:
    found = [path for root in SOURCE_ROOTS for path in (ROOT / root).rglob("*.py")]
    return sorted(path for path in found if "protos/python" not in str(path))


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_the_namespace_has_no_init_file() -> None:
    stray = [path for root in SOURCE_ROOTS for path in (ROOT / root).glob("**/blockyard/__init__.py")]
    assert not stray, "the namespace blockyard spans several roots; an __init__.py would hide all but one"


def test_no_file_is_longer_than_the_hard_limit() -> None:
    lengths = {relative(path): path.read_text().count("\n") for path in sources()}
    assert not {name: lines for name, lines in lengths.items() if lines > MAX_FILE_LINES}


def test_no_function_is_longer_than_the_hard_limit() -> None:
    # Counted from its first statement: the signature of a command is its table of options.
    long = [
        f"{relative(path)}:{node.lineno} {node.name}"
        for path in sources()
        for node in functions(parsed(path))
        if node.end_lineno and node.end_lineno - node.body[0].lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert not long


def test_every_module_of_the_product_says_what_it_is() -> None:
    silent = [
        relative(path)
        for path in sources()
        if relative(path).startswith(("services", "clients")) and not ast.get_docstring(parsed(path))
    ]
    assert not silent


def test_everything_public_in_the_contract_is_documented() -> None:
    silent = [
        f"{relative(path)}:{node.lineno} {node.name}"
        for folder in ("services/common/blockyard/base", "services/node/blockyard/node/interface")
        for path in sorted((ROOT / folder).glob("*.py"))
        for node in parsed(path).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert not silent


def test_generated_messages_are_named_only_where_the_wire_ends() -> None:
    naming = [
        relative(path)
        for path in sources()
        if relative(path).startswith(("services", "clients"))
        and re.search(r"\b\w+_pb2\b|_pb2_grpc\b", path.read_text())
    ]
    # A module docstring may speak of them.
    importing = [name for name in naming if re.search(r"^\s*(from|import) .*_pb2", (ROOT / name).read_text(), re.M)]
    assert not [name for name in importing if not WIRE_ALLOWED.match(name)]


def test_no_tracked_file_names_a_package_registry() -> None:
    naming = [
        f"{relative(path)}: {host}"
        for path in tracked()
        for host in REGISTRIES
        if host.encode() in path.read_bytes()
    ]
    assert not naming


def test_the_layers_hold() -> None:
    configuration.configure()
    assert use_cases.lint_imports(config_filename=str(ROOT / ".importlinter"), cache_dir=None) == use_cases.SUCCESS


def test_the_contracts_name_every_driver() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / ".importlinter")
    for section, key in (("drivers", "modules"), ("catalogue", "forbidden_modules")):
        listed = config[f"importlinter:contract:{section}"][key].split()
        expected = [f"blockyard.node.drivers.{name.replace('-', '_')}" for name in driver_names()]
        assert listed == expected


@pytest.mark.parametrize("name", generate.PAGES)
def test_a_page_that_is_made_from_the_code_is_fresh(name: str) -> None:
    assert name not in generate.stale(), f"docs/{name} is stale; run `make docs`"
