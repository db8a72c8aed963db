"""What the engines of a sweep are worth in each metric: from their rows, and from measurements on a GPU. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from farm.measurements import Measurement, Runner

Values = Mapping[str, float]
"""Values by metric, each in the metric's unit."""


def values_of(size: int, build_seconds: float, measured: Measurement | None) -> dict[str, float]:
    """Every metric that is known of an engine."""
    values = {"engine_size": float(size), "build_time": build_seconds}
    return values | (measured_values(measured) if measured else {})


def measured_values(measured: Measurement) -> dict[str, float]:
    """What a measurement says, by metric."""
    latency = measured.latency
    values = {
        "latency_p50": latency.p50,
        "latency_p90": latency.p90,
        "latency_p99": latency.p99,
        "latency_avg": latency.mean,
        "throughput": measured.throughput,
        "load_time": measured.load_seconds,
    }
    if measured.memory is not None:
        values["gpu_memory"] = float(measured.memory)
    if measured.accuracy is not None:
        accuracy = measured.accuracy
        values |= {"accuracy": accuracy.cosine, "max_abs_error": accuracy.max_abs, "max_rel_error": accuracy.max_rel}
    return values


def chosen(engines: Collection[str], measurements: Iterable[Measurement]) -> dict[str, Measurement]:
    """One measurement for each of ``engines`` (digests of plans) that are to be compared with each other.

    All are of one kind of device, measured in one way: the one that most of the engines were measured on, and of
    several the latest. Of several measurements of an engine there, the newest that nothing held down.
    """
    known = set(engines)
    mine = [one for one in measurements if one.runner is Runner.ENGINE and one.engine in known]
    if not mine:
        return {}
    ways = Counter(way for way, _ in {(_way(one), one.engine) for one in mine})
    latest = {way: max(one.at for one in mine if _way(one) == way) for way in ways}
    best = max(ways, key=lambda way: (ways[way], latest[way], way))
    found: dict[str, Measurement] = {}
    for one in sorted((one for one in mine if _way(one) == best), key=lambda one: (not one.throttled, one.at)):
        found[one.engine] = one
    return found


def _way(one: Measurement) -> tuple[str, bool, int]:
    return one.device, one.cuda_graphs, one.harness


def baselines(programs: Collection[str], measurements: Iterable[Measurement], device: str) -> list[Measurement]:
    """Eager and ``torch.compile`` on the same kind of device, the newest of each, for any of the programs."""
    found: dict[Runner, Measurement] = {}
    for one in sorted(measurements, key=lambda one: one.at):
        if one.runner.is_baseline and one.program in programs and one.device == device:
            found[one.runner] = one
    return [found[runner] for runner in Runner if runner in found]


def pick(values: Sequence[Values], name: str) -> list[float]:
    """The known values of one metric."""
    return [one[name] for one in values if name in one]
