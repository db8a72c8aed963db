"""How a sweep searches its grid, and when it stops. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from farm.errors import BadInput

GRID, RANDOM, TPE = "grid", "random", "tpe"
KINDS = (GRID, RANDOM, TPE)

ALL_TRIED = "every configuration was tried"

LEAST_TRIALS = 20
"""A search that was given no budget tries no fewer, where there are so many, and a third of the grid otherwise."""


@dataclass(frozen=True)
class Search:
    """``kind``: ``grid`` (all, cheap ones first), ``random`` or ``tpe``; ``seed`` makes a search repeatable.

    Budgets, each ``None`` where there is none: ``trials`` configurations tried, ``builds`` builds begun, ``minutes`` of
    building over all nodes. ``patience``: stop after so many builds in a row that improved nothing.
    """

    kind: str = GRID
    seed: int = 0
    trials: int | None = None
    builds: int | None = None
    minutes: float | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadInput(f"--search {self.kind}: there is no such search", f"known: {', '.join(KINDS)}")
        for name in ("trials", "builds", "minutes", "patience"):
            given = getattr(self, name)
            if given is not None and not given > 0:
                raise BadInput(f"a search of {given:g} {name} finds nothing", "give a number above 0")

    @property
    def stepwise(self) -> bool:
        """Whether what is tried next depends on what came before; a plain grid is asked for at once."""
        return self.kind != GRID or self.budgeted

    @property
    def budgeted(self) -> bool:
        return any(limit is not None for limit in (self.builds, self.minutes, self.patience))

    def most_trials(self, size: int) -> int:
        """How many configurations of ``size`` may be tried."""
        if self.kind == GRID:
            return size
        if self.trials is not None:
            return min(size, self.trials)
        return size if self.budgeted else min(size, max(LEAST_TRIALS, -(-size // 3)))

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Search:
        return cls(**dict(told))


@dataclass(frozen=True)
class Progress:
    """How far a search is: configurations tried, of how many; builds begun; seconds of building; builds that ended
    since the last that improved on all before it."""

    tried: int
    size: int
    builds: int = 0
    seconds: float = 0.0
    stale: int = 0


def stop_reason(search: Search, now: Progress) -> str:
    """Why no more is tried; empty while more is."""
    if now.tried >= now.size:
        return ALL_TRIED
    if search.kind != GRID and now.tried >= search.most_trials(now.size):
        return f"the budget of {search.most_trials(now.size):,} trials is used up"
    if search.builds is not None and now.builds >= search.builds:
        return f"the budget of {search.builds:,} builds is used up"
    if search.minutes is not None and now.seconds >= 60 * search.minutes:
        return f"the budget of {search.minutes:g} minutes of building is used up"
    if search.patience is not None and now.stale >= search.patience:
        return f"the last {now.stale:,} builds improved nothing"
    return ""


def room(search: Search, now: Progress, hands: int, active: int) -> int:
    """How many more builds to begin now: for hands that are free, within the budgets."""
    free = max(0, hands - active)
    if search.builds is not None:
        free = min(free, search.builds - now.builds)
    return max(0, min(free, search.most_trials(now.size) - now.tried))
