"""Torch-TensorRT's engines behind a server: given by one client of a token, found by another, and by no other token."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from farm.asks import Identity
from farm.canonical import digest
from farm.container import header_for
from farm.tokens import Scope
from farm.wiring import open_shelf
from tests.server.conftest import Client, ask

pytestmark = pytest.mark.xdist_group("serve")
PLAN = memoryview(b"ftrt a plan that a client built")


@dataclass(frozen=True)
class Subgraph:
    """As ``integrations.subgraphs`` asks, without torch."""

    identity: Identity
    naming: str = "names"

    def served_by(self, naming: object) -> bool:
        return naming == self.naming


def subgraph(client: Client, model: Path) -> Subgraph:
    """A program's identity, dressed as a subgraph's: key and recipe are those of its parts."""
    with client.open() as farm:
        (identity,) = farm.identify([ask(model, 50)])
    keyed = {name: part for name, part in identity.parts.items() if name != "recipe"} | {"kind": "subgraph"}
    recipe = {"settings": {}, "naming": "names"}
    key, made = digest("subgraph key", keyed), digest("subgraph recipe", {**keyed, **recipe})
    return Subgraph(replace(identity, key=key, recipe=made, parts={**keyed, "recipe": recipe}, format="subgraph"))


def test_what_one_client_gives_another_finds(client: Client, model: Path, name: str) -> None:
    asked = subgraph(client, model)
    other = client.with_token(client.server.token(f"{name}-other"))
    reader = client.with_token(client.server.token(f"{name}-reader", Scope.READ))
    config = client.server.config(client.farms.home, client.token)
    giving, finding = open_shelf(config), open_shelf(replace(config, home=model.parent / "another"))
    strangers = [open_shelf(replace(config, token=one.token)) for one in (other, reader)]
    try:
        assert giving.find(asked) is None
        claim = giving.claim(asked)
        assert claim is not None
        claim = giving.turn(claim)
        header = header_for(
            PLAN,
            key=asked.identity.key,
            recipe=asked.identity.recipe,
            toolchain=asked.identity.toolchain,
            target=asked.identity.target,
            bindings={"inputs": [], "outputs": []},
            detail={"naming": "names"},
        )
        giving.commit(claim, asked, header, PLAN, 2.5)
        giving.withdraw(claim)
        found = finding.find(asked)
        assert found is not None and bytes(found.plan) == bytes(PLAN) and found.seconds == 2.5
        assert finding.find(replace(asked, naming="other names")) is None
        assert [shelf.find(asked) for shelf in strangers] == [None, None]
        assert strangers[1].claim(asked) is None, "a token that reads gives nothing"
    finally:
        for shelf in (giving, finding, *strangers):
            shelf.close()
