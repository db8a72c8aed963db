"""Where models come from: scripts in children that end with their parent's patience, URLs, folders that do not stay."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from farm.errors import BadProgram, BuildFailed, Unavailable
from farm.prebuilding.sources import model_sources, shown_url
from farm.prebuilds.entries import Model, Source


def script(tmp_path: Path, text: str) -> Model:
    path = tmp_path / "export.py"
    path.write_text(text)
    return Model("m", Source(script=f"{path}:make"))


def test_a_file_that_a_script_names_is_kept_until_the_end(tmp_path: Path) -> None:
    (tmp_path / "given.onnx").write_bytes(b"a model")
    model = script(tmp_path, "print('noise')\ndef make():\n    return 'given.onnx'\n")
    with model_sources(tmp_path / "scratch", tell=lambda text: None) as sources:
        made = Path(sources.get(model))
        assert made.name == "m.onnx" and made.read_bytes() == b"a model"
    assert not made.exists() and not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def make():\n    raise ValueError('no weights')\n", "ValueError: no weights"),
        ("import nothing_of_that_name\n", "No module named 'nothing_of_that_name'"),
        ("make = 3\n", "has no function make"),
        ("def make():\n    return 3\n", "the function returned int"),
        ("import os\ndef make():\n    os._exit(3)\n", "ended with status 3"),
        ("def make():\n    return 'nothing.pt2'\n", "No such file"),
    ],
)
def test_a_script_that_makes_none(tmp_path: Path, text: str, told: str) -> None:
    with (
        model_sources(tmp_path / "scratch", tell=lambda text: None) as sources,
        pytest.raises(BuildFailed) as caught,
    ):
        sources.get(script(tmp_path, text))
    assert told in caught.value.message and "\n" not in caught.value.message


def test_a_script_that_takes_too_long_ends_with_all_that_it_started(tmp_path: Path) -> None:
    text = (
        "import subprocess, time\n"
        "def make():\n"
        "    child = subprocess.Popen(['sleep', '600'])\n"
        f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "    time.sleep(600)\n"
    )
    started = time.monotonic()
    with (
        model_sources(tmp_path / "scratch", lambda: 3.0, lambda text: None) as sources,
        pytest.raises(BuildFailed, match="took more than 3 s"),
    ):
        sources.get(script(tmp_path, text))
    assert time.monotonic() - started < 60
    pid = tmp_path / "pid"
    assert not pid.exists() or not psutil.pid_exists(int(pid.read_text())) or _is_dead(int(pid.read_text()))


def _is_dead(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_what_those_left_who_were_killed_goes(tmp_path: Path) -> None:
    left = tmp_path / "scratch" / "models-999999999-abc"
    left.mkdir(parents=True)
    with model_sources(tmp_path / "scratch", tell=lambda text: None):
        assert not left.exists()


def test_files_and_urls_that_are_not_there(tmp_path: Path) -> None:
    with model_sources(tmp_path / "scratch", tell=lambda text: None) as sources:
        with pytest.raises(BadProgram, match="no such file"):
            sources.get(Model("m", Source(path=str(tmp_path / "none.pt2"))))
        with pytest.raises(Unavailable, match="cannot be fetched"):
            sources.get(Model("m", Source(url="http://127.0.0.1:1/m.onnx")))


def test_secrets_in_urls_are_not_repeated() -> None:
    assert shown_url("https://user:word@host:8443/m.onnx?token=x#y") == "https://host:8443/m.onnx"
