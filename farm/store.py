"""What a blob store is. One file per backend in ``farm/blobs``; one contract suite that each inherits.

Blobs are immutable and named by the SHA-256 of their bytes (``sha256:…``). Two writers of one blob write the
same bytes, so a write needs no lock: whoever is last renames an equal file over an equal file.

A miss is a value (``None`` or ``False``); only faults raise: ``CorruptBlob`` when bytes do not match their
name (the reader got nothing that it may use), ``Unavailable`` when the store cannot be reached or is full.
All methods may be called from any thread and any process at once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, runtime_checkable


@dataclass(frozen=True)
class Blob:
    """A blob's name and its size in bytes. ``modified``: when it was last put, by the store's clock, as ``blobs``
    tells it."""

    digest: str
    size: int
    modified: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Stray:
    """What lies among the blobs and is none: where, as the store names places, and what it is, in words."""

    place: str
    what: str


NAME = re.compile(r"sha256:[0-9a-f]{64}")


def is_name(text: str) -> bool:
    """Whether ``text`` can be a blob's name. Whoever reads names out of rows asks before a store does: rows can be
    edited, and a store refuses a name that is none."""
    return NAME.fullmatch(text) is not None


def lost(store: BlobStore, digests: Iterable[str]) -> set[str]:
    """Those of ``digests`` that are not there, and those that cannot be."""
    asked = set(digests)
    named = {digest for digest in asked if is_name(digest)}
    return (asked - named) | store.missing(named)


LABEL = "farm-store-id"
"""What a store's label is called where it lies beside the blobs."""


class BlobStore(Protocol):
    """Immutable bytes by digest."""

    def put(self, source: BinaryIO) -> Blob:
        """Store all that ``source`` holds, streamed; the blob is durable and whole when this returns.

        A crash at any moment leaves either the whole blob or nothing that a reader can see. A blob that was there
        already is new again: whoever puts one relies on it, and what is old and named by no row is removed.
        """
        ...

    def put_file(self, path: Path, *, link: bool = False) -> Blob:
        """Store a file's bytes. The file may be changed or removed afterwards without harm to the blob.

        With ``link`` the store may keep the very file (a hard link) instead of a copy; the caller promises never to
        write to it again, and may remove it.
        """
        ...

    def size(self, digest: str) -> int | None:
        """The blob's size, or ``None`` when it is not there. Does not read the bytes."""
        ...

    def missing(self, digests: Iterable[str]) -> set[str]:
        """Those of ``digests`` that are not there."""
        ...

    def read(self, digest: str) -> bytes | None:
        """A small blob's bytes, verified; ``None`` when it is not there."""
        ...

    def fetch(self, digest: str, dest: Path, *, link: bool = False) -> bool:
        """Place the blob at ``dest``: streamed, verified, then renamed into place. ``False`` when it is not there.

        ``dest`` holds the whole verified blob or is untouched. With ``link`` the file may share the store's own
        bytes (a hard link); the caller promises never to write to it.
        """
        ...

    def delete(self, digest: str, *, before: float = math.inf) -> bool:
        """Remove the blob, unless it was put at ``before`` or later (``clock``); ``False`` when that, or when it was
        not there. One that is put anew meanwhile stays."""
        ...

    def check(self, digest: str, tell: Callable[[int], None] = lambda count: None) -> int | None:
        """Read all of the blob where it truly lies, and verify it; its size, or ``None`` when it is not there.
        ``tell`` hears of each piece's size as it comes, and may take its time."""
        ...

    def blobs(self, start: str = "") -> Iterator[Blob]:
        """Every blob, in no order; with ``start``, those whose digits begin with it (two at most). One added or removed
        meanwhile may or may not appear."""
        ...

    def strays(self) -> Iterator[Stray]:
        """What lies where blobs lie and is none: other names, links, pipes, folders."""
        ...

    def set_aside(self, place: str) -> bool:
        """Put what ``strays`` named where quarantined blobs lie; ``False`` when it is gone."""
        ...

    def clock(self) -> float:
        """The store's own time now, in seconds since the epoch: what a blob put now would have as ``modified``."""
        ...

    def label(self) -> str | None:
        """What the store was labelled with, if it was."""
        ...

    def set_label(self, text: str) -> str:
        """Label the store, unless it has a label; returns the label that it has then, whoever gave it."""
        ...

    def quarantine(self, digest: str) -> bool:
        """Put a corrupt blob aside, so that readers miss it and a new ``put`` may heal it."""
        ...

    def presign(self, digest: str, seconds: int) -> str | None:
        """A URL from which anybody may GET the blob for so many seconds; ``None`` from stores that cannot give one.

        It says nothing about whether the blob is there, and whoever follows it verifies the bytes.
        """
        ...

    def sweep(self) -> int:
        """Remove what writers left behind that died in the middle; returns how many such things went."""
        ...


@runtime_checkable
class Resuming(Protocol):
    """A store that goes on where a fetch was cut off."""

    def resume(self, digest: str, dest: Path, tell: Callable[[int], None] = lambda count: None) -> bool:
        """Place the blob at ``dest`` as ``fetch`` does, unless it lies there already. What a call for the same file
        brought before it was cut off (killed, say) is kept beside it and not brought again. Of several who want one
        file at once on this machine, one brings it. ``tell`` hears of each piece's size as it comes; what it raises
        ends the call."""
        ...


def fetch_on(store: BlobStore, digest: str, dest: Path, tell: Callable[[int], None] = lambda count: None) -> bool:
    """``resume`` where the store can, else ``fetch``."""
    return store.resume(digest, dest, tell) if isinstance(store, Resuming) else store.fetch(digest, dest)


class Versioned(NamedTuple):
    """An object's bytes, and a token for this state of it."""

    data: bytes
    version: str


class VersionedObjects(Protocol):
    """Small objects that change, by name: read, then written only if nobody wrote meanwhile (compare-and-swap).

    A name is up to 200 letters, digits and ``. _ + = -``, the first a letter or digit (``BadInput`` otherwise). A
    reader sees one write's bytes or another's, never a mixture. An object that came back to bytes that it once had may
    carry the token that it had then. ``Unavailable`` when the store cannot be reached, or cannot promise this.
    """

    def read_versioned(self, name: str) -> Versioned | None:
        """The object as it is now; ``None`` when there is none."""
        ...

    def write_if(self, name: str, data: bytes, version: str | None) -> str | None:
        """Replace the object if it still is at ``version`` (``None``: if there still is none). The new version; or
        ``None`` when somebody else was first: then read it again.

        ``None`` may also be said of a write that did happen, when its answer was lost and others have written since:
        what is written must bear being merged twice.
        """
        ...
