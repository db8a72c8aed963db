"""The child that builds one engine. A task for ``child``: it imports TensorRT and the standard library only.

One code path for the modules ``tensorrt`` and ``tensorrt_rtx``; what differs is data in the job (``steps``,
see ``steps.py``) or asked of the module itself. Its job:

``module``, ``version``: what to import, and the version that it must have; ``graph``: the ONNX file;
``inputs``, ``outputs``: the names of the program's bindings; ``capabilities``: ``["SM86", …]`` or none;
``steps``: what to tell the builder's configuration; ``profiles``: binding → [min, opt, max] shapes;
``strong``: strongly typed network; ``verbose``: keep TensorRT's detailed log; ``plan``: where to write;
``timing_cache``, ``timing_cache_out``: files, or null. Before it reads a timing cache it says so (``timing``), and
once it has, whether it could: native code may end the process in between.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from farm.builders.child import Channel

NETWORK_NAME = "farm"
"""Part of the engine's bytes: it must be the same in every build (reference: Determinism)."""
KEPT_ERRORS = 50
LONGEST_ERROR = 4000
PROGRESS_SECONDS = 0.1

Trt = Any
"""The module ``tensorrt`` or ``tensorrt_rtx``; both have the parts of the API that are used here."""


def run(job: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Build the engine of ``job``; what it returns is the message ``done``."""
    trt = channel.toolchain(job)
    logger = make_logger(trt, channel, job["verbose"])
    builder = make_builder(trt, logger, channel)
    channel.ready()
    if job.get("probe"):
        return probe(trt, builder, channel)
    check_dla(builder, job, channel)
    network, parser = parse(trt, builder, logger, job, channel)
    config = builder.create_builder_config()
    if config is None:
        raise channel.Refused(what="builder", text="TensorRT gave no builder configuration")
    read_back = configure(trt, config, job, channel)
    add_profiles(trt, builder, config, network, job, channel)
    cache, timed = start_timing_cache(config, job, channel)
    # What went wrong until here did no harm; a failure of the build is told by the build's own first error.
    channel.send("forgiven")
    monitor = make_monitor(trt, channel)
    config.progress_monitor = monitor
    plan = build(builder, network, config, channel)
    with channel.phase("serialise"):
        size = channel.write(job["plan"], plan)
        cache_written = save_timing_cache(config, cache, job, timed, channel)
    del parser
    return {
        "size": size,
        "read_back": read_back,
        "inputs": bindings(network.num_inputs, network.get_input),
        "outputs": bindings(network.num_outputs, network.get_output),
        "timing_cache": cache_written,
        "timed": timed,
        "warnings": logger.warnings,
    }


def explain(error: BaseException, phase: str) -> None:
    """TensorRT's API says why by itself; anything else is a defect."""


def offered(trt: Trt) -> list[str]:
    """The compute capabilities that the toolchain can be told to build for: ``SM86`` …; none if it cannot be."""
    known = getattr(trt, "ComputeCapability", None)
    names = list(known.__members__) if known is not None else []
    return [name for name in names if name.startswith("SM")]


def probe(trt: Trt, builder: Any, channel: Channel) -> dict[str, Any]:
    """Build an engine of one layer for everything that is on offer: whether this machine can, and for what."""
    capabilities = offered(trt)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    tensor = network.add_input("x", trt.DataType.FLOAT, (1,))
    network.mark_output(network.add_identity(tensor).get_output(0))
    config = builder.create_builder_config()
    set_capabilities(trt, config, capabilities, channel, {})
    plan = build(builder, network, config, channel)
    return {"capabilities": capabilities, "size": len(memoryview(plan))}


def make_logger(trt: Trt, channel: Channel, verbose: bool) -> Any:
    """A logger that prints, keeps warnings, and sends every error at once: the process may not live to tell."""
    severity = trt.ILogger.Severity if hasattr(trt.ILogger, "Severity") else trt.Logger.Severity
    loudest = severity.VERBOSE if verbose else severity.INFO
    letters = {severity.INTERNAL_ERROR: "F", severity.ERROR: "E", severity.WARNING: "W", severity.INFO: "I"}

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors = 0
            self.warnings: list[str] = []

        def log(self, level: Any, text: str) -> None:
            if level > loudest:
                return
            print(f"[{letters.get(level, 'V')}] {text}")
            if level <= severity.ERROR and self.errors < KEPT_ERRORS:
                self.errors += 1
                channel.send("error", level=letters[level], text=text[:LONGEST_ERROR])
            elif level == severity.WARNING and len(self.warnings) < KEPT_ERRORS:
                self.warnings.append(text[:LONGEST_ERROR])

    return Logger()


def make_builder(trt: Trt, logger: Any, channel: Channel) -> Any:
    """The builder. The module makes none without a driver where it needs one: None, or a TypeError by pybind."""
    try:
        builder = trt.Builder(logger)
    except (TypeError, RuntimeError) as error:
        raise channel.Refused(what="builder", text=str(error)) from None
    if builder is None:
        raise channel.Refused(what="builder", text="TensorRT gave no builder")
    return builder


def check_dla(builder: Any, job: dict[str, Any], channel: Channel) -> None:
    """A core that this machine has not is taken without a word, and the engine is then for the GPU."""
    wanted = {step["name"]: step["value"] for step in job["steps"]}
    core = wanted.get("DLA_core")
    if core is None and wanted.get("engine_capability") == "DLA_STANDALONE":
        core = 0
    if core is None:
        return
    cores = int(getattr(builder, "num_DLA_cores", 0))
    if core >= cores:
        raise channel.Refused(what="dla", text=f"core {core} is asked for, and it has {cores}")


def parse(trt: Trt, builder: Any, logger: Any, job: dict[str, Any], channel: Channel) -> tuple[Any, Any]:
    """Parse the ONNX file into a network; the parser must live as long, as it owns the weights."""
    flags = 0
    if job["strong"]:
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    with channel.phase("parse"):
        network = builder.create_network(flags)
        network.name = NETWORK_NAME
        parser = trt.OnnxParser(network, logger)
        parsed = parser.parse_from_file(job["graph"])
    if not parsed:
        raise channel.Refused(what="parse", errors=[parser_error(parser.get_error(i)) for i in errors_of(parser)])
    # Files that hold nothing (empty, text, random bytes) parse as a network without outputs.
    if network.num_outputs == 0:
        raise channel.Refused(what="empty", text="the file holds no ONNX graph")
    check_names("outputs", job["outputs"], network.num_outputs, network.get_output, channel)
    check_names("inputs", job["inputs"], network.num_inputs, network.get_input, channel)
    return network, parser


def check_names(what: str, wanted: list[str], count: int, get: Any, channel: Channel) -> None:
    """The bindings must be the program's (an empty list: not known).

    The parser drops an output that is named twice, and renames an input that is an output too.
    """
    held = [get(index).name for index in range(count)]
    if wanted and held != wanted:
        raise channel.Refused(what="bindings", text=f"the {what} {', '.join(wanted)} became {', '.join(held)}")


def errors_of(parser: Any) -> range:
    return range(min(parser.num_errors, KEPT_ERRORS))


def parser_error(error: Any) -> dict[str, Any]:
    """One of the parser's errors: its text, and the node that it is about."""
    told = {"text": str(error.desc())[:LONGEST_ERROR]}
    for name in ("node_name", "node_operator"):
        if hasattr(error, name):
            told[name] = str(getattr(error, name)())[:200]
    return told


def configure(trt: Trt, config: Any, job: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Tell the configuration every step, and read each back; a value that did not hold ends the build.

    TensorRT answers many settings with a line in its log and the old value, and builds something else
    (reference, "Silently ignored").
    """
    read_back: dict[str, Any] = {}
    set_capabilities(trt, config, job["capabilities"], channel, read_back)
    for step in job["steps"]:
        try:
            told = tell(trt, config, step)
        except (AttributeError, KeyError) as error:
            if step["spare"]:
                continue
            raise channel.Refused(what="unknown", setting=step["setting"], text=str(error)) from None
        except (TypeError, ValueError, RuntimeError) as error:
            raise channel.Refused(what="setting", setting=step["setting"], text=str(error)) from None
        read_back[label(step)] = told
        if step["value"] is not None and told != step["value"]:
            raise channel.Refused(what="setting", setting=step["setting"], asked=step["value"], told=told)
    return read_back


def label(step: dict[str, Any]) -> str:
    """Where a read-back value is recorded: ``builder_optimization_level``, ``flag.TF32``, ``pool.WORKSPACE``."""
    return str(step["name"]) if step["kind"] in ("number", "enum") else f"{step['kind']}.{step['name']}"


def tell(trt: Trt, config: Any, step: dict[str, Any]) -> Any:
    """One step: set it (a value of None only reads), and say what the configuration then states."""
    kind, name, value = step["kind"], step["name"], step["value"]
    if kind == "flag":
        flag = trt.BuilderFlag.__members__[name]
        if value is not None:
            (config.set_flag if value else config.clear_flag)(flag)
        return bool(config.get_flag(flag))
    if kind == "pool":
        pool = trt.MemoryPoolType.__members__[name]
        if value is not None:
            config.set_memory_pool_limit(pool, value)
        return int(config.get_memory_pool_limit(pool))
    if kind == "enum":
        members = getattr(trt, step["type"]).__members__
        if value is not None:
            setattr(config, name, members[value])
        current = getattr(config, name)
        return next(member for member, held in members.items() if held == current)
    if value is not None:
        setattr(config, name, value)
    return int(getattr(config, name))


def set_capabilities(trt: Trt, config: Any, wanted: list[str], channel: Channel, read_back: dict[str, Any]) -> None:
    """Say the compute capabilities: left to itself, an engine's header claims more than its body holds."""
    if not wanted:
        return
    known = trt.ComputeCapability.__members__
    missing = [name for name in wanted if name not in known]
    if missing:
        raise channel.Refused(what="capability", capabilities=missing, offered=offered(trt))
    config.num_compute_capabilities = len(wanted)
    for index, name in enumerate(wanted):
        config.set_compute_capability(known[name], index)
    held = [config.get_compute_capability(index) for index in range(config.num_compute_capabilities)]
    told = [name for capability in held for name, member in known.items() if member == capability]
    read_back["compute_capabilities"] = told
    if told != wanted:
        raise channel.Refused(what="setting", setting="target", asked=wanted, told=told)


def add_profiles(trt: Trt, builder: Any, config: Any, network: Any, job: dict[str, Any], channel: Channel) -> None:
    """Add the optimisation profiles for the network's dynamic inputs."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    dynamic = [tensor for tensor in inputs if -1 in tuple(tensor.shape) or tensor.is_shape_tensor]
    if not dynamic:
        return
    if not job["profiles"]:
        raise channel.Refused(what="profile", text=f"no shapes are given for {names(dynamic)}")
    for shapes in job["profiles"]:
        profile = builder.create_optimization_profile()
        for tensor in dynamic:
            set_shapes(profile, tensor, shapes, channel)
        # It answers -1 and raises nothing when it takes no profile.
        if config.add_optimization_profile(profile) < 0:
            raise channel.Refused(what="profile", text=f"TensorRT takes no profile {shapes}")


def names(tensors: list[Any]) -> str:
    return ", ".join(tensor.name for tensor in tensors)


def set_shapes(profile: Any, tensor: Any, shapes: dict[str, Any], channel: Channel) -> None:
    if tensor.name not in shapes:
        raise channel.Refused(what="profile", text=f"the profile gives no shapes for {tensor.name}")
    try:
        if tensor.is_shape_tensor:
            profile.set_shape_input(tensor.name, *shapes[tensor.name])
        else:
            profile.set_shape(tensor.name, *shapes[tensor.name])
    except (TypeError, ValueError, RuntimeError) as error:
        raise channel.Refused(what="profile", text=f"{tensor.name}: {error}") from None


def make_monitor(trt: Trt, channel: Channel) -> Any:
    """TensorRT's progress as one fraction: each phase's steps, and the part of a step that its child has done."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, list[Any]] = {}  # name -> [parent, steps, done]
            self.said = 0.0
            self.furthest = 0.0

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self.phases[name] = [parent, max(steps, 1), 0]

        def phase_finish(self, name: str) -> None:
            self.phases.pop(name, None)

        def step_complete(self, name: str, step: int) -> bool:
            if name in self.phases:
                self.phases[name][2] = step + 1
            self.say(name)
            return True  # anything else, None included, cancels the build

        def say(self, name: str) -> None:
            now = time.monotonic()
            if now - self.said < PROGRESS_SECONDS:
                return
            self.said = now
            self.furthest = max(self.furthest, min(self.fraction(name), 1.0))
            channel.send("progress", fraction=round(self.furthest, 4))

        def fraction(self, name: str) -> float:
            inner = 0.0
            for _ in range(len(self.phases)):
                parent, steps, done = self.phases[name]
                inner = (done + min(inner, 1.0)) / steps
                if parent not in self.phases:
                    break
                name = parent
            return inner

    return Monitor()


def build(builder: Any, network: Any, config: Any, channel: Channel) -> Any:
    """The plan, as TensorRT's own memory: it is written from there, never copied."""
    with channel.phase("build"):
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise channel.Refused(what="build", text="TensorRT gave no engine")
    return plan


def start_timing_cache(config: Any, job: dict[str, Any], channel: Channel) -> tuple[Any, dict[str, Any]]:
    """Give the configuration a timing cache to start from, where one is wanted; the cache, and what is to be told."""
    timed: dict[str, Any] = {"aside": "", "before": None, "after": None}
    if not job["timing_cache_out"]:
        return None, timed
    cache = None
    if job["timing_cache"]:
        channel.send("timing", state="reading")
        with open(job["timing_cache"], "rb") as file:  # noqa: PTH123 - no pathlib in a child
            cache = config.create_timing_cache(file.read())
        # False: timings of another device or version are never taken over (ITimingCache, ignore_mismatch).
        if cache is None or not config.set_timing_cache(cache, False):
            cache, timed["aside"] = None, "it does not fit this device and version, or is damaged"
            print("[W] the timing cache does not fit this device and version; starting with an empty one")
        channel.send("timing", state="read")
    if cache is None:
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    timed["before"] = entries_of(cache)
    return cache, timed


def save_timing_cache(config: Any, cache: Any, job: dict[str, Any], timed: dict[str, Any], channel: Channel) -> bool:
    """Write the timing cache as the build left it; whether there is one."""
    held = config.get_timing_cache() if cache is not None else None
    if held is None:
        return False
    timed["after"] = entries_of(held)
    channel.write(job["timing_cache_out"], held.serialize())
    return True


def entries_of(cache: Any) -> int | None:
    """How many entries a timing cache has, where this version can tell."""
    try:
        return len(cache.queryKeys())
    except (AttributeError, RuntimeError):
        return None


def bindings(count: int, get: Any) -> list[dict[str, Any]]:
    """The network's inputs or outputs, in order: name, dtype and shape (-1 where dynamic)."""
    tensors = [get(index) for index in range(count)]
    return [
        {"name": tensor.name, "dtype": tensor.dtype.name, "shape": [int(size) for size in tensor.shape]}
        for tensor in tensors
    ]
