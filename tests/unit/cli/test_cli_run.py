"""Errors become two lines and an exit code, in one place; and every command is there, with ``--json``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from farm.cli.app import app_for
from farm.cli.run import run
from farm.errors import BadInput, CorruptBlob, FarmError, Missing, Unavailable

COMMANDS = ["build", "cancel", "db", "demo", "doctor", "explain", "gc", "key", "keygen", "logs", "ls", "measure"]
COMMANDS += ["migrate", "nodes", "pin", "prebuild", "promote", "pull", "reconcile", "refit", "retry", "serve"]
COMMANDS += ["settings", "show", "stats", "sweep", "timing", "token", "unpin", "verify", "worker"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("FARM_DATABASE_URL", "FARM_STORE_URL", "FARM_BROKER_URL", "FARM_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def raising(error: BaseException) -> Any:
    def command(*args: object, **kwargs: object) -> None:
        raise error

    return command


def test_every_command_of_the_interface_is_there_and_takes_json() -> None:
    group = typer.main.get_command(app_for())
    assert sorted(group.commands) == COMMANDS  # type: ignore[attr-defined]
    leaves = [command for command in group.commands.values() if not hasattr(command, "commands")]  # type: ignore[attr-defined]
    leaves += [leaf for name in ("sweep", "db", "timing") for leaf in group.commands[name].commands.values()]  # type: ignore[attr-defined]
    for leaf in leaves:
        assert any("--json" in parameter.opts for parameter in leaf.params), leaf.name


def test_sweep_has_its_own_commands() -> None:
    group = typer.main.get_command(app_for()).commands["sweep"]  # type: ignore[attr-defined]
    assert {"ls", "show", "status", "retry", "cancel"} <= set(group.commands)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FarmError("it failed", "do this"), 1),
        (CorruptBlob("it failed", "do this"), 1),
        (BadInput("it failed", "do this"), 2),
        (Missing("it failed", "do this"), 3),
        (Unavailable("it failed", "do this"), 4),
    ],
)
def test_an_error_is_two_lines_on_stderr_and_its_exit_code(
    error: FarmError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("farm.cli.run._invoke", raising(error))
    assert run(["ls"]) == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", "farm: it failed\n      do this\n")


def test_with_json_the_error_is_a_document_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("farm.cli.run._invoke", raising(Missing("not there")))
    assert run(["pull", "k", "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document == {"error": {"type": "Missing", "message": "not there", "hint": None, "exit_code": 3}}


def test_a_defect_is_said_to_be_one_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("farm.cli.run._invoke", raising(ZeroDivisionError("by\nzero")))
    assert run(["ls"]) == 1
    err = capsys.readouterr().err
    assert "a defect of farm's own: ZeroDivisionError: by zero" in err and "--debug" in err
    assert "Traceback" not in err and len(err.splitlines()) == 2


@pytest.mark.parametrize("where", [["--debug", "ls"], ["ls", "--debug"]])
def test_debug_lets_it_through_wherever_it_stands(where: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farm.cli.run._invoke", raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        run(where)


def test_an_interrupt_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farm.cli.run._invoke", raising(KeyboardInterrupt()))
    assert run(["ls"]) == 130


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bild"], "Did you mean 'build'"),
        (["build"], "missing argument 'MODEL'"),
        (["build", "m.pt2", "--fast"], "no such option: --fast"),
        (["ls", "engine"], "engine"),
        (["ls", "builds", "--limit", "0"], "--limit"),
        (["ls", "--state", "failed"], "--state goes with builds"),
        (["ls", "builds", "--state", "done"], "'done' is no state of a build"),
        (["build", "m.pt2", "--no-build", "--force"], "--no-build goes with neither"),
        (["build", "m.pt2", "-s", "optimization_level=9"], "optimization_level = '9'"),
        (["build", "m.pt2", "-s", "optimisation_level=1"], "did you mean optimization_level"),
        (["build", "m.pt2", "-t", "sm_88"], "sm_88"),
        (["build", "no.pt2", "-t", "sm_89"], "no.pt2"),
        (["build", "m.pt2", "--custom-op", "ns::op"], "declares nothing"),
        (["build", "m.pt2", "--min-shapes", "x:1", "--max-shapes", "x:1", "--max-shapes", "x:2"], "differ"),
        (["build", "m.pt2", "--max-shapes", "x:1xtwo"], "1xtwo"),
        (["sweep"], "a sweep needs a model"),
        (["sweep", "m.pt2", "--search", "annealing"], "no such search"),
        (["sweep", "m.pt2", "-g", "optimization_level"], "no dimension"),
        (["sweep", "m.pt2", "-t", "sm_89", "-g", "profile=big"], "has no profile 'big'"),
        (["sweep", "m.pt2", "--report", "no/such/folder/r.html"], "there is no folder"),
        (["sweep", "-c", "no.yaml"], "there is no such file"),
        (["sweep", "show", "sxyz"], "no sweep starts with 'sxyz'"),
        (["explain", "abc"], "exactly two keys"),
        (["explain", "abc", "def"], "starts with 'abc'"),
        (["show", "zzz"], "nothing starts with 'zzz'"),
        (["logs", "bzzz"], "no build starts with 'bzzz'"),
        (["cancel", "zzz"], "no build or sweep starts with 'zzz'"),
        (["retry", ""], "give the build's id"),
        (["settings", "optimization_levle"], "did you mean optimization_level"),
    ],
)
def test_bad_input_is_exit_2_and_says_what_is_wrong(
    arguments: list[str], says: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert says.lower() in err.lower() and out == "" and len(err.splitlines()) <= 2


def test_an_empty_farm_says_what_to_do(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for thing in ("engines", "builds", "programs", "nodes", "sweeps"):
        assert run(["ls", thing]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 1
        assert run(["ls", thing, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == []


def test_what_is_not_there_to_pull_is_exit_3(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pull", "abcdef", "-o", "out"]) == 3
    assert "no engine's key, recipe or digest starts with 'abcdef'" in capsys.readouterr().err
    assert not (home / "out").exists()


def test_a_bad_model_among_good_ones_starts_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "text.onnx").write_text("no model")
    assert run(["build", "text.onnx", "no.pt2", "-t", "sm_89"]) == 2
    capsys.readouterr()
    run(["ls", "builds", "--json"])
    assert json.loads(capsys.readouterr().out) == []


def test_the_settings_are_all_listed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from farm.compilation import FIELDS

    assert run(["settings", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [item["name"] for item in listed] == list(FIELDS)
    assert {"type", "default", "role", "builders"} <= set(listed[0])
    assert run(["settings"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("  ") and line.split()[0] in FIELDS for line in lines if line.strip()) == len(FIELDS)
    assert run(["settings", "optimization-level"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("optimization_level\n") and "engine" in told and "inert below 2" in told


def test_the_database_is_checked_and_upgraded(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["db", "check"]) == 1
    assert "farm db upgrade" in capsys.readouterr().out
    assert run(["db", "upgrade", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"upgraded": True}
    assert run(["db", "check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"up_to_date": True}


MODEL = str(Path(__file__).parents[2] / "vectors" / "gemm.pt2")
HEAVY = {"torch", "tensorrt", "tensorrt_rtx", "celery", "kombu", "alembic", "jinja2", "onnx", "numpy", "pynvml", "yaml"}


@pytest.mark.parametrize("arguments", [["--help"], ["ls"], ["build", "--help"], ["key", MODEL, "-t", "sm_89"]])
def test_nothing_heavy_is_imported_to_look(arguments: list[str], home: Path) -> None:
    subprocess.run([sys.executable, "-m", "farm", "ls"], check=True, capture_output=True)
    assert HEAVY & imported(arguments) == set()


NOT_FOR_A_KEY = {
    *(f"farm.{name}" for name in ("builders", "explain", "measurements", "measuring", "outlines", "pulling")),
    *("farm.cli.nodes", "farm.cli.sweep", "farm.hosts.probe", "farm.prebuilds", "farm.remaking", "farm.trust"),
    *("psutil", "httpx", "structlog", "cryptography", "fastapi", "sqlalchemy.orm", "rich.markdown"),
}


def test_a_key_imports_what_a_key_needs(home: Path) -> None:
    """What start-up costs grows by a module at a time; one that a key does need may raise the number."""
    subprocess.run([sys.executable, "-m", "farm", "ls"], check=True, capture_output=True)
    modules = imported(["key", MODEL, "-t", "sm_89"])
    assert NOT_FOR_A_KEY & modules == set()
    assert len([name for name in modules if name.partition(".")[0] == "farm"]) <= 113


def imported(arguments: list[str]) -> set[str]:
    """The modules that ``farm`` has imported once it has run ``arguments``."""
    code = f"import sys; from farm.cli.run import run; run({arguments!r}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stderr.split())


def test_a_reader_that_leaves_early_is_no_error(home: Path) -> None:
    command = f"set -o pipefail; {sys.executable} -m farm settings --json | head -c 10 > /dev/null"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_process_without_its_streams_works_all_the_same(tmp_path: Path, closed: str) -> None:
    """Cron and daemons start programs so; what is said must not land in a file of farm's own."""
    env = {**os.environ, "FARM_HOME": str(tmp_path / "home")}
    command = f"{sys.executable} -m farm ls --json {closed}"
    done = subprocess.run(["sh", "-c", command], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ("" if ">&-" in closed.replace("2>&-", "") else "[]")
    assert not done.stderr


def test_a_full_device_is_said_and_not_traced(tmp_path: Path) -> None:
    env = {**os.environ, "FARM_HOME": str(tmp_path / "home")}
    command = f"{sys.executable} -m farm settings > /dev/full"
    done = subprocess.run(["sh", "-c", command], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "No space left" in done.stderr
