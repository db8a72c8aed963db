"""Each known way in, through the front door: ``farm key`` and ``farm build`` of such a file execute nothing of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hostile import ways
from hostile.forge import Archive
from hostile.ways import Case

from tests.conftest import clean_environment

SMALL = ("-t", "sm_86", "--json")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory, archives: dict[str, Archive]) -> dict[str, Case]:
    """A folder for each way in, with its file; each has a marker of its own, which whatever is executed makes."""
    folder = tmp_path_factory.mktemp("ways")
    made = {}
    for name, forge in ((name, forge) for table in ways.WAYS.values() for name, forge in table.items()):
        if name != "compiled_library_is_loaded" or ways.COMPILER is not None:
            (folder / name).mkdir()
            made[name] = Case(folder / name, folder / name / "marker", archives)
            forge(made[name])
    return made


def executed(cases: dict[str, Case]) -> list[str]:
    return [name for name, case in cases.items() if case.marker.exists()]


@pytest.mark.torch
def test_what_is_no_part_of_the_program_is_left_behind_by_a_build(farm: Any, cases: dict[str, Case]) -> None:
    """These have a key, and are built: from a sanitised copy."""
    files = [case.path for name, case in cases.items() if name in ways.LEFT_BEHIND]
    for file in files:
        done = farm.run("key", file, *SMALL)
        assert done.code == 0, done.err
    done = farm.run("build", *files, *SMALL, timeout=240)
    assert done.code == 0, done.err
    assert {answer["outcome"] for answer in done.json} <= {"built", "hit", "joined"}
    assert executed(cases) == []


@pytest.mark.torch
def test_the_others_end_in_a_line_that_says_why(farm: Any, cases: dict[str, Case]) -> None:
    """Where they have a key (names are in none), the build fails; else neither is asked for. Run beside the files."""
    others = {name: case for name, case in cases.items() if name not in ways.LEFT_BEHIND}
    keyed = dict(zip(others, keys_of([case.path for case in others.values()], farm.home), strict=True))
    assert executed(cases) == []
    refused = Counter[str]()
    for name, case in others.items():
        farm.cwd = case.folder
        built = farm.run("build", case.path.name, *SMALL)
        assert (keyed[name], built.code) in ((2, 2), (0, 1)), (name, built)
        said = built.json["error"]["message"] if built.code == 2 else built.json[0]["error"]
        assert said and "\n" not in said and "Traceback" not in built.err, (name, built)
        refused["by its key" if keyed[name] else "by its build"] += 1
    assert executed(cases) == []
    assert refused["by its key"] > 5 and refused["by its build"] > 5, refused


def keys_of(files: list[Path], home: Path) -> list[int]:
    """How ``farm key`` ends for each, one after the other in one process."""
    program = f"import json, sys; from farm.cli.run import run; codes = [run(['key', file, *{SMALL!r}]) for file in"
    program += " sys.argv[1:]]; print(json.dumps(codes))"
    command = [sys.executable, "-c", program, *map(str, files)]
    done = subprocess.run(command, env=clean_environment(home), capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    codes: list[int] = json.loads(done.stdout.splitlines()[-1])
    return codes


@pytest.mark.torch
def test_a_hostile_file_does_not_keep_others_from_the_program_that_it_feigns(
    farm: Any, cases: dict[str, Case], exported: Path
) -> None:
    """It has the honest program's recipe; its failure is its own."""
    hostile = farm.run("build", cases["parameter_name_is_code"].path, *SMALL)
    honest = farm.run("build", exported / "batch.pt2", *SMALL, timeout=240)
    assert hostile.json[0]["recipe"] == honest.json[0]["recipe"]
    assert (hostile.json[0]["outcome"], honest.json[0]["outcome"]) == ("failed", "built")


def test_a_marker_would_be_seen(cases: dict[str, Case]) -> None:
    """The payload that the files carry does what these tests look for."""
    case = next(iter(cases.values()))
    subprocess.run([sys.executable, "-c", case.code], check=True, timeout=60)
    assert case.marker.exists()
    case.marker.unlink()
