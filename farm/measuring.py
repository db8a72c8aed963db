"""Having engines and their baselines measured: what is asked, and how it is waited for. The client's side.

``gauge`` is a worker's. An ask is a row until somebody has measured it: by a worker that is there, or by one that joins
later. Nothing is lost meanwhile, whoever goes away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from farm.asks import Identity
from farm.builds import Engine
from farm.errors import BadInput
from farm.index import Index
from farm.measurements import Measurement, MeasuringAsk, Runner, baseline_of, comparable, is_at, shapes_text, speedup
from farm.placement import TORCH, measuring_places
from farm.targets import parse_target
from farm.toolchains import TORCH_TENSORRT

POLL_SECONDS = 0.2
JOIN_SECONDS = 5.0
"""How long somebody is waited for who measures there, before it is said that nobody does."""


class Measuring(StrEnum):
    """How an ask stands."""

    MEASURED = "measured"
    FAILED = "failed"
    AWAITING = "awaiting"
    MISSING = "missing"
    """There is no engine to measure."""


@dataclass(frozen=True)
class Wish:
    """How something is to be measured. ``runs``: repeated runs (0: the harness' own number)."""

    baselines: tuple[Runner, ...] = (Runner.EAGER,)
    cuda_graphs: bool = False
    runs: int = 0


@dataclass(frozen=True)
class Asked:
    """One ask and what has become of it. ``found`` holds its measurements, newest first, then the baselines that they
    may be compared with; ``error`` why it failed, or where it waits."""

    model: str
    target: str
    outcome: Measuring
    ask: MeasuringAsk | None = None
    error: str = ""
    found: tuple[Measurement, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "target": self.target,
            "engine": (self.ask.engine if self.ask else "") or None,
            "outcome": str(self.outcome),
            "place": self.ask.place if self.ask else None,
            "error": self.error or None,
            "measurements": documents(self.found),
        }


def documents(found: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Measurements as JSON; each of an engine, or of ``torch.compile``, with how many times as fast as eager it is."""
    rows = []
    for one in found:
        eager = None if one.runner is Runner.EAGER else baseline_of(one, found)
        rows.append({**one.as_json(), "speedup": speedup(eager, one) if eager else None, "accuracy": _told(one)})
    return rows


def _told(one: Measurement) -> dict[str, Any] | None:
    """JSON has no word for what is not finite."""
    if one.accuracy is None:
        return None
    values = asdict(one.accuracy)
    return values if one.accuracy.finite else dict.fromkeys(values) | {"finite": False}


# -- what is asked -----------------------------------------------------------------------------------------------


def engine_asks(engine: Engine, program_format: str, wish: Wish) -> list[MeasuringAsk]:
    """One ask for each kind of device that the engine is for, by its manifest; none for what cannot be measured
    (``unmeasurable``). An engine's baselines go with it, so that they are measured on the same device."""
    if unmeasurable(engine):
        return []
    told = engine.manifest
    bindings = told.get("bindings") or {}
    profiles = told.get("profiles") or []
    toolchain = str(told["toolchain"])
    ask = MeasuringAsk(
        runner=Runner.ENGINE,
        program=str(told["program"]),
        program_format=program_format,
        place="",
        engine=engine.digest,
        model=str(told.get("model") or ""),
        shapes=best_shapes(profiles),
        inputs=tuple(str(one["name"]) for one in bindings.get("inputs") or []),
        outputs=tuple(str(one["name"]) for one in bindings.get("outputs") or []),
        toolchain=toolchain,
        cuda_graphs=wish.cuda_graphs,
        runs=wish.runs,
        baselines=wish.baselines if program_format == "pt2" else (),
    )
    target = parse_target(str(told["target"])).target
    return [replace(ask, place=place) for place in measuring_places(toolchain, target)]


def unmeasurable(engine: Engine) -> str:
    """Why no node measures an engine, in words; empty where one could."""
    if str(engine.manifest["toolchain"]).startswith(TORCH_TENSORRT):
        return "a program of Torch-TensorRT's is several engines with PyTorch between them: the harness runs one"
    if parse_target(str(engine.manifest["target"])).target.os != "linux":
        return "no node runs Windows"
    return ""


def baseline_asks(identity: Identity, program: str, places: Sequence[str], wish: Wish) -> list[MeasuringAsk]:
    """The baselines alone, of a program that is in the store. ``BadInput`` for one that PyTorch cannot run."""
    if identity.format != "pt2":
        raise BadInput(f"{identity.model} is no PyTorch program, and has no baseline", "give its engine, or a .pt2")
    return [
        MeasuringAsk(
            runner=runner,
            program=program,
            program_format=identity.format,
            place=place,
            model=identity.model,
            shapes=best_shapes(identity.profiles),
            custom_ops=identity.custom_ops,
            cuda_graphs=wish.cuda_graphs and not place.startswith(f"{TORCH}/cpu/"),
            runs=wish.runs,
        )
        for place in places
        for runner in wish.baselines
    ]


def best_shapes(profiles: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """The shapes of dynamic inputs that the first profile is optimised for, by position."""
    first = profiles[0] if profiles else {}
    return {str(position): [int(size) for size in shapes["opt"]] for position, shapes in first.items()}


def baseline_places(identity: Identity) -> tuple[str, ...]:
    """Where the baselines of an identity are measured: on the devices of its target."""
    return measuring_places(TORCH, parse_target(identity.target).target)


# -- waiting -----------------------------------------------------------------------------------------------------


@dataclass
class Waiting:
    """Waits for asks. ``notify`` takes lines for whoever watches; ``pause`` is what is done between two looks."""

    index: Index
    notify: Callable[[str], None] = lambda text: None
    pause: Callable[[], None] = lambda: time.sleep(POLL_SECONDS)
    join_seconds: float = JOIN_SECONDS
    _said: set[str] = field(default_factory=set)

    def until_over(self, asks: Sequence[MeasuringAsk], timeout: float | None = None) -> None:
        """Return when each has been measured or has failed, or is nobody's to measure, or ``timeout`` seconds have
        passed. What is measured now is waited for, whoever measures it."""
        began = time.monotonic()
        while True:
            pending = [one for one in self.index.awaiting([ask.id for ask in asks]) if not one.failure]
            waited = time.monotonic() - began
            if not pending or (timeout is not None and waited > timeout):
                return
            served = self._served()
            lonely = {one.ask.place for one in pending if not one.worker and one.ask.place not in served}
            if waited > self.join_seconds and all(one.ask.place in lonely for one in pending):
                return
            self._tell(one.worker for one in pending if one.worker)
            self.pause()

    def _served(self) -> set[str]:
        """Places that somebody measures for who is there."""
        return {place for one in self.index.workers() if one.fresh for place in one.detail.get("measures") or ()}

    def _tell(self, workers: Iterator[str]) -> None:
        for worker in set(workers) - self._said:
            self._said.add(worker)
            self.notify(f"{worker.partition(':')[0]} measures")


def asked(index: Index, asks: Sequence[MeasuringAsk], target: str = "") -> list[Asked]:
    """How each ask stands, and what was found."""
    left = {one.ask.id: one for one in index.awaiting([ask.id for ask in asks])}
    found = index.measurements_of({digest for ask in asks for digest in (ask.engine, ask.program) if digest})
    return [_asked(ask, left, found, target) for ask in asks]


def _asked(ask: MeasuringAsk, left: Mapping[str, Any], found: Sequence[Measurement], target: str) -> Asked:
    mine = of_ask(ask, found)
    target = target or ask.place.split("/")[1]
    waits = left.get(ask.id)
    if waits is None:
        return Asked(ask.model, target, Measuring.MEASURED, ask, found=tuple(mine))
    if waits.failure:
        return Asked(ask.model, target, Measuring.FAILED, ask, waits.failure, tuple(mine))
    return Asked(
        ask.model, target, Measuring.AWAITING, ask, f"it waits for a node that measures {ask.place}", tuple(mine)
    )


def of_ask(ask: MeasuringAsk, found: Sequence[Measurement]) -> list[Measurement]:
    """Measurements of an ask's subject with its shapes, then the baselines that they may be compared with."""
    mine = [
        one
        for one in found
        if (one.runner, one.subject, one.cuda_graphs) == (ask.runner, ask.engine or ask.program, ask.cuda_graphs)
        and is_at(ask.place, one)
        and shapes_text(one.shapes) == shapes_text({**one.shapes, **ask.shapes})
    ]
    return [*mine, *baselines_beside(mine, found)]


def baselines_beside(mine: Collection[Measurement], found: Sequence[Measurement]) -> list[Measurement]:
    """Of ``found``, the baselines that any of ``mine`` may be compared with, and that are none of them."""
    ids = {one.id for one in mine}
    return [
        one
        for one in found
        if one.runner.is_baseline and one.id not in ids and any(comparable(one, other) for other in mine)
    ]
