"""The store in memory keeps the contract."""

from __future__ import annotations

import pytest
from store_contract import Age, Spoil, StoreContract

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

    @pytest.fixture
    def age(self, store: MemoryStore) -> Age:
        def age(digest: str, seconds: float) -> None:
            with store._lock:
                if digest in store._held:
                    store._put_at[digest] = store.clock() - seconds

        return age
