"""Real architectures build from ``.pt2``; the plain path (``torch.onnx.export``, then the parser) is counted beside it.

A few run always; all of them with ``-m slow``. ``tools/architectures.py`` prints the same as a table.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from architectures import ALL, BY_NAME, Architecture, exported  # noqa: E402 - only once torch is known to be here

from farm.builders import AttemptFailed, Form, Job, Limits, Watch  # noqa: E402
from farm.builders.tensorrt import TensorRTBuilder  # noqa: E402
from farm.builds import FailureKind  # noqa: E402
from farm.errors import BadProgram  # noqa: E402
from farm.programs.sanitise import sanitise_pt2  # noqa: E402
from farm.toolchains import Toolchain  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.timeout(900)]
LIMITS = Limits(seconds=300)
CANNOT = {
    "fnet": ("aten.fft_fftn.default", "modeling_fnet.py:"),
    "mixtral": ("transformers.grouped_mm_fallback.default", "moe.py:"),
}
"""Architectures that no engine can hold: the operator, and the file of its line."""
PLAIN_FAILS = {"t5-encoder", "t5", "swin"}  # at the conversion; efficientnet's fails later, in TensorRT's parser
QUICK = [architecture.name for architecture in ALL if architecture.quick]
OTHERS = [architecture.name for architecture in ALL if not architecture.quick and architecture.name not in CANNOT]


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[str], Path]:
    def save(name: str) -> Path:
        path = tmp_path / f"{name}.pt2"
        torch.export.save(exported(BY_NAME[name]), path)
        return path

    return save


def through_farm(program: Path, rtx: Toolchain, folder: Path) -> tuple[Form, Any]:
    folder.mkdir(exist_ok=True)
    builder = TensorRTBuilder()
    sanitise_pt2(program, folder / "safe.pt2")
    form = builder.export(folder / "safe.pt2", folder, LIMITS, Watch(), {})
    return form, builder.build(Job(rtx, form, {}, ("sm_86",), (), folder, limits=LIMITS), Watch())


def converts_plainly(architecture: Architecture) -> bool:
    try:
        torch.onnx.export(exported(architecture), dynamo=True, verbose=False)
    except torch.onnx.errors.OnnxExporterError:
        return False
    return True


def run_onnx(form: Form, feeds: dict[str, Any]) -> list[Any]:
    """The form's outputs by ONNX's reference evaluator, whose GatherElements is wrong for most shapes."""
    import numpy as np
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    class GatherElements(OpRun):
        op_domain = ""

        def _run(self, data: Any, indices: Any, axis: int = 0) -> tuple[Any]:
            return (np.take_along_axis(data, indices, axis=axis),)

    return list(ReferenceEvaluator(str(form.graph), new_ops=[GatherElements]).run(None, feeds))


def assert_same_numbers(architecture: Architecture, form: Form) -> None:
    """The form gives eager's numbers on other inputs than those it was exported with."""
    torch.manual_seed(0)
    model, arguments, keywords = architecture.make()
    model = model.eval()
    torch.manual_seed(1)
    _, arguments, keywords = architecture.make()
    tensors = [leaf for leaf in torch.utils._pytree.tree_leaves((arguments, keywords)) if torch.is_tensor(leaf)]
    with torch.no_grad():
        leaves = torch.utils._pytree.tree_leaves(model(*arguments, **keywords))
    expected = [leaf for leaf in leaves if torch.is_tensor(leaf)]
    feeds = {name: value.numpy() for name, value in zip(form.inputs, tensors, strict=True)}
    found = run_onnx(form, feeds)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(ours), theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", QUICK)
def test_it_builds(name: str, saved: Callable[[str], Path], rtx: Toolchain, tmp_path: Path) -> None:
    form, product = through_farm(saved(name), rtx, tmp_path / "job")
    assert product.size > 0
    assert_same_numbers(BY_NAME[name], form)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_the_others_build_too(name: str, saved: Callable[[str], Path], rtx: Toolchain, tmp_path: Path) -> None:
    form, product = through_farm(saved(name), rtx, tmp_path / "job")
    assert product.size > 0
    assert_same_numbers(BY_NAME[name], form)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CANNOT))
def test_one_that_cannot_be_built_names_the_operator_and_the_line(
    name: str, saved: Callable[[str], Path], rtx: Toolchain, tmp_path: Path
) -> None:
    with pytest.raises((AttemptFailed, BadProgram)) as caught:
        through_farm(saved(name), rtx, tmp_path / "job")
    operator, line = CANNOT[name]
    assert operator in caught.value.message and line in caught.value.message
    if isinstance(caught.value, AttemptFailed):
        assert caught.value.failure.kind is FailureKind.PERMANENT


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PLAIN_FAILS))
def test_what_the_plain_path_does_not_convert_is_ours_to_convert(name: str) -> None:
    if converts_plainly(BY_NAME[name]):
        pytest.fail(f"the plain path converts {name} by now: count it there, and look whether our help is still needed")
