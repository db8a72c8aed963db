"""The child that puts other weights into an engine. A task for ``child``: it imports TensorRT and the standard library.

Its job: ``module``, ``version``: what to import, and the version that it must have; ``plan``: the refittable engine;
``graph``: the ONNX file that has the weights, of the same graph as the engine's; ``out``: where the engine goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from farm.builders.child import Channel

SHOWN = 5


def run(job: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Refit; what it returns is the message ``done``."""
    trt = channel.toolchain(job)
    logger = trt.Logger(trt.Logger.WARNING)
    engine = deserialised(trt, logger, job["plan"], channel)
    channel.ready()
    with channel.phase("refit"):
        count = refit(trt, logger, engine, job["graph"], channel)
    with channel.phase("serialise"):
        config = engine.create_serialization_config()
        if hasattr(trt.SerializationFlag, "INCLUDE_REFIT"):  # else what was refitted could not be refitted again
            config.set_flag(trt.SerializationFlag.INCLUDE_REFIT)
        channel.write(job["out"], engine.serialize_with_config(config))
    return {"weights": count}


def explain(error: BaseException, phase: str) -> None:
    """TensorRT's API says why by itself; anything else is a defect."""


def deserialised(trt: Any, logger: Any, path: str, channel: Channel) -> Any:
    """The engine, on the GPU."""
    with open(path, "rb") as file:  # noqa: PTH123 - no pathlib in a child
        plan = file.read()
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    if engine is None:
        raise channel.Refused(what="builder", text="TensorRT does not load the engine here: that needs its GPU")
    return engine


def refit(trt: Any, logger: Any, engine: Any, graph: str, channel: Channel) -> int:
    """Put in every weight that the engine has; how many they are."""
    refitter = trt.Refitter(engine, logger)
    names = list(refitter.get_all_weights())
    parser = trt.OnnxParserRefitter(refitter, logger)
    if not parser.refit_from_file(graph):
        told = [str(parser.get_error(n).desc()) for n in range(min(parser.num_errors, SHOWN))]
        raise channel.Refused(what="refit", text="; ".join(told) or "TensorRT did not take the weights")
    missing = list(refitter.get_missing_weights())
    if missing:
        raise channel.Refused(what="refit", text=f"it lacks {', '.join(missing[:SHOWN])}")
    if not refitter.refit_cuda_engine():
        raise channel.Refused(what="refit", text="TensorRT did not refit the engine")
    return len(names)
