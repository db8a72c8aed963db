"""Pulling what a lock file names: fetched side by side, verified, and placed whole or not at all.

The lock file says what each engine's bytes and manifest are, so all that is asked of a farm is its store: no database,
no TensorRT, no torch. Where signatures are asked for, the engine's row is looked at too, since those lie there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farm.errors import BadInput, CorruptBlob, FarmError, Missing, Unavailable
from farm.prebuilds.lock import LockEntry
from farm.pulling.choice import Choice, chosen, contradiction, named
from farm.pulling.triton import ensemble_config, plan_config, renames, served
from farm.store import BlobStore, fetch_on
from farm.targets import TargetRequest

PLAIN, TRITON = "plain", "triton"
LAYOUTS = (PLAIN, TRITON)
JOBS = 4
_UNSAFE = re.compile(r"[^\w.+-]+")
_BUILD = "'farm prebuild' builds it again"


class Stopped(Exception):
    """Whoever waits has gone: what has come so far is kept."""


@dataclass(frozen=True)
class Pulled:
    """An engine on this machine: where its plan lies, and the files beside it."""

    line: LockEntry
    path: Path
    portable: str = ""
    needs_refit: bool = False
    weights: Path | None = None

    def as_json(self) -> dict[str, Any]:
        line = self.line
        return {
            "model": line.model,
            "target": line.target,
            "variant": line.variant or None,
            "key": line.key,
            "recipe": line.recipe,
            "digest": line.engine,
            "size": line.size,
            "toolchain": line.toolchain,
            "path": str(self.path),
            "portable": self.portable or None,
            "needs_refit": self.needs_refit,
            "weights": str(self.weights) if self.weights else None,
            "names": _names(line),
        }


@dataclass
class Pulling:
    """``refuses`` says why an engine must not be handed out (empty: it may); ``tell`` hears of bytes as they come."""

    store: BlobStore
    refuses: Callable[[LockEntry], str] = lambda line: ""
    tell: Callable[[int], None] = lambda count: None
    _manifests: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def manifest(self, line: LockEntry) -> Mapping[str, Any]:
        """The engine's manifest, verified by its digest. ``Missing`` or ``CorruptBlob``."""
        if line.manifest not in self._manifests:
            self._manifests[line.manifest] = self._read(line)
        return self._manifests[line.manifest]

    def _read(self, line: LockEntry) -> Mapping[str, Any]:
        with self._aside(line.manifest):
            data = self.store.read(line.manifest)
        if data is None:
            raise Missing(f"{line}: its manifest {line.manifest} is gone from the store", _BUILD)
        found = _parsed(data)
        plan = found.get("engine") if isinstance(found, dict) else None
        if plan != {"digest": line.engine, "size": line.size} or contradiction(line, found):
            raise BadInput(f"{line}: its lock line names a manifest of another engine", "run 'farm prebuild' again")
        return dict(found)

    def choose(
        self,
        path: Path,
        lines: Sequence[LockEntry],
        names: Sequence[str] = (),
        wanted: Sequence[TargetRequest] = (),
        portable: bool = False,
    ) -> list[Choice]:
        """Those of the lines of ``path`` that are meant: of the models (or digests) named, for the targets wanted; all
        where none are. ``Missing`` when that is nothing, or nothing for a name."""
        choices = chosen(named(lines, names), wanted, self.manifest if portable else None)
        lacking = [name for name in names if not any(named([choice.line], [name]) for choice in choices)]
        if lacking or not choices:
            places = " or ".join(str(request.target) for request in wanted)
            what = f" of {', '.join(lacking)}" if lacking else ""
            raise Missing(f"{path} has nothing{what}" + (f" for {places}" if places else ""), _known(lines))
        return choices

    def pull(self, choices: Sequence[Choice], folder: Path, layout: str = PLAIN, jobs: int = JOBS) -> list[Pulled]:
        """Fetch every engine. One that cannot be had stops no other: its error is raised when all have been tried."""
        places = [self._place(choice.line, folder, layout) for choice in choices]
        _refuse_doubles(choices, places)
        self._stop.clear()
        with ThreadPoolExecutor(max(1, min(jobs, len(choices) or 1)), "pull") as pool:
            futures = [pool.submit(self._one, *pair, layout) for pair in zip(choices, places, strict=True)]
            try:
                wait(futures)
            except BaseException:  # whoever waits has had enough
                self._stop.set()
                for future in futures:
                    future.cancel()
                raise
        return [future.result() for future in futures]

    def _place(self, line: LockEntry, folder: Path, layout: str) -> Path:
        if layout == PLAIN:
            return folder / f"{safe_name(line.model, line.variant, line.target)}.plan"
        name = safe_name(line.model, line.variant)
        plan = f"{name}.plan" if self._renamed(line) else name
        return folder / plan / "1" / "model.plan"

    def _renamed(self, line: LockEntry) -> bool:
        return renames(served(self.manifest(line)), _names(line))

    def _one(self, choice: Choice, path: Path, layout: str) -> Pulled:
        line = choice.line
        refused = self.refuses(line)
        if refused:
            raise FarmError(f"{line} is not handed out: {refused}", "have a worker build it whose key FARM_TRUST names")
        manifest = self.manifest(line)
        beside = self._beside(line, manifest, path, layout)
        weights = path.with_suffix(f".weights.{_format(manifest)}") if line.program else None
        files = {weights: line.program, path: line.engine} if weights else {path: line.engine}
        try:
            for folder in {file.parent for file in (*beside, path)}:
                folder.mkdir(parents=True, exist_ok=True)
            lacking = {file: digest for file, digest in files.items() if not _holds(file, digest)}
            if any(os.path.lexists(file) for file in lacking) or any(_next(file).exists() for file in files):
                self._replace(line, files, lacking, beside)
            else:
                self._lay(line, lacking, beside)
        except OSError as error:
            raise Unavailable(f"{path} cannot be written: {error.strerror}", "choose another -o folder") from error
        return Pulled(line, path, choice.portable, needs_refit(line, manifest), weights)

    def _lay(self, line: LockEntry, files: Mapping[Path, str], beside: Mapping[Path, str]) -> None:
        """What belongs to the plan comes first: where the plan is, all is."""
        for file, text in beside.items():
            _write(file, text)
        for file, digest in files.items():
            self._fetch(line, digest, file)

    def _replace(
        self, line: LockEntry, files: Mapping[Path, str], lacking: Mapping[Path, str], beside: Mapping[Path, str]
    ) -> None:
        """Another engine has the name: it stays, with all that belongs to it, until everything of the new one is here.
        Its plan goes before any of that is laid, so that none ever stands beside another's names or weights."""
        for file, digest in lacking.items():
            self._fetch(line, digest, _next(file))
        plan = list(files)[-1]
        if not all(_holds(file, digest) for file, digest in lacking.items()):  # or somebody else was quicker
            if plan in lacking:
                plan.unlink(missing_ok=True)
            else:
                plan.replace(_next(plan))
        for file, text in beside.items():
            _write(file, text)
        for file, digest in files.items():
            if not _holds(file, digest):
                with contextlib.suppress(FileNotFoundError):
                    _next(file).replace(file)
            if not file.exists():
                self._fetch(line, digest, file)
            _next(file).unlink(missing_ok=True)

    def _beside(self, line: LockEntry, manifest: Mapping[str, Any], path: Path, layout: str) -> dict[Path, str]:
        names = _names(line)
        if layout == PLAIN:
            document = {**manifest, "names": names}
            return {path.with_suffix(".json"): json.dumps(document, indent=2, sort_keys=True) + "\n"}
        found, plan = served(manifest), path.parents[1].name
        config = {path.parents[1] / "config.pbtxt": plan_config(plan, found)}
        if renames(found, names):
            name = safe_name(line.model, line.variant)
            home = path.parents[2] / name
            # An ensemble has no file of its own, yet Triton wants a version's folder: one that git and tar keep.
            config[home / "config.pbtxt"] = ensemble_config(name, plan, found, names)
            config[home / "1" / ".keep"] = ""
        return config

    def _fetch(self, line: LockEntry, digest: str, path: Path) -> None:
        with self._aside(digest):
            if not fetch_on(self.store, digest, path, self._came):
                what = "its engine" if digest == line.engine else "the program with its weights,"
                raise Missing(f"{line}: {what} {digest} is gone from the store", _BUILD)

    def _came(self, count: int) -> None:
        if self._stop.is_set():
            raise Stopped
        self.tell(count)

    @contextlib.contextmanager
    def _aside(self, digest: str) -> Any:
        """A blob that is corrupt is put aside, as far as this reader may; the next ask has it built again."""
        try:
            yield
        except CorruptBlob:
            with contextlib.suppress(Unavailable):
                self.store.quarantine(digest)
            raise


def _known(lines: Sequence[LockEntry]) -> str:
    models, places = (sorted({getattr(line, name) for line in lines}) for name in ("model", "target"))
    return f"it has {', '.join(models[:6])} for {', '.join(places[:6])}" if lines else "'farm prebuild' writes it"


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None  # a blob, but no manifest


def needs_refit(line: LockEntry, manifest: Mapping[str, Any]) -> bool:
    """Whether the engine holds other weights than the line's model has: it serves every fine-tune (its key says so),
    and another recipe, which is to say other weights, made it; or it holds none."""
    parts = manifest.get("parts") or {}
    every = (parts.get("weights") or {}).get("policy") == "metadata"
    stripped = bool((manifest.get("effective") or {}).get("strip_engine_weights"))
    return stripped or (every and manifest.get("recipe") != line.recipe)


def safe_name(*parts: str) -> str:
    """The parts as one file name, with nothing in it that a file system or a shell could mind."""
    return ".".join(_UNSAFE.sub("-", part).strip(".") or "-" for part in parts if part)


def _names(line: LockEntry) -> dict[str, dict[str, str]]:
    """The model's own names of what the plan names; of its weights too, where it is refitted."""
    names = {"inputs": dict(line.inputs), "outputs": dict(line.outputs)}
    return names | ({"weights": dict(line.weights)} if line.program else {})


def _format(manifest: Mapping[str, Any]) -> str:
    """What programs of this graph are: an exporter made the engine's from a ``.pt2``, or there was none."""
    recipe = (manifest.get("parts") or {}).get("recipe") or {}
    return "pt2" if recipe.get("exporter") else "onnx"


def _holds(path: Path, digest: str) -> bool:
    """Whether the file lies there already. Reads all of it."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest() == digest


def _next(path: Path) -> Path:
    return path.with_name(f".{path.name}.next")


def _refuse_doubles(choices: Sequence[Choice], places: Sequence[Path]) -> None:
    seen: dict[Path, LockEntry] = {}
    for choice, path in zip(choices, places, strict=True):
        other = seen.setdefault(path, choice.line)
        if other is not choice.line:
            raise BadInput(f"{other} and {choice.line} would both be {path}", "give one target with -t, or two folders")


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{threading.get_ident()}.partial")
    try:
        partial.write_text(text, "utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
