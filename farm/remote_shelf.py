"""The shelf of Torch-TensorRT's engines behind a server: looked up there, and what this client built itself put there.

No lease crosses the network, so nobody waits for another's build: two clients that ask at once both build, and the
engine is one all the same. What a client puts goes into its token's own namespace, where those with that token find it.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from farm.builds import Build, BuildState, Lease
from farm.client import RemoteFarm
from farm.container import Header
from farm.engine_shelf import Asked, Claim, FarmShelf
from farm.making import for_making
from farm.namespaces import client_namespace
from farm.tokens import Scope

if TYPE_CHECKING:
    from farm.trust import Policy


class RemoteShelf(FarmShelf):
    """Any of it may raise ``Unavailable``. Safe to share between threads."""

    def __init__(self, farm: RemoteFarm, trust: Policy | None = None) -> None:
        self._own_name = farm.session.name
        self._gives = Scope(farm.session.scope).covers(Scope.BUILD)
        index = for_making(farm.index)
        super().__init__(farm.config, index, farm.store, client_namespace(self._own_name), trust)

    def claim(self, asked: Asked) -> Claim | None:
        """It is this client's to build at once; ``None`` with a token that may only read: nothing will be put."""
        return Claim("", self._request(asked)) if self._gives else None

    def turn(self, claim: Claim) -> Claim:
        build = Build("", claim.request, BuildState.RUNNING, 0.0)
        return replace(claim, lease=Lease(build, token=0, attempt=0, expires=0.0))

    def commit(self, claim: Claim, asked: Asked, header: Header, plan: memoryview, seconds: float) -> None:
        assert claim.lease is not None
        made = self._manifest(claim.lease, asked, header, seconds)
        self._config.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="engine-", dir=self._config.scratch) as folder:
            path = Path(folder) / "plan"
            path.write_bytes(plan)
            self._cache.keep(asked.identity, path, self._own_name, seconds, made)

    def withdraw(self, claim: Claim) -> None:
        """Nobody waits for it."""

    def close(self) -> None:
        self._index.close()
