"""What clients ask for, computed anew from the stored program: a client's word is taken for nothing that is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from farm.builds import BuildRequest, Engine
from farm.compilation import CompilationSettings
from farm.errors import BadInput, Missing
from farm.identify import facts
from farm.index import KeyParts, StoredProgram
from farm.keys import compute, consistent, one_windows
from farm.manifests import alteration
from farm.namespaces import queue
from farm.placement import capability, expected_seconds, gpu_memory_needed, memory_needed, refusals
from farm.programs import Program
from farm.store import is_name
from farm.targets import parse_target
from farm.toolchains import exact_toolchain
from farm.web.desk import Caller
from farm.wire import Order

CHANGED = "ask again now that the file is whole"


class Vetting:
    """One submission of one caller's."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._desk = caller.desk
        self._kept: set[str] = set()

    def requests(self, orders: Sequence[Order], waiter: str) -> list[BuildRequest]:
        """What is to be built, with what is known of how long it takes and what it needs."""
        made = [self._request(order, waiter) for order in orders]
        past = self._caller.index.past({(one.capability, graph) for one, graph in made})
        return [
            replace(one, expected=expected_seconds(past.of_graph, past.of_capability, one.capability, graph))
            for one, graph in made
        ]

    def _request(self, order: Order, waiter: str) -> tuple[BuildRequest, str]:
        """What is to be built, and its graph's digest. ``BadInput`` when the program does not come to the key and
        recipe that are asked for."""
        asked = _request_of(order)
        program = self.program(asked)
        settings = CompilationSettings.from_mapping(order.settings)
        toolchain, given = exact_toolchain(order.toolchain), parse_target(order.target).target
        target, settings = one_windows(given, settings)
        keyed = compute(facts(program), asked.profiles, settings, toolchain, target)
        if (keyed.key, keyed.recipe) != (order.key, order.recipe):
            raise BadInput(f"{order.model[:200]} is not what its key was computed from: it changed on its way", CHANGED)
        refused = [*keyed.effective.refused, *refusals(toolchain, target, keyed.effective.told)]
        if refused:
            raise BadInput(refused[0])
        weights = program.weights.size
        self._keep(asked, program, keyed.weights)
        request = replace(
            asked,
            told=keyed.effective.told,
            program_format=program.format,
            weights=keyed.weights,
            capability=queue(capability(toolchain, target, keyed.effective.key), self._caller.realm.is_trusted),
            namespace=self._caller.token.namespace,
            tenant=self._caller.token.name,
            flow=waiter or f"{self._caller.token.id}/",
            memory=memory_needed(weights, order.settings),
            gpu_memory=gpu_memory_needed(toolchain, weights, keyed.effective.told),
        )
        return request, program.structure_digest

    def _keep(self, asked: BuildRequest, program: Program, weights: str) -> None:
        """Record the program, once a submission, as its bytes have it."""
        if asked.program not in self._kept:
            size = self._desk.store.size(asked.program) or 0
            graph = program.structure_digest
            self._caller.index.put_program(
                StoredProgram(asked.program, asked.model, program.format, size, graph, weights)
            )
            self._kept.add(asked.program)

    def program(self, request: BuildRequest) -> Program:
        """A stored program, opened. ``Missing`` when the store has no such blob."""
        with tempfile.TemporaryDirectory(prefix="vet-", dir=self._desk.scratch) as folder:
            return self._desk.identifier.stored_program(lambda: self._file(request.program, Path(folder)), request)

    def _file(self, digest: str, folder: Path) -> Path:
        path = folder / "program"
        if not is_name(digest) or not self._desk.store.fetch(digest, path, link=True):
            raise Missing(f"the program {digest[:80]} is not in the store", "ask again: it is sent first")
        return path


def check_parts(parts: Sequence[KeyParts]) -> None:
    """``BadInput`` where a key or a recipe is not what its parts come to: if that were believed, a program would hit
    another's engine."""
    for one in parts:
        outline = one.parts.get("outline")
        if not consistent(one.key, one.recipe, one.parts) or not (outline is None or is_name(str(outline))):
            raise BadInput(f"the parts of {one.key[:80]} do not come to it", "update farm, here or there")


def check_engine(engine: Engine, parts: KeyParts) -> None:
    """``BadInput`` for an engine whose manifest says other things than what it comes with."""
    told = alteration(engine)
    same = engine.manifest.get("key") == parts.key and engine.manifest.get("recipe") == parts.recipe == engine.recipe
    if told or not same or engine.manifest.get("namespace") != engine.namespace or not is_name(engine.digest):
        raise BadInput(f"engine {engine.digest[:80]} is not what its manifest says{f': {told}' if told else ''}")


def _request_of(order: Order) -> BuildRequest:
    """An order as a request that nothing has been computed of yet."""
    return BuildRequest(
        key=order.key,
        recipe=order.recipe,
        program=order.program,
        program_format="",
        model=order.model,
        target=order.target,
        toolchain=order.toolchain,
        told={},
        profiles=tuple(order.profiles),
        settings=order.settings,
        custom_ops=order.custom_ops,
        priority=order.priority,
    )
