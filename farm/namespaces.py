"""Namespaces: which ones are trusted, and what somebody of one may read and write. Pure.

A *trusted* namespace (the main branch, releases) is written by those alone whose own namespace is trusted. All others
are *untrusted* (pull requests, ``client/…``): they read the trusted ones and write none. ``client/NAME`` holds what a
client built itself, and is never trusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

MAIN = "main"
CLIENT = "client/"
UNTRUSTED = "/untrusted"
"""How the name of a queue ends whose builds are of untrusted namespaces."""
LONGEST = 100
_WORD = r"[A-Za-z0-9_][A-Za-z0-9._+-]*"
_NAME = re.compile(f"{_WORD}(?:/{_WORD})*")


@dataclass(frozen=True)
class Realm:
    """Somebody's place among the namespaces. ``own``: where what they ask for is built; ``trusted``: the trusted
    namespaces, by name; ``also``: others that are read. ``builds``: what their workers build for (``admits``)."""

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
    def writes(self) -> tuple[str, ...]:
        """Where engines and builds may be written, as ``admits`` has it: everywhere by those of a trusted namespace;
        else where one's own are, where one builds for, and where clients put what they built themselves."""
        return ("*",) if self.is_trusted else tuple(dict.fromkeys((self.own, *self.serves, f"{CLIENT}*")))

    def may_write(self, namespace: str) -> bool:
        return admits(self.writes, namespace) and (self.is_trusted or not self.trusts(namespace))

    def owning(self, namespace: str) -> Realm:
        """The same with ``namespace`` as its own, which is read first, and written alone where it is not trusted."""
        also = () if self.trusts(namespace) else (self.own, *self.also)
        return self if namespace == self.own else replace(self, own=namespace, also=also, builds=())

    def of_client(self, name: str) -> Realm:
        """That of the client called ``name``, for what it builds itself. ``ValueError`` for what cannot be a name."""
        return self.owning(client_namespace(name))

    def contradiction(self) -> tuple[str, str]:
        """What is wrong with it, and what to do; two empty texts when nothing is."""
        for name in (
            self.own,
            *self.trusted,
            *self.also,
            *(f"{one[:-1]}x" if one.endswith("*") else one for one in self.builds),
        ):
            if not is_name(name):
                return f"'{name}' cannot be a namespace", "write letters, digits and . _ - / +, such as 'pr/17'"
        if any(name.startswith(CLIENT) for name in self.trusted):
            return "what clients built themselves (client/…) is never trusted", "promote single engines: 'farm promote'"
        if self.is_trusted and any(not self.trusts(name) for name in self.also):
            other = next(name for name in self.also if not self.trusts(name))
            return f"'{self.own}' is trusted, and must not read '{other}', which is not", "'farm promote' instead"
        if self.is_trusted and not all(self.trusts(name) for name in self.serves):
            other = next(name for name in self.serves if not self.trusts(name))
            return (
                f"workers of '{self.own}', which is trusted, do not build for '{other}', which is not",
                "give workers for untrusted namespaces an untrusted FARM_NAMESPACE of their own",
            )
        if not self.is_trusted and any(admits(self.serves, name) for name in self.trusted):
            return (
                f"workers of '{self.own}', which is not trusted, do not build for trusted namespaces",
                "set FARM_NAMESPACE to a trusted one on them, or FARM_BUILDS_FOR to untrusted ones",
            )
        return "", ""


def admits(patterns: Iterable[str], namespace: str) -> bool:
    """Whether one of ``patterns`` is the namespace, or its beginning with ``*`` after it."""
    return any(one == namespace or (one.endswith("*") and namespace.startswith(one[:-1])) for one in patterns)


def is_name(text: str) -> bool:
    return len(text) <= LONGEST and _NAME.fullmatch(text) is not None


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
