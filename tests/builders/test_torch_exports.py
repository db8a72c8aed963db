"""Programs become ONNX forms: their bindings, their dims, their numbers, and what cannot be converted.

Most run the export in this process, as importing torch costs a child seconds; a few go the whole way.
"""

from __future__ import annotations

import hashlib
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

import models  # noqa: E402 - only once torch is known to be here

from farm.builders import AttemptFailed, Cancelled, Form, Job, Limits, Watch, torch_export  # noqa: E402
from farm.builders.child import Refused  # noqa: E402
from farm.builders.notes import Notes, read_notes  # noqa: E402
from farm.builders.tensorrt import TensorRTBuilder, open_form  # noqa: E402
from farm.builds import FailureKind  # noqa: E402
from farm.toolchains import Toolchain  # noqa: E402

pytestmark = pytest.mark.torch
LIMITS = Limits(seconds=120)
Dim = torch.export.Dim
BATCH = Dim("batch", min=1, max=8)


class Quiet:
    """A channel that nobody listens to."""

    Refused = Refused

    def ready(self) -> None:
        pass

    def phase(self, name: str) -> Any:
        import contextlib

        return contextlib.nullcontext()


@pytest.fixture(autouse=True, scope="module")
def one_registry() -> Any:
    """The exporter reads its table of operators anew for every export, which takes a second: once will do here."""
    from torch.onnx._internal.exporter import _registration

    original = _registration.ONNXRegistry.from_torchlib
    made = original()
    patch = pytest.MonkeyPatch()
    patch.setattr(_registration.ONNXRegistry, "from_torchlib", lambda *given, **more: made)
    yield
    patch.undo()


def data(*shape: int) -> Any:
    return torch.randn(*shape)


def program(path: Path, model: Any, arguments: tuple[Any, ...], keywords: Any = None, dims: Any = None) -> Path:
    torch.manual_seed(0)
    exported = torch.export.export(model.eval(), arguments, keywords, dynamic_shapes=dims)
    torch.export.save(exported, path)
    return path


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., Form]:
    """Export a model's program in this process."""

    def run(model: Any, *arguments: Any, dims: Any = None, **keywords: Any) -> Form:
        saved = program(tmp_path / "model.pt2", model, arguments, keywords, dims)
        folder = tmp_path / hashlib.sha256(repr(time.monotonic()).encode()).hexdigest()[:8]
        folder.mkdir()
        torch_export.export_program(saved, folder / "model.onnx", "model.data", Quiet())  # type: ignore[arg-type]
        return open_form(folder)

    return run


def shapes(form: Form) -> dict[str, list[Any]]:
    graph = onnx.load(form.graph, load_external_data=False).graph
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }


def run_onnx(form: Form, *arguments: Any) -> list[Any]:
    """The form's outputs by ONNX's own reference evaluator."""
    from onnx.reference import ReferenceEvaluator

    feeds = {name: value.numpy() for name, value in zip(form.inputs, arguments, strict=True)}
    return list(ReferenceEvaluator(str(form.graph)).run(None, feeds))


def assert_same_numbers(form: Form, model: Any, *arguments: Any) -> None:
    with torch.no_grad():
        expected = [leaf for leaf in torch.utils._pytree.tree_leaves(model(*arguments)) if torch.is_tensor(leaf)]
    found = run_onnx(form, *arguments)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(ours), theirs, rtol=1e-4, atol=1e-5)


def test_a_shared_dim_has_one_name_that_no_argument_gave_it(export: Callable[..., Form]) -> None:
    form = export(models.Shared(), data(2, 6), data(2, 6), dims=({0: BATCH}, {0: BATCH}))
    assert (form.inputs, form.data) == (("a", "b"), None)
    found = shapes(form)
    assert [found["a"], found["b"], found[form.outputs[0]], found[form.outputs[1]]] == [
        ["d0", 6],
        ["d0", 6],
        ["d0", 6],
        [],
    ]
    for batch in (1, 5):
        assert_same_numbers(form, models.Shared(), data(batch, 6), data(batch, 6))


def test_dims_of_their_own_stay_apart(export: Callable[..., Form]) -> None:
    form = export(models.Unused(), data(2, 6), data(3, 6), dims=({0: Dim("p", min=1)}, {0: Dim("q", min=1)}))
    found = shapes(form)
    assert (found["a"][0], found["b"][0]) == ("d0", "d1")


def test_derived_dims_keep_their_relation(export: Callable[..., Form]) -> None:
    dims = ({0: BATCH}, {0: 2 * BATCH}, {0: BATCH + 1})
    form = export(models.Derived(), data(2, 6), data(4, 6), data(3, 6), dims=dims)
    found = shapes(form)
    assert [found[name][0] for name in form.inputs] == ["d0", "2*d0", "d0 + 1"]
    assert_same_numbers(form, models.Derived(), data(5, 6), data(10, 6), data(6, 6))


def test_an_unused_input_stays_a_binding(export: Callable[..., Form]) -> None:
    form = export(models.Unused(), data(2, 6), data(2, 5))
    assert form.inputs == ("a", "b")


def test_an_output_that_is_an_input_gets_a_name_of_its_own_and_the_input_keeps_its(export: Callable[..., Form]) -> None:
    form = export(models.Passed(), data(2, 6))
    assert form.inputs == ("a",)
    assert len(form.outputs) == 2 and "a" not in form.outputs
    assert_same_numbers(form, models.Passed(), data(2, 6))


def test_an_output_that_is_returned_thrice_is_three_bindings(export: Callable[..., Form]) -> None:
    form = export(models.Repeated(), data(2, 6))
    assert len(set(form.outputs)) == 3
    assert_same_numbers(form, models.Repeated(), data(2, 6))


def test_outputs_that_are_no_tensors_are_left_out_and_told_by_position(export: Callable[..., Form]) -> None:
    form = export(models.Constants(), data(2, 6))
    assert len(form.outputs) == 3
    assert read_notes(form.graph).left_out == ("2: None", "3: 3", "5: 2.5")
    assert_same_numbers(form, models.Constants(), data(2, 6))


def test_keywords_come_in_the_programs_order(export: Callable[..., Form]) -> None:
    form = export(models.Keywords(), data(2, 6), late=data(2, 6))
    assert form.inputs == ("a", "late")


def test_python_arguments_are_baked_in(export: Callable[..., Form]) -> None:
    form = export(models.PlainArguments(), data(2, 6), 3, True, data(2, 6))
    assert form.inputs == ("a", "b")
    a, b = data(2, 6), data(2, 6)
    torch.testing.assert_close(torch.from_numpy(run_onnx(form, a, b)[0]), a * 3 + b)


def test_a_structure_of_the_models_own_needs_none_of_its_packages(tmp_path: Path) -> None:
    # Saved where its types are registered, as transformers does; exported in a child where they are not.
    pytree = torch.utils._pytree
    pytree._register_namedtuple(models.Pair, serialized_type_name="models.Pair")
    torch.export.register_dataclass(models.Result, serialized_type_name="models.Result")
    path = program(tmp_path / "model.pt2", models.Structured(), (data(2, 6),))
    form = TensorRTBuilder().export(path, tmp_path, LIMITS, Watch(), {})
    assert len(form.outputs) == 3


def test_a_program_from_a_gpu_is_exported_without_one(tmp_path: Path) -> None:
    saved = program(tmp_path / "here.pt2", models.OnItsDevice(), (data(2, 6),))
    moved = tmp_path / "there.pt2"
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(moved, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith(".json"):
                content = content.replace(b'"type": "cpu", "index": null', b'"type": "cuda", "index": 0')
            target.writestr(name.replace("here/", "there/"), content)
    assert b"cuda" in zipfile.ZipFile(moved).read("there/models/model.json")
    torch_export.export_program(moved, tmp_path / "model.onnx", "model.data", Quiet())  # type: ignore[arg-type]
    assert_same_numbers(open_form(tmp_path), models.OnItsDevice(), data(2, 6))


def test_a_branch_is_converted(export: Callable[..., Form]) -> None:
    form = export(models.Branches(), data(2, 6))
    for sign in (1, -1):
        assert_same_numbers(form, models.Branches(), sign * data(2, 6).abs())


def test_attention_with_a_learned_bias_is_converted_and_gives_the_same_numbers(export: Callable[..., Form]) -> None:
    torch.manual_seed(1)
    model = models.BiasedAttention().eval()
    form = export(model, data(3, 4, 16))
    assert_same_numbers(form, model, data(3, 4, 16))


def test_weights_lie_apart_and_a_tied_one_lies_there_once(export: Callable[..., Form]) -> None:
    form = export(models.Tied(), torch.tensor([[1, 2, 3]]))
    assert form.data is not None
    assert form.graph.stat().st_size < 20_000
    once = 500 * 16 * 4
    # The head needs it transposed, which the exporter does beforehand; no third copy.
    assert once <= form.data.stat().st_size <= 2 * once + 4096


def test_two_exports_give_the_same_bytes_and_no_path_of_this_machine(
    export: Callable[..., Form], tmp_path: Path
) -> None:
    torch.manual_seed(2)
    model = models.BiasedAttention()
    forms = [export(model, data(3, 4, 16), dims=({0: BATCH},)) for _ in range(2)]
    contents = [form.graph.read_bytes() for form in forms]
    assert contents[0] == contents[1]
    assert forms[0].data is not None and forms[1].data is not None
    assert forms[0].data.read_bytes() == forms[1].data.read_bytes()
    assert str(Path(__file__).parent).encode() not in contents[0]


def test_the_name_of_an_argument_is_in_the_bindings_and_nowhere_else(export: Callable[..., Form]) -> None:
    class Renamed(torch.nn.Module):
        def forward(self, left: Any, right: Any) -> Any:
            return left + right, left.sum()

    one = export(models.Shared(), data(2, 6), data(2, 6), dims=({0: BATCH}, {0: BATCH}))
    other = export(Renamed(), data(2, 6), data(2, 6), dims=({0: BATCH}, {0: BATCH}))
    assert [shapes(one)[name] for name in one.inputs] == [shapes(other)[name] for name in other.inputs]


def test_nodes_are_traced_to_the_models_lines(export: Callable[..., Form]) -> None:
    form = export(models.BiasedAttention(), data(3, 4, 16))
    origins = set(read_notes(form.graph).nodes.values())
    assert any(origin.startswith("aten.linear.default at models.py:") for origin in origins)
    assert any("scaled_dot_product_attention" in origin for origin in origins)


def test_versions_are_recorded_as_the_metadata_has_them(export: Callable[..., Form]) -> None:
    from farm.hosts.packages import exporter_version

    assert export(models.Unused(), data(2), data(2)).exporter == exporter_version()


@pytest.mark.parametrize(("model", "names"), [(models.Remembers(), ["total"]), (models.ChangesItsInput(), ["a"])])
def test_what_a_model_changes_is_refused_not_dropped(export: Callable[..., Form], model: Any, names: list[str]) -> None:
    with pytest.raises(Refused) as caught:
        export(model, data(2, 6))
    assert (caught.value.what["what"], caught.value.what["names"]) == ("mutation", names)


def test_float64_is_noted(export: Callable[..., Form]) -> None:
    assert read_notes(export(models.Doubles(), data(2, 6)).graph).doubles
    assert not read_notes(export(models.BiasedAttention(), data(3, 4, 16)).graph).doubles


def line_of(text: str) -> str:
    """``models.py:N (forward)`` for the line of models.py that contains ``text``."""
    lines = Path(models.__file__).read_text().splitlines()
    return f"models.py:{next(number for number, line in enumerate(lines, 1) if text in line)} (forward)"


def builder_failure(path: Path, folder: Path, **more: Any) -> Any:
    with pytest.raises(AttemptFailed) as caught:
        TensorRTBuilder().export(path, folder, LIMITS, Watch(**more), {})
    return caught.value.failure


def test_what_cannot_be_converted_names_the_operator_and_the_line(tmp_path: Path) -> None:
    path = program(tmp_path / "model.pt2", models.SingularValues(), (data(3, 3),))
    told = builder_failure(path, tmp_path)
    assert told.kind is FailureKind.PERMANENT
    assert told.message.startswith(f"aten.linalg_svd.default at {line_of('linalg.svd')} cannot be converted to ONNX")


def test_a_custom_operator_is_named_with_its_line(tmp_path: Path) -> None:
    path = program(tmp_path / "model.pt2", models.Custom(), (data(3),))
    told = builder_failure(path, tmp_path)
    assert told.kind is FailureKind.PERMANENT
    assert told.message.startswith(f"farmtests.plus_one.default at {line_of('ops.farmtests')} is a custom operator")


def test_a_program_that_is_no_archive_is_permanent(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"no zip at all")
    told = builder_failure(path, tmp_path)
    assert told.kind is FailureKind.PERMANENT and "cannot be read" in told.message


def test_an_export_can_be_cancelled(tmp_path: Path) -> None:
    path = program(tmp_path / "model.pt2", models.Unused(), (data(3), data(3)))
    began = time.monotonic()
    asked = threading.Event()
    with pytest.raises(Cancelled):
        TensorRTBuilder().export(path, tmp_path, LIMITS, Watch(cancelled=lambda: asked.is_set() or asked.set()), {})  # type: ignore[func-returns-value]
    assert time.monotonic() - began < 30


def build(form: Form, rtx: Toolchain, folder: Path, **profile: Any) -> Any:
    job = Job(rtx, form, {}, ("sm_86",), (profile,) if profile else (), folder, limits=LIMITS)
    return TensorRTBuilder().build(job, Watch())


def test_an_operator_that_tensorrt_lacks_is_traced_to_the_models_line(
    export: Callable[..., Form], rtx: Toolchain, tmp_path: Path
) -> None:
    form = export(models.Spectrum(), data(2, 8))
    with pytest.raises(AttemptFailed) as caught:
        build(form, rtx, tmp_path)
    assert caught.value.failure.message == (
        f"TensorRT has no operator DFT [aten.fft_rfft.default at {line_of('fft.rfft')}]"
    )


def test_a_window_larger_than_its_picture_is_built_and_averages_the_same(
    export: Callable[..., Form], rtx: Toolchain, tmp_path: Path
) -> None:
    form = export(models.Averages(), data(1, 3, 5, 7))
    x = data(1, 3, 5, 7)
    torch.testing.assert_close(torch.from_numpy(run_onnx(form, x)[0]), x.mean((2, 3), keepdim=True))
    torch.testing.assert_close(models.Averages().all(x), x.mean((2, 3), keepdim=True))
    assert build(form, rtx, tmp_path).size > 0


def test_dropout_that_is_on_is_refused(export: Callable[..., Form], rtx: Toolchain, tmp_path: Path) -> None:
    with pytest.raises(AttemptFailed) as caught:
        build(export(models.Dropped(), data(2, 8)), rtx, tmp_path)
    assert "training mode" in caught.value.failure.message
    assert line_of("functional.dropout") in caught.value.failure.message


def test_every_kind_of_binding_reaches_the_engine(export: Callable[..., Form], rtx: Toolchain, tmp_path: Path) -> None:
    for index, (model, arguments) in enumerate(
        [
            (models.Passed(), (data(2, 6),)),
            (models.Repeated(), (data(2, 6),)),
            (models.Constants(), (data(2, 6),)),
            (models.Unused(), (data(2, 6), data(2, 5))),
        ]
    ):
        form = export(model, *arguments)
        folder = tmp_path / f"job{index}"
        folder.mkdir()
        bindings = build(form, rtx, folder).bindings
        assert tuple(binding["name"] for binding in bindings["inputs"]) == form.inputs
        assert tuple(binding["name"] for binding in bindings["outputs"]) == form.outputs


def test_a_dynamic_program_goes_the_whole_way(rtx: Toolchain, tmp_path: Path) -> None:
    path = program(tmp_path / "model.pt2", models.Shared(), (data(2, 6), data(2, 6)), dims=({0: BATCH}, {0: BATCH}))
    said: list[str] = []
    watch = Watch(report=lambda phase, progress: said.append(phase))
    form = TensorRTBuilder().export(path, tmp_path, LIMITS, watch, {})
    assert list(dict.fromkeys(said)) == ["start", "load", "export", "save"]
    sizes = ((1, 6), (2, 6), (8, 6))
    product = build(form, rtx, tmp_path, a=sizes, b=sizes)
    assert [binding["shape"] for binding in product.bindings["inputs"]] == [[-1, 6], [-1, 6]]


def test_an_onnx_program_with_weights_inside_has_them_apart_in_its_form(onnx_form: Form) -> None:
    assert read_notes(onnx_form.graph) == Notes(inputs=("x",), outputs=("y",))
    assert shapes(onnx_form)["x"][0] == "n"


@pytest.mark.parametrize("location", ["/etc/hostname", "../outside.bin", "link.bin", "pipe.bin", "absent.bin"])
def test_external_data_that_is_no_plain_file_of_the_models_own_is_refused(tmp_path: Path, location: str) -> None:
    import os

    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "outside.bin").write_bytes(bytes(64))
    (home / "link.bin").symlink_to(tmp_path / "outside.bin")
    os.mkfifo(home / "pipe.bin")
    helper, types = onnx.helper, onnx.TensorProto
    tensor = onnx.TensorProto(name="w", data_type=types.FLOAT, dims=[16], data_location=types.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    value = [helper.make_tensor_value_info(name, types.FLOAT, [16]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", value[:1], value[1:], [tensor])
    (home / "model.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    told = builder_failure(home / "model.onnx", tmp_path)
    assert told.kind is FailureKind.PERMANENT
    assert location in told.message
