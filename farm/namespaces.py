"""Namespaces: which ones are trusted, and what somebody of one may read and write. Pure.

A *trusted* namespace (the main branch, releases) is written by those alone whose own namespace is trusted. All others are
*untrusted* (pull requests, ``client/…``): they read the trusted ones and write none. ``client/NAME`` holds what a client
built itself, and is never trusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MAIN = "main"
CLIENT = "client/"
UNTRUSTED = "/untrusted"
"""How the name of a queue ends whose builds are of untrusted namespaces."""
LONGEST = 100


@dataclass(frozen=True)
class Realm:
    """Somebody's place among the namespaces. ``own``: where what they ask for is built; ``trusted``: the trusted
    namespaces, by name; ``also``: others that are read. ``builds``: what their workers build for, as ``covers`` has it."""

    own: str = MAIN
    trusted: tuple[str, ...] = (MAIN,)
    also: tuple[str, ...] = ()
    builds: tuple[str, ...] = ()

    def trusts(self, namespace: str) -> bool:
        return namespace in self.trusted

    @property
    def is_trusted(self) -> bool:
        return self.trusts(self.own)

    @property
    def reads(self) -> tuple[str, ...]:
        """Their own namespace first, then what else they were told to read, then the trusted ones."""
        return tuple(dict.fromkeys((self.own, *self.also, *self.trusted)))

    @property
    def serves(self) -> tuple[str, ...]:
        """What their workers build for: what was said; else all that is trusted, or their own where that is not."""
        return self.builds or (self.trusted if self.is_trusted else (self.own,))

    @property
    def serves_trusted(self) -> bool:
        """Whether their workers build for trusted namespaces; never for both (``contradiction``)."""
        return any(covers(self.serves, name) for name in self.trusted)

    def may_write(self, namespace: str) -> bool:
        """Whether engines, builds and links may be written there: a trusted namespace by those of a trusted one, an
        untrusted one by its own, and by whoever builds for it. What a client built itself may be put by any."""
        if self.trusts(namespace):
            return self.is_trusted
        mine = namespace == self.own or namespace.startswith(CLIENT) or covers(self.serves, namespace)
        return mine or self.is_trusted

    def contradiction(self) -> tuple[str, str]:
        """What is wrong with it, and what to do; two empty texts when nothing is."""
        for name in (self.own, *self.trusted, *self.also, *(one.removesuffix("*") or "x" for one in self.builds)):
            if not is_name(name):
                return f"'{name}' cannot be a namespace", "write letters, digits and . _ - / +, such as 'pr/17'"
        if any(name.startswith(CLIENT) for name in self.trusted):
            return "what clients built themselves (client/…) is never trusted", "promote single engines: 'farm promote'"
        if self.is_trusted and any(not self.trusts(name) for name in self.also):
            other = next(name for name in self.also if not self.trusts(name))
            return (
                f"'{self.own}' is trusted, and must not read '{other}', which is not",
                "promote single engines instead",
            )
        if self.serves_trusted and not all(self.trusts(name) for name in self.serves):
            return (
                f"a worker builds for trusted namespaces or for others, never for both ({', '.join(self.serves)})",
                "start one worker for each",
            )
        if self.serves_trusted and not self.is_trusted:
            return f"a worker of '{self.own}', which is not trusted, cannot build for trusted namespaces", (
                "set FARM_NAMESPACE to a trusted one on it, or FARM_BUILDS_FOR to untrusted ones"
            )
        return "", ""


def covers(patterns: Iterable[str], namespace: str) -> bool:
    """Whether one of ``patterns`` is the namespace, or its beginning with ``*`` after it."""
    return any(one == namespace or (one.endswith("*") and namespace.startswith(one[:-1])) for one in patterns)


def is_name(text: str) -> bool:
    plain = text.replace("/", "").replace(".", "").replace("_", "").replace("-", "").replace("+", "")
    return len(text) <= LONGEST and plain.isascii() and plain.isalnum() and not text.startswith(("/", "-"))


def client_namespace(name: str) -> str:
    """Where what the client called ``name`` built itself is put. ``ValueError`` for what cannot be a name."""
    if not is_name(name) or not is_name(CLIENT + name):
        raise ValueError(f"'{name}' cannot be a client's name")
    return CLIENT + name


def queue(capability: str, trusted: bool) -> str:
    """The queue for builds of a capability: those of untrusted namespaces wait in one of their own, for workers of
    their own."""
    plain = capability.removesuffix(UNTRUSTED)
    return plain if trusted else plain + UNTRUSTED


def queues(capabilities: Sequence[str], trusted: bool) -> tuple[str, ...]:
    return tuple(queue(one, trusted) for one in capabilities)
