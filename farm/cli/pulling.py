"""Which engines ``farm pull`` fetches, and how they are placed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from farm.asks import Ask
from farm.builds import Engine
from farm.cache import Miss
from farm.cli import options as opt
from farm.cli.output import note
from farm.cli.session import opened
from farm.errors import BadInput, BuildFailed, FarmError, Missing, Unavailable
from farm.prebuilding.lines import names_of
from farm.targets import parse_target

if TYPE_CHECKING:
    from farm.prebuilds.lock import LockEntry
    from farm.pulling.pulls import Pulled
    from farm.service import Farm

_UNSAFE = re.compile(r"[^\w.+-]+")


@dataclass(frozen=True)
class Wish:
    """One engine to fetch, with the names to file it under."""

    engine: Engine
    model: str
    target: str
    key: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Placed:
    """A plan on this machine."""

    model: str
    target: str
    key: str
    recipe: str
    digest: str
    size: int
    path: Path

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "target": self.target,
            "key": self.key,
            "recipe": self.recipe,
            "digest": self.digest,
            "size": self.size,
            "path": str(self.path),
        }


# -- by lock file ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Given:
    """What the command line says of models: settings and shapes, of which a lock file needs none."""

    settings: Sequence[str] = ()
    min_shapes: Sequence[str] = ()
    opt_shapes: Sequence[str] = ()
    max_shapes: Sequence[str] = ()
    custom_ops: Sequence[str] = ()

    @property
    def any(self) -> bool:
        return any((self.settings, self.min_shapes, self.opt_shapes, self.max_shapes, self.custom_ops))

    def asks(self, models: Sequence[str], targets: Sequence[str]) -> list[Ask]:
        profiles = opt.profiles_of(self.min_shapes, self.opt_shapes, self.max_shapes)
        return opt.asks(models, targets, self.settings, profiles, self.custom_ops) if models else []


def pull_locked(
    lock: Path | None,
    names: Sequence[str],
    targets: Sequence[str],
    folder: Path,
    layout: str,
    jobs: int,
    portable: bool,
) -> list[dict[str, Any]]:
    """Fetch what a lock file names: of the models ``names`` (all, when there are none), for ``targets``."""
    from farm.config import load
    from farm.prebuilds.lock_file import read_lock
    from farm.wiring import open_pulling
    from farm.wiring.backends import gpu_here

    path = lock or Path("farm.lock")
    if lock is None and not path.exists():
        raise BadInput("nothing to pull is named", "give keys or models, or a lock file with --lock")
    _check_layout(layout)
    lines = read_lock(path)
    wanted = [parse_target(text, gpu_here) for text in targets]
    with open_pulling(load()) as pulling:
        found = pulling.pull(pulling.choose(path, lines, names, wanted, portable), folder, layout, jobs)
    for item in found:
        _note_pulled(item)
    return [item.as_json() for item in found]


def _check_layout(layout: str) -> None:
    from farm.pulling.pulls import LAYOUTS

    if layout not in LAYOUTS:
        raise BadInput(f"--layout {layout} is not known", f"write one of {', '.join(LAYOUTS)}")


def _note_pulled(item: Pulled) -> None:
    if item.portable:
        note(f"farm: note: {item.line.model}: a portable engine, built for {item.portable}")
    if item.needs_refit:
        note(f"farm: {item.line}: the engine needs a refit before it is used, with the weights beside it")


# -- by key, or by model -----------------------------------------------------------------------------------------


def pull_named(
    what: Sequence[str], targets: Sequence[str], given: Given, folder: Path, layout: str, build: bool
) -> list[dict[str, Any]]:
    """Fetch engines by key, recipe or digest, or by model and target; with ``build`` what is missing is built first."""
    _check_layout(layout)
    models = [text for text in what if opt.program_path(text) is not None]
    keys = [text for text in what if opt.program_path(text) is None]
    with opened(building=build) as farm:
        asks = given.asks(models, targets)
        if build and asks:
            _build_first(farm, asks)
        wishes = wanted(farm, keys, targets, asks)
        with farm.cache.holding([wish.engine for wish in wishes]):
            if layout == "plain":
                return [place(farm, wish, folder, build).as_json() for wish in wishes]
            return [item.as_json() for item in _repository(farm, wishes, folder, layout)]


def _repository(farm: Farm, wishes: Sequence[Wish], folder: Path, layout: str) -> list[Pulled]:
    from farm.pulling.choice import Choice
    from farm.pulling.pulls import Pulling

    rows = {wish.engine.digest: wish.engine for wish in wishes}
    pulling = Pulling(farm.store, lambda line: farm.cache.distrusts(rows[line.engine]))
    return pulling.pull([Choice(_as_line(wish)) for wish in wishes], folder, layout)


def _as_line(wish: Wish) -> LockEntry:
    from farm.prebuilds.lock import LockEntry

    engine, told = wish.engine, wish.engine.manifest
    return LockEntry(
        model=PurePath(wish.model).stem or "engine",
        target=wish.target,
        key=wish.key,
        recipe=engine.recipe,
        engine=engine.digest,
        size=engine.size,
        toolchain=str(told.get("toolchain", "")),
        manifest=str(told.get("manifest", "")),
        inputs=wish.inputs,
        outputs=wish.outputs,
    )


def _build_first(farm: Farm, asks: Sequence[Ask]) -> None:
    """Have what is missing built; ``BuildFailed`` when one cannot be."""
    from farm.cli.asking import wait_for

    for answer in wait_for(farm, farm.submit(asks)):
        if answer.error:
            identity = answer.identity
            raise BuildFailed(f"{identity.model} for {identity.target}: {answer.error}", answer.hint)


def wanted(farm: Farm, keys: Sequence[str], targets: Sequence[str], asks: Sequence[Ask]) -> list[Wish]:
    """Everything that is to be fetched, found before the first byte moves. ``Missing`` names what is not there."""
    wishes = [*(_by_key(farm, prefix, targets) for prefix in keys), *_by_look(farm, asks)]
    names: dict[str, str] = {}
    for wish in wishes:
        if names.setdefault(file_name(wish), wish.engine.digest) != wish.engine.digest:
            raise BadInput(f"two different engines would both be {file_name(wish)}", "pull them into two folders")
    return wishes


def _by_key(farm: Farm, prefix: str, targets: Sequence[str]) -> Wish:
    from farm.pulling.choice import is_place
    from farm.wiring.backends import gpu_here

    places = [parse_target(text, gpu_here) for text in targets]

    def is_meant(told: Mapping[str, Any]) -> bool:
        words, toolchain = (str(told.get(name, "")) for name in ("target", "toolchain"))
        return not places or any(is_place(words, toolchain, place) for place in places)

    known = farm.index.engines(prefix=prefix, namespaces=farm.cache.namespaces)
    engines = [engine for engine in known if is_meant(engine.manifest)]
    if known and not engines:
        for_ = ", ".join(sorted({str(engine.manifest.get("target")) for engine in known}))
        raise Missing(f"'{prefix}' is for {for_}, not for {' or '.join(targets)}", "leave -t out, or name another key")
    if not engines:
        raise Missing(f"no engine's key, recipe or digest starts with '{prefix}'", "'farm ls engines' lists them")
    if len({engine.digest for engine in engines}) > 1:
        names = ", ".join(engine.digest.partition(":")[2][:12] for engine in engines[:4])
        raise BadInput(
            f"'{prefix}' stands for {len(engines)} engines: {names}",
            "name one of them by its digest, or write more of the key",
        )
    first = engines[0]
    return Wish(first, str(first.manifest.get("model", "")), str(first.manifest.get("target", "")), _key(first))


def _key(engine: Engine) -> str:
    return str(engine.manifest.get("key", ""))


def _by_look(farm: Farm, asks: Sequence[Ask]) -> list[Wish]:
    if not asks:
        return []
    wishes = []
    for identity, found in farm.look(asks):
        if isinstance(found, Miss):
            raise Missing(
                f"{identity.model} for {identity.target}: {found.why}",
                f"'farm build {identity.model} -t {identity.target}' builds it",
            )
        if not found.same_weights:
            # DESIGN, Weights: an engine with another fine-tune's weights is never handed out raw.
            raise FarmError(
                f"{identity.model} for {identity.target}: the engine holds other weights, and needs a refit first",
                "build it with immutable_weights=true, or with --force",
            )
        inputs, outputs = names_of(identity, found.engine)
        wishes.append(Wish(found.engine, identity.model, identity.target, identity.key, inputs, outputs))
    return wishes


def place(farm: Farm, wish: Wish, folder: Path, build: bool = False) -> Placed:
    """Fetch, verify and place one plan, and its manifest beside it; with ``build``, one that is lost or not to be
    trusted is built again first. ``Unavailable`` when ``folder`` cannot be used."""
    path = folder / file_name(wish)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        engine = farm.fetch(wish.engine, path, build=build)
        manifest = path.with_suffix(".json")
        written = manifest.with_name(f".{manifest.name}.partial")
        written.write_text(json.dumps(engine.manifest, indent=2, sort_keys=True) + "\n", "utf-8")
        written.replace(manifest)
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror or error}", "choose another -o folder") from error
    return Placed(wish.model, wish.target, wish.key, engine.recipe, engine.digest, engine.size, path)


def file_name(wish: Wish) -> str:
    """``MODEL.TARGET.KEY.plan``, with nothing in it that a file system or a shell could mind."""
    stem = PurePath(wish.model).stem or "engine"
    short = wish.key.partition(":")[2][:12] or wish.engine.digest.partition(":")[2][:12]
    return ".".join(_UNSAFE.sub("-", part) for part in (stem, wish.target, short)) + ".plan"
