"""What a machine's worker serves, on which GPU, and how many builds at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from nvml_standin import StandIn
from some_gpus import h100, l4, mig_part

from farm.config import Config
from farm.errors import BadInput, Unavailable
from farm.fitting import Fitting, fit
from farm.hosts import claims
from farm.hosts.probe import cores
from farm.toolchains import exact_toolchain

RTX, PLAIN = exact_toolchain("tensorrt_rtx==1.7.1.116"), exact_toolchain("tensorrt==10.14.1")
BOTH = (RTX, PLAIN)

Fit = Callable[..., Fitting]


@pytest.fixture
def fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fit]:
    """``fit`` whose claims are let go of at the end, and which locks nothing outside the test."""
    monkeypatch.setattr(claims, "PLACES", ())
    monkeypatch.setattr(claims.claim_gpu, "__defaults__", ("", ()))
    made: list[Fitting] = []

    def make(toolchains: tuple = BOTH, gpu: int | None = None, **changes: object) -> Fitting:  # type: ignore[type-arg]
        made.append(fit(replace(Config(home=tmp_path, host="node"), **changes), toolchains, os.environ, gpu))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.release()


def queues(fitting: Fitting) -> list[str]:
    return [queue.rpartition("/")[0] for queue in fitting.serves]


def test_without_a_gpu_it_builds_what_needs_none_as_wide_as_its_cores(
    fitted: Fit, driver: Callable[..., StandIn]
) -> None:
    driver()
    fitting = fitted()
    assert queues(fitting) == [f"{RTX}/any"]
    assert fitting.slots == cores() and "gpu" not in fitting.detail
    assert fitting.environment["CUDA_VISIBLE_DEVICES"] == ""
    assert fitted(concurrency=7).slots == 7


def test_a_gpu_gives_its_queue_one_timed_build_at_a_time_and_is_pinned(
    fitted: Fit, driver: Callable[..., StandIn]
) -> None:
    driver(h100(0), l4(1))
    fitting = fitted(gpu=1)
    assert queues(fitting) == [f"{RTX}/any", f"{PLAIN}/l4", f"{PLAIN}/ampere_plus"]
    assert fitting.slots == 1
    assert fitting.environment["CUDA_VISIBLE_DEVICES"] == l4(1).uuid
    assert fitting.detail["gpu"]["name"] == "NVIDIA L4" and fitting.detail["driver"]
    assert fitting.admission.gpu_capacity == fitting.detail["gpu"]["memory"] > 0


def test_one_worker_for_each_gpu(fitted: Fit, driver: Callable[..., StandIn]) -> None:
    driver(h100(0), l4(1))
    first = fitted(gpu=0)
    with pytest.raises(Unavailable, match="taken by process"):
        fitted(gpu=0)
    assert f"{PLAIN}/l4" in queues(fitted(gpu=1))
    first.release()
    assert f"{PLAIN}/h100" in queues(fitted(gpu=0))


def test_a_gpu_that_is_not_there_is_bad_input(fitted: Fit, driver: Callable[..., StandIn]) -> None:
    driver(h100(0))
    with pytest.raises(BadInput, match="GPU 3 cannot be used: there is no GPU 3"):
        fitted(gpu=3)


def test_the_only_gpu_is_used_without_being_named_unless_somebody_has_it(
    fitted: Fit, driver: Callable[..., StandIn]
) -> None:
    driver(l4())
    first = fitted()
    assert f"{PLAIN}/l4" in queues(first)
    second = fitted()
    assert queues(second) == [f"{RTX}/any"] and "building without it" in second.notes[0]


def test_of_several_gpus_none_is_used_unnamed(fitted: Fit, driver: Callable[..., StandIn]) -> None:
    driver(h100(0), l4(1))
    fitting = fitted()
    assert queues(fitting) == [f"{RTX}/any"] and "--gpu N" in fitting.notes[0]


def test_a_toolchain_that_needs_no_gpu_leaves_it_to_others(fitted: Fit, driver: Callable[..., StandIn]) -> None:
    driver(l4())
    assert fitted((RTX,)).slots == cores()
    assert f"{PLAIN}/l4" in queues(fitted())


def test_a_part_of_a_gpu_is_no_gpu_of_that_name(fitted: Fit, driver: Callable[..., StandIn]) -> None:
    """An engine is bound to what it was timed on."""
    driver(replace(h100(0), mig_mode=1, parts=[mig_part(0), mig_part(1)]))
    first, second = fitted(gpu=0), fitted(gpu=0)
    assert not any(queue.endswith(("/h100", "/a100")) for queue in queues(first))
    assert any("-mig-" in queue for queue in queues(first))
    assert first.detail["gpu"]["uuid"] != second.detail["gpu"]["uuid"]
    with pytest.raises(Unavailable):
        fitted(gpu=0)
