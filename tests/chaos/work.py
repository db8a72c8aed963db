"""What is asked of a tortured fleet, by whom, and what must come of it. Drawn from a seed. Pure.

A *piece* is one build. Its number and its fate are written into its profile, so that whoever builds it knows what is to
become of it without being told by anybody but farm.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from farm.asks import Ask, GivenProfile, Identity
from farm.targets import capability_name
from farm.worker import named_profiles

PROGRAMS = 3
TARGET = "sm_89"
QUEUE = "tensorrt_rtx==1.7.1.116/any/x86_64"
PLAN_BYTES = 24_000
WIDTH = 4


class Fate(IntEnum):
    """What is to become of a build where nothing else befalls it."""

    PLAIN = 0
    """It is built in the worker's own process."""
    CHILD = 1
    """It is built in a child process under ``farm.builders.sandbox``."""
    FLAKY = 2
    """It fails now and then for a passing reason."""
    POISON = 3
    """It can never be built."""
    SLOW = 4
    """It takes longer than a lease: whoever is stopped meanwhile comes back while another is at it."""


SHARES = {Fate.PLAIN: 40, Fate.CHILD: 44, Fate.FLAKY: 8, Fate.POISON: 4, Fate.SLOW: 4}
"""Of a hundred."""


@dataclass(frozen=True)
class Piece:
    """One build."""

    number: int
    fate: Fate

    def ask(self, programs: Path) -> Ask:
        """What a client asks for to have it."""
        opt = self.number + 1
        shapes = {"min": 1, "opt": opt, "max": 10 * opt + self.fate}
        profile = GivenProfile(**{name: {"x": (batch, WIDTH)} for name, batch in shapes.items()})
        return Ask(str(programs / f"p{self.number % PROGRAMS}.onnx"), TARGET, profiles=(profile,))


def piece_of(profiles: Sequence[Mapping[str, Any]]) -> Piece:
    """The piece that a job is, by its profile."""
    (shapes,) = profiles[0].values()
    _, opt, most = shapes
    return Piece(opt[0] - 1, Fate(most[0] - 10 * opt[0]))


def plan_of(graph: str, settings: Any, capabilities: Any, profiles: Any) -> bytes:
    """The engine: the same bytes for the same job, and other ones for another. ``graph`` is the hex SHA-256 of the
    ONNX form's bytes."""
    told = json.dumps([graph, settings, capabilities, profiles], sort_keys=True, default=list).encode()
    return hashlib.shake_256(told).digest(PLAN_BYTES)


def plan_for(identity: Identity) -> bytes:
    """The engine that an ask must get, from what its client knows and nobody else."""
    graph = hashlib.sha256(identity.path.read_bytes()).hexdigest()
    names = [capability_name(number) for number in identity.capabilities]
    profiles = named_profiles(identity.profiles, (0,), ("x",))
    return plan_of(graph, identity.told, names, profiles)


@dataclass(frozen=True)
class Step:
    """One thing that a client does. ``want``: ask and wait; ``keep``: ask, and go; ``leave``: ask, and withdraw after
    a while; ``cancel``: ask, and cancel for everybody. ``pause``: seconds before it."""

    kind: str
    numbers: tuple[int, ...]
    pause: float


@dataclass(frozen=True)
class Work:
    """All that is asked in a run: the pieces by number, and the steps of each client, by lane."""

    pieces: tuple[Piece, ...]
    clients: tuple[tuple[tuple[Step, ...], ...], ...]

    @property
    def wanted(self) -> frozenset[int]:
        """Those that somebody asks for who does not withdraw: they must be built, or fail for good."""
        return self._asked_by("want", "keep")

    @property
    def fickle(self) -> frozenset[int]:
        """Those that may end as cancelled."""
        return frozenset(range(len(self.pieces))) - self.wanted

    def _asked_by(self, *kinds: str) -> frozenset[int]:
        steps = (step for lanes in self.clients for lane in lanes for step in lane)
        return frozenset(number for step in steps if step.kind in kinds for number in step.numbers)


def work(seed: int, builds: int, clients: int = 3, lanes: int = 2, pause: float = 1.5) -> Work:
    """``builds`` pieces, asked for by so many clients in bursts; among them duplicates of one another's."""
    draws = random.Random(f"{seed} work")
    fates = draws.choices(list(SHARES), weights=list(SHARES.values()), k=builds)
    pieces = tuple(Piece(number, fate) for number, fate in enumerate(fates))
    numbers = list(range(builds))
    draws.shuffle(numbers)
    fickle, wanted = numbers[: builds // 12], numbers[builds // 12 :]
    shares = [wanted[n :: clients * lanes] for n in range(clients * lanes)]
    made = [_lane(draws, share, wanted, fickle[n :: clients * lanes], pause) for n, share in enumerate(shares)]
    return Work(pieces, tuple(tuple(made[n * lanes : (n + 1) * lanes]) for n in range(clients)))


def _lane(
    draws: random.Random, share: Sequence[int], wanted: Sequence[int], fickle: Sequence[int], pause: float
) -> tuple[Step, ...]:
    """One lane's own share in bursts, each with some of the others'; between them what nobody else wants."""
    steps, left = [], list(share)
    while left:
        size = draws.randint(2, 14)
        burst, left = left[:size], left[size:]
        also = draws.sample(wanted, min(len(wanted), size // 3))
        kind = "want" if draws.random() < 0.85 else "keep"
        steps.append(Step(kind, tuple(dict.fromkeys([*burst, *also])), draws.uniform(0, pause)))
    for number in fickle:
        kind = draws.choice(("leave", "leave", "cancel"))
        also = draws.sample(wanted, min(len(wanted), 3)) if kind == "leave" else []
        steps.insert(draws.randint(0, len(steps)), Step(kind, (number, *also), draws.uniform(0, pause)))
    return tuple(steps)


def write_programs(folder: Path) -> None:
    """The programs that the pieces are of; a build of them costs nothing, a look at them little."""
    import onnx

    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    for number in range(PROGRAMS):
        weights = helper.make_tensor("w", kind, [WIDTH], [float(number + n) for n in range(WIDTH)])
        graph = helper.make_graph(
            [helper.make_node("Mul", ["x", "w"], ["y"], name="product")],
            "piece",
            [helper.make_tensor_value_info("x", kind, ["n", WIDTH])],
            [helper.make_tensor_value_info("y", kind, ["n", WIDTH])],
            [weights],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.save(model, folder / f"p{number}.onnx")
