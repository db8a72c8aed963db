"""Blobs that no row names, and rows whose blobs are gone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg

from farm.store import BlobStore
from tests.chaos.servers import die_with_parent

NAMED = (
    "SELECT digest FROM engines",
    "SELECT manifest_json::json->>'manifest' FROM engines",
    "SELECT digest FROM programs",
    "SELECT graph FROM forms",
    "SELECT data FROM forms WHERE data IS NOT NULL",
    "SELECT detail_json::json->>'side' FROM forms",
    "SELECT parts_json::json->>'outline' FROM key_parts",
)
RECONCILE_S = 120.0


class Ended(Exception):
    """``farm reconcile`` was not done; ``status`` is what it ended with."""

    def __init__(self, what: str, status: int = 1) -> None:
        super().__init__(what)
        self.status = status


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


def reconcile(environment: Mapping[str, str], folder: Path, grace: float) -> subprocess.Popen[str]:
    """``farm reconcile`` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "farm", "reconcile", "--grace", str(grace), "--json"],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,
    )


def removed(process: subprocess.Popen[str]) -> int:
    """How many blobs it removed, once it has ended. ``Ended`` where it ended otherwise than it should."""
    try:
        out, err = process.communicate(timeout=RECONCILE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise Ended(f"farm reconcile did not end within {RECONCILE_S:.0f} s") from None
    if process.returncode:
        raise Ended(f"farm reconcile ended with {process.returncode}: {err}", process.returncode)
    return int(json.loads(out)["removed"]["blobs"])
