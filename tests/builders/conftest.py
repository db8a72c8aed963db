"""Fixtures for real exports and builds: small models, exported once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farm.builders import Form, Job, Limits, Watch
from farm.builders.tensorrt import TensorRTBuilder
from farm.hosts.packages import installed_toolchains
from farm.toolchains import Toolchain

LIMITS = Limits(seconds=120)


@pytest.fixture(scope="session")
def rtx() -> Toolchain:
    """The TensorRT-RTX of this machine; without it there is nothing to test here."""
    found = [toolchain for toolchain in installed_toolchains() if toolchain.flavour == "tensorrt_rtx"]
    if not found:
        pytest.skip("TensorRT-RTX is not installed")
    return found[0]


@pytest.fixture(scope="session")
def onnx_form(tmp_path_factory: pytest.TempPathFactory) -> Form:
    """A convolution and a matrix product over a dynamic batch (``x``: N×3×16×16 → ``y``: N×4), made with ONNX alone."""
    onnx = pytest.importorskip("onnx")
    np = pytest.importorskip("numpy")
    helper, types = onnx.helper, onnx.TensorProto
    weights = np.random.default_rng(0)
    constants = {
        "kernel": weights.standard_normal((8, 3, 3, 3)).astype("float32"),
        "matrix": weights.standard_normal((8, 4)).astype("float32"),
    }
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"], name="node_conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="node_relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="node_pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="node_flatten"),
        helper.make_node("MatMul", ["f", "matrix"], ["y"], name="node_product"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", types.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("y", types.FLOAT, ["n", 4])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    folder = tmp_path_factory.mktemp("onnx")
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    onnx.save(model, folder / "small.onnx")
    return TensorRTBuilder().export(folder / "small.onnx", folder, LIMITS, Watch(), {})


@pytest.fixture
def make_job(rtx: Toolchain, onnx_form: Form, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Job]:
    """A job for the small model, unless another form is given."""

    def make(settings: dict[str, Any] | None = None, **more: Any) -> Job:
        batch = {"x": ((1, 3, 16, 16), (2, 3, 16, 16), (4, 3, 16, 16))}
        arguments: dict[str, Any] = {
            "form": onnx_form,
            "capabilities": ("sm_86",),
            "profiles": (batch,),
            "limits": LIMITS,
            **more,
        }
        return Job(rtx, settings=settings or {}, folder=new_folder(tmp_path_factory), **arguments)

    return make


def new_folder(factory: pytest.TempPathFactory) -> Path:
    return factory.mktemp("job")
