"""The store in memory keeps the contract."""

from __future__ import annotations

import pytest
from store_contract import Spoil, StoreContract

from farm.blobs.memory import MemoryStore


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()

    @pytest.fixture
    def spoil(self, store: MemoryStore) -> Spoil:
        def spoil(digest: str, data: bytes) -> None:
            store._held[digest] = data

        return spoil
