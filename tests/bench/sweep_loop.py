"""What a person would write without a farm: ``python -m tests.bench.sweep_loop ASKED.json``. Exports each program once,
then builds one configuration after another, in one process, and prints how long that took.

``ASKED.json`` holds a list of ``{model, folder, tf32, streaming, target, profile}``, the profile as ``[min, opt, max]``
of the only input.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def build(trt: Any, onnx: Path, one: dict[str, Any]) -> int:
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, builder.logger)
    assert parser.parse_from_file(str(onnx)), parser.get_error(0)
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, one["target"]), 0)
    if not one["tf32"]:
        config.clear_flag(trt.BuilderFlag.TF32)
    if one["streaming"]:
        config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, *one["profile"])
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None, one
    Path(one["folder"], "engine.plan").write_bytes(plan)
    return int(plan.nbytes)


def main(asked: list[dict[str, Any]]) -> None:
    began = time.perf_counter()
    import tensorrt_rtx as trt
    import torch

    exported: dict[str, Path] = {}
    sizes, building = [], 0.0
    for one in asked:
        if one["model"] not in exported:
            exported[one["model"]] = Path(one["folder"]) / f"{Path(one['model']).stem}.onnx"
            torch.onnx.export(torch.export.load(one["model"]), f=exported[one["model"]], dynamo=True, verbose=False)
        started = time.perf_counter()
        sizes.append(build(trt, exported[one["model"]], one))
        building += time.perf_counter() - started
    took = time.perf_counter() - began
    print(json.dumps({"seconds": took, "building": building, "built": len(sizes)}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text("utf-8")))
