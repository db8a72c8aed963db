"""Why two keys differ: each part of a key, changed alone in a real ask, yields a sentence that names it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farm import keys
from farm.asks import Ask
from farm.blobs.memory import MemoryStore
from farm.cache import Miss
from farm.compilation import CompilationSettings
from farm.config import Config
from farm.db.index import SqlIndex
from farm.explain import Comparison, compare, nearest
from farm.identify import Identifier
from farm.index import KeyParts
from farm.service import Farm
from farm.targets import parse_target
from farm.toolchains import exact_toolchain
from tests.explain_support import RTX, TRT, Pairs, pairs

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

__all__ = ["pairs"]

AUTOCAST = {"enable_autocast": True, "autocast_low_precision_type": "float16"}


def only(found: Comparison) -> str:
    """The sentence, when there is just one."""
    (reason,) = found.reasons
    return reason.text


def parts_of(
    toolchain: str = RTX,
    target: str = "sm_89",
    graph: str = "g",
    weights: str = "w",
    format: str = "pt2",
    **settings: Any,
) -> KeyParts:
    """Parts of a program that is only spoken of."""
    program = keys.ProgramFacts(
        format=format,
        graph=f"sha256:{graph}",
        weights_content=lambda: f"b3:{weights}",
        weights_metadata=lambda: "sha256:m",
        constants=lambda: f"sha256:constants-of-{graph}",
        operators=frozenset({"aten.linear.default"}),
        uses_float64=True,
        match_nodes=lambda patterns: sorted(f"sha256:{pattern}" for pattern in patterns),
    )
    found = keys.compute(
        program, [], CompilationSettings(**settings), exact_toolchain(toolchain), parse_target(target).target
    )
    return KeyParts(found.key, found.recipe, found.parts, "m.pt2", target)


# -- settings --------------------------------------------------------------------------------------------------


def test_an_engine_setting_is_named_with_its_values_and_its_role() -> None:
    found = compare(parts_of(optimization_level=5), parts_of())
    assert only(found) == "optimization_level is 5 here and 3 there (an engine-invariant setting)"
    assert not found.same_key and found.same_recipe, "TensorRT-RTX builds the same engine whatever the level"


@pytest.mark.parametrize("toolchain", [RTX, TRT])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"disable_tf32": True}, "disable_tf32 is true here and false there (an engine-invariant setting)"),
        ({"max_aux_streams": 2}, "max_aux_streams is 2 here and unset there (an engine-invariant setting)"),
        ({"tiling_optimization_level": "full"}, "tiling_optimization_level is full here and none there (an engine-"),
        ({"truncate_double": True}, "truncate_double is true here and false there (a graph setting)"),
    ],
)
def test_each_setting_is_said_once(toolchain: str, settings: dict[str, Any], words: str) -> None:
    """The recipe holds most of the key's settings too: the second time is no news."""
    target = "sm_89" if toolchain == RTX else "l4"
    found = compare(parts_of(toolchain, target, **settings), parts_of(toolchain, target))
    sentences = [reason.text for reason in found.reasons if next(iter(settings)) in reason.text]
    assert len(sentences) == 1 and sentences[0].startswith(words)


def test_a_search_setting_leaves_the_key_and_says_so() -> None:
    found = compare(parts_of(workspace_size=2**30), parts_of())
    assert found.same_key and not found.same_recipe
    assert "workspace_size is 1073741824 here and 0 there" in only(found) and "not in the key" in only(found)


def test_settings_that_are_lists_name_the_field() -> None:
    target = {"toolchain": "torch_tensorrt==2.13.0", "target": "l4"}
    one = parts_of(**target, **AUTOCAST, autocast_excluded_ops={"aten.softmax.int"})
    for other in ({"aten.mul.Tensor"}, set(), {"aten.mul.Tensor", "aten.softmax.int"}):
        found = compare(one, parts_of(**target, **AUTOCAST, autocast_excluded_ops=other))
        assert "autocast_excluded_ops" in only(found) and "engine-invariant" in only(found)


# -- toolchain, target, exporter -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (("tensorrt_rtx==1.8.0.1", "sm_89"), (RTX, "sm_89"), "TensorRT's version is 1.8.0.1 here and 1.7.1.116 there"),
        ((f"{RTX}+cu12", "sm_89"), (RTX, "sm_89"), "the CUDA major version is 12 here and 13 there"),
        ((RTX, "sm_86"), (RTX, "sm_89"), "the compute capability is sm_86 here and sm_89 there"),
        ((RTX, "sm_86+sm_89"), (RTX, "sm_89"), "the compute capability is sm_86+sm_89 here and sm_89 there"),
        ((RTX, "sm_89/aarch64"), (RTX, "sm_89"), "the target's arch is aarch64 here and x86_64 there"),
        ((TRT, "l4"), (TRT, "rtx4090"), "the target's gpu is l4 here and rtx4090 there"),
    ],
)
def test_version_gpu_and_place_are_named(one: tuple[str, str], other: tuple[str, str], words: str) -> None:
    assert only(compare(parts_of(*one), parts_of(*other))) == words


def test_another_flavour_is_named_before_what_follows_from_it() -> None:
    found = compare(parts_of(TRT, "l4"), parts_of(RTX, "l4"))
    texts = [reason.text for reason in found.reasons]
    assert "the TensorRT flavour is tensorrt here and tensorrt_rtx there" in texts
    assert found.reasons[0].part == "toolchain"


def test_windows_is_named() -> None:
    texts = [reason.text for reason in compare(parts_of(target="sm_89/windows"), parts_of()).reasons]
    assert "the target's os is windows here and linux there" in texts


def test_one_portable_key_built_in_two_places() -> None:
    """The key is for all of Ampere and newer; the recipes differ by the GPU that each was asked of."""
    one, other = (parts_of(TRT, gpu, hardware_compatible=True) for gpu in ("l4", "a10"))
    found = compare(one, other)
    assert found.same_key and not found.same_recipe
    assert "it is to be built on l4 here and on a10 there (one key is for both)" in [r.text for r in found.reasons]


def test_the_exporter_is_named() -> None:
    found = compare(parts_of(), parts_of(format="onnx"))
    assert "the exporter differs: torch 2" in only(found)


# -- programs --------------------------------------------------------------------------------------------------


def test_the_same_program_under_other_names_differs_in_nothing(pairs: Pairs) -> None:
    found = pairs.compared("Renamed")
    assert found.reasons == () and found.same_key and found.same_recipe and found.distance == 0


@pytest.mark.parametrize("other", ["OtherNode", "OtherArgument", "SwappedOutputs", "OtherStructure"])
@pytest.mark.parametrize("refittable", [False, True])
def test_a_graph_is_named_and_weights_are_not(pairs: Pairs, other: str, refittable: bool) -> None:
    found = pairs.compared(other, immutable_weights=not refittable)
    assert only(found) == "the graphs differ"


def test_weights_are_named(pairs: Pairs) -> None:
    assert only(pairs.compared("OneWeight")) == "the weights differ"


def test_a_fine_tune_of_a_refittable_engine_has_its_key(pairs: Pairs) -> None:
    found = pairs.compared("OneWeight", immutable_weights=False)
    assert found.same_key and not found.same_recipe
    assert only(found) == "the weights' values differ (the key leaves them out: the engine is refittable)"


def test_constants_count_for_a_refittable_engine_too(pairs: Pairs) -> None:
    found = pairs.compared("OtherConstant", immutable_weights=False)
    assert not found.same_key and only(found).startswith("the constants differ")


def test_a_change_of_policy_is_named(pairs: Pairs) -> None:
    found = compare(pairs.parts("Base"), pairs.parts("Base", immutable_weights=False))
    texts = [reason.text for reason in found.reasons]
    assert "weights count by content here and by metadata there" in texts
    assert any("immutable_weights is true here and false there" in text for text in texts)


def test_a_profile_is_told_by_input_and_shapes(pairs: Pairs) -> None:
    shapes = {"min": {"x": (1, 8)}, "opt": {"x": (4, 8)}, "max": {"x": (8, 8)}}
    one, other = pairs.parts("Base", given=[shapes]), pairs.parts("Base")
    assert only(compare(one, other)) == ("profile 0, input 0: 1x8 … 4x8 … 8x8 here and 1x8 … 16x8 … 32x8 there")
    twice = pairs.parts("Base", given=[shapes, shapes])
    assert only(compare(twice, one)) == "2 optimisation profiles here and 1 optimisation profile there"


def test_a_range_is_told_by_the_profiles_too(pairs: Pairs) -> None:
    found = pairs.compared("OtherRange")
    assert [reason.part for reason in found.reasons] == ["graph", "profiles"]
    assert found.reasons[1].text.endswith("… 32x8 here and 1x8 … 32x8 … 64x8 there")


# -- all of it -------------------------------------------------------------------------------------------------

SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "optimization_level": st.integers(0, 5),
        "disable_tf32": st.booleans(),
        "immutable_weights": st.booleans(),
        "truncate_double": st.booleans(),
        "workspace_size": st.sampled_from([0, 2**20, 2**30]),
        "tiling_optimization_level": st.sampled_from(["none", "full"]),
        "l2_limit_for_tiling": st.sampled_from([-1, 1000]),
        "hardware_compatible": st.booleans(),
        "sparse_weights": st.booleans(),
        "max_aux_streams": st.none() | st.integers(0, 3),
    },
)
ASKS = st.builds(
    lambda place, settings, rest: parts_of(*place, **rest, **settings),
    st.sampled_from([(RTX, "sm_89"), (RTX, "sm_86+sm_89"), (TRT, "l4"), (TRT, "a10"), (f"{TRT}+cu12", "l4")]),
    SETTINGS,
    st.fixed_dictionaries(
        {"graph": st.sampled_from("gh"), "weights": st.sampled_from("vw"), "format": st.sampled_from(["pt2", "onnx"])}
    ),
)


@PATIENT
@given(ASKS, ASKS)
def test_keys_differ_exactly_where_a_reason_is_given(one: KeyParts, other: KeyParts) -> None:
    """No miss without a reason, no reason without a difference: what is said of keys and recipes is all there is."""
    found = compare(one, other)
    assert found.same_key == (not [reason for reason in found.reasons if reason.part != "recipe"])
    assert (found.same_key and found.same_recipe) or found.reasons
    assert found.reasons == () or not (found.same_key and found.same_recipe)
    assert all(reason.text and "\n" not in reason.text for reason in found.reasons)


@PATIENT
@given(ASKS, ASKS)
def test_comparing_the_other_way_round_says_the_same_of_the_other_side(one: KeyParts, other: KeyParts) -> None:
    there = {(reason.path, str(reason.mine), str(reason.theirs)) for reason in compare(one, other).reasons}
    back = {(reason.path, str(reason.theirs), str(reason.mine)) for reason in compare(other, one).reasons}
    assert there == back


@PATIENT
@given(ASKS)
def test_parts_that_were_stored_are_the_same_parts(one: KeyParts) -> None:
    """The index keeps parts as JSON: what comes back must not differ from what went in."""
    stored = KeyParts(one.key, one.recipe, json.loads(json.dumps(one.parts)), one.model, one.target)
    assert compare(one, stored).reasons == () == compare(stored, one).reasons


@PATIENT
@given(ASKS, ASKS)
def test_reasons_are_complete_under_json(one: KeyParts, other: KeyParts) -> None:
    for reason in compare(one, other).reasons:
        said: Mapping[str, Any] = json.loads(json.dumps(reason.as_json()))
        assert set(said) == {"part", "path", "text", "mine", "theirs"}
        assert said["mine"] != said["theirs"] and said["path"].startswith(said["part"])


def test_what_only_points_elsewhere_is_no_difference() -> None:
    one = parts_of()
    with_outline = KeyParts(one.key, one.recipe, {**one.parts, "outline": "sha256:o"}, one.model, one.target)
    assert compare(one, with_outline).reasons == ()


# -- the nearest -----------------------------------------------------------------------------------------------


def test_the_nearest_differ_in_least() -> None:
    mine = parts_of()
    level, target, graph = parts_of(optimization_level=5), parts_of(target="sm_86"), parts_of(graph="other")
    weights = parts_of(weights="other")
    found = nearest(mine, [graph, weights, target, mine, level, level], limit=3)
    assert [one.other for one in found] == [level, target, weights]
    assert [one.distance for one in found] == sorted(one.distance for one in found)


def test_nothing_stored_is_nothing_near() -> None:
    assert nearest(parts_of(), []) == [] == nearest(parts_of(), [parts_of()])


# -- a farm ----------------------------------------------------------------------------------------------------


class NobodyBuilds:
    """A dispatch that wakes nobody."""

    def wake(self, waiting: dict[str, int]) -> None: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


def open_farm(folder: Path, store: MemoryStore) -> Farm:
    identifier = Identifier(installed=lambda: (), local_gpu=lambda: None)
    index = SqlIndex(f"sqlite:///{folder / 'farm.db'}")
    return Farm(Config(home=folder), index, store, NobodyBuilds(), identifier, lambda: ())


def test_a_miss_is_explained_long_after_its_program_has_gone(pairs: Pairs, tmp_path: Path) -> None:
    """What a miss was made of is recorded, nodes and all: two keys alone are enough to say where they part."""
    store, names = MemoryStore(), ("Base", "OtherNode")
    models = [shutil.copy(pairs.folder / f"{name}.pt2", tmp_path / f"{name}.pt2") for name in names]
    with open_farm(tmp_path, store) as farm:
        one, other = farm.submit([Ask(str(model), "sm_89") for model in models], build=False)
    for model in models:
        Path(model).unlink()
    with open_farm(tmp_path, store) as farm:
        found = farm.explain_keys(one.identity.key[:20], other.identity.recipe)
    texts = [reason.text for reason in found.reasons]
    assert any("aten.relu.default" in text and pairs.line("Base") in text for text in texts)
    assert any("aten.sigmoid.default" in text and pairs.line("OtherNode") in text for text in texts)


def test_the_nearest_of_what_was_asked_is_compared_down_to_the_tensor(pairs: Pairs, tmp_path: Path) -> None:
    with open_farm(tmp_path, MemoryStore()) as farm:
        ask = Ask(str(pairs.folder / "Base.pt2"), "sm_89")
        farm.submit([ask, Ask(str(pairs.folder / "OtherNode.pt2"), "sm_89")], build=False)
        (found,) = farm.explain([Ask(str(pairs.folder / "OneWeight.pt2"), "sm_89")])
    assert isinstance(found.answer, Miss)
    likest, other = found.nearest
    assert likest.other.model.endswith("Base.pt2") and other.other.model.endswith("OtherNode.pt2")
    assert "weight layers.1.bias float32[8]: other values" in [reason.text for reason in likest.reasons]
