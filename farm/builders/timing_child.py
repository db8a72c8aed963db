"""The child that merges timing caches. A task for ``child``: it imports TensorRT and the standard library only.

Its job: ``module``, ``version``: what to import, and the version that it must have; ``theirs``, ``mine``: files, the
first of which may be null; ``out``: where the merged one goes.

A cache is never combined with itself: TensorRT hangs for ever in that. These two are read from two files into two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from farm.builders.child import Channel


def run(job: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Merge; ``done`` tells ``entries`` (None where this version cannot count), or which cache is ``unfit``."""
    builder = make_builder(job, channel)
    channel.ready()
    with channel.phase("merge"):
        mine = opened(builder, job["mine"])
        if mine is None:
            return {"unfit": "mine"}
        held: Any = mine
        if job["theirs"]:
            held = opened(builder, job["theirs"])
            if held is None:
                return {"unfit": "theirs"}
            # What both have stays as it is stored; False: never across devices.
            if not held.combine(mine, False):
                raise channel.Refused(what="build", text="TensorRT did not combine the timing caches")
        channel.write(job["out"], held.serialize())
    return {"unfit": "", "entries": entries_of(held)}


def explain(error: BaseException, phase: str) -> None:
    """TensorRT's API says why by itself; anything else is a defect."""


def make_builder(job: dict[str, Any], channel: Channel) -> Any:
    trt = channel.toolchain(job)
    try:
        builder = trt.Builder(trt.Logger(trt.Logger.WARNING))
    except (TypeError, RuntimeError) as error:
        raise channel.Refused(what="builder", text=str(error)) from None
    if builder is None:
        raise channel.Refused(what="builder", text="TensorRT gave no builder")
    return builder


def opened(builder: Any, path: str) -> Any:
    """The timing cache in a file; None when it is of another version or device, or damaged."""
    config = builder.create_builder_config()
    with open(path, "rb") as file:  # noqa: PTH123 - no pathlib in a child
        cache = config.create_timing_cache(file.read())
    return cache if cache is not None and config.set_timing_cache(cache, False) else None


def entries_of(cache: Any) -> int | None:
    try:
        return len(cache.queryKeys())
    except (AttributeError, RuntimeError):
        return None
