"""``farm refit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farm.cli import options as opt
from farm.cli.output import emit, human_size, say, short
from farm.cli.session import opened
from farm.errors import BuildFailed

if TYPE_CHECKING:
    from farm.builds import Engine
    from farm.service import Farm


def refit(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The engine's key, recipe or digest, or its beginning.")],
    weights: Annotated[
        Path, typer.Option("--weights", "-w", metavar="MODEL", help="The .pt2 or .onnx whose weights go in.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where the engine goes.  [default: beside the weights]"),
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Put a model's weights into a refittable engine of the same graph, on a machine with the engine's GPU.

    The engine must have been built with immutable_weights=false. What is stored stays as it is.
    """
    from farm.making import for_making
    from farm.wiring.workers import open_refits

    with opened() as farm:
        engine = _engine(farm, key)
        dest = output or weights.with_name(f"{weights.stem}.{short(str(engine.manifest.get('key', '')))}.plan")
        try:
            done = open_refits(farm.config, for_making(farm.index), farm.store).refit(engine, weights, dest)
        except BuildFailed as error:
            raise BuildFailed(f"the engine was not refitted: {error.message}", error.hint) from error
        document: dict[str, Any] = {
            "key": engine.manifest.get("key"),
            "target": engine.manifest.get("target"),
            "engine": {"digest": done.digest, "size": done.size},
            "weights": done.weights,
            "path": str(done.path),
        }
    emit(document) if as_json else say(f"{done.path}: {human_size(done.size)}, with the weights of {weights}")


def _engine(farm: Farm, prefix: str) -> Engine:
    """The newest engine that the text names."""
    from farm.service import one_of

    found = farm.index.engines(prefix=prefix, limit=20, namespaces=farm.cache.namespaces)
    newest = {str(engine.manifest.get("key")): engine for engine in reversed(found)}
    return one_of(list(newest.values()), prefix, "key", lambda engine: str(engine.manifest.get("key")))
