"""What the index knows, as the JSON documents of ``--json``. The tables for people are made from the same."""

from __future__ import annotations

from typing import Any

from farm.builds import Build, Engine
from farm.index import Attempt, Event, StoredProgram, Worker
from farm.namespaces import CLIENT


def build_document(build: Build) -> dict[str, Any]:
    """One build. Times are seconds since the epoch."""
    request = build.request
    failure = build.failure
    return {
        "build": build.id,
        "state": str(build.state),
        "model": request.model,
        "target": request.target,
        "key": request.key,
        "recipe": request.recipe,
        "toolchain": request.toolchain,
        "settings": dict(request.settings),
        "program": request.program,
        "priority": request.priority,
        "capability": request.capability,
        "created": build.created,
        "started": build.started,
        "finished": build.finished,
        "attempts": build.attempts,
        "phase": build.phase or None,
        "progress": build.progress,
        "worker": build.worker,
        "node": build.node,
        "namespace": request.namespace,
        "tenant": request.tenant,
        "expected_seconds": round(request.expected, 3),
        "memory": request.memory,
        "gpu_memory": request.gpu_memory,
        "waiters": build.waiters,
        "engine": build.engine,
        "failure": {"kind": str(failure.kind), "message": failure.message, "hint": failure.hint or None}
        if failure
        else None,
    }


def engine_document(engine: Engine) -> dict[str, Any]:
    """One engine, without the whole of its manifest."""
    manifest = engine.manifest
    return {
        "engine": engine.digest,
        "size": engine.size,
        "key": manifest.get("key"),
        "recipe": engine.recipe,
        "model": manifest.get("model"),
        "target": manifest.get("target"),
        "toolchain": manifest.get("toolchain"),
        "settings": manifest.get("given", {}),
        "build_seconds": round(engine.build_seconds, 3),
        "created": engine.created,
        "namespace": engine.namespace,
        "provenance": provenance(engine),
    }


def provenance(engine: Engine) -> dict[str, Any]:
    """Whose word an engine is: a worker's that built it (``built``), that of a client which did so itself (``client``),
    or that of somebody who ``vouched`` for it."""
    vouched = engine.manifest.get("vouched")
    client = engine.namespace.removeprefix(CLIENT) if engine.namespace.startswith(CLIENT) else None
    if isinstance(vouched, dict):
        return {"kind": "vouched", "by": vouched.get("by"), "from": vouched.get("from"), "node": None}
    if client:
        return {"kind": "client", "by": client, "from": None, "node": None}
    return {"kind": "built", "by": None, "from": None, "node": engine.manifest.get("node")}


def said_of(item: dict[str, Any]) -> str:
    """A provenance in a few words."""
    if item["kind"] == "vouched":
        return f"vouched for by {item['by']} (from {item['from']})"
    if item["kind"] == "client":
        return f"built by client {item['by']}"
    return f"built on {item['node']}" if item["node"] else "built"


def program_document(program: StoredProgram) -> dict[str, Any]:
    """One stored program."""
    return {
        "program": program.digest,
        "name": program.name,
        "format": program.format,
        "size": program.size,
        "graph": program.graph,
        "weights": program.weights,
        "created": program.created,
    }


def worker_document(worker: Worker) -> dict[str, Any]:
    """One process that builds."""
    return {
        "worker": worker.id,
        "host": worker.host,
        "pid": worker.pid,
        "born": worker.born,
        "seen": worker.seen,
        "fresh": worker.fresh,
        "capabilities": list(worker.capabilities),
        "detail": dict(worker.detail),
    }


def event_document(event: Event) -> dict[str, Any]:
    return {"at": event.at, "event": event.kind, "detail": dict(event.detail)}


def attempt_document(attempt: Attempt) -> dict[str, Any]:
    return {
        "attempt": attempt.number,
        "worker": attempt.worker,
        "started": attempt.started,
        "finished": attempt.finished,
        "outcome": attempt.outcome or None,
        "message": attempt.message or None,
    }
