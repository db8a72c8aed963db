"""Make an untrusted ``.pt2`` safe to load: nothing that torch could execute is passed on.

``torch.export.load`` of torch 2.13, and the export to ONNX after it, run what a file says in many ways: pickles
(sample inputs, weights, constants, opaque objects), ``expr_str`` through SymPy, ``guards_code``, names that FX
writes into Python code, functions found by attribute look-ups, modules imported for the descriptions of
containers, compiled libraries (``data/aotinductor``), and every further program in ``models/``. ``tests/hostile``
has a file for each.

So nothing is copied but the raw bytes of tensors. The members that torch needs are written anew from what the
checks (``sanitise_model``, ``sanitise_tensors``) let through; what no table of theirs names is refused or left
behind. Sample inputs become an empty member, which the loader takes for none.

No torch here, and bounded memory: JSON is unfolded piece by piece, tensors pass through one buffer.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from farm.errors import BadProgram
from farm.programs import schema
from farm.programs.archive import Archive, Member, open_regular
from farm.programs.sanitise_checks import Refused
from farm.programs.sanitise_model import sanitise_model
from farm.programs.sanitise_tensors import Tensors
from farm.programs.sanitise_zip import StoredZip, read_pieces

_MODEL = "models/model.json"
_WEIGHTS = "data/weights/model_weights_config.json"
_CONSTANTS = "data/constants/model_constants_config.json"
_SAMPLE_INPUTS = "data/sample_inputs/model.pt"
_FIXED = {"archive_format": b"pt2", "archive_version": b"0", ".data/version": b"6\n", "byteorder": b"little"}
_PICKLED = ("data/weights/model.pt", "data/constants/model.pt")
_ROOT = "program"
_MAX_JSON = 1 << 30
_MAX_MARKS = 8_000_000
"""Braces, brackets and commas of a JSON member: about 150,000 nodes. Each can cost 150 bytes of memory."""

_HINT = "Export it again with torch 2.10 to 2.13: torch.export.save(torch.export.export(model, args), 'name.pt2')."


def sanitise_pt2(src: Path, dst: Path) -> None:
    """Write what can be loaded safely of the program at ``src`` to ``dst``, a file that does not exist yet.

    The result has the same graph, weights and calling convention; it lacks sample inputs, guards, extra files,
    compiled parts and other programs, and its tensors are on the CPU. ``BadProgram`` says what of ``src`` cannot
    be made safe; ``OSError`` where ``dst`` cannot be written. ``dst`` does not exist then.
    """
    with Archive(src) as archive, _same_file(archive) as descriptor:
        source = _Source(archive, descriptor)
        source.check_kind()
        weights = Tensors("data/weights/", "weight_", archive.members)
        constants = Tensors("data/constants/", "tensor_", archive.members)
        written = {
            _MODEL: source.changed(_MODEL, sanitise_model),
            _WEIGHTS: source.changed(_WEIGHTS, weights.sanitise),
            _CONSTANTS: source.changed(_CONSTANTS, constants.sanitise),
            _SAMPLE_INPUTS: b"",
        }
        with _new_file(dst) as file, StoredZip(file) as target:
            for name, content in (_FIXED | written).items():
                target.add(f"{_ROOT}/{name}", len(content), [content])
            for name, member in (weights.used | constants.used).items():
                source.copy(f"{_ROOT}/{name}", member, target)


class _Source:
    """The archive that is read, and the errors that are told of it."""

    def __init__(self, archive: Archive, descriptor: int) -> None:
        self._path, self._members = archive.path, archive.members
        self._descriptor = descriptor

    def check_kind(self) -> None:
        """Refuse what torch would read in another way than as an archive of raw tensors and JSON."""
        if self._content("archive_format") != b"pt2" or self._content("archive_version") != b"0":
            raise self._bad("it is not an archive as torch.export.save writes it")
        if "byteorder" in self._members and self._content("byteorder") != b"little":
            raise self._bad("its numbers are not little-endian")
        for name in _PICKLED:
            if name in self._members:
                raise self._bad(f"{name} is a pickle (torch 2.8 or 2.9 wrote such), which can run any code")

    def changed(self, name: str, sanitise: Callable[[bytes], bytes]) -> bytes:
        """What ``sanitise`` makes of the JSON member ``name``."""
        content = schema.bounded(self._content(name), name)
        if sum(content.count(mark) for mark in (b"{", b"[", b",")) > _MAX_MARKS:
            raise self._bad(f"{name} is too large to be a program")
        try:
            return sanitise(content)
        except Refused as refused:
            where = f" at {refused.where}" if refused.where else ""
            raise self._bad(f"{name}{where}: {refused.why}") from None
        except RecursionError:
            raise self._bad(f"{name} is nested too deeply") from None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._bad(f"{name} is not what torch.export writes: {error}") from None

    def copy(self, name: str, member: Member, target: StoredZip) -> None:
        """Pass the bytes of ``member`` on."""
        try:
            target.add(name, member.size, read_pieces(self._descriptor, member.start, member.size))
        except ValueError:
            raise BadProgram(
                f"{self._path} changed while it was read", "Ask again once the file is complete."
            ) from None

    def _content(self, name: str) -> bytes:
        member = self._members.get(name)
        if member is None:
            raise self._bad(f"it has no {name}")
        if member.size > _MAX_JSON:
            raise self._bad(f"{name} is too large to be a program")
        return b"".join(bytes(piece) for piece in read_pieces(self._descriptor, member.start, member.size))

    def _bad(self, why: str) -> BadProgram:
        return BadProgram(f"the program cannot be loaded safely: {why}", _HINT)


@contextlib.contextmanager
def _same_file(archive: Archive) -> Iterator[int]:
    """A descriptor to read ``archive`` by; its members lie where the archive's directory says."""
    descriptor = open_regular(archive.path)
    try:
        if not os.path.samestat(os.fstat(descriptor), archive.stat()):
            raise BadProgram(f"{archive.path} changed while it was read", "Ask again once the file is complete.")
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that only exists in the end if it was written to its end."""
    try:
        with path.open("xb") as file:
            yield file
    except FileExistsError:
        raise
    except BaseException:
        path.unlink(missing_ok=True)
        raise
