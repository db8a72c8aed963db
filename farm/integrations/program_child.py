"""The child that compiles one program with Torch-TensorRT. A task for ``builders.child``.

The program is a ``.pt2`` archive that was sanitised before: nothing in it is executed by loading it. Its job:
``program``; ``folder``: where plans are written; ``version``, ``over``: the Torch-TensorRT, and the TensorRT under it,
that must be here; ``capabilities``: ``["SM86", …]``; ``os``; ``settings``: what to tell ``dynamo.compile``;
``profiles``: per profile, an input's position → [min, opt, max] shapes. With ``probe`` it only says whether all of that
can be loaded.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from farm.builders.child import Channel

LISTED = 2000
"""Nodes that the artefact's graph lists at most; of what stays in PyTorch beyond them the report has the numbers."""


def run(job: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Compile; what it returns is the message ``done``."""
    warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.INFO if job.get("settings", {}).get("debug") else logging.WARNING)
    torch_tensorrt, trt = load(job, channel)
    channel.ready()
    if job.get("probe"):
        return {"capabilities": []}
    from farm.builders import torch_load
    from farm.errors import BadInput
    from farm.integrations.compiling import binding, outputs_of, settings_of, specs_of, user_inputs

    with channel.phase("load"):
        program = on_its_gpu(torch_load.load(Path(job["program"]), channel))
    told = settings_of(job["settings"], Path(job["folder"]) / "torch_tensorrt")
    try:
        inputs, named = specs_of(program, job["profiles"])
    except BadInput as error:
        raise channel.Refused(what="profile", text=error.message) from None
    made = Made(Path(job["folder"]), job, channel)
    with channel.phase("build"), made.watching(torch_tensorrt, trt):
        compiled = compiler(torch_tensorrt, job, channel)(program, arg_inputs=inputs, kwarg_inputs=named, **told)
    if not made.engines:
        least = job["settings"].get("min_block_size")
        raise channel.Refused(what="nothing", text=f"min_block_size is {least}; {made.in_words()}")
    return {
        "graph": graph_of(compiled),
        "engines": made.engines,
        "report": {**made.report, "built": made.built},
        "read_back": made.read_back,
        "inputs": [binding(node) for node in user_inputs(program)],
        "outputs": [binding(node) for node in outputs_of(program)],
        "lowered_by": f"torch=={torch_version()} torch_tensorrt=={job['version']}",
        "warnings": [],
    }


def explain(error: BaseException, phase: str) -> dict[str, Any] | None:
    """Torch-TensorRT raises anything. While it compiles, it is the program's fault, or its settings'."""
    if phase != "build" and not isinstance(error, ImportError):
        return None
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0][:500] if lines else 'no reason given'}"
    return {"what": "import" if isinstance(error, ImportError) else "compile", "text": text}


# -- what is here ----------------------------------------------------------------------------------------------


def load(job: dict[str, Any], channel: Channel) -> tuple[Any, Any]:
    """Import Torch-TensorRT, and see that it is the one that was asked for, over the TensorRT that was asked for."""
    try:
        torch_tensorrt = importlib.import_module("torch_tensorrt")
        trt = importlib.import_module("tensorrt")
    except Exception as error:  # noqa: BLE001 - its import runs much, and raises anything
        raise channel.Refused(what="import", text=f"{type(error).__name__}: {error}") from None
    rtx = getattr(torch_tensorrt.ENABLED_FEATURES, "tensorrt_rtx", False)
    here = f"{str(torch_tensorrt.__version__).partition('+')[0]} over {'rtx' if rtx else 'trt'}{trt.__version__}"
    if here != f"{job['version']} over {job['over']}":
        raise channel.Refused(what="version", text=f"{trt.__version__} under Torch-TensorRT {here.split()[0]}")
    return torch_tensorrt, trt


def torch_version() -> str:
    import torch

    return str(torch.__version__).partition("+")[0]


def on_its_gpu(program: Any) -> Any:
    """The program where Torch-TensorRT folds its constants: on the GPU, if there is one."""
    import torch

    if not torch.cuda.is_available():
        return program
    from torch.export.passes import move_to_device_pass

    return move_to_device_pass(program, "cuda:0")


def compiler(torch_tensorrt: Any, job: dict[str, Any], channel: Channel) -> Callable[..., Any]:
    dynamo = torch_tensorrt.dynamo
    chosen: Callable[..., Any] = dynamo.cross_compile_for_windows if job["os"] == "windows" else dynamo.compile
    if job["os"] == "windows" and not getattr(torch_tensorrt.ENABLED_FEATURES, "windows_cross_compile", False):
        raise channel.Refused(
            what="setting",
            setting="enable_cross_compile_for_windows",
            text="this machine's TensorRT has no builder resource for Windows",
        )
    return chosen


# -- what comes of it ------------------------------------------------------------------------------------------


class Made:
    """What a compile makes: engines as they come, the partitioner's report, the settings as TensorRT took them."""

    def __init__(self, folder: Path, job: dict[str, Any], channel: Channel) -> None:
        self.folder, self.job, self.channel = folder, job, channel
        self.engines: list[dict[str, Any]] = []
        self.asked = self.built = 0
        self.report: dict[str, Any] = {"operators": 0, "converted": 0, "engines": [], "in_torch": {}, "unsupported": {}}
        self.read_back: dict[str, Any] = {}

    @contextmanager
    def watching(self, torch_tensorrt: Any, trt: Any) -> Iterator[None]:
        """Over the places of Torch-TensorRT where an engine is made, TensorRT configured and the work summed up."""
        from torch_tensorrt.dynamo import _compiler
        from torch_tensorrt.dynamo.conversion import _TRTInterpreter

        from farm.integrations.interpreting import interpreted

        interpreter = _TRTInterpreter.TRTInterpreter
        populate, display = interpreter._populate_trt_builder_config, _compiler.dryrun_stats_display

        def configured(self_: Any, *args: Any, **kwargs: Any) -> Any:
            config = populate(self_, *args, **kwargs)
            self.configure(trt, config)
            return config

        def displayed(tracker: Any, *args: Any) -> None:
            self.report = report_of(tracker)

        interpreter._populate_trt_builder_config, _compiler.dryrun_stats_display = configured, displayed
        try:
            with interpreted(self.place, self.find, self.keep):
                yield
        finally:
            interpreter._populate_trt_builder_config, _compiler.dryrun_stats_display = populate, display

    def in_words(self) -> str:
        """How much of the program has converters."""
        return f"{self.report.get('convertible', 0)} of its {self.report['operators']} operators have converters"

    def place(self, settings: Any) -> Any:
        """For what engines are built here."""
        from farm.integrations.place import place_of

        wanted = tuple(int(name.removeprefix("SM")) for name in self.job["capabilities"])
        return replace(place_of(settings), capabilities=wanted)

    def find(self, asked: Any) -> tuple[Any, memoryview] | None:
        """The engine, if the farm has it (``builders.counter``)."""
        from farm.builders.counter import await_answer, write_part
        from farm.container import unpack

        self.asked += 1
        write_part(self.folder / f"ask-{self.asked}.json", asked.identity, asked.naming)
        container = await_answer(self.folder, self.asked)
        if container is None:
            return None
        header, plan = unpack(container)
        self.add(header, plan)
        return header, plan

    def keep(self, asked: Any, container: bytes) -> None:
        """What had to be built: for the program, and for whoever has the same part."""
        from farm.container import unpack

        draft = self.folder / f".built-{self.asked}"
        draft.write_bytes(container)
        draft.rename(self.folder / f"built-{self.asked}.engine")
        self.built += 1
        self.add(*unpack(container))

    def add(self, header: Any, plan: memoryview) -> None:
        name = f"engine-{len(self.engines)}.plan"
        (self.folder / name).write_bytes(plan)
        told = {"key": header.key, "recipe": header.recipe, "bindings": header.bindings, "detail": header.detail}
        self.engines.append({"name": f"_run_on_acc_{len(self.engines)}", "file": name, **told})
        self.channel.send("phase", name=f"build {len(self.engines)}")

    def configure(self, trt: Any, config: Any) -> None:
        """Say for which GPUs, where TensorRT-RTX wants to be told, and read back what TensorRT ignores in silence."""
        from farm.builders import trt_child

        if self.job["over"].startswith("rtx"):
            trt_child.set_capabilities(trt, config, self.job["capabilities"], self.channel, self.read_back)
        settings, windows = self.job["settings"], self.job["os"] == "windows"
        portable = settings.get("hardware_compatible")
        for name, asked, wanted in (
            ("builder_optimization_level", "optimization_level", settings.get("optimization_level")),
            ("hardware_compatibility_level", "hardware_compatible", "AMPERE_PLUS" if portable else None),
            ("engine_capability", "engine_capability", settings.get("engine_capability")),
            ("runtime_platform", "enable_cross_compile_for_windows", "WINDOWS_AMD64" if windows else None),
        ):
            if wanted is None:
                continue  # TensorRT-RTX complains when it is asked for what it does not have
            told = getattr(config, name, None)
            told = getattr(told, "name", told)
            self.read_back[name] = told
            if told != wanted:
                raise self.channel.Refused(what="setting", setting=asked, asked=wanted, told=told)


def report_of(tracker: Any) -> dict[str, Any]:
    """Torch-TensorRT's dry-run report in numbers: which operators run where, how many engines, and what other
    ``min_block_size`` would give how many."""
    sizes = [int(one.subgraph_op_count) for one in tracker.per_subgraph_data]
    in_torch = Counter(str(line).partition("Node: ")[2].partition(",")[0] for line in tracker.to_run_in_torch)
    return {
        "operators": int(tracker.total_ops_in_graph),
        "converted": sum(sizes),
        "convertible": int(tracker.supported_ops_in_graph),
        "engines": [
            {"name": str(one.subgraph_name), "operators": size}
            for one, size in zip(tracker.per_subgraph_data, sizes, strict=True)
        ],
        "in_torch": dict(in_torch.most_common(LISTED)),
        "unsupported": {str(name): int(count) for name, count in dict(tracker.unsupported_ops).items()},
        "min_block_size": {str(least): sum(size >= least for size in sizes) for least in sorted({*sizes}) if sizes},
    }


def graph_of(compiled: Any) -> list[dict[str, Any]]:
    """The compiled program's calls in order, by name: what is called, and of what. For people, and to compare with."""
    found: list[dict[str, Any]] = []
    for node in compiled.graph.nodes:
        if node.op != "placeholder" and len(found) < LISTED:
            operands = [one.name for one in node.all_input_nodes]
            found.append({"name": node.name, "op": node.op, "target": str(node.target)[:200], "of": operands[:64]})
    return found
