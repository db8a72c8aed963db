"""An engine's manifest: the bytes that are digested and signed, and whether it and the engine's row agree. Pure.

A manifest is a JSON object. In the store lies its canonical JSON (``canonical.to_json``) and nothing else; a row holds
the same object and beside it two names of its own: ``manifest``, the blob's digest, and ``signature`` where there is
one. Neither can stand in what it is taken over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from farm.builds import Engine
from farm.canonical import to_json

SCHEMA = 2
"""Version of what a manifest holds. A change is a decision: the vector in ``tests/vectors`` changes with it.

2: where and with what it was made (``machine``, ``namespace``), the settings in effect, the timing cache's version and
the digest of the build's log.
"""
BESIDE = frozenset({"manifest", "signature"})
"""What a row holds beside the manifest itself."""
SIGNED = "farm engine manifest"


def body(manifest: Mapping[str, Any]) -> bytes:
    """The manifest's blob. ``TypeError`` or ``ValueError`` for what JSON has no word for."""
    return to_json({name: value for name, value in manifest.items() if name not in BESIDE})


def blob_of(manifest: Mapping[str, Any]) -> str:
    """The name of the manifest's blob."""
    return "sha256:" + hashlib.sha256(body(manifest)).hexdigest()


def signing_input(manifest: Mapping[str, Any]) -> bytes:
    """What a manifest's signature is taken over; its blob stands in it as it is."""
    return statement(SIGNED, manifest.get("schema"), body(manifest))


def statement(kind: str, schema: object, text: bytes) -> bytes:
    """Bytes to be signed: what kind of statement it is and of which schema, then its canonical JSON. So no signature of
    one kind of thing ever passes for one of another."""
    return f"{kind}\n{schema}\n".encode() + text


def whole(manifest: Mapping[str, Any], digest: str, size: int) -> dict[str, Any]:
    """``manifest`` with its schema and the plan that it is of."""
    return {**manifest, "schema": SCHEMA, "engine": {"digest": digest, "size": size}}


def contradiction(engine: Engine) -> str:
    """In what the engine's row and its manifest differ, in words; empty when they agree. A few comparisons."""
    plan = engine.manifest.get("engine")
    if not isinstance(plan, Mapping):
        return "its row has no manifest that can be read"
    if plan.get("digest") != engine.digest or plan.get("size") != engine.size:
        return f"its row names another plan than its manifest ({plan.get('digest')}, {plan.get('size')} bytes)"
    if engine.manifest.get("recipe") != engine.recipe:
        return f"its row names another recipe than its manifest ({engine.manifest.get('recipe')})"
    if engine.manifest.get("namespace", engine.namespace) != engine.namespace:
        return f"its row stands in namespace {engine.namespace}, and it was made for {engine.manifest['namespace']}"
    return ""


def alteration(engine: Engine) -> str:
    """As ``contradiction``; and whether the manifest in the row is, byte for byte, the one that was stored."""
    told = contradiction(engine)
    if told:
        return told
    try:
        named = blob_of(engine.manifest)
    except (TypeError, ValueError, RecursionError) as error:
        return f"the manifest in its row cannot be written down: {error}"
    return "" if named == engine.manifest.get("manifest") else "the manifest in its row is not the one that was stored"
