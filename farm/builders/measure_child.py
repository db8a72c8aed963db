"""The child that runs one subject of a measurement. A task for ``child``; it imports torch.

Its job: ``runner`` (``eager``, ``compile``, ``engine``), ``device`` (``cpu``, ``cuda``), ``program``: a sanitised
``.pt2`` or null; ``plan``, ``module``, ``version``, ``input_names``, ``output_names``: the engine; ``inputs``: dtype
and shape of each input of the program that an engine has, in order; ``effort``: as ``harness.Effort``;
``cuda_graphs``. Each run's times are a message ``run`` of their own.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from farm.builders.child import Channel


def run(job: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Measure the subject; what it returns is the message ``done``."""
    import warnings

    import torch

    warnings.simplefilter("ignore")
    if job["device"] == "cuda" and not torch.cuda.is_available():
        raise channel.Refused(what="device", text="torch sees no GPU here")
    with torch.inference_mode():
        return measured(job, channel)


def measured(job: dict[str, Any], channel: Channel) -> dict[str, Any]:
    import torch

    from farm.builders import harness, subjects
    from farm.builders.clocks import DEVICES

    device = DEVICES[job["device"]]()
    channel.ready()
    inputs = subjects.make_inputs(job["inputs"], device)
    before = device.memory()
    with channel.phase("load"):
        call: Any = subjects.SUBJECTS[job["runner"]](job, inputs, device, channel)
    with channel.phase("first"):
        began = time.perf_counter()
        outputs = call()
        device.wait()
        first = time.perf_counter() - began
    if job["cuda_graphs"]:
        with channel.phase("capture"):
            call = device.capture(call)
    with channel.phase("measure"):
        timed = harness.measure(
            call,
            device,
            harness.Effort.of(job["effort"]),
            lambda share: channel.send("progress", fraction=round(share, 4)),
        )
    for times, rate in zip(timed.runs, timed.rates, strict=True):
        channel.send("run", times=[round(one, 6) for one in times], rate=rate)
    memory = device.memory() - before
    with channel.phase("compare"):
        accuracy = compared(job, inputs, call(), device, channel)
    return {
        "first_seconds": first,
        "memory": memory,
        "accuracy": accuracy,
        "outputs": len(outputs),
        "warm_ups": timed.warm_ups,
        "steady": timed.steady,
        "discarded": timed.discarded,
        "device": device.describe(),
        "torch": torch.__version__,
    }


def compared(job: dict[str, Any], inputs: Any, outputs: Any, device: Any, channel: Channel) -> dict[str, Any] | None:
    """The difference from eager on the same inputs; ``None`` where there is no program, or it is eager itself."""
    from farm.builders import subjects

    if job["runner"] == "eager" or not job["program"]:
        return None
    mine = [value.clone() for value in outputs]
    device.wait()
    reference = subjects.Program(Path(job["program"]), device, channel).call(inputs)()
    device.wait()
    if len(mine) != len(reference):
        raise channel.Refused(what="outputs", text=f"{len(mine)} outputs, and eager PyTorch gives {len(reference)}")
    return subjects.differences(mine, reference)


def explain(error: BaseException, phase: str) -> dict[str, Any]:
    """What torch, its compiler or TensorRT raised: they raise anything, so the phase says what it was."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return {"what": "measure", "phase": phase, "text": (lines or [""])[0][:500], "type": type(error).__name__}
