"""Configuration: environment over file over defaults, and errors that name where they come from."""

from pathlib import Path

import pytest

from farm.config import load, parse_size
from farm.errors import BadConfig


def test_defaults_need_nothing(tmp_path: Path) -> None:
    config = load({"FARM_HOME": str(tmp_path)}, tmp_path)
    assert config.embedded
    assert config.database == f"sqlite:///{tmp_path}/farm.db"
    assert config.store == f"file://{tmp_path}/store"
    assert config.workers >= 1


def test_environment_over_file_over_home_file(tmp_path: Path) -> None:
    home, cwd = tmp_path / "home", tmp_path / "cwd"
    home.mkdir(), cwd.mkdir()
    (home / "farm.toml").write_text('concurrency = 3\nnamespace = "pr"\ntargets = ["sm_86"]')
    (cwd / "farm.toml").write_text("concurrency = 5")
    config = load({"FARM_HOME": str(home), "FARM_TARGETS": "sm_89,l4"}, cwd)
    assert (config.concurrency, config.namespace, config.targets) == (5, "pr", ("sm_89", "l4"))


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("concurency = 3", "unknown key 'concurency'"),
        ("concurrency = ", "not valid TOML"),
        ('concurrency = "many"', "concurrency is 'many'"),
        ("concurrency = -1", "negative"),
        ("build_timeout = 0", "more than 0"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path: Path, toml: str, says: str) -> None:
    (tmp_path / "farm.toml").write_text(toml)
    with pytest.raises(BadConfig, match=says):
        load({"FARM_HOME": str(tmp_path)}, tmp_path)


def test_a_lease_outlives_a_few_beats(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="three times"):
        load({"FARM_HOME": str(tmp_path), "FARM_LEASE_SECONDS": "1", "FARM_BEAT_SECONDS": "0.9"}, tmp_path)


@pytest.mark.parametrize(("text", "size"), [("5", 5), ("4K", 4096), ("2GiB", 2**31), ("1.5M", 3 * 2**19), ("7b", 7)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size
