"""The process in which the suite lets torch load hostile archives. Run as a script.

Jobs come as JSON lines: ``{"file": …, "path": […]}`` and what to do beyond loading: ``describe``, ``run``,
``export``. Each is done in a fork of its own, so that one that dies or hangs harms no other and torch is imported
once. An answer tells what came of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from typing import IO, Any

import torch

LIMIT_S = 60.0


def load(job: dict[str, Any]) -> dict[str, Any]:
    sys.path[:0] = job.get("path", [])
    program = torch.export.load(job["file"])
    answer: dict[str, Any] = {"loaded": True}
    if job.get("describe"):
        answer["graph"] = str(program.graph)
        answer["signature"] = str(program.graph_signature)
        answer["ranges"] = str(program.range_constraints)
        answer["calls"] = str(program.module_call_graph)
        answer["state"] = {name: digest(value) for name, value in (program.state_dict | program.constants).items()}
    if job.get("run"):
        arguments, keywords = program.example_inputs
        answer["ran"] = str(program.module()(*arguments, **keywords))
    if job.get("export"):
        answer |= export(program)
    return answer


def digest(tensor: torch.Tensor) -> str:
    content = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{tensor.dtype} {tuple(tensor.shape)} {tensor.stride()} {hashlib.sha256(content).hexdigest()}"


def export(program: torch.export.ExportedProgram) -> dict[str, str]:
    """The digest of the ONNX model's bytes, and of its operators and wiring alone."""
    drop_derived_symbols(program)
    converted = torch.onnx.export(program, dynamo=True, optimize=True, verbose=False)
    model = converted.model_proto
    structure = hashlib.sha256(repr(list(wiring(model.graph))).encode()).hexdigest()
    return {"onnx": hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest(), "structure": structure}


def drop_derived_symbols(program: torch.export.ExportedProgram) -> None:
    """Without this, torch 2.13 exports no program with derived dimensions that it has loaded from a file."""
    from torch._export.utils import _get_shape_env_from_gm

    environment = _get_shape_env_from_gm(program.graph_module)
    for table in ("var_to_range", "backed_var_to_val", "var_to_range_sloc"):
        entries = getattr(environment, table, None)
        if isinstance(entries, dict):
            for key in [key for key in entries if not getattr(key, "is_Symbol", True)]:
                del entries[key]


def wiring(graph: Any) -> Iterator[tuple[Any, ...]]:
    """An ONNX graph with its values numbered in order."""
    numbers: dict[str, int] = {}

    def number(name: str) -> int:
        return numbers.setdefault(name, len(numbers))

    for value in [*graph.input, *graph.initializer]:
        number(value.name)
    for node in graph.node:
        attributes = [attribute.SerializeToString(deterministic=True) for attribute in node.attribute]
        yield node.op_type, [number(name) for name in node.input], [number(name) for name in node.output], attributes
    yield tuple(number(value.name) for value in graph.output)


def attempt(job: dict[str, Any], answer: IO[str]) -> None:
    """Do the job in this fork, and write what came of it."""
    try:
        told = load(job)
    except BaseException as error:  # noqa: BLE001  (a hostile file may raise anything; the fork ends here)
        told = {"error": f"{type(error).__name__}: {error}"[-2000:]}
    json.dump(told, answer)
    answer.flush()
    os._exit(0)


def run(job: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile("w+") as answer:
        pid = os.fork()
        if pid == 0:
            attempt(job, answer)
        status = wait(pid, time.monotonic() + LIMIT_S)
        answer.seek(0)
        text = answer.read()
    return json.loads(text) if text else {"error": "ended without an answer", "status": status}


def wait(pid: int, deadline: float) -> int:
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def warm_up() -> None:
    """Export something once: what that imports and builds, every fork then has."""
    module = torch.nn.Linear(2, 2)
    program = torch.export.export(module, (torch.ones(2, 2),), dynamic_shapes=({0: torch.export.Dim("n")},))
    export(program)


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    answers = os.fdopen(os.dup(1), "w")
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        os.dup2(nowhere.fileno(), 1)
        warm_up()
        print(json.dumps({"ready": torch.__version__}), file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(run(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
