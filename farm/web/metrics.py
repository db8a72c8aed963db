"""``/metrics``: what the server answered, and what the farm holds, for Prometheus. Names start with ``farm_``."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from farm.version import __version__
from farm.web.desk import Desk

BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


class Metrics:
    """One server's, in a registry of its own."""

    def __init__(self, desk: Desk) -> None:
        self._registry = CollectorRegistry()
        labels = ("method", "path")
        self._requests = Counter(
            "farm_http_requests_total", "Requests answered.", (*labels, "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "farm_http_seconds", "Time to the first byte.", labels, buckets=BUCKETS, registry=self._registry
        )
        self._registry.register(_Held(desk))

    def saw(self, method: str, path: str, status: int, seconds: float) -> None:
        """A request to the route ``path``."""
        self._requests.labels(method, path, status).inc()
        self._seconds.labels(method, path).observe(seconds)

    def text(self) -> tuple[bytes, str]:
        """All of it, and its media type. ``Unavailable`` when the database is away."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class _Held(Collector):
    """What the database says, looked up as it is asked for."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        book = self._desk.book
        stats = book.stats()
        yield _gauge("farm_info", "This server.", {(__version__,): 1.0}, "version")
        for name, field, told in _HELD:
            yield _gauge(name, told, {(): float(stats.get(field, 0))})
        yield _gauge("farm_builds", "Builds, by state.", {(str(k),): v for k, v in stats["builds"].items()}, "state")
        yield _gauge(
            "farm_builds_waiting", "Builds due, by queue.", {(k,): v for k, v in book.waiting().items()}, "queue"
        )
        seats = [seat for seat in book.seats() if seat.fresh]
        yield _gauge("farm_workers", "Workers heard of lately.", {(): len(seats)})
        yield _gauge("farm_workers_slots", "Builds that they can make at once.", {(): sum(s.slots for s in seats)})
        yield _gauge("farm_workers_busy", "Builds that they make now.", {(): sum(s.busy for s in seats)})
        yield from _counters(stats.get("counters", {}))


_HELD = (
    ("farm_engines", "engines", "Engines."),
    ("farm_plans", "blobs", "Distinct plans."),
    ("farm_plans_bytes", "bytes", "Bytes of distinct plans."),
    ("farm_programs", "programs", "Programs."),
)


def _gauge(name: str, told: str, values: dict[tuple[str, ...], float], *labels: str) -> Metric:
    family = GaugeMetricFamily(name, told, labels=labels)
    for label, value in values.items():
        family.add_metric(label, float(value))
    return family


def _counters(counters: dict[str, dict[str, float]]) -> Iterator[Metric]:
    """What the farm has counted: ``hit`` of ``n`` becomes ``farm_counted_total{what="hit",field="n"}``."""
    family = CounterMetricFamily("farm_counted", "What clients and workers counted.", labels=("what", "field"))
    for what, fields in counters.items():
        for field, value in fields.items():
            family.add_metric((what, field), value)
    yield family
