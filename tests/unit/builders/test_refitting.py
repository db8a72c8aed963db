"""Other weights put into an engine in a child, by the stand-in for plain TensorRT: the real one wants a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from farm.builders import AttemptFailed, Form, Limits, Watch
from farm.builders.refitting import TensorRTRefitter
from farm.builds import FailureKind
from farm.toolchains import Toolchain

PLAIN = Toolchain("tensorrt", "10.14.1.48")
TOLD = {"name": "farm", "host_code": False, "run": {}}
PLAN = b"ftrt" + json.dumps(TOLD).encode()
WEIGHTS = {"conv KERNEL": [1.0], "conv BIAS": [2.0]}


def refit(tmp_path: Path, plan: bytes = PLAN, toolchain: Toolchain = PLAIN, **model: Any) -> bytes:
    graph = tmp_path / "model.onnx"
    graph.write_bytes(b"STANDIN" + json.dumps({"weights": WEIGHTS, **model}).encode() + b"NIDNATS")
    (tmp_path / "engine.plan").write_bytes(plan)
    made = TensorRTRefitter().refit(
        toolchain, tmp_path / "engine.plan", Form(graph, None, (), ()), tmp_path, Limits(seconds=60), Watch()
    )
    return made.read_bytes()


def test_every_weight_goes_in_and_the_engine_stays_refittable(standin: None, tmp_path: Path) -> None:
    told = json.loads(refit(tmp_path)[4:])
    assert told == {**TOLD, "refittable": True, "weights": WEIGHTS}


@pytest.mark.parametrize(
    ("how", "words", "kind"),
    [
        ({"weights": {"conv KERNEL": [1.0]}}, "it lacks conv BIAS", FailureKind.PERMANENT),
        ({"refit_errors": [{"text": "shapes differ"}]}, "shapes differ", FailureKind.PERMANENT),
        ({"plan": b"no plan"}, "does not start on this machine", FailureKind.NODE),
        ({"toolchain": Toolchain("tensorrt", "10.15.0.1")}, "TensorRT 10.14.1.48 by now", FailureKind.NODE),
    ],
)
def test_what_goes_wrong_is_said(
    standin: None, tmp_path: Path, how: dict[str, Any], words: str, kind: FailureKind
) -> None:
    with pytest.raises(AttemptFailed, match=words) as caught:
        refit(tmp_path, **how)
    assert caught.value.failure.kind is kind
