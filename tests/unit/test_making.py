"""What is the index's, and what only makers of engines ask of it."""

from __future__ import annotations

from farm.index import Index
from farm.making import Making
from farm.remote.index import RemoteIndex


def methods(contract: type) -> set[str]:
    return {name for name in vars(contract) if not name.startswith("_")}


def test_a_server_answers_all_that_is_the_index_s_and_nothing_of_what_makers_ask() -> None:
    assert methods(Index) <= methods(RemoteIndex)
    assert not methods(Making) & methods(RemoteIndex)
