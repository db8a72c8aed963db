"""What is asked of a farm, and what it answers. Pure; the same for an embedded, a fleet's and a remote farm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from farm.compilation import CompilationSettings

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes by input name, as trtexec's grammar gives them."""


@dataclass(frozen=True)
class GivenProfile:
    """One optimisation profile as a user gives it; any of the three may be missing (see ``profiles.resolve``)."""

    min: Shapes = field(default_factory=dict)
    opt: Shapes = field(default_factory=dict)
    max: Shapes = field(default_factory=dict)


@dataclass(frozen=True)
class Ask:
    """One engine wanted. ``model`` is the path as it was given, ``target`` a TARGET (empty: the configured ones)."""

    model: str
    target: str = ""
    settings: CompilationSettings = field(default_factory=CompilationSettings)
    profiles: tuple[GivenProfile, ...] = ()
    custom_ops: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0


class Outcome(StrEnum):
    """How one ask ended (INTERFACE, ``farm build``)."""

    HIT = "hit"
    BUILT = "built"
    JOINED = "joined"
    FAILED = "failed"
    MISSING = "missing"
    QUEUED = "queued"
    CANCELLED = "cancelled"

    @property
    def has_engine(self) -> bool:
        return self in (Outcome.HIT, Outcome.BUILT, Outcome.JOINED)


@dataclass(frozen=True)
class Identity:
    """What one ask comes to: its key and recipe, and all that they were made of.

    ``settings`` are the effective settings that the key holds; ``told`` what the builder is told; ``parts`` all
    parts by name, for ``farm explain``; ``warnings`` what cannot matter; ``refused`` what this builder cannot
    honour (a key exists all the same); ``profiles`` are by input position; ``weight_bytes`` is what all weights weigh.
    """

    model: str
    path: Path
    target: str
    toolchain: str
    key: str
    recipe: str
    graph: str
    weights: str
    settings: Mapping[str, Any]
    told: Mapping[str, Any]
    profiles: tuple[Mapping[str, Any], ...]
    parts: Mapping[str, Any]
    capability: str
    format: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    inert: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    capabilities: tuple[int, ...] = ()
    custom_ops: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    weight_bytes: int = 0


@dataclass(frozen=True)
class EngineRef:
    """An engine in an answer: the SHA-256 of the plan file, its size in bytes."""

    digest: str
    size: int


@dataclass(frozen=True)
class Answer:
    """The answer to one ask. ``seconds``: what the build took, or 0 for a hit; ``saved``: what a hit spared.

    ``why`` says why it was a miss, when it was one (``never built``, ``blob lost`` …); ``build`` is the build's
    id where one was needed; ``needs_refit``: the engine's baked weights are not the asker's;
    ``portable``: what the engine was built
    for, where it was not for this very target and toolchain.
    """

    identity: Identity
    outcome: Outcome
    engine: EngineRef | None = None
    seconds: float = 0.0
    saved: float = 0.0
    error: str = ""
    hint: str = ""
    why: str = ""
    build: str | None = None
    needs_refit: bool = False
    exact: bool = True
    manifest: Mapping[str, Any] = field(default_factory=dict)
    portable: str = ""

    def as_json(self) -> dict[str, Any]:
        """The document that INTERFACE names for ``farm build --json``."""
        return {
            "model": self.identity.model,
            "target": self.identity.target,
            "key": self.identity.key,
            "recipe": self.identity.recipe,
            "outcome": str(self.outcome),
            "engine": {"digest": self.engine.digest, "size": self.engine.size} if self.engine else None,
            "seconds": round(self.seconds, 3),
            "error": self.error or None,
            "build": self.build,
            "needs_refit": self.needs_refit,
            "portable": self.portable or None,
            "warnings": list(self.identity.warnings),
        }
