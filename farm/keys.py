"""Keys and recipes: what an engine *is*, and exactly how it is to be made. Pure.

The **key** digests (graph, profiles, weights policy, effective settings, toolchain, target): the specification's
identity of an engine. The **recipe** digests everything that the builder will be told, search settings and
exporter versions included, less what the builder declares inert; its weights are always by content. One build
per recipe; a look-up by key takes any recipe's engine and prefers the exact one (DESIGN, Words and The key).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from farm.canonical import Encoded, digest, encode
from farm.compilation import CompilationSettings, Effective, effective
from farm.targets import Target, canonical_target
from farm.toolchains import EXPORTER, Toolchain

NODE_PATTERNS = "autocast_excluded_nodes"
BY_OPERATOR = ("torch_executed_ops", "enable_autocast")
QUANTISED = ("quantize", "dequantize")
_EXPORTER = Encoded(encode(EXPORTER))


@dataclass(frozen=True)
class ProgramFacts:
    """What a key needs of a program: digests, and nothing of names.

    ``graph`` covers the structure, every tensor in it by metadata alone; ``weights_content`` every tensor by
    content, constants included; ``weights_metadata`` the weights by metadata, and ``constants`` the constants by
    content, for engines that serve every fine-tune. ``operators`` are the qualified names of the operators used;
    ``match_nodes`` turns node-name patterns into the digests of the nodes that they match, and ``spellings`` digests
    the calls whose operator the graph digest takes for another of the same meaning.
    """

    format: str
    graph: str
    weights_content: Callable[[], str]
    weights_metadata: Callable[[], str]
    constants: Callable[[], str]
    operators: frozenset[str]
    uses_float64: bool
    match_nodes: Callable[[Sequence[str]], Sequence[str]]
    spellings: Callable[[], Sequence[str]] = tuple


@dataclass(frozen=True)
class Keyed:
    """A key, its recipe, and what they were made of. ``weights`` is the content digest, whatever the policy."""

    key: str
    recipe: str
    weights: str
    policy: str
    parts: Mapping[str, Any]
    effective: Effective


def compute(
    program: ProgramFacts,
    profiles: Sequence[Any],
    settings: CompilationSettings,
    toolchain: Toolchain,
    target: Target,
) -> Keyed:
    """The key and the recipe. Raises ``BadSettings`` or ``BadTarget`` for what cannot be; never for a setting that
    this builder merely refuses, since a key is a name and asks nothing of a builder.

    ``profiles`` are canonical profiles (``Profile.canonical``), by input position, in the order they were given.
    """
    target, settings = one_windows(target, settings)
    told = effective(settings, flavour=toolchain.flavour, version=toolchain.version)
    content = program.weights_content()
    policy = weights_policy(told.key, program.operators)
    exported = program.format == "pt2"
    place = _placed(toolchain, target, bool(told.key.get("hardware_compatible")))
    keyed = {
        "graph": program.graph,
        "profiles": list(profiles),
        "toolchain": place.toolchain,
        "target": place.target,
        **_spellings(told.key, program),
        "settings": _of_program(told.key, program),
        "weights": _weights(policy, content, program),
    }
    of_recipe = {
        "settings": _of_program(told.recipe, program),
        "exporter": EXPORTER if exported else None,
        "weights": content,
        "place": place.asked,
    }
    ready = {**keyed, **place.encoded}
    made = {**ready, **of_recipe, **place.asked_encoded, "exporter": _EXPORTER if exported else None}
    return Keyed(digest("key", ready), digest("recipe", made), content, policy, {**keyed, "recipe": of_recipe}, told)


@dataclass(frozen=True)
class _Place:
    """What a toolchain and a target are in keys (``toolchain``, ``target``) and in recipes (``asked``); and the same
    encoded, by the names that they have there. Every key of a sweep has these, and to encode them takes longest."""

    toolchain: Mapping[str, Any]
    target: Mapping[str, Any]
    asked: Mapping[str, Any] | None
    encoded: Mapping[str, Encoded]
    asked_encoded: Mapping[str, Encoded]


@lru_cache(256)
def _placed(toolchain: Toolchain, target: Target, hardware_compatible: bool) -> _Place:
    tools, where = toolchain.canonical(), canonical_target(target, toolchain, hardware_compatible)
    # A hardware-compatible engine may be built on any GPU of its class, yet this very build was asked of one.
    asked = {"capabilities": list(target.capabilities), "gpu": target.gpu} if toolchain.device_bound else None
    encoded = {"toolchain": Encoded(encode(tools)), "target": Encoded(encode(where))}
    return _Place(tools, where, asked, encoded, {"place": Encoded(encode(asked))})


BESIDE = frozenset({"recipe", "outline"})
"""What stands among the parts and is none of the key's."""


def consistent(key: str, recipe: str, parts: Mapping[str, Any]) -> bool:
    """Whether ``parts``, as ``compute`` gave them, come to this key and this recipe. So whoever says what a key is made
    of need not be believed: a link from a key to another program's recipe does not add up."""
    try:
        keyed = {name: part for name, part in parts.items() if name not in BESIDE}
        kind = "subgraph " if "kind" in parts else ""
        made = digest(f"{kind}recipe", {**keyed, **parts["recipe"]})
        return key == digest(f"{kind}key", keyed) and recipe == made
    except (KeyError, TypeError, ValueError):
        return False


def _weights(policy: str, content: str, program: ProgramFacts) -> dict[str, str]:
    if policy == "content":
        return {"policy": policy, "digest": content}
    return {"policy": policy, "digest": program.weights_metadata(), "constants": program.constants()}


def weights_policy(settings: Mapping[str, Any], operators: frozenset[str]) -> str:
    """``metadata`` when one engine can serve every fine-tune, else ``content`` (DESIGN, Weights).

    An engine is refittable when ``immutable_weights`` is False. All the same its weights' values were read, and
    count, under ``refit_identical_engine_weights`` (which weights are equal), ``sparse_weights`` (where zeros
    lie), effective autocast (how large they are) and quantisation (scales taken from them).
    """
    if settings.get("immutable_weights", True):
        return "content"
    reads = (
        settings.get("refit_identical_engine_weights")
        or settings.get("sparse_weights")
        or settings.get("enable_autocast")
        or any(word in name.lower() for name in operators for word in QUANTISED)
    )
    return "content" if reads else "metadata"


def one_windows(target: Target, settings: CompilationSettings) -> tuple[Target, CompilationSettings]:
    """``/windows`` and ``enable_cross_compile_for_windows`` are one thing (DESIGN, Targets): each brings the other."""
    windows = target.os == "windows" or settings.enable_cross_compile_for_windows
    if windows == settings.enable_cross_compile_for_windows and windows == (target.os == "windows"):
        return target, settings
    return replace(target, os="windows"), settings.replace(enable_cross_compile_for_windows=True)


def _spellings(settings: Mapping[str, Any], program: ProgramFacts) -> dict[str, str]:
    """How operators were written, where settings go by that: ``square`` in a set of operators means no ``pow``, though
    the two compute one thing; and the rules of autocast name overloads."""
    spelt = list(program.spellings()) if any(settings.get(name) for name in BY_OPERATOR) else []
    return {"spellings": digest("spellings", spelt)} if spelt else {}


def _of_program(settings: Mapping[str, Any], program: ProgramFacts) -> dict[str, Any]:
    """Settings as they bear on this very program.

    Patterns over node names say nothing once names drop out: the nodes that they match stand in for them. And
    ``truncate_double`` cannot matter where nothing is a double.
    """
    values = dict(settings)
    if values.get(NODE_PATTERNS):
        values[NODE_PATTERNS] = list(program.match_nodes(values[NODE_PATTERNS]))
    if not program.uses_float64:
        values.pop("truncate_double", None)
    return values


@dataclass(frozen=True)
class Difference:
    """One way in which two keys' parts differ: a dotted path, and the value on either side (``None``: absent)."""

    path: str
    mine: Any
    theirs: Any


def differences(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Difference]:
    """Every leaf in which two sets of parts differ, in the order of ``mine``."""
    found: list[Difference] = []
    _compare("", mine, theirs, found)
    return found


def _compare(path: str, mine: Any, theirs: Any, found: list[Difference]) -> None:
    if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
        for name in [*mine, *(name for name in theirs if name not in mine)]:
            _compare(f"{path}.{name}" if path else name, mine.get(name), theirs.get(name), found)
    elif isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        for n, (one, other) in enumerate(zip(mine, theirs, strict=True)):
            _compare(f"{path}[{n}]", one, other, found)
    elif _plain(mine) != _plain(theirs):
        found.append(Difference(path, mine, theirs))


def _plain(value: Any) -> Any:
    """Compare as the encoding does: ``True``, ``1`` and ``1.0`` are three values."""
    return (type(value).__name__, repr(value)) if not isinstance(value, tuple) else _plain(list(value))
