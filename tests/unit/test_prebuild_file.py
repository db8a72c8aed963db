"""``farm.yaml``: what it may say, what it comes to, and errors under their line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.asks import GivenProfile
from farm.errors import BadInput, FarmError
from farm.prebuilds.entries import Axis, Entry, Model, PrebuildSpec, Selector, Source, entries
from farm.prebuilds.manifest import Manifest, ManifestModel, read_manifest, schema
from farm.settings.table import FIELDS

WHOLE = """\
models:
  resnet:
    path: models/resnet.pt2
    profiles: {small: {max: "x:2x3"}}
  gpt:
    script: tools/export.py:gpt
    sources: tools/*.py
    settings: exact
    targets: [l4]
    matrix: {}
  embedder:
    url: https://example.com/e.onnx
    sha256: abababababababababababababababababababababababababababababababab
    shapes: [{max: {x: [4, 3]}}, {max: {x: 8x3}}]
    settings: {inherits: exact, truncate-double: true}
    matrix: {optimization_level: 3..4}
targets: [sm_86, sm_89]
toolchain: tensorrt_rtx==1.7.1.116
settings: {workspace_size: 1G}
settings_profiles:
  exact: {disable_tf32: true}
  exacter: {inherits: [exact], workspace_size: 2G, optimization_level: 5}
profiles: {small: {max: "x:4x3"}, large: {min: "x:1x3", opt: "x:8x3", max: "x:16x3"}}
matrix: {profile: [small, large], settings: [exact, exacter]}
exclude: [{model: resnet, target: sm_86, profile: large}]
best_effort: [{settings: exacter}, {model: "embed*"}]
pins: release
priority: 3
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "farm.yaml"
    path.write_text(text, "utf-8")
    return path


@pytest.fixture
def whole(tmp_path: Path) -> PrebuildSpec:
    return read_manifest(write(tmp_path, WHOLE))


def of(spec: PrebuildSpec, model: str) -> list[Entry]:
    return [entry for entry in entries(spec) if entry.model.name == model]


def test_where_models_come_from(whole: PrebuildSpec, tmp_path: Path) -> None:
    assert [(model.name, model.line) for model in whole.models] == [("resnet", 2), ("gpt", 5), ("embedder", 11)]
    resnet, gpt, embedder = (model.source for model in whole.models)
    assert resnet == Source(path=str(tmp_path / "models/resnet.pt2"))
    assert gpt == Source(script=f"{tmp_path}/tools/export.py:gpt", sources=("tools/*.py",))
    assert embedder == Source(url="https://example.com/e.onnx", sha256="ab" * 32)
    assert (whole.pins, whole.priority) == (("release",), 3)


def test_a_matrix_has_an_entry_for_each_cell_that_is_not_excluded(whole: PrebuildSpec) -> None:
    assert [(entry.target, entry.variant) for entry in of(whole, "resnet")] == [
        ("sm_86", "small,exact"),
        ("sm_86", "small,exacter"),
        ("sm_89", "small,exact"),
        ("sm_89", "small,exacter"),
        ("sm_89", "large,exact"),
        ("sm_89", "large,exacter"),
    ]
    assert [entry.required for entry in of(whole, "resnet")] == [True, False] * 3
    assert [(entry.target, entry.variant) for entry in of(whole, "gpt")] == [("l4", "")]
    assert [entry.variant for entry in of(whole, "embedder")] == ["optimization_level=3", "optimization_level=4"] * 2
    assert not any(entry.required for entry in of(whole, "embedder"))


def test_settings_are_taken_each_over_the_one_before(whole: PrebuildSpec) -> None:
    exact, exacter = of(whole, "resnet")[:2]
    assert exact.settings == {"workspace_size": 2**30, "disable_tf32": True}
    assert exacter.settings == {"workspace_size": 2**31, "disable_tf32": True, "optimization_level": 5}
    assert of(whole, "gpt")[0].settings == exact.settings
    first, second = of(whole, "embedder")[:2]
    assert first.settings["truncate_double"] is True and first.settings["disable_tf32"] is True
    assert (first.settings["optimization_level"], second.settings["optimization_level"]) == (3, 4)


def test_shapes_are_a_models_own_or_a_variants(whole: PrebuildSpec) -> None:
    small, large = of(whole, "resnet")[2], of(whole, "resnet")[4]
    assert small.profiles == (GivenProfile(max={"x": (2, 3)}),), "the model's own goes before the manifest's"
    assert large.profiles == (GivenProfile({"x": (1, 3)}, {"x": (8, 3)}, {"x": (16, 3)}),)
    assert [profile.max for profile in of(whole, "embedder")[0].profiles] == [{"x": (4, 3)}, {"x": (8, 3)}]


def test_the_toolchain_is_for_targets_that_name_none(tmp_path: Path) -> None:
    text = "models: {a: a.pt2}\ntargets: [sm_86, 'l4@tensorrt==10.14.1']\ntoolchain: tensorrt_rtx==1.8.0.1\n"
    asks = [entry.ask("a.pt2") for entry in entries(read_manifest(write(tmp_path, text)))]
    assert [ask.target for ask in asks] == ["sm_86@tensorrt_rtx==1.8.0.1", "l4@tensorrt==10.14.1"]


def test_targets_may_be_the_configured_ones(tmp_path: Path) -> None:
    spec = read_manifest(write(tmp_path, "models: {a: a.pt2}\n"))
    assert [entry.target for entry in entries(spec, ["sm_89"])] == ["sm_89"]
    with pytest.raises(BadInput, match="no targets are named"):
        entries(spec)


LINE = "models:\n  a: {path: a.pt2}\ntargets: [sm_86]\n"


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("models: {}\n", 1, "models"),
        ("targets: [sm_86]\n", 1, "models is missing"),
        ("models: [a.pt2]\n", 1, "valid dictionary"),
        ("models:\n  a: {}\n", 2, "the model comes from nowhere"),
        ("models:\n  a:\n    path: a\n    url: http://b\n", 2, "comes from several places"),
        ("models:\n  a:\n    path: a\n    pth: b\n", 4, "there is no 'models.a.pth' in a manifest"),
        ("models:\n  a: {url: 'file:///etc/passwd'}\n", 2, "no http or https URL"),
        ("models:\n  a: {path: a, sha256: " + "ab" * 32 + "}\n", 2, "sha256 goes with url"),
        ("models:\n  a: {url: 'http://b', sha256: abc}\n", 2, "sha256"),
        ("models:\n  a: {script: export.py}\n", 2, "names no function"),
        ("models:\n  'a b': a.pt2\n", 2, "is no name"),
        ("models:\n  ../a: a.pt2\n", 2, "is no name"),
        ("models:\n  a: a.pt2\n  b: b.pt2\n  a: c.pt2\n", 4, "'a' is there twice"),
        (LINE + "tragets: [sm_89]\n", 4, "there is no 'tragets' in a manifest"),
        (LINE.replace("sm_86", "sm_999"), 3, "no compute capability known"),
        (LINE.replace("sm_86", "local"), 3, "another target on every machine"),
        (LINE + "toolchain: cuda\n", 4, "is no toolchain"),
        (LINE + "settings:\n  disable_tf32: maybe\n", 4, "disable_tf32"),
        (LINE + "settings: exact\n", 4, "there is no settings profile 'exact'"),
        (LINE + "settings_profiles:\n  a: {inherits: b}\n  b: {inherits: a}\n", 4, "a → b → a"),
        (LINE + "settings_profiles:\n  a: {inherits: 3}\n", 5, "names settings profiles"),
        (LINE + "settings_profiles:\n  a: {}\n  b: {no_such: 1}\n", 6, "no setting 'no_such'"),
        (LINE + "profiles:\n  a: {max: 'x:?'}\n", 5, "is not a shape"),
        (LINE + "profiles:\n  a: {mux: 'x:1'}\n", 5, "there is no 'profiles.a.mux'"),
        (LINE + "matrix:\n  profile: [large]\n", 2, "a has no profile 'large'"),
        (LINE + "matrix:\n  settings: [large]\n", 2, "a has no settings profile 'large'"),
        (LINE + "matrix:\n  target: [sm_89]\n", 5, "not the target"),
        (LINE + "matrix:\n  optimization_level: 5..3\n", 5, "the range is empty"),
        (LINE + "matrix:\n  optimization_level: 0\n  optimization-level: 1\n", 4, "is given twice"),
        (LINE + "exclude:\n  - {model: b}\n", 5, "nothing is meant by model: b"),
        (LINE + "best_effort:\n  - {profile: large}\n", 5, "nothing is meant by profile: large"),
        (LINE + "exclude:\n  - {}\n", 5, "means everything"),
        (LINE + "priority: high\n", 4, "priority"),
        (LINE + "pins: [a b]\n", 4, "is no name"),
        ("models: [\n", 2, "not valid YAML"),
    ],
)
def test_errors_stand_under_their_line(tmp_path: Path, text: str, line: int, told: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(BadInput) as caught:
        entries(read_manifest(path))
    assert caught.value.message.startswith(f"{path}:{line}: ") and told in caught.value.message
    assert "\n" not in caught.value.message


def test_too_much_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, LINE + "matrix: {workspace_size: 1..9999, optimization_level: 0..5}\n")
    with pytest.raises(BadInput, match="a has 59,994 entries"):
        entries(read_manifest(path))


def test_the_schema_is_the_grammar() -> None:
    found = schema()
    assert json.loads(json.dumps(found)) == found
    assert set(found["properties"]) == set(Manifest.model_fields) and found["additionalProperties"] is False
    assert set(found["$defs"]["ManifestModel"]["properties"]) == set(ManifestModel.model_fields)
    assert set(found["$defs"]["Settings"]["properties"]) == {*FIELDS, "inherits"}
    assert {"$ref": "#/$defs/Settings"} in found["properties"]["settings"]["anyOf"]
    assert found["required"] == ["models"]


# -- properties --------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c", "ab"])
AXES = st.lists(
    st.sampled_from(
        [
            Axis("profile", ("small", "large")),
            Axis("settings", ("fast", "exact")),
            Axis("optimization_level", (1, 2, 3)),
            Axis("disable_tf32", (False, True)),
        ]
    ),
    unique_by=lambda axis: axis.name,
    max_size=3,
)
SELECTORS = st.lists(
    st.builds(
        Selector,
        st.dictionaries(
            st.sampled_from(["model", "target", "profile", "optimization_level"]),
            st.lists(st.sampled_from(["a", "a*", "sm_86", "small", 1, 2, True]), min_size=1, max_size=2).map(tuple),
            min_size=1,
            max_size=2,
        ),
    ),
    max_size=2,
)


@settings(deadline=None)
@given(st.lists(NAMES, unique=True, min_size=1), st.lists(st.sampled_from(["sm_86", "sm_89", "l4"]), unique=True), AXES,
       SELECTORS, SELECTORS)  # fmt: skip
def test_entries_are_the_product_less_what_is_excluded(
    names: list[str], targets: list[str], axes: list[Axis], exclude: list[Selector], best: list[Selector]
) -> None:
    known: dict[str, Any] = {"fast": {}, "exact": {}}
    spec = PrebuildSpec(
        "farm.yaml",
        tuple(Model(name, Source(path="m.pt2"), matrix=tuple(axes)) for name in names),
        tuple(targets),
        settings_profiles=known,
        profiles={"small": (), "large": ()},
        exclude=tuple(exclude),
        best_effort=tuple(best),
    )
    try:
        found = entries(spec)
    except FarmError:
        return
    assert len({entry.name for entry in found}) == len(found), "no two entries share a lock line"
    assert entries(spec) == found
    every = len(names) * len(targets)
    for axis in axes:
        every *= len(axis.values)
    assert len(found) <= every and (exclude or len(found) == every)
    assert best or all(entry.required for entry in found)
