"""Blobs that no row names, and rows whose blobs are gone."""

from __future__ import annotations

import json
from dataclasses import dataclass

import psycopg

from farm.store import BlobStore

NAMED = (
    "SELECT digest FROM engines",
    "SELECT manifest_json::json->>'manifest' FROM engines",
    "SELECT digest FROM programs",
    "SELECT graph FROM forms",
    "SELECT data FROM forms WHERE data IS NOT NULL",
    "SELECT detail_json::json->>'side' FROM forms",
    "SELECT parts_json::json->>'outline' FROM key_parts",
)


@dataclass(frozen=True)
class Orphans:
    """``unnamed``: blobs; ``lost``: what rows name and is not there."""

    unnamed: frozenset[str]
    lost: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.unnamed or self.lost)

    def __str__(self) -> str:
        return json.dumps({"unnamed": sorted(self.unnamed), "lost": sorted(self.lost)})


def find(url: str, store: BlobStore) -> Orphans:
    with psycopg.connect(url) as connection:
        named = {str(row[0]) for query in NAMED for row in connection.execute(query) if row[0]}
    there = {blob.digest for blob in store.blobs()}
    return Orphans(frozenset(there - named), frozenset(named - there))


def reconcile(url: str, store: BlobStore) -> int:
    """Remove the blobs that no row names, while nobody works; how many."""
    unnamed = find(url, store).unnamed
    for digest in unnamed:
        store.delete(digest)
    return len(unnamed)
