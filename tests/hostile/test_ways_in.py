"""Each known way in: that torch takes it, and that a sanitised archive does not offer it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hostile import ways
from hostile.forge import Archive
from hostile.ways import Case

from farm.errors import BadProgram
from farm.programs.sanitise import sanitise_pt2

EVERY = [(stage, name) for stage, table in ways.WAYS.items() for name in table]


@pytest.fixture
def case(tmp_path: Path, archives: dict[str, Archive]) -> Case:
    return Case(tmp_path, tmp_path / "marker", archives)


def attempt(torch_child: Any, case: Case, file: Path, stage: str) -> dict[str, Any]:
    """Let torch go as far as ``stage`` with ``file``."""
    told: dict[str, Any] = torch_child.ask(file, path=[str(case.folder)], **{stage: True})
    return told


@pytest.mark.torch
@pytest.mark.parametrize(("stage", "name"), [(stage, name) for stage, name in EVERY if stage != "dormant"])
def test_torch_executes_the_file(torch_child: Any, case: Case, stage: str, name: str) -> None:
    if name == "compiled_library_is_loaded" and ways.COMPILER is None:
        pytest.skip("no C compiler here to make a library with")
    file = ways.WAYS[stage][name](case)
    attempt(torch_child, case, file, stage)
    assert case.marker.exists()


@pytest.mark.torch
@pytest.mark.parametrize(("stage", "name"), EVERY)
def test_nothing_of_it_is_left(torch_child: Any, case: Case, stage: str, name: str) -> None:
    safe = case.folder / "safe.pt2"
    file = ways.WAYS[stage][name](case)
    if name in ways.LEFT_BEHIND:
        sanitise_pt2(file, safe)
        assert attempt(torch_child, case, safe, stage)["loaded"]
    else:
        with pytest.raises(BadProgram) as refused:
            sanitise_pt2(file, safe)
        assert "\n" not in refused.value.message
        assert refused.value.hint
        assert not safe.exists()
    assert not case.marker.exists()
