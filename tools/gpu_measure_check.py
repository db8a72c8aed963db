"""Are repeated measurements on this machine's GPU alike? ``python tools/gpu_measure_check.py``

Needs torch, psutil, msgspec and nvidia-ml-py; no TensorRT. Runs the harness, each time in a process of its own, on
eager PyTorch and on ``torch.compile``, with and without CUDA graphs, over two models: one that keeps the GPU busy, and
one whose kernels are so small that launching them is most of the time. Prints JSON (and keeps ``--out`` up to date
meanwhile): the device's signature, each measurement, how far its runs lie apart, how far two processes lie apart, and
what is wrong. Exit status 0: every spread is under 3 %; 1: one is not, or something could not be measured; 2: there is
no GPU.

``--device cpu`` tries the same on a CPU, with small inputs, where the spread is whatever else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from farm.builders import AttemptFailed, InputSpec, Limits, MeasureJob, Watch
from farm.builders.harness import Effort
from farm.builders.measurer import TorchMeasurer
from farm.conditions import Conditions
from farm.devices import Device
from farm.hosts.probe import GpuDevice, Host, environment_for, probe
from farm.measurements import HARNESS, spread_of
from farm.programs.sanitise import sanitise_pt2

MOST_SPREAD = Effort().apart
KINDS = (("eager", False), ("eager", True), ("compile", False), ("compile", True))


@dataclass(frozen=True)
class Case:
    """A program, sanitised, and what is given to it."""

    name: str
    program: Path
    inputs: tuple[InputSpec, ...]
    note: str = ""


class Says:
    """A child's channel, where there is no child."""

    class Refused(Exception):
        def __init__(self, **what: Any) -> None:
            super().__init__(str(what))


def cases(folder: Path, small: bool) -> Iterator[Case]:
    """The example models, as real archives: exported, saved and sanitised as a farm would have them."""
    import torch

    from farm.examples.models import Gpt, ResNet

    torch.manual_seed(0)
    images = (2, 3, 64, 64) if small else (64, 3, 224, 224)
    gpt = Gpt() if small else Gpt(width=1024, layers=12, heads=16)
    for name, model, spec in (
        ("resnet", ResNet(), InputSpec("image", "float32", images)),
        ("gpt", gpt, InputSpec("tokens", "int64", (1, 64 if small else 256))),
    ):
        example = torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype))
        raw, safe = folder / f"{name}.pt2", folder / f"{name}.safe.pt2"
        torch.export.save(torch.export.export(model.eval(), (example,)), raw)
        why = unsafe(raw, safe)
        yield Case(name, raw if why else safe, (spec,), why and f"not sanitised: {why}")


def unsafe(raw: Path, safe: Path) -> str:
    """Why this torch's archive cannot be used as a farm would use it: it is our own, and is then loaded as it is."""
    from farm.builders.torch_load import load

    try:
        sanitise_pt2(raw, safe)
        load(safe, Says())  # type: ignore[arg-type]
    except Exception as error:  # noqa: BLE001 - torch raises anything; it is told
        return f"{type(error).__name__}: {error}"[:500]
    return ""


class Check:
    """One machine's measurements, and what is wrong with them."""

    def __init__(self, args: argparse.Namespace, host: Host, folder: Path) -> None:
        self.args, self.folder = args, folder
        self.gpu: GpuDevice | None = host.gpus[0] if args.device == "cuda" else None
        self.signature = signature(host)
        self.measurer = TorchMeasurer(environment_for(self.gpu, os.environ))
        self.wrong: list[str] = []
        self.rows: list[dict[str, Any]] = []

    def run(self, case: Case) -> None:
        for runner, graphs in KINDS:
            if self.gpu is None and graphs:
                continue
            name = f"{case.name} {runner}" + (" with CUDA graphs" if graphs else "")
            found = [
                row for _ in range(self.args.repeats) if (row := self.once(case, runner, graphs, name)) is not None
            ]
            if len(found) > 1:
                between = spread_of([[row["latency"]["p50"]] for row in found])
                found[-1]["between_processes"] = between
                self.expect(between, f"{name}: {len(found)} processes")

    def once(self, case: Case, runner: str, graphs: bool, name: str) -> dict[str, Any] | None:
        conditions = Conditions(self.gpu.uuid if self.gpu else "")
        effort = {"runs": self.args.runs, "seconds": self.args.seconds}
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            job = MeasureJob(
                runner=runner,
                device="cuda" if self.gpu else "cpu",
                inputs=case.inputs,
                folder=Path(scratch),
                program=case.program,
                cuda_graphs=graphs,
                effort=effort,
                limits=Limits(seconds=self.args.limit),
                backend=self.args.backend,
            )
            began = time.monotonic()
            log: list[str] = []
            try:
                measured = self.measurer.measure(job, conditions.watch(Watch(log=log.append)))
            except AttemptFailed as error:
                self.wrong.append(f"{name}: {error.message}")
                print(f"{name}: {error.message}", *log, sep="\n", file=sys.stderr)
                return None
        took = time.monotonic() - began
        row: dict[str, Any] = {"what": name, "took": took, **asdict(measured), "conditions": conditions.as_json()}
        row |= {"note": case.note} if case.note else {}
        self.rows.append(row)
        self.write()
        print(
            f"{name}: p50 {measured.latency.p50:.4f} ms, {measured.throughput:.1f}/s, spread {measured.spread:.2%}, "
            f"set {measured.tries} of its runs, {took:.0f} s in all",
            file=sys.stderr,
        )
        self.expect(measured.spread, f"{name}: {self.args.runs} runs")
        return row

    def report(self) -> dict[str, Any]:
        return {"signature": self.signature, "measured": self.rows, "wrong": self.wrong}

    def write(self) -> None:
        if self.args.out:
            Path(self.args.out).write_text(json.dumps(self.report(), indent=2), "utf-8")

    def expect(self, spread: float, what: str) -> None:
        if spread >= MOST_SPREAD:
            self.wrong.append(f"{what} lie {spread:.2%} apart, not under {MOST_SPREAD:.0%}")


def signature(host: Host) -> Mapping[str, Any]:
    """What the machine says of itself; the GPU as measurements name it."""
    import torch

    gpu = host.gpus[0] if host.gpus else None
    return {
        "device": str(Device.of(asdict(gpu))) if gpu else "cpu",
        "gpu": asdict(gpu) if gpu else None,
        "driver": host.driver,
        "cuda": host.cuda,
        "arch": host.arch,
        "cores": host.cores,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "harness": HARNESS,
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Are repeated measurements on this machine's GPU alike?")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--runs", type=int, default=5, help="repeated runs in one process")
    parser.add_argument("--repeats", type=int, default=2, help="processes for each kind of subject")
    parser.add_argument("--seconds", type=float, default=1.0, help="of timing in each run")
    parser.add_argument("--limit", type=float, default=240.0, help="seconds for one process")
    parser.add_argument("--backend", default="", help="torch.compile's; inductor by default, which needs a C compiler")
    parser.add_argument("--out", default="", help="a file for the report, kept up to date")
    parser.add_argument("--only", default="", help="one of the models: resnet, gpt")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    host = probe(os.environ)
    if args.device == "cuda" and not host.gpus:
        print(f"nothing was measured: {host.why_no_gpu}")
        return 2
    with tempfile.TemporaryDirectory() as name:
        check = Check(args, host, Path(name))
        for case in cases(check.folder, small=args.device == "cpu"):
            if args.only in ("", case.name):
                check.run(case)
        check.write()
    print(json.dumps(check.report(), indent=2))
    return 1 if check.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
