"""What an error that an attempt met means for its build: of which kind the failure is, and what its user reads."""

from __future__ import annotations

import errno

from farm.builders import AttemptFailed
from farm.builds import Failure, FailureKind
from farm.errors import BadInput, CorruptBlob, FarmError, Unavailable


def failure_of(error: FarmError) -> Failure:
    """What an error met during an attempt means for the build."""
    if isinstance(error, AttemptFailed):
        return error.failure
    if isinstance(error, BadInput):
        return Failure(FailureKind.PERMANENT, error.message, error.hint)
    if isinstance(error, Unavailable) and error.refused:
        return Failure(FailureKind.NODE, error.message, error.hint)
    if isinstance(error, Unavailable | CorruptBlob):
        return Failure(FailureKind.TRANSIENT, error.message, error.hint)
    return Failure(FailureKind.NODE, error.message, error.hint)


def failure_of_machine(error: OSError) -> Failure:
    """What the operating system refused: no room passes once there is room; the rest is this machine's."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "make room ('farm doctor' shows where) and ask again"
        return Failure(FailureKind.TRANSIENT, f"the disk is full{where}", hint)
    return Failure(FailureKind.NODE, f"{error.strerror or error}{where}", "'farm doctor' looks over this machine")


def defect(error: Exception) -> Failure:
    """A failure for an error that farm did not foresee."""
    return Failure(
        FailureKind.NODE,
        f"a defect of farm's own: {type(error).__name__}: {error}",
        "please report it, with the log of the worker",
    )
