"""The systemd units: what they promise, and systemd's own word on them where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from deployment import DEPLOY, KNOWN_VARIABLES, UNITS, env_file, seconds, unit

WORKERS = UNITS[:2]
EXPOSED = {"farm-worker@.service": 40, "farm-cpu-worker.service": 25, "farm-beat.service": 20, "farm-serve.service": 20}
"""The most that ``systemd-analyze security`` may count, in tenths. A GPU's worker sees all devices."""

every_unit = pytest.mark.parametrize("name", UNITS)
every_worker = pytest.mark.parametrize("name", WORKERS)


@every_unit
def test_runs_confined_and_comes_back(name: str) -> None:
    found = unit(name)
    one = {key.partition(".")[2]: values[-1] for key, values in found.items() if key.startswith("Service.")}
    assert (one["User"], one["Group"], one["NoNewPrivileges"]) == ("farm", "farm", "yes")
    assert (one["ProtectSystem"], one["ProtectHome"], one["PrivateTmp"]) == ("strict", "yes", "yes")
    assert one["CapabilityBoundingSet"] == one["AmbientCapabilities"] == ""
    assert (one["Restart"], one["UMask"]) == ("always", "0077")
    assert one["EnvironmentFile"] == "/etc/farm/farm.env"
    assert found["Unit.StartLimitBurst"] and found["Install.WantedBy"] == ["multi-user.target"]


@every_unit
def test_writes_in_its_own_state_alone(name: str) -> None:
    found = unit(name)
    state = found["Service.StateDirectory"][0].split()[0]
    assert found["Service.Environment"][0].split()[0] == f"FARM_HOME=/var/lib/{state}"
    assert found["Service.WorkingDirectory"] == [f"/var/lib/{state}"]
    locks = ["-/run/lock/farm-gpus"] if "@" in name else []
    assert found.get("Service.ReadWritePaths", []) == locks, "where a GPU is claimed (farm.hosts.claims)"


@every_worker
def test_only_the_worker_is_told_to_stop_and_has_the_time_to(name: str) -> None:
    found = unit(name)
    assert found["Service.KillMode"] == ["mixed"], "SIGTERM for build children would end what is to be drained"
    assert found["Service.KillSignal"] == ["SIGTERM"]
    drain = float(env_file(DEPLOY / "systemd" / "farm.env.example")["FARM_DRAIN_SECONDS"])
    assert float(found["Service.TimeoutStopSec"][0]) >= drain + 10
    assert found["Service.OOMPolicy"] == ["continue"]


@every_worker
def test_temporary_files_have_room(name: str) -> None:
    """An engine that is fetched or stored may pass through one, and /tmp may be memory."""
    found = unit(name)
    state, temporary = found["Service.StateDirectory"][0].split()
    assert temporary == f"{state}/tmp"
    assert found["Service.Environment"][0].split()[1] == f"TMPDIR=/var/lib/{temporary}"


@every_worker
def test_what_build_children_need_is_granted(name: str) -> None:
    found = unit(name)
    assert set(found["Service.RestrictNamespaces"][0].split()) == {"user", "net"}
    assert "Service.MemoryDenyWriteExecute" not in found and "Service.ProtectProc" not in found
    calls = " ".join(found.get("Service.SystemCallFilter", []))
    assert not calls or ("@system-service" in calls and "landlock_restrict_self" in calls)


def test_one_instance_for_one_gpu() -> None:
    found = unit("farm-worker@.service")
    assert found["Service.ExecStart"] == ["/opt/farm/bin/farm worker --gpu %i"]
    assert "Service.PrivateDevices" not in found
    assert unit("farm-cpu-worker.service")["Service.PrivateDevices"] == ["yes"]


def test_the_environment_is_what_farm_reads_and_holds_no_secret() -> None:
    example = env_file(DEPLOY / "systemd" / "farm.env.example")
    assert {name for name in example if name.startswith("FARM_")} <= KNOWN_VARIABLES
    for name in ("FARM_DATABASE_URL", "FARM_BROKER_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert "CHANGE-ME" in example[name]


@every_unit
def test_systemd_reads_it(name: str, tmp_path: Path) -> None:
    """``systemd-analyze verify``, on a copy whose programs are there: they are not, on the machine of a test."""
    analyze = required_analyze()
    text = (DEPLOY / "systemd" / name).read_text("utf-8")
    copy = tmp_path / name.replace("@.", "@0.")
    copy.write_text(re.sub(r"(?m)^(Exec\w+=[-+]*)/\S+", r"\1/bin/true", text))
    done = subprocess.run([analyze, "verify", "--man=no", copy], capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if copy.name in line or "farm-" in line]
    assert not complaints and done.returncode == 0, done.stderr


@every_unit
def test_systemd_counts_little_exposure(name: str) -> None:
    analyze = required_analyze()
    command = [analyze, "security", "--offline=yes", f"--threshold={EXPOSED[name]}", DEPLOY / "systemd" / name]
    done = subprocess.run(command, capture_output=True, text=True)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd cannot look at a unit that is not installed")
    assert done.returncode == 0, done.stdout[-2000:]


def required_analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("no systemd-analyze")
    return found


def test_durations_are_understood() -> None:
    assert seconds("1m30s") == 90 and seconds("45s") == 45
