"""``farm nodes``: the machines that build, and why a build waits for none of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farm.cli import options as opt
from farm.cli.documents import worker_document
from farm.cli.output import Column, Table, card, count_of, emit, human_ago, human_size, human_time, note, say
from farm.cli.session import opened
from farm.errors import NoSuchThing

if TYPE_CHECKING:
    from farm.builds import Build
    from farm.index import NodeHealth, Worker
    from farm.placement import Seat
    from farm.service import Farm


def nodes(
    for_: Annotated[
        str,
        typer.Option("--for", metavar="ID", help="Say why each cannot take a build (its id, key or recipe)."),
    ] = "",
    trust: Annotated[
        str, typer.Option("--trust", metavar="NODE", help="Forget a node's failures: offer it builds again at once.")
    ] = "",
    as_json: opt.Json = False,
) -> None:
    """List the machines that build, what they can build, and how busy they are."""
    with opened() as farm:
        if trust:
            _trust(farm, trust)
        if for_:
            build = find_waiting(farm, for_)
            documents = reasons(farm, build)
        else:
            documents = node_documents(farm)
    if as_json:
        emit(documents)
    elif for_:
        show_reasons(build, documents)
    elif documents:
        show_nodes(documents)
    else:
        say("no process builds now; 'farm worker' is one")


def _trust(farm: Farm, name: str) -> None:
    if not farm.index.trust_node(name):
        raise NoSuchThing(
            f"no failures are held against a node '{name}'", "'farm nodes' shows those that are set aside"
        )
    note(f"farm: {name} is offered builds again")


# -- the list ------------------------------------------------------------------------------------------------


def node_documents(farm: Farm) -> list[dict[str, Any]]:
    """One document for each host: its workers, what they can build, how busy they are, how well it is."""
    seats = {seat.worker: seat for seat in farm.lookout.seats()}
    health = {item.name: item for item in farm.index.health()}
    hosts: dict[str, list[Worker]] = {}
    for worker in farm.index.workers():
        hosts.setdefault(worker.host, []).append(worker)
    return [_node(host, workers, seats, health.get(host)) for host, workers in hosts.items()]


def _node(host: str, workers: Sequence[Worker], seats: dict[str, Seat], health: NodeHealth | None) -> dict[str, Any]:
    there = [seats[worker.id] for worker in workers if worker.id in seats]
    gpus = [worker.detail["gpu"]["name"] for worker in workers if worker.detail.get("gpu")]
    return {
        "node": host,
        "state": _state(workers, there),
        "workers": [worker_document(worker) for worker in workers],
        "capabilities": sorted({name for worker in workers for name in worker.capabilities}),
        "gpus": gpus,
        "slots": sum(seat.slots for seat in there),
        "busy": sum(seat.busy for seat in there),
        "seen": max(worker.seen for worker in workers),
        "failures": health.failures if health else 0,
        "aside_until": health.aside_until if health else None,
        "why_aside": health.why if health and health.aside_until else None,
        "trouble": next((seat.trouble for seat in there if seat.trouble), None),
    }


def _state(workers: Sequence[Worker], seats: Sequence[Seat]) -> str:
    if not any(worker.fresh for worker in workers):
        return "silent"
    if any(seat.aside for seat in seats):
        return "set aside"
    if all(worker.detail.get("state") == "draining" for worker in workers):
        return "draining"
    return "stands by" if seats and all(seat.trouble for seat in seats) else "ready"


def show_nodes(documents: Sequence[dict[str, Any]]) -> None:
    """Nodes as a table, then what is wrong with any."""
    table = Table(
        [
            Column("node", cut="tail"),
            Column("state"),
            Column("busy", right=True),
            Column("gpu", cut="tail"),
            Column("builds", cut="fold"),
            Column("seen"),
        ]
    )
    for item in documents:
        busy = f"{item['busy']}/{item['slots']}"
        builds = "\n".join(item["capabilities"]) or "nothing"
        table.add(item["node"], item["state"], busy, ", ".join(item["gpus"]) or "-", builds, human_ago(item["seen"]))
    table.show()
    for item in documents:
        if item["aside_until"]:
            note(f"farm: {item['node']} is set aside until {human_time(item['aside_until'])}: {_why_aside(item)}")
        if item["trouble"]:
            note(f"farm: {item['node']} takes nothing until this works again: {item['trouble']}")


def _why_aside(item: dict[str, Any]) -> str:
    back = f"'farm nodes --trust {item['node']}' takes it back now"
    return f"{item['failures']} failures in a row, {item['why_aside']} ({back})"


# -- why a build waits ---------------------------------------------------------------------------------------


def find_waiting(farm: Farm, ident: str) -> Build:
    """The build that waits or runs under an id, a key or a recipe, shortened or not."""
    from farm.builds import ACTIVE

    active = farm.index.builds(states=ACTIVE, limit=100_000)
    digest = ident if ident.startswith("sha256:") else f"sha256:{ident}"
    found = [
        build
        for build in active
        if build.id.startswith(ident) or build.request.key.startswith(digest) or build.request.recipe.startswith(digest)
    ]
    if not found:
        raise NoSuchThing(f"no build waits or runs under '{ident}'", "'farm ls builds' lists them")
    return found[0]


def reasons(farm: Farm, build: Build) -> list[dict[str, Any]]:
    """What each worker that is there says to a build."""
    return [
        {"node": seat.node, "worker": seat.worker, "can": not reason, "reason": reason or None, "busy": seat.busy}
        for seat, reason in farm.lookout.why_waiting(build)
    ]


def show_reasons(build: Build, documents: Sequence[dict[str, Any]]) -> None:
    card(
        f"build {build.id}",
        [
            ("model", build.request.model),
            ("target", build.request.target),
            ("state", str(build.state)),
            ("needs", build.request.capability),
            ("memory", human_size(build.request.memory) if build.request.memory else ""),
            ("gpu memory", human_size(build.request.gpu_memory) if build.request.gpu_memory else ""),
        ],
    )
    if not documents:
        say("no process builds now; 'farm worker' is one")
        return
    for item in documents:
        told = "can take it" if item["can"] else item["reason"]
        busy = f" (has {count_of(item['busy'], 'build')} in hand)" if item["can"] and item["busy"] else ""
        say(f"  {item['node']}  {told}{busy}")
