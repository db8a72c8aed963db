"""The operating system's errors, said to people: which folder, what is wrong with it, and what to do."""

from __future__ import annotations

import errno
from pathlib import Path

from farm.errors import BadInput, FarmError, Unavailable

_WHAT = {
    errno.ENOSPC: ("the disk is full", "free some space there, and ask again"),
    errno.EDQUOT: ("this user's disk quota is used up", "free some space there, or have the quota raised"),
    errno.EROFS: ("it is mounted read-only", "mount it for writing, or choose another folder"),
    errno.EACCES: ("this user may not use it", "give this user the rights to read and write there"),
    errno.EPERM: ("this user may not use it", "give this user the rights to read and write there"),
    errno.EIO: ("the disk reports an error", "check that disk"),
    errno.EMFILE: ("this process has too many files open", "raise 'ulimit -n', or run fewer builds at once"),
    errno.ENFILE: ("this machine has too many files open", "close what leaks files, and ask again"),
    errno.EFBIG: ("the file is larger than may be written there", "raise 'ulimit -f', or choose another file system"),
    errno.ENOENT: ("it is not there", "make it, and ask again"),
    errno.ENOTDIR: ("something that is no folder is in its place", "move that away, or choose another folder"),
    errno.EEXIST: ("something that is no folder is in its place", "move that away, or choose another folder"),
    errno.ESTALE: ("the file server has lost it", "mount it anew, and ask again"),
}


def fault(error: OSError, root: Path, dest: Path | None = None) -> FarmError:
    """The error to raise for one met in the store at ``root``, or while writing into the folder ``dest``."""
    folder, name = root, "the store's folder"
    if dest is not None and not _below(error, root):
        folder, name = dest, "the folder"
    if error.errno == errno.EISDIR:
        return BadInput(f"{error.filename2 or error.filename or folder} is a folder", "give the path of a file in it")
    return _said(error, f"{name} {folder}")


def folder_fault(error: OSError, folder: Path) -> FarmError:
    """The error to raise for one met while writing into ``folder``, which is no store's."""
    if error.errno == errno.EISDIR:
        return BadInput(f"{error.filename2 or error.filename or folder} is a folder", "give the path of a file in it")
    return _said(error, f"the folder {folder}")


def _said(error: OSError, where: str) -> Unavailable:
    what, hint = _WHAT.get(error.errno or 0, (error.strerror or type(error).__name__, "run 'farm doctor'"))
    told = Unavailable(f"{where}: {what}", hint)
    told.refused = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    return told


def _below(error: OSError, root: Path) -> bool:
    """Whether the error names a file of the store."""
    names = [name for name in (error.filename, error.filename2) if isinstance(name, str | Path)]
    return bool(names) and all(Path(name).is_relative_to(root) for name in names)


def bad_source(error: OSError, path: object) -> BadInput:
    """The error to raise when what is to be stored cannot be read."""
    return BadInput(
        f"{path} cannot be read: {error.strerror or error}", "check the path, and that this user may read it"
    )
