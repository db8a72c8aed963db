"""Keys and recipes: what they hold, and what they leave out."""

from collections.abc import Sequence

import pytest

from farm import keys
from farm.compilation import CompilationSettings
from farm.errors import BadTarget
from farm.targets import parse_target
from farm.toolchains import Toolchain

RTX = Toolchain("tensorrt_rtx", "1.7.1.116")
TRT = Toolchain("tensorrt", "10.14.1")
TORCH_TRT = Toolchain("torch_tensorrt", "2.13.0", over="rtx1.7.1.116")


def facts(**changes: object) -> keys.ProgramFacts:
    base: dict[str, object] = {
        "format": "pt2",
        "graph": "sha256:graph",
        "weights_content": lambda: "b3:content",
        "weights_metadata": lambda: "b3:metadata",
        "constants": lambda: "sha256:constants",
        "operators": frozenset({"aten.linear.default"}),
        "uses_float64": False,
        "match_nodes": lambda patterns: tuple(f"node-for-{pattern}" for pattern in patterns),
    }
    return keys.ProgramFacts(**(base | changes))  # type: ignore[arg-type]


def keyed(
    program: keys.ProgramFacts | None = None,
    toolchain: Toolchain = RTX,
    target: str = "sm_89",
    profiles: Sequence[object] = (),
    **settings: object,
) -> keys.Keyed:
    return keys.compute(
        program or facts(), profiles, CompilationSettings(**settings), toolchain, parse_target(target).target
    )


def test_inert_settings_split_keys_but_never_recipes() -> None:
    """The specification has levels in the key; TensorRT-RTX builds one engine whatever they say."""
    levels = [keyed(optimization_level=level) for level in range(6)]
    assert len({item.key for item in levels}) == 6
    assert len({item.recipe for item in levels}) == 1
    real = [keyed(toolchain=TRT, target="l4", optimization_level=level) for level in range(6)]
    assert len({item.recipe for item in real}) == 6


def test_search_settings_split_recipes_but_never_keys() -> None:
    one, other = keyed(), keyed(workspace_size=2**30)
    assert one.key == other.key and one.recipe != other.recipe


@pytest.mark.parametrize("workflow", [{"debug": True}, {"dryrun": True}, {"pass_through_build_failures": True}])
def test_workflow_settings_are_in_neither(workflow: dict[str, object]) -> None:
    one, other = keyed(), keyed(**workflow)
    assert (one.key, one.recipe) == (other.key, other.recipe)


@pytest.mark.parametrize(
    "change",
    [
        {"program": facts(graph="sha256:other")},
        {"program": facts(weights_content=lambda: "b3:other")},
        {"toolchain": Toolchain("tensorrt_rtx", "1.7.2.1")},
        {"toolchain": Toolchain("tensorrt_rtx", "1.7.1.116", cuda=12)},
        {"target": "sm_86"},
        {"target": "sm_86+sm_89"},
        {"target": "sm_89/windows"},
        {"target": "sm_89/aarch64"},
        {"profiles": [{"0": [[1], [2], [4]]}]},
        {"disable_tf32": True},
        {"enable_weight_streaming": True},
        {"immutable_weights": False},
    ],
)
def test_whatever_changes_the_engine_splits_both(change: dict[str, object]) -> None:
    one, other = keyed(), keyed(**change)  # type: ignore[arg-type]
    assert one.key != other.key and one.recipe != other.recipe


def test_a_refittable_engine_serves_every_fine_tune() -> None:
    tuned = facts(weights_content=lambda: "b3:tuned")
    one, other = keyed(immutable_weights=False), keyed(tuned, immutable_weights=False)
    assert one.key == other.key and one.recipe != other.recipe and one.weights != other.weights


@pytest.mark.parametrize(
    ("settings", "operators"),
    [
        ({"refit_identical_engine_weights": True}, ()),
        ({"sparse_weights": True}, ()),
        ({"enable_autocast": True, "autocast_low_precision_type": "float16"}, ()),
        ({}, ("quantized_decomposed.quantize_per_tensor.default",)),
        ({}, ("QuantizeLinear",)),
    ],
)
def test_weights_that_were_read_count(settings: dict[str, object], operators: tuple[str, ...]) -> None:
    program = facts(operators=frozenset(operators))
    tuned = facts(operators=frozenset(operators), weights_content=lambda: "b3:tuned")
    one = keyed(program, immutable_weights=False, **settings)
    other = keyed(tuned, immutable_weights=False, **settings)
    assert one.key != other.key


def test_node_patterns_are_keyed_by_the_nodes_that_they_match() -> None:
    autocast = {"enable_autocast": True, "autocast_low_precision_type": "float16"}
    same = facts(match_nodes=lambda patterns: ("n1",))
    one = keyed(same, autocast_excluded_nodes={".*norm.*"}, **autocast)
    other = keyed(same, autocast_excluded_nodes={"layer_norm_[0-9]+"}, **autocast)
    none = keyed(same, **autocast)
    assert one.key == other.key != none.key


@pytest.mark.parametrize(
    "settings",
    [
        {"torch_executed_ops": {"aten.square.default"}},
        {"enable_autocast": True, "autocast_low_precision_type": "float16"},
    ],
)
def test_spellings_count_where_settings_go_by_operators(settings: dict[str, object]) -> None:
    """``square`` and ``pow`` are one operator to the graph's digest, and two in a set of operators."""
    square, power = facts(spellings=lambda: ("square here",)), facts()
    assert keyed(square, TORCH_TRT).key == keyed(power, TORCH_TRT).key
    one, other = keyed(square, TORCH_TRT, **settings), keyed(power, TORCH_TRT, **settings)
    assert one.key != other.key and one.recipe != other.recipe
    assert keys.consistent(one.key, one.recipe, one.parts)


def test_an_onnx_program_owes_nothing_to_torch() -> None:
    assert keyed(facts(format="onnx")).parts["recipe"]["exporter"] is None
    assert keyed().parts["recipe"]["exporter"] is not None


def test_a_device_bound_toolchain_wants_a_gpu() -> None:
    with pytest.raises(BadTarget, match="too vague"):
        keyed(toolchain=TRT, target="sm_89")
    portable = [keyed(toolchain=TRT, target=text, hardware_compatible=True) for text in ("sm_89", "a100")]
    assert portable[0].key == portable[1].key and portable[0].recipe != portable[1].recipe


def test_cross_compiling_for_windows_is_the_windows_target() -> None:
    keys_of = {
        keyed(target=text, enable_cross_compile_for_windows=cross).key
        for text, cross in (("sm_89/windows", False), ("sm_89", True), ("sm_89/windows", True))
    }
    assert len(keys_of) == 1
    assert keyed(target="sm_89/windows").effective.refused, "TensorRT-RTX ignores the runtime platform: not silently"


def test_truncating_doubles_matters_only_where_there_are_some() -> None:
    assert keyed(truncate_double=True).key == keyed().key
    doubles = facts(uses_float64=True)
    assert keyed(doubles, truncate_double=True).key != keyed(doubles).key


def test_differences_name_the_part() -> None:
    one, other = keyed(disable_tf32=True), keyed(target="sm_86")
    paths = {difference.path for difference in keys.differences(one.parts, other.parts)}
    assert {"settings.disable_tf32", "target.capabilities[0]"} <= paths
    assert not keys.differences(one.parts, one.parts)
    assert keys.differences({"a": 1}, {"a": True}) and keys.differences({"a": [1]}, {"a": [1, 2]})
