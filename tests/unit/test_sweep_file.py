"""``sweep.yaml``: the flags' names, checked before anything is built, errors with their line."""

from __future__ import annotations

from pathlib import Path

import pytest

from farm.asks import GivenProfile
from farm.errors import BadInput
from farm.sweeps.file import line_of, read_sweep
from farm.sweeps.grid import Dimension

WHOLE = """\
models:
  resnet:
    path: resnet.pt2
    profiles:
      small: {min: "x:1x3x8x8", opt: {x: [2, 3, 8, 8]}, max: {x: 4x3x8x8}}
  gpt: /models/gpt.pt2
targets: [sm_86, rtx4090]
settings:
  disable-tf32: true
  workspace_size: 2G
profiles:
  small:
    - max: "y:1x8"
    - max: "y:1x16"
grid:
  optimization_level: 0..2
  tiling_optimization_level: [none, fast]
  profile: small
priority: 3
max_trials: 50
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text, "utf-8")
    return path


def test_everything_is_read(tmp_path: Path) -> None:
    spec = read_sweep(write(tmp_path, WHOLE))
    assert [model.path for model in spec.models] == [str(tmp_path / "resnet.pt2"), "/models/gpt.pt2"]
    assert spec.targets == ("sm_86", "rtx4090")
    assert spec.settings == {"disable_tf32": True, "workspace_size": 2**31}
    assert spec.grid == (
        Dimension("optimization_level", (0, 1, 2)),
        Dimension("tiling_optimization_level", ("none", "fast")),
        Dimension("profile", ("small",)),
    )
    shapes = {"x": (1, 3, 8, 8)}, {"x": (2, 3, 8, 8)}, {"x": (4, 3, 8, 8)}
    assert spec.models[0].profiles == {"small": (GivenProfile(*shapes),)}
    assert spec.profiles == {"small": (GivenProfile(max={"y": (1, 8)}), GivenProfile(max={"y": (1, 16)}))}
    assert (spec.priority, spec.max_trials) == (3, 50)


def test_models_may_be_a_list_of_paths(tmp_path: Path) -> None:
    spec = read_sweep(write(tmp_path, "models: [a.pt2, sub/b.onnx]\n"))
    assert [model.path for model in spec.models] == [str(tmp_path / "a.pt2"), str(tmp_path / "sub/b.onnx")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("models: [m.pt2\n", "sweep.yaml:2: not valid YAML"),
        ("- m.pt2\n", "is no sweep"),
        ("", "is no sweep"),
        ("models: [m.pt2]\ntarget: [sm_89]\n", "sweep.yaml:2: there is no 'target'"),
        ("models:\n  a:\n    file: m.pt2\n", "sweep.yaml:2: models.a.path is missing"),
        ("models:\n  a:\n    path: m.pt2\n    profile: {}\n", "sweep.yaml:4: there is no 'models.a.profile'"),
        ("models: [m.pt2]\ngrid:\n  optimization_level: 0..9\n", "sweep.yaml:3: optimization_level"),
        ("models: [m.pt2]\ngrid:\n  optimisation_level: 1\n", "did you mean optimization_level"),
        (
            "models: [m.pt2]\n\nsettings: {tiling_optimization_level: fastest}\n",
            "sweep.yaml:3: tiling_optimization_level",
        ),
        ("models: [m.pt2]\nprofiles:\n  big:\n    max: x:1xtwo\n", "sweep.yaml:3: "),
        ("models: [m.pt2]\nprofiles:\n  big:\n    max: {x: [1, two]}\n", "sweep.yaml:3: x: [1, 'two'] is no shape"),
        ("models: [m.pt2]\npriority: soon\n", "sweep.yaml:2: priority"),
        ("models: [m.pt2]\nmax_trials: 0\n", "sweep.yaml:2: max_trials"),
    ],
)
def test_an_error_names_its_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadInput) as error:
        read_sweep(write(tmp_path, text))
    assert says in str(error.value)
    assert error.value.exit_code == 2


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as error:
        read_sweep(tmp_path / "no.yaml")
    assert "there is no such file" in error.value.message


def test_a_yaml_file_cannot_make_objects(tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        read_sweep(write(tmp_path, "models: !!python/object/apply:os.system ['true']\n"))


def test_the_deepest_known_place_gives_the_line() -> None:
    assert line_of(WHOLE, ("models", "resnet", "profiles", "small")) == 5
    assert line_of(WHOLE, ("models", "resnet", "nothing")) == 2
    assert line_of(WHOLE, ("targets", 1)) == 7
