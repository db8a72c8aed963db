"""``config.pbtxt``: read back by protobuf's own text format, against messages that Triton would read it into."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.errors import BadInput
from farm.pulling.triton import TYPES, Served, Tensor, ensemble_config, plan_config, renames, served

KINDS = {"string": 9, "int64": 3, "int32": 5, "message": 11, "enum": 14}
MESSAGES: dict[str, list[tuple[str, str, bool, str]]] = {
    "Shape": [("shape", "int64", True, "")],
    "Tensor": [
        ("name", "string", False, ""),
        ("data_type", "enum", False, "Type"),
        ("dims", "int64", True, ""),
        ("reshape", "message", False, "Shape"),
    ],
    "Pair": [("key", "string", False, ""), ("value", "string", False, "")],
    "Group": [("kind", "enum", False, "Kind"), ("profile", "string", True, "")],
    "Step": [
        ("model_name", "string", False, ""),
        ("model_version", "int64", False, ""),
        ("input_map", "message", True, "Pair"),
        ("output_map", "message", True, "Pair"),
    ],
    "Ensemble": [("step", "message", True, "Step")],
    "Model": [
        ("name", "string", False, ""),
        ("platform", "string", False, ""),
        ("max_batch_size", "int32", False, ""),
        ("input", "message", True, "Tensor"),
        ("output", "message", True, "Tensor"),
        ("instance_group", "message", True, "Group"),
        ("ensemble_scheduling", "message", False, "Ensemble"),
    ],
}
ENUMS = {"Type": ["TYPE_INVALID", *TYPES.values()], "Kind": ["KIND_AUTO", "KIND_GPU"]}


def model_class() -> Any:
    """The part of Triton's ModelConfig that farm writes, by its public names of fields."""
    file = descriptor_pb2.FileDescriptorProto(name="triton.proto", package="t", syntax="proto3")
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind, repeated, of) in enumerate(fields, start=1):
            made = message.field.add(name=field, number=number, type=KINDS[kind], label=3 if repeated else 1)
            if of:
                made.type_name = f".t.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Model"))


MODEL = model_class()
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
TENSORS = st.builds(
    Tensor, NAMES, st.sampled_from(sorted(TYPES)), st.lists(st.integers(-1, 512), max_size=4).map(tuple)
)
SERVED = st.builds(
    Served,
    st.lists(TENSORS, max_size=3, unique_by=lambda one: one.name).map(tuple),
    st.lists(TENSORS, min_size=1, max_size=3, unique_by=lambda one: one.name).map(tuple),
    st.integers(0, 3),
)


def read(text: str) -> Any:
    return text_format.Parse(text, MODEL())


def told(tensors: Any) -> list[tuple[str, int, list[int]]]:
    return [(one.name, one.data_type, list(one.dims)) for one in tensors]


@settings(deadline=None)
@given(NAMES, SERVED)
def test_a_plans_configuration(name: str, found: Served) -> None:
    config = read(plan_config(name, found))
    assert (config.name, config.platform, config.max_batch_size) == (name, "tensorrt_plan", 0)
    for side, tensors in ((config.input, found.inputs), (config.output, found.outputs)):
        expected = [(one.name, ENUMS["Type"].index(TYPES[one.dtype]), list(one.shape) or [1]) for one in tensors]
        assert told(side) == expected
        assert [one.HasField("reshape") for one in side] == [not one.shape for one in tensors], "scalars are reshaped"
    profiles = [profile for group in config.instance_group for profile in group.profile]
    assert profiles == ([str(n) for n in range(found.profiles)] if found.profiles > 1 else [])


@settings(deadline=None)
@given(NAMES, SERVED)
def test_an_ensemble_hands_on_under_the_askers_names(name: str, found: Served) -> None:
    names = {
        "inputs": {one.name: f"in {n}" for n, one in enumerate(found.inputs)},
        "outputs": {one.name: f"out {n}" for n, one in enumerate(found.outputs)},
    }
    config = read(ensemble_config(name, "the plan", found, names))
    (step,) = config.ensemble_scheduling.step
    assert (config.platform, step.model_name, step.model_version) == ("ensemble", "the plan", -1)
    assert [one.name for one in config.input] == list(names["inputs"].values())
    assert {pair.key: pair.value for pair in step.input_map} == names["inputs"]
    assert {pair.key: pair.value for pair in step.output_map} == names["outputs"]
    assert renames(found, names) and not renames(found, {"inputs": {}, "outputs": {}})


def test_what_triton_cannot_serve() -> None:
    with pytest.raises(BadInput, match="of type FP8"):
        plan_config("m", Served((Tensor("x", "FP8", (1,)),), ()))
    two = Served((), (Tensor("a", "FLOAT", (1,)), Tensor("b", "FLOAT", (1,))))
    with pytest.raises(BadInput, match="one name"):
        ensemble_config("m", "p", two, {"inputs": {}, "outputs": {"a": "y", "b": "y"}})
    with pytest.raises(BadInput, match="does not say"):
        served({"bindings": {"inputs": []}})
