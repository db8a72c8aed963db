"""A task for the sandbox: build an engine as the builder's child does, and say which modules that imported."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

CHILD = Path(__file__).parents[2] / "farm" / "builders" / "trt_child.py"


def run(job: dict[str, Any], channel: Any) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("trt_child", CHILD)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    before = {"pathlib"} & set(sys.modules)  # this file's own
    module.run(job, channel)
    return {"modules": sorted(set(sys.modules) - before)}


def explain(error: BaseException, phase: str) -> None:
    return None
