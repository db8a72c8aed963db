"""The shelf of subgraph engines, from every kind of namespace: what is built there is put there, and serves its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from farm.asks import Ask, Identity
from farm.config import Config
from farm.container import header_for
from farm.engine_shelf import FarmShelf
from farm.service import Farm
from farm.wiring import open_shelf
from farm.wiring.backends import open_index, open_store
from farm.wiring.workers import fit_machine, open_worker
from tests.namespaces.conftest import MODEL, Opener

FLEET = "redis://localhost:1/0"
"""A broker that nobody asks: it makes the farm a fleet's, in which clients have namespaces of their own."""


@dataclass(frozen=True)
class Part:
    identity: Identity
    naming: str = "names"

    def served_by(self, naming: object) -> bool:
        return naming == self.naming


@pytest.fixture
def part(opened: Opener) -> Part:
    farm: Farm = opened()
    return Part(farm.identify([Ask(str(MODEL), "sm_89")])[0])


Shelves = Callable[..., FarmShelf]


@pytest.fixture
def shelf(config: Config) -> Iterator[Shelves]:
    with ExitStack() as stack:

        def shelf(worker: bool = False, **changes: Any) -> FarmShelf:
            """A client's, or that of a worker of this configuration."""
            its = replace(config, **changes)
            assert its.realm.contradiction() == ("", "")
            if not worker:
                return stack.enter_context(closing(open_shelf(its)))
            made = FarmShelf(its, open_index(its), open_store(its), its.namespace)
            return stack.enter_context(closing(made))

        yield shelf


def built(shelf: FarmShelf, part: Part, plan: bytes) -> bool:
    """Ask for it, and build it if it is this one's turn; whether it was."""
    claim = shelf.claim(part)
    assert claim is not None
    claim = shelf.turn(claim)
    if claim.lease is None:
        shelf.withdraw(claim)
        return False
    it, bytes_ = part.identity, memoryview(plan)
    names: dict[str, Any] = {"bindings": {"inputs": [], "outputs": []}, "detail": {"naming": part.naming}}
    header = header_for(bytes_, key=it.key, recipe=it.recipe, toolchain=it.toolchain, target=it.target, **names)
    shelf.commit(claim, part, header, bytes_, 1.0)
    return True


def served(shelf: FarmShelf, part: Part) -> bytes | None:
    found = shelf.find(part)
    return None if found is None else bytes(found.plan)


BOTH = ("main", "release")


@pytest.mark.parametrize(
    ("worker", "place"),
    [
        (False, {"namespace": "pr-17", "broker_url": FLEET}),
        (False, {"namespace": "pr-17", "broker_url": FLEET, "builds_for": ("pr-*",)}),
        (False, {"broker_url": FLEET, "trusted_namespaces": BOTH, "builds_for": ("release",)}),
        (True, {"namespace": "pr", "builds_for": ("pr-*",)}),
        (True, {"trusted_namespaces": BOTH, "builds_for": ("release",)}),
    ],
)
def test_what_is_built_is_shared_wherever_that_is(
    shelf: Shelves, part: Part, worker: bool, place: dict[str, Any]
) -> None:
    """Also where this machine's workers build for other namespaces than its own."""
    mine = shelf(worker, **place)
    assert built(mine, part, b"plan") and served(mine, part) == b"plan"


def test_two_clients_that_want_the_same_build_their_own(shelf: Shelves, part: Part) -> None:
    """Their builds wait in one queue, since the recipe is one; neither may lease the other's."""
    bob, alice = (shelf(broker_url=FLEET, tenant=name) for name in ("bob", "alice"))
    waits = alice.claim(part)
    assert waits is not None
    assert built(bob, part, b"of bob's") and served(alice, part) is None
    claim = alice.turn(waits)
    assert claim.lease is not None, "nobody else has taken it"
    assert claim.lease.build.request.namespace == "client/alice"
    alice.withdraw(claim)
    assert built(alice, part, b"of alice's")
    assert (served(bob, part), served(alice, part)) == (b"of bob's", b"of alice's")
    assert served(shelf(worker=True), part) is None, "no worker takes either"


def test_a_worker_with_a_policy_takes_no_engine_that_nobody_vouches_for(
    shelf: Shelves, part: Part, config: Config, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would stand in an artefact that the worker signs."""
    theirs = b"of whoever may write to the database"
    assert built(shelf(worker=True), part, theirs)
    seen: list[bytes | None] = []

    def looked(_environment: object, *, shelf: FarmShelf) -> None:
        seen.append(served(shelf, part))

    monkeypatch.setattr("farm.builders.torch_tensorrt.TorchTensorRTBuilder", looked)
    for its in (config, replace(config, trust=str(keys / "policy"), signing_key=str(keys / "trusted"))):
        with closing(open_index(its)) as index:
            open_worker(its, index, open_store(its), fit_machine(its, []))
    assert seen == [theirs, None]
