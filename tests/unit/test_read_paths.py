"""Every place in farm that asks a store for a blob, and why nothing bad comes of it. A new one is to be judged here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

FARM = Path(__file__).parents[2] / "farm"
ASKING = {"read", "fetch", "size", "missing", "check", "presign", "lost", "resume"}
STORES = {"store", "_store", "back", "lost"}
CALLED = {"lost", "fetch_on"}
"""Functions of farm.store that take a store."""

VERIFIED = "the store hashes the bytes as they come, and hands out nothing that is not what its name says"
PRESENCE = "only whether it is there: whoever uses the bytes fetches them, verified"

PATHS = {
    ("cache.py", "fetch_on"): VERIFIED + "; a bad one is put aside and its engine forgotten",
    ("cache.py", "fetch"): VERIFIED + "; what is vouched for is read again",
    ("cache.py", "lost"): PRESENCE,
    ("forms.py", "fetch"): VERIFIED + "; a bad one is put aside, and exported or stored anew",
    ("forms.py", "lost"): PRESENCE,
    ("outlines.py", "read"): VERIFIED + "; the explanation is the shorter",
    ("promoting.py", "fetch"): VERIFIED + "; nothing is promoted then",
    ("promoting.py", "lost"): PRESENCE,
    ("promoting.py", "size"): PRESENCE + "; and to count bytes",
    ("remaking.py", "lost"): PRESENCE,
    ("migrating.py", "fetch"): VERIFIED + "; a bad one stays behind",
    ("migrating.py", "size"): "to count bytes",
    ("migrating.py", "missing"): PRESENCE,
    ("reconcile.py", "lost"): PRESENCE,
    ("collecting.py", "size"): PRESENCE + "; and to count bytes",
    ("verify.py", "check"): VERIFIED,
    ("verify.py", "size"): "to compare with the row",
    ("verify.py", "lost"): PRESENCE,
    ("store.py", "missing"): PRESENCE,
    ("store.py", "fetch"): VERIFIED + "; for stores that cannot resume",
    ("store.py", "resume"): VERIFIED + "; what came before is hashed again",
    ("prebuilding/lines.py", "lost"): PRESENCE,
    ("prebuilding/planning.py", "lost"): PRESENCE,
    ("pulling/pulls.py", "read"): VERIFIED + "; a manifest that is not its engine's is refused",
    ("pulling/pulls.py", "fetch_on"): VERIFIED + "; a bad one is put aside",
    ("timing.py", "read"): VERIFIED + "; a cache that cannot be used is set aside",
    ("doctor.py", "read"): VERIFIED,
    ("doctor.py", "missing"): PRESENCE,
    ("web/blobs.py", "presign"): "whoever follows a URL verifies the bytes (the contract says so)",
    ("web/blobs.py", "fetch"): VERIFIED + "; and the client verifies what it gets",
    ("web/blobs.py", "size"): PRESENCE,
    ("web/blobs.py", "missing"): PRESENCE,
    ("web/blobs.py", "check"): VERIFIED + "; a bad one is put aside and its engine forgotten",
    ("web/desk.py", "missing"): "only whether the store answers",
    ("web/engines.py", "lost"): PRESENCE,
    ("web/vetting.py", "fetch"): VERIFIED + "; a program that is not its name is not opened",
    ("web/vetting.py", "size"): "to be recorded",
    ("blobs/tiered.py", "read"): VERIFIED,
    ("blobs/tiered.py", "fetch"): VERIFIED,
    ("blobs/tiered.py", "fetch_on"): VERIFIED,
    ("blobs/tiered.py", "check"): VERIFIED,
    ("blobs/tiered.py", "size"): PRESENCE,
    ("blobs/tiered.py", "missing"): PRESENCE,
    ("blobs/tiered.py", "presign"): "whoever follows a URL verifies the bytes (the contract says so)",
}


def asked() -> Iterator[tuple[str, str]]:
    for path in sorted(FARM.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        where, called = str(path.relative_to(FARM)), CALLED & imported_from_store(tree)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            if isinstance(node.func, ast.Name) and node.func.id in called:
                yield where, node.func.id
            elif isinstance(node.func, ast.Attribute) and node.func.attr in ASKING:
                of = node.func.value
                name = of.attr if isinstance(of, ast.Attribute) else of.id if isinstance(of, ast.Name) else ""
                if name in STORES:
                    yield where, node.func.attr


def imported_from_store(tree: ast.Module) -> set[str]:
    """Not every function called ``lost`` is the store's."""
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "farm.store"]
    return {alias.name for node in froms for alias in node.names}


def test_each_is_known() -> None:
    assert set(asked()) == set(PATHS)
