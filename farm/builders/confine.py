"""How a child process gives up what it does not need. Runs in the child, before anything else does; imports little.

All of it is done by the child itself, after its exec: code between fork and exec is not safe in a process with
threads. What the kernel does not grant is left, and told.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from typing import Any

ORPHANED = 75
"""Exit status of a child whose parent was gone before it began."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""Landlock's system calls, the same on every architecture."""
_VERSION = 1
_PATH_BENEATH = 1
_WRITE_FILE = 1 << 1
_CHANGES = _WRITE_FILE | sum(1 << bit for bit in range(4, 13))  # removing and making files of every kind
_REFER, _TRUNCATE = 1 << 13, 1 << 14


def confine(limits: dict[str, int], parent: int, writable: list[str]) -> list[str]:
    """Bind this process to its limits and its life to its parent's; what could not be done, in words.

    ``limits``: ``disk`` (bytes of the largest file) and ``data`` (bytes of memory), where they are not 0.
    ``writable``: the folders beneath which it may still change files; empty: everywhere.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(ORPHANED)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    limit(resource.RLIMIT_CORE, 0)
    for which, name in ((resource.RLIMIT_FSIZE, "disk"), (resource.RLIMIT_DATA, "data")):
        if limits.get(name):
            limit(which, limits[name])
    notes = [] if cut_network(libc) else ["this kernel does not let the child give up the network"]
    if writable and not cut_writing(libc, writable):
        notes.append("this kernel does not let the child give up writing to other folders")
    return notes


def limit(which: int, value: int) -> None:
    """Lower one limit, never above what is already allowed."""
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def cut_network(libc: Any) -> bool:
    """Move into a network namespace without interfaces; whether that was possible.

    A user namespace makes it possible without privileges where the kernel allows it. It must happen while the
    process has one thread.
    """
    return any(libc.unshare(flags) == 0 for flags in (_CLONE_NEWNET, _CLONE_NEWUSER | _CLONE_NEWNET))


class _Ruleset(ctypes.Structure):
    _fields_ = (("handled_access_fs", ctypes.c_uint64),)


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def cut_writing(libc: Any, writable: list[str]) -> bool:
    """Give up changing files anywhere but beneath ``writable`` and in /dev; whether that was possible (Landlock).

    Devices stay: programs write to /dev/null. Reading is not restricted.
    """
    version = libc.syscall(_CREATE_RULESET, None, 0, _VERSION)
    if version < 1:
        return False
    handled = _CHANGES | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    rules = libc.syscall(_CREATE_RULESET, ctypes.byref(_Ruleset(handled)), ctypes.sizeof(_Ruleset), 0)
    if rules < 0:
        return False
    try:
        granted = all(allow(libc, rules, folder, handled) for folder in writable)
        granted = granted and allow(libc, rules, "/dev", handled & (_WRITE_FILE | _TRUNCATE))
        return granted and libc.syscall(_RESTRICT_SELF, rules, 0) == 0
    finally:
        os.close(rules)


def allow(libc: Any, rules: int, folder: str, access: int) -> bool:
    fd = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    try:
        beneath = _Beneath(access, fd)
        return bool(libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, ctypes.byref(beneath), 0) == 0)
    finally:
        os.close(fd)
