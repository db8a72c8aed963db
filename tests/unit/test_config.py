"""Configuration: environment over file over defaults, and errors that name where they come from."""

import io
from pathlib import Path

import pytest

from farm.config import load, parse_size
from farm.errors import BadConfig
from farm.wiring import open_farm
from farm.wiring.backends import open_store


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


@pytest.mark.parametrize("name", ["CONCURRENCY", "BUILD_MEMORY"])
@pytest.mark.parametrize("value", ["inf", "1e400", "nan", "", "lots", "-3"])
def test_sizes_that_are_none_are_refused_in_words(tmp_path: Path, name: str, value: str) -> None:
    if value == "":
        assert load({"FARM_HOME": str(tmp_path), f"FARM_{name}": value}, tmp_path).concurrency == 0
        return
    with pytest.raises(BadConfig, match=f"FARM_{name}"):
        load({"FARM_HOME": str(tmp_path), f"FARM_{name}": value}, tmp_path)


@pytest.mark.parametrize("name", ["a b", "a#b", "a?b", "a%62", "ü", "a;b"])
def test_a_home_of_any_name_keeps_its_farm_together(tmp_path: Path, name: str) -> None:
    """Database and store are URLs: what a URL takes apart must not take a home apart."""
    home = tmp_path / name
    with open_farm(load({"FARM_HOME": str(home)}, tmp_path)) as farm:
        farm.store.put(io.BytesIO(b"blob"))
    assert (home / "farm.db").is_file() and (home / "store").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("url", ["file://host/p", "file:x", "file://", "file:///a?b", "file:///a#b", "ftp://x/y"])
def test_a_store_is_an_absolute_folder(tmp_path: Path, url: str) -> None:
    with pytest.raises(BadConfig, match="FARM_STORE_URL"):
        open_store(load({"FARM_HOME": str(tmp_path), "FARM_STORE_URL": url}, tmp_path))


def test_what_is_done_with_timings_is_one_of_four(tmp_path: Path) -> None:
    assert load({"FARM_HOME": str(tmp_path), "FARM_TIMING": "strict"}, tmp_path).timing == "strict"
    with pytest.raises(BadConfig, match="FARM_TIMING"):
        load({"FARM_HOME": str(tmp_path), "FARM_TIMING": "sometimes"}, tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        *("redis://h:99999/0", "redis://h:x/0", "redis://h/zero", "amqp://u:p@h:0//", "kafka://h"),
        # Celery takes these for the name of an AMQP host, and what follows a '#' for nothing at all.
        *("redis:", "redis:14", "amqp:h", "redis://h/0#x", "redis://:pass#word@h/0"),
    ],
)
def test_what_can_be_no_brokers_address_is_said_at_once(tmp_path: Path, url: str) -> None:
    with pytest.raises(BadConfig, match="FARM_BROKER_URL") as told:
        load({"FARM_HOME": str(tmp_path), "FARM_BROKER_URL": url}, tmp_path)
    assert "u:p" not in str(told.value)


@pytest.mark.parametrize(
    ("url", "option"),
    [
        ("redis://:p@h/0?foo=bar", "foo=bar"),
        ("redis://h/0?socket_timeout=5", "socket_timeout=5"),
        ("redis://h/0?virtual_host=3", "virtual_host=3"),
        ("rediss://h/0?ssl_cert_reqs=sometimes", "ssl_cert_reqs=sometimes"),
        ("amqp://u:p@h//?heartbeat=soon", "heartbeat=soon"),
        ("amqps://u:p@h//?ssl_ca_certs=/ca.pem", "ssl_ca_certs=/ca.pem"),
        ("amqp://a;amqp://b?x=1", "x=1"),
    ],
)
def test_what_a_broker_cannot_be_asked_is_said_at_once(tmp_path: Path, url: str, option: str) -> None:
    """Kombu would take it for an argument of its own, and fail once the first build is queued."""
    with pytest.raises(BadConfig, match="FARM_BROKER_URL") as told:
        load({"FARM_HOME": str(tmp_path), "FARM_BROKER_URL": url}, tmp_path)
    assert f"'{option}'" in told.value.message and "ssl_cert_reqs" in told.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "amqp://u:p@h//?heartbeat=30",
        "redis://:p@h:6379/",
        "rediss://h/3?ssl_cert_reqs=none",
        "amqp://u:p@h//",
        "amqp://a;amqp://b:1//",
    ],
)
def test_addresses_of_brokers(tmp_path: Path, url: str) -> None:
    assert load({"FARM_HOME": str(tmp_path), "FARM_BROKER_URL": url}, tmp_path).broker_url == url
