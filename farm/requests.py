"""What is to be built, of an ask that has been identified. Pure."""

from __future__ import annotations

from typing import Any

from farm.asks import Identity
from farm.builds import BuildRequest


def request_for(
    identity: Identity, *, program: str, capability: str, namespace: str, tenant: str, **more: Any
) -> BuildRequest:
    """The request for an identity's engine, from the stored ``program`` (empty: whoever asks builds it from what they
    have), to be offered in the queue ``capability``. ``more`` of its fields are for whoever asks to say, the ask's
    custom operators and priority among them: the identity of a subgraph comes from a child."""
    return BuildRequest(
        key=identity.key,
        recipe=identity.recipe,
        program=program,
        program_format=identity.format,
        model=identity.model,
        target=identity.target,
        toolchain=identity.toolchain,
        told=identity.told,
        profiles=identity.profiles,
        settings=identity.given,
        weights=identity.weights,
        capability=capability,
        namespace=namespace,
        tenant=tenant,
        **more,
    )
