"""Fixtures for the builder's tests: models for the stand-in of TensorRT, and a job for them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farm.builders import Form, Job, Limits
from farm.builders.notes import Notes, append_notes
from farm.toolchains import Toolchain

STANDIN = Path(__file__).with_name("standin")
PLAIN = Toolchain("tensorrt", "10.14.1.48")
DYNAMIC = {"inputs": [["x", "FLOAT", [-1, 4]]], "outputs": [["y", "FLOAT", [-1, 2]]]}
PROFILE = {"x": ((1, 4), (2, 4), (8, 4))}


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the stand-in what children import as ``tensorrt``."""
    monkeypatch.syspath_prepend(str(STANDIN))


@pytest.fixture
def make_job(tmp_path: Path, standin: None) -> Callable[..., Job]:
    """A job of the plain toolchain for a model that behaves as ``model`` says."""

    def make(
        model: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        notes: Notes | None = None,
        limits: Limits | None = None,
        **more: Any,
    ) -> Job:
        graph = write_model(tmp_path / "model.onnx", {**DYNAMIC, **(model or {})}, notes)
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        arguments: dict[str, Any] = {
            "form": Form(graph, None, ("x",), ("y",)),
            "capabilities": ("sm_89",),
            "profiles": (PROFILE,),
            **more,
        }
        return Job(PLAIN, settings=settings or {}, folder=folder, limits=limits or Limits(seconds=30), **arguments)

    return make


def write_model(path: Path, model: dict[str, Any], notes: Notes | None = None) -> Path:
    """A file that ``notes`` takes for ONNX (the model is its doc string) and the stand-in for a model."""
    body = b"STANDIN" + json.dumps(model).encode() + b"NIDNATS"
    size = len(body)
    path.write_bytes(b"\x32" + bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14]) + body)
    append_notes(path, notes or Notes(inputs=("x",), outputs=("y",)))
    return path
