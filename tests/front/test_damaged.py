"""Files that rot, vanish or were never there: never a wrong engine, never a lost one, and the next ask works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Farms

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("builds")]


def zeroed(path: Path) -> None:
    """Overwrite the middle of a file; the blob it may be linked to is another file from then on."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    path.unlink()
    path.write_bytes(content)


def truncated(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:100])


def test_a_damaged_form_is_never_built_from(ready: Farms, copied: Callable[[str], Path]) -> None:
    """An engine of damaged weights would sit under the right key for ever."""
    model = copied("conv.pt2")
    right = ready.run("build", model, "-t", "sm_89", "--json").json[0]["engine"]
    for name, damage in (("model.onnx", zeroed), ("model.onnx", truncated), ("form.json", truncated)):
        for victim in ready.home.glob(f"cache/forms/*/{name}"):
            damage(victim)
        again = ready.run("build", model, "-t", "sm_89", "--force", "--json")
        assert again.code == 0 and again.json[0]["engine"] == right, (name, damage.__name__, again.err)


def test_looking_into_the_wrong_store_forgets_nothing(
    ready: Farms, copied: Callable[[str], Path], tmp_path: Path
) -> None:
    """A mistyped or unmounted store is not a reason to forget what the right one holds."""
    model = copied("conv.pt2")
    built = ready.run("build", model, "-t", "sm_89", "--json").json[0]
    wrong = {"FARM_STORE_URL": (tmp_path / "typo").as_uri()}
    assert ready.run("build", model, "-t", "sm_89", "--no-build", env=wrong).code == 3
    assert ready.run("pull", built["key"], "-o", tmp_path / "out", env=wrong).code != 0
    back = ready.run("build", model, "-t", "sm_89", "--no-build", "--json")
    assert back.code == 0 and back.json[0]["engine"] == built["engine"]


def test_an_onnx_model_in_several_files_is_refused_in_words(farm: Farms, tmp_path: Path) -> None:
    """Its key covers the other files, so a build of the one alone would be another model's."""
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    numpy = pytest.importorskip("numpy")
    weight = numpy_helper.from_array(numpy.ones((64, 64), numpy.float32), "w")
    shape = [1, 64]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    for name, apart in (("one.onnx", False), ("two.onnx", True)):
        onnx.save_model(model, str(tmp_path / name), save_as_external_data=apart, location="two.data", size_threshold=0)
    one, two = tmp_path / "one.onnx", tmp_path / "two.onnx"
    keys = [farm.run("key", path, "-t", "sm_89", "--json").json[0]["key"] for path in (one, two)]
    assert keys[0] == keys[1]
    refused = farm.run("build", two, "-t", "sm_89")
    assert refused.code == 2 and "other files" in refused.err and "Traceback" not in refused.err
    assert farm.run("build", one, "-t", "sm_89", "--json").json[0]["outcome"] == "built"
    assert farm.run("build", two, "-t", "sm_89", "--json").json[0]["outcome"] == "hit"
