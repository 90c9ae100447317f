"""Options: where they come from, which wins, and what is said about wrong ones."""

from dataclasses import dataclass
from pathlib import Path

import cyclopts
import pytest

from blockyard.rpc.config import ServiceConfig, parse, run


@dataclass(frozen=True, slots=True, kw_only=True)
class YardConfig(ServiceConfig):
    """A service of the tests."""

    storage_root: tuple[str, ...] = ()
    """Where files are."""
    cache_bytes: int = 64
    """How much is kept."""


def test_defaults_hold_when_nothing_is_given() -> None:
    assert parse(YardConfig, "yard", []) == YardConfig()


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "yard.toml"
    file.write_text('cache_bytes = 1\ngrace_seconds = 1\nlog_level = "debug"\nstorage_root = ["/a", "/b"]\n')
    monkeypatch.setenv("BLOCKYARD_CACHE_BYTES", "2")
    monkeypatch.setenv("BLOCKYARD_GRACE_SECONDS", "2")
    config = parse(YardConfig, "yard", ["--config", str(file), "--grace-seconds", "3"])
    assert (config.cache_bytes, config.grace_seconds, config.log_level) == (2, 3.0, "debug")
    assert config.storage_root == ("/a", "/b")


def test_a_list_is_a_repeated_flag_or_words_in_a_variable(monkeypatch) -> None:
    given = parse(YardConfig, "yard", ["--listen", "unix:/a", "--listen", "localhost:1"])
    monkeypatch.setenv("BLOCKYARD_LISTEN", "unix:/a localhost:1")
    assert given.listen == parse(YardConfig, "yard", []).listen == ("unix:/a", "localhost:1")


def test_the_file_may_be_named_in_the_environment(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "yard.toml"
    file.write_text("cache_bytes = 5\n")
    monkeypatch.setenv("BLOCKYARD_CONFIG", str(file))
    assert parse(YardConfig, "yard", []).cache_bytes == 5


@pytest.mark.parametrize(
    ("flags", "variables", "file", "said"),
    [
        (["--cache-byte", "3"], {}, "", ["--cache-byte"]),
        (["--cache-bytes", "x"], {}, "", ["--cache-bytes"]),
        ([], {"BLOCKYARD_CACHE_BYTES": "x"}, "", ["BLOCKYARD_CACHE_BYTES", "env"]),
        ([], {}, 'cache_bytes = "x"', ["cache_bytes", "yard.toml"]),
        ([], {}, "cash = 1", ["cash", "yard.toml"]),
        ([], {}, "cash = ", ["yard.toml", "is not TOML"]),
    ],
)
def test_a_wrong_option_is_named_with_its_source(tmp_path, monkeypatch, flags, variables, file, said) -> None:
    path = tmp_path / "yard.toml"
    path.write_text(file)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises((cyclopts.CycloptsError, OSError)) as caught:
        parse(YardConfig, "yard", ["--config", str(path), *flags])
    assert all(word in str(caught.value) for word in said), str(caught.value)


def test_a_wrong_option_ends_the_program_with_status_two(capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        run(_never, YardConfig, "yard", ["--nonsense"])
    assert caught.value.code == 2
    assert "yard: Unknown option" in capsys.readouterr().err


def test_a_missing_file_is_named(capsys) -> None:
    with pytest.raises(SystemExit):
        run(_never, YardConfig, "yard", ["--config", "/nowhere/yard.toml"])
    assert "/nowhere/yard.toml" in capsys.readouterr().err


def test_help_explains_every_option(capsys) -> None:
    assert parse(YardConfig, "yard", ["--help"]) is None
    manual = capsys.readouterr().out
    for word in ("--storage-root", "Where files are.", "BLOCKYARD_CACHE_BYTES", "--grace-seconds", "[default: 64]"):
        assert word in manual


async def _never(config: YardConfig) -> None:
    raise AssertionError("options were wrong")
