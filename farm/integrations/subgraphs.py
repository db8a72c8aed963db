"""The key of one of Torch-TensorRT's subgraphs, as it hands them to an engine cache.

The parts are a program's (``farm.keys``): graph, profiles, weights, effective settings, toolchain, target. But:

* Lowering and partitioning are done, so the settings that they spend are in the graph (``effective``, ``subgraph``).
* A cached engine is refitted with its asker's weights before it runs, so weights count by metadata wherever nothing
  reads their values, and the recipe has them by metadata as well: one build serves every fine-tune.
* A refit finds an engine's weights by names that come from the graph. Names never split a key; but an engine whose
  weights are named otherwise cannot be refitted with the asker's, so the recipe has the ``naming``, and a hit that has
  another is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.asks import Identity
from farm.canonical import digest
from farm.compilation import FIELDS, CompilationSettings, Role, effective
from farm.engine_shelf import KIND
from farm.gpus import Gpu, find_gpu, plain_name
from farm.keys import weights_policy
from farm.programs.live import subgraph_digest
from farm.targets import Target, canonical_target
from farm.toolchains import Toolchain


@dataclass(frozen=True)
class Place:
    """Where an engine is built and runs: this process's toolchain and GPU. ``multiprocessors`` tells a MIG slice from
    the whole; ``capabilities`` are what engines are built for, where that can be chosen."""

    toolchain: Toolchain
    gpu: Gpu
    multiprocessors: int = 0
    capabilities: tuple[int, ...] = ()

    @property
    def target(self) -> Target:
        if self.capabilities and not self.toolchain.device_bound:
            return Target(self.capabilities, arch=self.gpu.arch)
        return Target((self.gpu.capability,), self.gpu.name, arch=self.gpu.arch)


@dataclass(frozen=True)
class Asked:
    """One subgraph that Torch-TensorRT asks for, and its own objects to be handed back with a hit."""

    identity: Identity
    naming: str
    specs: Sequence[Any]
    settings: Any
    outputs: tuple[Mapping[str, Any], ...]
    baked: bool = False

    @property
    def key(self) -> str:
        return self.identity.key

    @property
    def stores(self) -> bool:
        """Whether its engine is to be kept. One with its weights baked in is asked for by farm's own functions, which
        always do."""
        return self.baked or bool(self.settings.cache_built_engines)

    @property
    def reuses(self) -> bool:
        return self.baked or bool(self.settings.reuse_cached_engines)

    def served_by(self, naming: object) -> bool:
        """Whether an engine of the key with weights of such names serves: a refit looks for them by the asker's."""
        return self.baked or naming == self.naming


def gpu_named(name: str, capability: int, arch: str) -> Gpu:
    """The catalogue's GPU of the name that CUDA gives, else one named so."""
    known = find_gpu(name)
    if known is not None and known.capability == capability:
        return Gpu(known.name, capability, arch)
    return Gpu(plain_name(name), capability, arch)


def identify(module: Any, specs: Sequence[Any], settings: Any, place: Place, baked: bool = False) -> Asked:
    """Key and recipe of a subgraph; with ``baked``, of an engine that is used as it was built, weights and all, so that
    they count by content whatever the settings. ``FarmError`` for what cannot be keyed: a custom operator, or
    calibration data, without a declared digest; a setting that farm does not know."""
    graph = subgraph_digest(module, specs)
    given = CompilationSettings.from_torch_tensorrt(settings)
    told = effective(given, flavour=place.toolchain.flavour, version=place.toolchain.version, subgraph=True)
    policy = "content" if baked else weights_policy(told.key, graph.operators)
    weights = graph.weights.content_digest() if policy == "content" else graph.weights.metadata_digest()
    profiles = ({str(n): _shapes(spec) for n, spec in enumerate(specs)},)
    shared = {
        "kind": f"{KIND}, baked" if baked else KIND,
        "graph": graph.structure_digest,
        "profiles": list(profiles),
        "toolchain": place.toolchain.canonical(),
        "target": _target(place, told.key),
        "weights": {"policy": policy, "digest": weights, "constants": graph.graph_digest},
    }
    keyed = {**shared, "settings": dict(told.key)}
    made = {**shared, "settings": dict(told.recipe), "naming": graph.naming}
    parts = {**keyed, "recipe": {"settings": made["settings"], "naming": graph.naming}}
    identity = Identity(
        model=f"subgraph {graph.structure_digest[7:15]}",
        path=Path(),
        target=str(place.target),
        toolchain=str(place.toolchain),
        key=digest("subgraph key", keyed),
        recipe=digest("subgraph recipe", made),
        graph=graph.structure_digest,
        weights=weights,
        settings=dict(told.key),
        told=dict(told.told),
        profiles=profiles,
        parts=parts,
        capability="",
        format="subgraph",
        given={name: value for name, value in given.given().items() if FIELDS[name].role is not Role.WORKFLOW},
        capabilities=place.target.capabilities,
        weight_bytes=graph.weights.size,
    )
    return Asked(identity, graph.naming, list(specs), settings, _outputs(module), baked)


def _target(place: Place, settings: Mapping[str, Any]) -> dict[str, object]:
    target = canonical_target(place.target, place.toolchain, bool(settings.get("hardware_compatible")))
    return target | ({"multiprocessors": place.multiprocessors} if "gpu" in target else {})


def _shapes(spec: Any) -> dict[str, list[int]]:
    """An input's ``min``, ``opt`` and ``max``; of a fixed one they are the same."""
    shape = spec.shape
    return {
        name: [int(size) for size in (shape[f"{name}_shape"] if isinstance(shape, Mapping) else shape)]
        for name in ("min", "opt", "max")
    }


def _outputs(module: Any) -> tuple[Mapping[str, Any], ...]:
    """Dtype and shape of each output, where the graph says them: -1 is a dynamic size."""
    (returned,) = next(node for node in module.graph.nodes if node.op == "output").args
    values = returned if isinstance(returned, list | tuple) else [returned]
    return tuple(_tensor(getattr(node, "meta", {}).get("val")) for node in values)


def _tensor(value: Any) -> dict[str, Any]:
    if not hasattr(value, "dtype") or not hasattr(value, "shape"):
        return {"dtype": "", "shape": []}
    shape = [size if type(size) is int else -1 for size in value.shape]
    return {"dtype": str(value.dtype).removeprefix("torch."), "shape": shape}
