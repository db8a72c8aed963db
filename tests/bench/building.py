"""What a build costs beyond TensorRT's own work: starting its child, and reading back what it made."""

from __future__ import annotations

import importlib.util
import shutil
import time
from collections.abc import Iterator

from farm.builders import Job, Limits, Product, Watch
from farm.builders.tensorrt import TensorRTBuilder
from farm.compilation import CompilationSettings, effective
from farm.toolchains import PINNED, exact_toolchain
from tests.bench.measure import Row, Times, Unavailable, folder, limited
from tests.bench.programs import CACHE, kept

LIMIT_S = 0.3
WORK = ("parse", "build", "serialise")


def overhead(quick: bool) -> Iterator[Row]:
    """Wall-clock time of ``Builder.build`` less TensorRT's parsing, building and serialising, of a tiny program."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        raise Unavailable("there is no tensorrt_rtx here")
    builder, program = TensorRTBuilder(), kept("small")
    with folder(CACHE) as place:
        form = builder.export(program, place, Limits(seconds=300), Watch(), {})
        told = effective(CompilationSettings(), flavour="tensorrt_rtx", version=PINNED.partition("==")[2]).told
        toolchain, limits = exact_toolchain(PINNED), Limits(seconds=300)
        extra, work = [], []
        for number in range(4 if quick else 12):
            work_folder = place / f"build-{number}"
            work_folder.mkdir()
            job = Job(toolchain, form, told, ("sm_89",), (), work_folder, limits=limits)
            wall, product = _build(builder, job)
            work.append(sum(product.seconds[name] for name in WORK))
            extra.append(wall - work[-1])
            shutil.rmtree(work_folder)
    times = Times(tuple(extra[1:]))
    note = f"beside {min(work):.3f} s of TensorRT's own work; {times.said()}"
    yield limited("build-overhead", times.least, "s", LIMIT_S, note)


def _build(builder: TensorRTBuilder, job: Job) -> tuple[float, Product]:
    started = time.perf_counter()
    product = builder.build(job, Watch())
    return time.perf_counter() - started, product
