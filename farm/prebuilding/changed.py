"""What changed since a revision, as git tells it; and which models of a manifest that leaves as they were."""

from __future__ import annotations

import mmap
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from farm.errors import BadInput
from farm.prebuilds.entries import Model, PrebuildSpec

SECONDS = 120.0


@dataclass(frozen=True)
class Changes:
    """Files by their whole paths: those that git tracks, and those that differ from the revision or are new since."""

    tracked: frozenset[Path]
    changed: frozenset[Path]


def changes_since(folder: Path, revision: str) -> Changes:
    """Of the repository that ``folder`` is in. ``BadInput`` where there is none, or no such revision."""
    if not revision or revision.startswith("-"):
        raise BadInput(f"--changed-since '{revision}' is no revision", "as in --changed-since origin/main")
    top = Path(_git(folder, "rev-parse", "--show-toplevel")[0])
    _git(folder, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    differ = _git(top, "diff", "--name-only", "-z", revision, "--")
    new = _git(top, "ls-files", "--others", "--exclude-standard", "-z")
    tracked = _git(top, "ls-files", "-z")
    return Changes(frozenset(top / name for name in tracked), frozenset(top / name for name in (*differ, *new)))


def _git(folder: Path, *words: str) -> list[str]:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            timeout=SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BadInput(f"--changed-since asks git, which cannot be run: {error}", "leave it out") from error
    if done.returncode:
        told = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["there is no such revision"]
        raise BadInput(
            f"--changed-since: git {words[0]}: {told[-1]}", "fetch the revision (fetch-depth: 0), or leave it out"
        )
    text = done.stdout.decode("utf-8", "surrogateescape")
    return [name for name in (text.split("\0") if "\0" in text else text.splitlines()) if name]


def unchanged(spec: PrebuildSpec, changes: Changes) -> set[str]:
    """The models that cannot have changed. None, where the manifest itself did: its settings are everybody's."""
    file = Path(spec.file).resolve()
    if file in changes.changed or file not in changes.tracked:
        return set()
    return {model.name for model in spec.models if not _may_differ(model, file.parent, changes)}


def _may_differ(model: Model, folder: Path, changes: Changes) -> bool:
    source = model.source
    if source.sources:
        own = [source.path or source.script.rpartition(":")[0]] if not source.url else []
        return _any(own, changes.changed) or any(_matches(path, folder, source.sources) for path in changes.changed)
    if source.path:
        path = Path(source.path).resolve()
        return path in changes.changed or path not in changes.tracked or _has_data_apart(path)
    if source.url:
        return not source.sha256
    return bool(changes.changed)  # who knows what the script imports


def _has_data_apart(path: Path) -> bool:
    """Whether an ONNX file may keep weights in other files, of which git may know nothing. Their names stand in it
    under ``location``; a file that happens to hold this word is looked at for nothing."""
    if path.suffix.lower() != ".onnx":
        return False
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(b"location") >= 0
    except (OSError, ValueError):  # not there, or empty: whoever looks at it says so
        return True


def _any(names: Sequence[str], among: Collection[Path]) -> bool:
    return any(Path(name).resolve() in among for name in names)


def _matches(path: Path, folder: Path, patterns: Sequence[str]) -> bool:
    """As in ``sources: [models/*.py, weights/**]``, from the manifest's folder; ``*`` crosses folders too."""
    try:
        name = str(path.relative_to(folder))
    except ValueError:
        return False
    return any(fnmatchcase(name, pattern) for pattern in patterns)
