"""Every error that farm raises on purpose. Each says what happened, why, and what to do next.

Foreign errors are translated into these at the edge where they appear (an adapter, a parser, a child
process); anything else that reaches the command line is a defect of farm's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class FarmError(Exception):
    """Base of all. ``message`` says what and why in one line; ``hint`` what to do next (may be empty).

    ``exit_code`` is what the command line ends with (INTERFACE: 1 failed, 2 bad input, 3 missing,
    4 a service could not be reached).
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message

    def as_json(self) -> dict[str, Any]:
        """What a server answers, and ``--json`` prints under ``error``."""
        kind = type(self).__name__
        return {"type": kind, "message": self.message, "hint": self.hint or None, "exit_code": self.exit_code}


class BadInput(FarmError):
    """What the user gave cannot be used."""

    exit_code = 2


class BadConfig(BadInput):
    """The environment or ``farm.toml`` says something that cannot be."""


class BadToken(BadConfig):
    """No token was shown to a server, or one that it does not take (any more)."""


class BadSettings(BadInput):
    """A compilation setting is unknown, out of range or contradicts another."""


class BadTarget(BadInput):
    """A target is unknown, or too vague for the engine that it is to run."""


class BadProgram(BadInput):
    """A model file is not a program that can be read safely."""


class NoSuchThing(BadInput):
    """An id, key or name that matches nothing, or more than one thing."""


class NotAllowed(FarmError):
    """Nobody of this namespace may do so: a trusted namespace is written by trusted ones alone."""

    exit_code = 2


class Missing(FarmError):
    """Asked for without leave to build it, and it is not there."""

    exit_code = 3


class Unavailable(FarmError):
    """A service (database, store, broker) could not be reached or is out of room."""

    exit_code = 4
    refused = False
    """It answers, and does not let this machine do that; it may well let others."""


class CorruptBlob(FarmError):
    """Stored bytes do not match their digest. The caller treats the blob as missing and reports it."""


class Untrusted(FarmError):
    """An engine that nobody whom the trust policy names vouches for. It is not handed out; its row stays, since others
    may trust it."""


class LeaseLost(FarmError):
    """The lease on a build is no longer held: another worker may have it. Nothing may be committed."""


class BuildFailed(FarmError):
    """A build ended without an engine. ``message`` is the reason that its user sees."""


def error_from(document: Mapping[str, Any]) -> FarmError:
    """The error that ``as_json`` made a document of, as the same class. One of a kind that this release does not know
    keeps its exit code."""
    kinds = {kind.__name__: kind for kind in _kinds(FarmError)}
    kind = kinds.get(str(document.get("type")))
    error = (kind or FarmError)(str(document.get("message") or "it failed"), str(document.get("hint") or ""))
    code = document.get("exit_code")
    if kind is None and isinstance(code, int):
        error.exit_code = code
    return error


def _kinds(kind: type[FarmError]) -> list[type[FarmError]]:
    return [kind, *(one for below in kind.__subclasses__() for one in _kinds(below))]
