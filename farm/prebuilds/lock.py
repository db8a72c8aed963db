"""The text of ``farm.lock``: one line per model and target, which git can merge. Pure.

JSON lines rather than TOML: an entry stays one line however much it holds, every line is read and blamed on its
own, and ``jq`` reads them too. The head line holds the schema version. Entries are sorted, with an empty line between
them, because git takes changes to adjacent lines for a conflict: so two branches that rebuild neighbouring models
merge cleanly. Where both add an entry at one place git still asks, unless ``.gitattributes`` says
``farm.lock merge=union``; reading takes the lines in any order, and refuses two that say different things of one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from farm.errors import BadInput

SCHEMA = 1
"""Version of the file. The vectors in ``tests/vectors`` change with it."""
HEAD = "farm.lock"

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DIGESTS = ("key", "recipe", "engine", "manifest")
_TEXTS = ("model", "target", "toolchain")
_MAPS = ("inputs", "outputs")
_NEEDED = (*_TEXTS, *_DIGESTS, "size", *_MAPS)
_OPTIONAL = ("variant", "program", "weights")
_CONFLICT = ("<<<<<<<", "|||||||", "=======", ">>>>>>>")
_AGAIN = "run 'farm prebuild' to write it anew"


@dataclass(frozen=True)
class LockEntry:
    """The engine that a model has on a target.

    ``model`` and ``target`` are the manifest's words, and ``variant`` its name for one cell of a matrix (empty
    without one): the three name the entry. ``engine`` and ``manifest`` are the digests of the plan and of its
    manifest, ``size`` the plan's bytes. ``inputs`` and ``outputs`` map the plan's bindings to this model's own
    names: the key ignores names, so the engine may have been built for a model that calls them otherwise (DESIGN,
    The key). An engine that is refitted before use also says with what: ``program`` is the digest of this model's
    program, which holds its weights, and ``weights`` maps the plan's names of them to the model's. ``BadInput`` for
    values that no entry can have.
    """

    model: str
    target: str
    key: str
    recipe: str
    engine: str
    size: int
    toolchain: str
    manifest: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    variant: str = ""
    program: str = ""
    weights: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        fault = _fault(self)
        if fault:
            raise BadInput(f"a lock line cannot be: {fault}", _AGAIN)

    @property
    def name(self) -> tuple[str, str, str]:
        """What the entry is of; no two entries of a file share it."""
        return self.model, self.target, self.variant

    def __str__(self) -> str:
        return f"{self.model} for {self.target}" + (f" ({self.variant})" if self.variant else "")


def format_lock(entries: Iterable[LockEntry]) -> str:
    """The file of ``entries``, the same whatever their order. ``BadInput`` when two say different things of one."""
    named: dict[tuple[str, str, str], LockEntry] = {}
    for entry in entries:
        if named.setdefault(entry.name, entry) != entry:
            raise BadInput(f"two different lock lines for {entry}", "name the matrix's cells apart")
    return "\n\n".join([json.dumps({HEAD: SCHEMA}), *(_line(named[name]) for name in sorted(named))]) + "\n"


def _line(entry: LockEntry) -> str:
    """What it is of comes first, and what changes with every build last, so that diffs read well."""
    named = {"model": entry.model, "target": entry.target}
    named |= {"variant": entry.variant} if entry.variant else {}
    # What only refitted engines have stands in their lines alone: all others are as they were before it was known.
    sides, names = (_MAPS, _DIGESTS) if not entry.program else ((*_MAPS, "weights"), (*_DIGESTS, "program"))
    maps = {side: dict(sorted(getattr(entry, side).items())) for side in sides}
    digests = {name: getattr(entry, name) for name in names}
    return json.dumps(named | {"toolchain": entry.toolchain} | maps | digests | {"size": entry.size})


def parse_lock(text: str) -> tuple[LockEntry, ...]:
    """The entries of a lock file, sorted. ``BadInput`` names the line that is wrong, and says of a merge that git
    could not finish, or of a newer farm's file, that it is one."""
    # Lines end where git says so, not wherever Unicode has a separator; and git may have made them Windows' ones.
    lines = [line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")]
    _refuse_conflict(lines)
    _check_head(lines[0])
    found: dict[tuple[str, str, str], tuple[int, LockEntry]] = {}
    for number, line in enumerate(lines[1:], start=2):
        if line.strip():
            entry = _entry(number, line)
            before, kept = found.setdefault(entry.name, (number, entry))
            if before != number and kept != entry:
                raise BadInput(
                    f"farm.lock has two lines for {entry}: {before} and {number}",
                    "a merge kept both: delete one, or run 'farm prebuild' to write it anew",
                )
    return tuple(entry for _, (_, entry) in sorted(found.items()))


def _refuse_conflict(lines: list[str]) -> None:
    for number, line in enumerate(lines, start=1):
        if line.startswith(_CONFLICT):
            raise BadInput(
                f"farm.lock has a merge conflict at line {number}",
                "keep the lines of both sides, one for each model and target, and run 'farm prebuild'",
            )


def _check_head(line: str) -> None:
    head = _object(1, line)
    schema = head.get(HEAD)
    if type(schema) is not int or schema < 1:
        raise _bad_line(1, f'it should begin the file with {{"{HEAD}": {SCHEMA}}}')
    if schema > SCHEMA:
        raise BadInput(
            f"farm.lock has schema {schema}, and this farm reads up to {SCHEMA}", "a newer farm wrote it: update farm"
        )
    if len(head) > 1:
        raise _bad_line(1, "the head line holds more than the schema")


def _entry(number: int, line: str) -> LockEntry:
    found = _object(number, line)
    lacking = [name for name in _NEEDED if name not in found]
    unknown = sorted(set(found) - {*_NEEDED, *_OPTIONAL})
    if lacking or unknown:
        raise _bad_line(number, f"it lacks {lacking[0]}" if lacking else f"no lock line has {unknown[0]!r}")
    try:
        return LockEntry(**found)
    except BadInput as error:
        raise _bad_line(number, error.message) from None


def _object(number: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _bad_line(number, f"it is no JSON ({error})") from None
    if not isinstance(found, dict):
        raise _bad_line(number, "it is no JSON object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def _fault(entry: LockEntry) -> str:
    for name in _TEXTS:
        if not isinstance(getattr(entry, name), str) or not getattr(entry, name):
            return f"its {name} is no text"
    for name in _DIGESTS:
        if not isinstance(getattr(entry, name), str) or not _DIGEST.fullmatch(getattr(entry, name)):
            return f"its {name} is no sha256: digest"
    if type(entry.size) is not int or not 0 <= entry.size < 1 << 63:
        return "its size is no number of bytes"
    if entry.program and (not isinstance(entry.program, str) or not _DIGEST.fullmatch(entry.program)):
        return "its program is no sha256: digest"
    if entry.weights and not entry.program:
        return "it has weights, and no program that holds them"
    for name in (*_MAPS, "weights"):
        if not _is_names(getattr(entry, name)):
            return f"its {name} are no map from the plan's names to the model's"
    return "" if isinstance(entry.variant, str) else "its variant is no text"


def _is_names(value: object) -> bool:
    """Names on both sides. Two outputs may be one value of the model's, and so have one name."""
    return isinstance(value, Mapping) and all(isinstance(one, str) for pair in value.items() for one in pair)


def _bad_line(number: int, why: str) -> BadInput:
    return BadInput(f"farm.lock, line {number}: {why}", _AGAIN)
