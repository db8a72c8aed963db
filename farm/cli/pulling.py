"""Which engines ``farm pull`` fetches, and how they are placed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from farm.asks import Ask
from farm.builds import Engine
from farm.cache import Miss
from farm.errors import BadInput, FarmError, Missing, Unavailable
from farm.targets import parse_target

if TYPE_CHECKING:
    from farm.service import Farm

_UNSAFE = re.compile(r"[^\w.+-]+")


@dataclass(frozen=True)
class Wish:
    """One engine to fetch, with the names to file it under."""

    engine: Engine
    model: str
    target: str
    key: str


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


def wanted(farm: Farm, keys: Sequence[str], targets: Sequence[str], asks: Sequence[Ask]) -> list[Wish]:
    """Everything that is to be fetched, found before the first byte moves. ``Missing`` names what is not there."""
    wishes = [*(_by_key(farm, prefix, targets) for prefix in keys), *_by_look(farm, asks)]
    names: dict[str, str] = {}
    for wish in wishes:
        if names.setdefault(file_name(wish), wish.engine.digest) != wish.engine.digest:
            raise BadInput(f"two different engines would both be {file_name(wish)}", "pull them into two folders")
    return wishes


def _by_key(farm: Farm, prefix: str, targets: Sequence[str]) -> Wish:
    places = {str(parse_target(text).target) for text in targets}
    engines = [
        engine
        for engine in farm.index.engines(prefix=prefix, namespaces=farm.cache.namespaces)
        if not places or engine.manifest.get("target") in places
    ]
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
        wishes.append(Wish(found.engine, identity.model, identity.target, identity.key))
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
