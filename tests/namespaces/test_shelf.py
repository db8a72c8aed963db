"""Torch-TensorRT's subgraph engines, which clients build themselves: each client's are its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

import pytest

from farm.asks import Ask, Identity
from farm.config import Config
from farm.container import header_for
from farm.engine_shelf import FarmShelf
from farm.errors import Missing
from farm.promoting import promote
from farm.wiring.backends import open_index, open_store
from tests.namespaces.conftest import MODEL, Opener

PLAN = memoryview(b"a subgraph's plan")


@dataclass(frozen=True)
class Asked:
    identity: Identity
    naming: str = "names"

    def served_by(self, naming: object) -> bool:
        return naming == self.naming


Shelves = Callable[[str, str], FarmShelf]


@pytest.fixture
def shelf(config: Config) -> Iterator[Shelves]:
    """The shelf of a client whose configured namespace is the first, and whose own is the second."""
    with ExitStack() as stack:

        def shelf(configured: str, own: str) -> FarmShelf:
            mine = replace(config, namespace=configured)
            index = open_index(mine, mine.realm.owning(own))
            return stack.enter_context(closing(FarmShelf(mine, index, open_store(mine), own)))

        yield shelf


def built(shelf: FarmShelf, asked: Asked) -> None:
    claim = shelf.claim(asked)
    assert claim is not None
    claim = shelf.turn(claim)
    assert claim.lease is not None
    one, detail = asked.identity, {"naming": asked.naming}
    bindings = {"inputs": [], "outputs": []}
    header = header_for(
        PLAN,
        key=one.key,
        recipe=one.recipe,
        toolchain=one.toolchain,
        target=one.target,
        bindings=bindings,
        detail=detail,
    )
    shelf.commit(claim, asked, header, PLAN, 2.0)


@pytest.mark.parametrize("configured", ["main", "pr-1"])
def test_what_a_client_builds_is_its_own(opened: Opener, shelf: Shelves, configured: str) -> None:
    main = opened()
    asked = Asked(main.identify([Ask(str(MODEL), "sm_89")])[0])
    bob, eve = shelf(configured, "client/bob"), shelf(configured, "client/eve")
    assert bob.find(asked) is None
    built(bob, asked)
    found = bob.find(asked)
    assert found is not None and bytes(found.plan) == bytes(PLAN) and found.seconds == 2.0
    for other in (eve, shelf("main", "main"), shelf("pr-1", "pr-1")):
        assert other.find(asked) is None
    (engine,) = main.index.engines()
    assert engine.namespace == engine.manifest["namespace"] == "client/bob"
    with pytest.raises(Missing, match="its program"):
        promote(main, [asked.identity.recipe])


@pytest.mark.parametrize("configured", ["main", "pr-1"])
def test_no_client_is_given_another_s_build(opened: Opener, shelf: Shelves, configured: str) -> None:
    asked = Asked(opened().identify([Ask(str(MODEL), "sm_89")])[0])
    bob, eve = shelf(configured, "client/bob"), shelf(configured, "client/eve")
    claim, hers = bob.claim(asked), eve.claim(asked)
    assert claim is not None and hers is not None
    first = eve.turn(hers)
    assert first.lease is not None and first.lease.build.request.namespace == "client/eve"
    assert eve.turn(hers).lease is None, "his is left to him"
    mine = bob.turn(claim)
    assert mine.lease is not None and mine.lease.build.request.namespace == "client/bob"
    eve.withdraw(first)
    bob.withdraw(mine)


def test_everybody_reads_what_a_trusted_worker_s_child_built(opened: Opener, shelf: Shelves) -> None:
    main = opened()
    asked = Asked(main.identify([Ask(str(MODEL), "sm_89")])[0])
    built(shelf("main", "main"), asked)
    for reader in (shelf("main", "client/bob"), shelf("pr-1", "client/bob"), shelf("pr-1", "pr-1")):
        assert reader.find(asked) is not None


def test_its_use_is_recorded(opened: Opener, shelf: Shelves) -> None:
    main = opened()
    asked = Asked(main.identify([Ask(str(MODEL), "sm_89")])[0])
    bob = shelf("main", "client/bob")
    bob.find(asked)
    built(bob, asked)
    bob.find(asked)
    bob._recorder.flush()
    numbers = main.index.usage([asked.identity.key])[asked.identity.key]
    assert (numbers["hits"], numbers["miss:never_built"], numbers["seconds"], numbers["bytes"]) == (1, 1, 2, len(PLAN))
    assert list(main.index.last_used([(asked.identity.recipe, "client/bob")])) == [
        (asked.identity.recipe, "client/bob")
    ]
