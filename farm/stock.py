"""Programs in the store, and what is told of them: put there before anybody needs them, once in a while each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from farm.asks import Identity
from farm.cache import key_parts
from farm.identify import Identifier
from farm.index import Index, KeyParts, StoredProgram
from farm.outlines import outline_of, save_outline
from farm.store import BlobStore

STORED_SECONDS = 600.0
"""A program is put into the store again when its last put was so long ago (or a quarter of collection's grace period,
in which it stays): a process that goes on asking for days must find it there."""


MANY = 1000
"""So many misses are recorded while their builds are queued."""


class Stock:
    """What this process has put into the store, by file. ``grace``: seconds for which collection leaves alone what was
    just put. Not safe to share between threads."""

    def __init__(self, identifier: Identifier, index: Index, store: BlobStore, grace: float) -> None:
        self._identifier, self._index, self._store, self._grace = identifier, index, store, grace
        self._programs: dict[Path, tuple[str, float]] = {}
        self._outlines: dict[Path, str] = {}

    def keep(self, identity: Identity) -> str:
        """Put the program's bytes in the store, once in a while per file; returns the digest of the bytes.

        The file may change between the look that made the key and this copy: the worker computes the key again
        from the stored bytes and refuses what does not match, so a key never names another program's engine.
        """
        digest, when = self._programs.get(identity.path, ("", 0.0))
        if not digest or time.monotonic() - when > min(STORED_SECONDS, self._grace / 4):
            blob = self._identifier.pack(identity, self._store)
            self._index.put_program(
                StoredProgram(
                    digest=blob.digest,
                    name=identity.model,
                    format=identity.format,
                    size=blob.size,
                    graph=identity.graph,
                    weights=identity.weights,
                )
            )
            digest = blob.digest
            self._programs[identity.path] = digest, time.monotonic()
        return digest

    def parts(self, identity: Identity) -> KeyParts:
        """What a miss or a build is made of, and where its program's outline lies (one a program and process)."""
        if identity.path not in self._outlines:
            program = self._identifier.program(identity.model, identity.custom_ops)
            self._outlines[identity.path] = save_outline(outline_of(program), self._store)
        parts = key_parts(identity)
        return replace(parts, parts={**parts.parts, "outline": self._outlines[identity.path]})

    @contextlib.contextmanager
    def recording(self, identities: Sequence[Identity]) -> Iterator[None]:
        """Record what misses are made of, before this begins; of thousands while it lasts, since that takes the server
        as long as to queue them, and neither needs the other. A build's end records what is lacking then."""
        parts = [self.parts(identity) for identity in identities]
        if len(identities) < MANY:
            self._index.record_parts(parts)
            yield
            return
        with ThreadPoolExecutor(1, thread_name_prefix="farm-parts") as pool:
            recorded = pool.submit(self._index.record_parts, parts)
            yield
            recorded.result()
