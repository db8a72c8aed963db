"""``farm.index.Index`` behind a server, as far as a client calls it.

What only workers (``farm.making``) and upkeep ask of an index is not here: they stand beside the database. What an
index decides for whoever holds it (namespaces, tenants, turns, wake-ups) the server decides by the token.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import quote

from farm.builds import Build, BuildRequest, BuildState, Engine
from farm.errors import BadConfig, NoSuchThing
from farm.index import (
    Adoption,
    Attempt,
    Claim,
    Event,
    Found,
    KeyParts,
    NodeHealth,
    Past,
    StoredProgram,
    Sweep,
    Trial,
    Wanted,
    WantedPortable,
    Worker,
)
from farm.making import Making
from farm.measurements import Awaiting, Measurement, MeasuringAsk
from farm.placement import Seat
from farm.remote.link import Link
from farm.tokens import Scope
from farm.usage import Place, Usage
from farm.wire import (
    MOST,
    Adopting,
    Counted,
    Done,
    Dropping,
    Ending,
    Holding,
    Leaving,
    Log,
    Looking,
    Order,
    Orders,
    Seen,
    Session,
    Watching,
)

if TYPE_CHECKING:
    from farm.index import Index

T = TypeVar("T")

CLAIM_SECONDS = 900.0
"""A server reads a program that it has not seen before from end to end."""
BATCH = 1000


class RemoteIndex:
    """Safe to share between threads, but for ``watch``, which remembers what it saw."""

    def __init__(self, link: Link, session: Session) -> None:
        self._link = link
        self.session = session
        self._writes = Scope(session.scope).covers(Scope.BUILD)
        self._seen: dict[str, Seen] = {}

    def __getattr__(self, name: str) -> Any:
        return refused(name, Making)

    # -- engines ---------------------------------------------------------------------------------------------

    def find(self, wanted: Sequence[Wanted], namespaces: Sequence[str]) -> list[Found | None]:
        found: list[Found | None] = []
        for some in _batches(wanted):
            looking = Looking(tuple(some), tuple(namespaces))
            found += self._link.post("engines/find", looking, list[Found | None])
        return found

    def find_portable(self, wanted: WantedPortable, namespaces: Sequence[str], limit: int = 8) -> list[Engine]:
        return self._link.post("engines/find-portable", wanted, list[Engine])[:limit]

    def record_parts(self, parts: Sequence[KeyParts]) -> None:
        """Nothing with a token that may only read."""
        for some in _batches(parts) if self._writes else ():
            self._link.post("parts", some, Done)

    def parts(self, prefix: str) -> list[KeyParts]:
        return self._link.get("parts", list[KeyParts], prefix=prefix)

    def recent_parts(self, graph: str | None = None, limit: int = 200) -> list[KeyParts]:
        return self._link.get("parts/recent", list[KeyParts], graph=graph, limit=min(limit, MOST))

    def drop_engine(self, recipe: str, digest: str, reason: str, namespace: str | None = None) -> bool:
        """The server looks for itself, and drops what it finds to be so. Nothing with a token that may only read."""
        if not self._writes:
            return False
        return self._link.post("engines/drop", Dropping(recipe, digest, namespace), Done).done

    def adopt(self, engine: Engine, terms: Adoption) -> bool:
        if terms.parts is None or not terms.replace:
            raise BadConfig("engines are vouched for beside the database", "run it on the server's machine")
        return self._link.post("engines/adopt", Adopting(engine, terms.parts, terms.capability), Done).done

    def hold_blobs(self, blobs: Collection[str], seconds: float) -> set[str]:
        return set(self._link.post("blobs/hold", Holding(tuple(blobs), seconds), list[str]))

    def engines(self, prefix: str = "", limit: int = 1000, namespaces: Sequence[str] = ()) -> list[Engine]:
        return self._link.get(
            "engines", list[Engine], prefix=prefix, limit=min(limit, MOST), namespace=list(namespaces)
        )

    def count(self, name: str, by: Mapping[str, float]) -> None:
        self._link.post("usage", Counted({name: by}), Done)

    def add_usage(self, more: Usage) -> None:
        engines = tuple((recipe, place, hits) for (recipe, place), hits in more.engines.items())
        self._link.post("usage", Counted(more.counters, more.keys, engines), Done)

    def usage(self, keys: Collection[str]) -> dict[str, Mapping[str, float]]:
        return dict(self._link.post("usage/of", list(keys), dict[str, dict[str, float]]))

    def best_keys(self, limit: int = 20) -> list[str]:
        return self._link.get("usage/best", list[str], limit=min(limit, MOST)) if limit else []

    def last_used(self, places: Collection[Place]) -> dict[Place, float]:
        found = self._link.post("engines/last-used", list(places), list[tuple[str, str, float]])
        return {(recipe, namespace): at for recipe, namespace, at in found}

    def stats(self) -> dict[str, Any]:
        return self._link.get("stats", dict[str, Any])

    # -- builds ----------------------------------------------------------------------------------------------

    def claim_or_join(
        self, requests: Sequence[BuildRequest], waiter: str, *, force: bool = False, reads: Sequence[str] = ()
    ) -> list[Claim]:
        """The server computes every key anew, and reads the namespaces that the token does."""
        if not requests:
            return []
        orders = Orders(tuple(map(Order.of, requests)), waiter, force)
        return self._link.post("builds", orders, list[Claim], seconds=CLAIM_SECONDS)

    def leave(self, waiter: str, builds: Collection[str] | None = None) -> list[str]:
        left = None if builds is None else tuple(builds)
        return self._link.post("builds/leave", Leaving(waiter, left), list[str]) if self._writes else []

    def cancel(self, build: str) -> Build:
        return self._link.post(f"builds/{_part(build)}/cancel", None, Build)

    def retry(self, build: str, waiter: str = "") -> Build:
        return self._link.post(f"builds/{_part(build)}/retry", Leaving(waiter), Build, seconds=CLAIM_SECONDS)

    def build(self, id: str) -> Build | None:
        try:
            return self._link.get(f"builds/{_part(id)}", Build) if id else None
        except NoSuchThing:
            return None

    def builds(
        self,
        *,
        prefix: str = "",
        ids: Collection[str] | None = None,
        states: Collection[BuildState] = (),
        limit: int = 1000,
    ) -> list[Build]:
        if ids is not None:
            found = self._link.post("builds/watch", Watching(dict.fromkeys(ids, "")), list[Seen])
            wanted = [one.build for one in found if one.build.id.startswith(prefix)]
            return [build for build in wanted if not states or build.state in states][:limit]
        names = [state.value for state in states]
        return self._link.get("builds", list[Build], prefix=prefix, state=names, limit=min(limit, MOST))

    def watch(self, ids: Collection[str], seconds: float) -> list[Build]:
        """The builds as they stand: at once the first time, then as soon as one of them has changed, or after so many
        seconds. Only what has changed crosses the network."""
        self._seen = {id: seen for id, seen in self._seen.items() if id in ids}
        known = {id: self._seen[id].state if id in self._seen else "" for id in ids}
        came = self._link.post("builds/watch", Watching(known, seconds), list[Seen], seconds=seconds + 60)
        self._seen |= {one.build.id: one for one in came}
        return [self._seen[id].build for id in ids if id in self._seen]

    def events(self, build: str) -> list[Event]:
        return self._link.get(f"builds/{_part(build)}/events", list[Event])

    def attempts(self, build: str) -> list[Attempt]:
        return self._link.get(f"builds/{_part(build)}/attempts", list[Attempt])

    def log(self, build: str, after: int = 0) -> tuple[str, int]:
        found = self._link.get(f"builds/{_part(build)}/log", Log, after=after)
        return found.text, found.position

    def tried(self, build: str) -> dict[str, str]:
        return self._link.get(f"builds/{_part(build)}/tried", dict[str, str])

    def wakes(self, interval: float) -> dict[str, int]:
        """Nothing: the server wakes."""
        return {}

    def past(self, wanted: Collection[tuple[str, str]]) -> Past:
        """Nothing: the server reckons how long builds take."""
        return Past()

    # -- nodes -----------------------------------------------------------------------------------------------

    def workers(self) -> list[Worker]:
        return self._link.get("nodes", list[Worker])

    def seats(self) -> list[Seat]:
        return self._link.get("nodes/seats", list[Seat])

    def health(self) -> list[NodeHealth]:
        return self._link.get("nodes/health", list[NodeHealth])

    def trust_node(self, name: str) -> bool:
        return self._link.post(f"nodes/{_part(name)}/trust", None, Done).done

    def waiting(self, namespaces: Sequence[str] = ()) -> dict[str, int]:
        return self._link.get("nodes/waiting", dict[str, int], namespace=list(namespaces))

    # -- programs and sweeps ---------------------------------------------------------------------------------

    def put_program(self, program: StoredProgram) -> None:
        """Nothing: the server records what it finds in the blob, as it first builds from it."""

    def programs(self, prefix: str = "", limit: int = 1000) -> list[StoredProgram]:
        return self._link.get("programs", list[StoredProgram], prefix=prefix, limit=min(limit, MOST))

    def put_sweep(self, sweep: Sweep) -> None:
        self._link.post(f"sweeps/{_part(sweep.id)}", sweep, Done, method="PUT")

    def sweeps(self, prefix: str = "", limit: int = 100) -> list[Sweep]:
        return self._link.get("sweeps", list[Sweep], prefix=prefix, limit=min(limit, MOST))

    def cancel_sweep(self, sweep: str) -> None:
        self._link.post(f"sweeps/{_part(sweep)}/cancel", None, Done)

    def add_trials(self, sweep: str, trials: Sequence[Trial]) -> bool:
        return self._link.post(f"sweeps/{_part(sweep)}/trials", list(trials), Done).done

    def change_trials(self, sweep: str, trials: Sequence[Trial]) -> None:
        self._link.post(f"sweeps/{_part(sweep)}/trials", list(trials), Done, method="PUT")

    def end_sweep(self, sweep: str, why: str) -> None:
        self._link.post(f"sweeps/{_part(sweep)}/end", Ending(why), Done)

    # -- measurements ----------------------------------------------------------------------------------------

    def measurements_of(self, digests: Collection[str]) -> list[Measurement]:
        found: list[Measurement] = []
        for batch in _batches(sorted(digests)):
            found += self._link.post("measurements/find", list(batch), list[Measurement])
        return found

    def await_measuring(self, asks: Sequence[MeasuringAsk]) -> None:
        if asks and self._writes:
            self._link.post("measurements/await", [ask.as_json() for ask in asks], Done)

    def awaiting(self, ids: Collection[str] | None = None) -> list[Awaiting]:
        return self._link.post("measurements/awaiting", None if ids is None else list(ids), list[Awaiting])

    def close(self) -> None:
        self._link.close()


def refused(name: str, contract: type) -> Any:
    """In place of a method of ``contract`` that no client calls: it says so. ``AttributeError`` for any other name."""
    if name.startswith("_") or name not in vars(contract):
        raise AttributeError(name)

    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise BadConfig(
            f"a server does not do '{name.replace('_', ' ')}' for its clients",
            "unset FARM_URL, and give FARM_DATABASE_URL and FARM_STORE_URL",
        )

    return refuse


def _batches(things: Sequence[T]) -> Iterable[Sequence[T]]:
    return (things[at : at + BATCH] for at in range(0, len(things), BATCH))


def _part(text: str) -> str:
    """One part of a path."""
    return quote(text, safe="") or "-"


if TYPE_CHECKING:
    _conforms: type[Index] = RemoteIndex
