"""From what a user asks to keys: models opened, targets and toolchains resolved, profiles derived.

Callers are ``service`` (for clients) and ``worker`` (which trusts no client's key and computes it again).
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farm import keys, placement
from farm.asks import Ask, GivenProfile, Identity
from farm.builds import BuildRequest
from farm.compilation import CompilationSettings
from farm.errors import BadProgram, BadTarget
from farm.gpus import Gpu
from farm.profiles import resolve
from farm.programs import Program, open_program
from farm.store import Blob, BlobStore
from farm.targets import TargetRequest, parse_target, place_of
from farm.toolchains import PINNED, TORCH_TENSORRT, Toolchain, ToolchainSpec, exact_toolchain

if TYPE_CHECKING:
    from farm.programs.memory import WeightsMemory


@dataclass(frozen=True)
class _Known:
    """A program, what keys need of it, and its canonical profiles; as they were ``given``."""

    program: Program
    facts: keys.ProgramFacts
    profiles: tuple[Mapping[str, Any], ...]
    given: Sequence[GivenProfile]


@dataclass(frozen=True)
class Common:
    """What the asks of a sweep share, found out once for all of them."""

    known: dict[object, _Known] = field(default_factory=dict)
    targets: dict[str, list[TargetRequest]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Stored:
    """A stored program, what keys need of it, and the positions of its inputs."""

    program: Program
    facts: keys.ProgramFacts
    inputs: tuple[int, ...]


FORMATS = ("pt2", "onnx")
REMEMBERED = 64
"""Programs that a worker keeps open; a sweep is over a few."""


class Identifier:
    """Opens each model once. ``installed`` lists this machine's toolchains, ``local_gpu`` its GPU.

    One thread at a time may use a client's; a worker's threads share one, whose programs are read-only.
    """

    def __init__(
        self,
        *,
        default_targets: Sequence[str] = (),
        default_toolchain: str = "",
        installed: Callable[[], Sequence[Toolchain]],
        local_gpu: Callable[[], Gpu | None],
        memory: WeightsMemory | None = None,
    ) -> None:
        self._default_targets = tuple(default_targets)
        self._default_toolchain = default_toolchain
        self._installed = functools.cache(lambda: tuple(installed()))
        self._local_gpu = local_gpu
        self._memory = memory
        self._programs: dict[tuple[Path, tuple[tuple[str, str], ...]], Program] = {}
        self._recomputed: dict[tuple[str, tuple[tuple[str, str], ...]], _Stored] = {}
        self._lock = threading.Lock()

    # -- for clients -------------------------------------------------------------------------------------------

    def identify(self, asks: Sequence[Ask], common: Common | None = None) -> list[Identity]:
        """One identity for each ask × target; ``BadInput`` names what cannot be asked, before anything is built.
        ``common``: of asks that come one by one."""
        common = common or Common()
        return [self._identity(ask, request, common) for ask in asks for request in self._targets(ask, common.targets)]

    def program(self, model: str, custom_ops: Mapping[str, str] | None = None) -> Program:
        """The program at ``model``, opened once."""
        try:
            path = Path(model).expanduser()
            slot = (path, tuple(sorted((custom_ops or {}).items())))
            if slot not in self._programs:
                if not path.exists():
                    raise BadProgram(f"{model}: there is no such file", "give the path of a .pt2 or .onnx file")
                self._programs[slot] = open_program(path, custom_ops=custom_ops, memory=self._memory)
            return self._programs[slot]
        except (OSError, RuntimeError, ValueError) as error:
            # No such user, a name too long, a device that cannot be read: whatever the system says of the path.
            raise BadProgram(f"{model} cannot be read: {error}", "give the path of a .pt2 or .onnx file") from error

    def pack(self, identity: Identity, store: BlobStore) -> Blob:
        """Put a model into the store, once by content. ``BadProgram`` for an ONNX model whose weights lie in other
        files: its key covers them, but a stored program is one file, and another model's data would fit it as well."""
        if identity.format == "onnx":
            program = open_program(identity.path, custom_ops=identity.custom_ops)
            homes = {getattr(tensor.content, "path", program.path) for tensor in program.weights.stored}
            if homes - {program.path}:
                raise BadProgram(
                    f"{identity.model} keeps its weights in other files, and farm builds from single ones",
                    "save it in one file (onnx.save with save_as_external_data=False), or give the .pt2",
                )
        return store.put_file(identity.path)

    def _targets(self, ask: Ask, known: dict[str, list[TargetRequest]]) -> list[TargetRequest]:
        if ask.target not in known:
            texts = [ask.target] if ask.target else list(self._default_targets) or ["local"]
            known[ask.target] = [self.target(text) for text in texts]
        return known[ask.target]

    def target(self, text: str) -> TargetRequest:
        """What a TARGET means here: ``local`` is this machine's GPU."""
        return parse_target(text, self._local_gpu)

    def toolchain(self, spec: ToolchainSpec | None) -> Toolchain:
        """The exact toolchain for what was asked: named, else configured, else installed here, else pinned.

        The last lets a machine without TensorRT compute the keys that its own release's builders use.
        """
        candidates = [exact_toolchain(self._default_toolchain)] if self._default_toolchain else []
        candidates += [*self._installed(), exact_toolchain(PINNED)]
        if spec is None:
            return candidates[0]
        exact = spec.exact()
        if exact is not None:
            # Torch-TensorRT without a word of what is under it: as it is installed here, if it is.
            here = (
                one for one in candidates if spec.over is None and exact.flavour == TORCH_TENSORRT and spec.admits(one)
            )
            return next(here, exact)
        for candidate in candidates:
            if spec.admits(candidate):
                return candidate
        raise BadTarget(
            f"no version of {spec.flavour} is known here",
            f"name it, as in @{spec.flavour}==10.14.1, or set FARM_TOOLCHAIN",
        )

    def _known(self, ask: Ask, known: dict[object, _Known]) -> _Known:
        # Profiles by the very object, which ``_Known`` keeps: to compare them takes as long as to resolve them.
        slot = (ask.model, tuple(sorted(ask.custom_ops.items())), id(ask.profiles))
        if slot not in known:
            program = self.program(ask.model, ask.custom_ops)
            profiles = resolve(program.inputs, program.symbols, [_given(profile) for profile in ask.profiles])
            canonical = tuple(profile.canonical() for profile in profiles)
            known[slot] = _Known(program, _lasting(program), canonical, ask.profiles)
        return known[slot]

    def _identity(self, ask: Ask, request: TargetRequest, common: Common) -> Identity:
        same = self._known(ask, common.known)
        program, canonical = same.program, same.profiles
        toolchain = self.toolchain(request.toolchain)
        target, settings = keys.one_windows(request.target, ask.settings)
        keyed = keys.compute(same.facts, canonical, settings, toolchain, target)
        told = keyed.effective.told
        refused = [*keyed.effective.refused, *placement.refusals(toolchain, target, told)]
        return Identity(
            model=ask.model,
            path=program.path,
            target=str(target),
            toolchain=str(toolchain),
            key=keyed.key,
            recipe=keyed.recipe,
            graph=program.structure_digest,
            weights=keyed.weights,
            settings=keyed.parts["settings"],
            told=keyed.effective.told,
            profiles=canonical,
            parts=keyed.parts,
            capability=placement.capability(toolchain, target, keyed.effective.key),
            capabilities=target.capabilities,
            format=program.format,
            inputs=tuple(spec.name for spec in program.inputs),
            outputs=tuple(spec.name for spec in program.outputs),
            given=settings.given(),
            warnings=keyed.effective.warnings,
            inert=keyed.effective.inert,
            refused=tuple(reason for reason in refused if reason),
            custom_ops=ask.custom_ops,
            priority=ask.priority,
            weight_bytes=program.weights.size,
        )

    # -- for workers -------------------------------------------------------------------------------------------

    def recompute(self, program: Callable[[], Path], request: BuildRequest) -> tuple[keys.Keyed, tuple[int, ...]]:
        """Key and recipe of a stored build from the stored program itself, and the positions of its inputs.

        Nothing is used that a client said of its digests, or of what the builder is to be told. A program is
        opened once per content, whichever thread comes first; ``program()`` gives its file. ``BadInput`` for a request
        that cannot be.
        """
        if request.program_format not in FORMATS:  # it is part of a file's name, too
            raise BadProgram(f"'{request.program_format[:20]}' is no kind of program", "ask with the model itself")
        stored = self._stored(program, request)
        if stored.program.format != request.program_format:
            was = f"{request.model} was stored as .{request.program_format} and is .{stored.program.format}"
            raise BadProgram(was, "ask with it itself")
        settings = CompilationSettings.from_mapping(request.settings)
        toolchain, target = exact_toolchain(request.toolchain), place_of(request.target)
        keyed = keys.compute(stored.facts, request.profiles, settings, toolchain, target)
        return keyed, stored.inputs

    def stored_program(self, path: Callable[[], Path], request: BuildRequest) -> Program:
        """The stored program of a build, opened once; its weights are hashed, its file is not needed any more."""
        return self._stored(path, request).program

    def _stored(self, path: Callable[[], Path], request: BuildRequest) -> _Stored:
        slot = (request.program, tuple(sorted(request.custom_ops.items())))
        with self._lock:
            if slot not in self._recomputed:
                if len(self._recomputed) >= REMEMBERED:
                    self._recomputed.clear()
                program = open_program(path(), custom_ops=request.custom_ops)
                # All that a key may ask for, now: the file is gone once this build has ended.
                program.weights.content_digest(), program.graph_digest, program.match_nodes(())
                inputs = tuple(spec.position for spec in program.inputs)
                self._recomputed[slot] = _Stored(program, _lasting(program), inputs)
            return self._recomputed[slot]


def facts(program: Program) -> keys.ProgramFacts:
    """What keys need of a program."""
    return keys.ProgramFacts(
        format=program.format,
        graph=program.structure_digest,
        weights_content=program.weights.content_digest,
        weights_metadata=program.weights.metadata_digest,
        constants=lambda: program.graph_digest,
        operators=program.operators,
        uses_float64=program.uses_float64,
        match_nodes=program.match_nodes,
        spellings=lambda: program.spellings,
    )


def _lasting(program: Program) -> keys.ProgramFacts:
    """The same of a program that does not change, for many keys."""
    return replace(facts(program), weights_content=functools.cache(program.weights.content_digest))


def _given(profile: GivenProfile) -> dict[str, Mapping[str, tuple[int, ...]]]:
    return {"min": profile.min, "opt": profile.opt, "max": profile.max}
