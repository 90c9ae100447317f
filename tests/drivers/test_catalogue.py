"""The catalogue finds the drivers that are there, and every driver has a contract test."""

import ast
import sys
from pathlib import Path

import pytest

from blockyard.base.errors import DriverUnavailable, DriverUnknown
from blockyard.node.drivers import catalogue

TESTS = Path(__file__).parent


def contract_tests() -> dict[str, str]:
    """Contract tests by driver: classes with `driver = "..."` in the test files of this folder."""
    found = {}
    for path in TESTS.rglob("test_*.py"):
        for statement in ast.walk(ast.parse(path.read_text())):
            if not isinstance(statement, ast.ClassDef) or not statement.name.startswith("Test"):
                continue
            bases = {base.id for base in statement.bases if isinstance(base, ast.Name)}
            for line in statement.body:
                match line:
                    case ast.Assign(targets=[ast.Name("driver")], value=ast.Constant(str() as driver)):
                        assert any("Contract" in base for base in bases), f"{path}: {statement.name}"
                        found[driver] = f"{path.name}::{statement.name}"
    return found


def test_every_driver_has_a_contract_test():
    assert set(catalogue.driver_names()) <= set(contract_tests())


def test_every_driver_that_can_be_loaded_is_called_as_its_module():
    drivers = dict(catalogue.all_drivers())
    assert list(drivers) == sorted(drivers)
    for name, found in drivers.items():
        assert isinstance(found, str) or found.name == name


def test_the_catalogue_itself_is_no_driver():
    assert "catalogue" not in catalogue.driver_names()


@pytest.mark.parametrize("name", ["nonsense", "", "catalogue", "../file", "file.locks"])
def test_a_name_that_is_no_driver_is_refused_with_those_that_are(name: str):
    with pytest.raises(DriverUnknown) as refusal:
        catalogue.driver_class(name)
    assert "memory" in refusal.value.known


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder of drivers with one module in it, which the test writes."""
    (tmp_path / "plantation").mkdir()
    (tmp_path / "plantation" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(catalogue, "__file__", str(tmp_path / "plantation" / "catalogue.py"))
    monkeypatch.setattr(catalogue, "_PACKAGE", "plantation")
    catalogue._present.cache_clear()
    catalogue._load.cache_clear()
    yield tmp_path / "plantation"
    for module in [name for name in sys.modules if name.split(".")[0] == "plantation"]:
        del sys.modules[module]
    catalogue._present.cache_clear()
    catalogue._load.cache_clear()


def test_a_driver_whose_library_is_missing_is_disabled_alone_and_says_why(planted: Path):
    (planted / "exotic_disk.py").write_text("import no_such_library\n")
    (planted / "plain.py").write_text(
        "from blockyard.node.interface.driver import Driver\nclass Plain(Driver):\n    name = 'plain'\n"
    )
    with pytest.raises(DriverUnavailable, match="no_such_library"):
        catalogue.driver_class("exotic-disk")
    drivers = dict(catalogue.all_drivers())
    assert "no_such_library" in str(drivers["exotic-disk"])
    assert drivers["plain"].__name__ == "Plain"


def test_a_driver_may_name_what_it_needs_and_import_it_late(planted: Path):
    (planted / "late.py").write_text(
        "from blockyard.node.interface.driver import Driver\n"
        "class Late(Driver):\n    name = 'late'\n    needs = 'no_such_library'\n"
    )
    with pytest.raises(DriverUnavailable, match="no_such_library"):
        catalogue.driver_class("late")


def test_a_driver_is_not_imported_before_it_is_asked_for(planted: Path):
    (planted / "eager.py").write_text("raise SystemExit('imported too early')\n")
    assert catalogue.driver_names() == ("eager",)


def test_a_driver_from_elsewhere_can_be_added_and_forgotten():
    class Elsewhere(catalogue.driver_class("memory")):
        """A driver of someone else."""

        name = "elsewhere"

    catalogue.add_driver(Elsewhere)
    assert catalogue.driver_class("elsewhere") is Elsewhere
    assert "elsewhere" in dict(catalogue.all_drivers())
    catalogue.remove_driver("elsewhere")
    with pytest.raises(DriverUnknown):
        catalogue.driver_class("elsewhere")
